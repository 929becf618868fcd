"""Copies, faults in texts (damaged encoding, markup, hardly any words), and the texts' scripts."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations

import numpy as np

from sentiment.data.splits import is_in

FEW_WORDS = 3
_NUM_EXAMPLES = 5  # of each fault
_AROUND = 30  # characters of the text on each side of a fault, in examples

# What bytes 0x80 to 0xBF of UTF-8 look like in Windows-1252, or in Latin-1 where that has none.
_TRAIL = "".join(bytes([code]).decode("cp1252", "ignore") or chr(code) for code in range(128, 192))
# Real letters also precede quotation marks, dashes and no-break spaces.
_INNER = "".join(character for character in _TRAIL if character not in "\xa0«»‘’“”‚„‹›…–—´")
_MOJIBAKE = re.compile(
    "|".join([
        f"Ã[\xa0{re.escape(_INNER)}]|Â[\xa0«»{re.escape(_INNER)}]",  # Latin letters and signs
        *(f"(?:[{leads}][{re.escape(_TRAIL)}]){{2}}" for leads in ("ÐÑ", "ÎÏ", "ØÙ")),
        f"â(?:€|\x80)[{re.escape(_TRAIL)}\x80-\x9f]",  # quotation marks, dashes
        "ï»¿|ï¿½",
        f"[ã-í][{re.escape(_INNER)}]{{2}}",  # Chinese, Japanese, Korean
        f"ð(?:Ÿ|\x9f)[{re.escape(_TRAIL)}]",  # emoji
    ])
)  # fmt: skip

# Title and pattern; the tokenizer reads <br /> as a space and entities as their characters.
_PATTERNS = {
    "mojibake, as Ã© for é": _MOJIBAKE,
    "replacement characters �": re.compile("\ufffd"),
    "control or invisible characters": re.compile(
        "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200b\u2060\ufeff]"
    ),
    "<br />, read as a space": re.compile(r"<br\s*/?>", re.IGNORECASE),
    "HTML entities, decoded": re.compile(
        "&(?:#[0-9]{1,7}|#x[0-9a-f]{1,6}|[a-z][a-z0-9]{1,30});", re.IGNORECASE
    ),
    "other HTML tags": re.compile(
        r"</?(?!br\b)[a-z][a-z0-9]*(?:\s[^<>]{0,200})?/?>", re.IGNORECASE
    ),
    "web addresses": re.compile(r"https?://|\bwww\.", re.IGNORECASE),
}
_LETTER_OR_DIGIT = re.compile(r"[^\W_]")


@dataclass(frozen=True)
class Fault:
    """A kind of fault, and where it occurs."""

    title: str
    indices: np.ndarray  # (num_affected,) texts
    examples: list[str]  # the surroundings of the first ones


def find_faults(texts: Sequence[str], num_tokens: np.ndarray) -> list[Fault]:
    """The texts with each kind of fault, kinds that do not occur included.

    ``num_tokens`` (num_texts,) are their lengths.
    """
    bare = [index for index, text in enumerate(texts) if not _LETTER_OR_DIGIT.search(text)]
    short = np.setdiff1d(np.flatnonzero(num_tokens < FEW_WORDS), bare)
    titles = ("no letter or digit", f"fewer than {FEW_WORDS} tokens")
    faults = [
        Fault(title, np.array(found, dtype=np.int64), [texts[i] for i in found[:_NUM_EXAMPLES]])
        for title, found in zip(titles, (bare, short.tolist()), strict=True)
    ]
    for title, pattern in _PATTERNS.items():
        matches = {
            index: match for index, text in enumerate(texts) if (match := pattern.search(text))
        }
        examples = [_surroundings(match) for match in list(matches.values())[:_NUM_EXAMPLES]]
        faults.append(Fault(title, np.fromiter(matches, np.int64, len(matches)), examples))
    return faults


def _surroundings(match: re.Match[str]) -> str:
    start, end = max(0, match.start() - _AROUND), match.end() + _AROUND
    before, after = "…" * (start > 0), "…" * (end < len(match.string))
    return f"{before}{match.string[start:end]}{after}"


def count_scripts(texts: Sequence[str]) -> Counter[str]:
    """How many texts are mostly in each script, by Unicode's names, as Latin or Cyrillic."""
    return Counter(map(_main_script, texts))


def _main_script(text: str) -> str:
    if text.isascii():
        return "Latin" if _LETTER_OR_DIGIT.search(text) else "none"
    scripts: Counter[str] = Counter()
    for character, count in Counter(text).items():
        if character.isalpha():
            scripts[_script(character)] += count
    return scripts.most_common(1)[0][0] if scripts else "none"


@cache
def _script(letter: str) -> str:
    first = unicodedata.name(letter, "UNKNOWN").split()[0]
    names = {"CJK": "Han", "HIRAGANA": "Kana", "KATAKANA": "Kana"}
    return names.get(first, first.capitalize())


@dataclass(frozen=True)
class Copies:
    """Copies, by :func:`sentiment.data.splits.dedup_key`."""

    within: dict[str, int]  # reviews of each split that repeat an earlier one
    across: dict[tuple[str, str], int]  # reviews of the first split that are in the second
    contradictions: list[list[int]]  # copies with different labels: indices of labelled reviews


def find_copies(
    keys: Mapping[str, Sequence[bytes]], labelled: Sequence[bytes], labels: np.ndarray
) -> Copies:
    """Compare splits by their keys; ``labelled`` are the keys of ``labels`` (num_labelled,)."""
    groups: dict[bytes, list[int]] = {}
    for index, key in enumerate(labelled):
        groups.setdefault(key, []).append(index)
    return Copies(
        within={split: len(own) - len(set(own)) for split, own in keys.items()},
        across={
            (first, second): int(is_in(keys[first], keys[second]).sum())
            for first, second in combinations(keys, 2)
        },
        contradictions=[copies for copies in groups.values() if len({*labels[copies]}) > 1],
    )
