"""Well-formed files with arbitrary content, made up by hypothesis."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from sentiment.config.parser import setting_keys
from tests.fuzz import targets

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(2**31 - 2, 2**64 + 2),
    st.floats(),
    st.text(max_size=20),
    st.sampled_from(["neg", "pos", "0", "1", "\0", "\u2028", "1e999", "~", "cuda:1"]),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=6,
)
KEYS = st.sampled_from([*setting_keys(), "class_path", "init_args", "config", "overwrite"])


def check(target: targets.Target, data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        target(data, Path(folder))


@given(
    st.lists(
        st.fixed_dictionaries(
            {"text": st.text(max_size=30) | VALUES, "label": st.sampled_from(["a", "b"]) | VALUES},
            optional={"more": VALUES},
        ),
        max_size=5,
    )
)
@settings(max_examples=150, deadline=None, derandomize=True)
def test_arbitrary_json_lines(rows):
    data = "".join(json.dumps(row) + "\n" for row in rows).encode()
    check(targets.reviews(".jsonl"), data)
    check(targets.predicted(".jsonl"), data)


@given(st.dictionaries(KEYS, VALUES, max_size=4))
@settings(max_examples=20, deadline=None, derandomize=True)
def test_arbitrary_settings(values):
    nested: dict = {}
    for key, value in values.items():
        section, _, name = key.rpartition(".")
        (nested.setdefault(section, {}) if section else nested)[name] = value
    text = yaml.safe_dump(nested, allow_unicode=True).encode("utf-8", "surrogatepass")
    check(targets.settings, text)


@given(st.lists(st.tuples(st.text(max_size=30), st.text(max_size=6)), max_size=6), st.booleans())
@settings(max_examples=150, deadline=None, derandomize=True)
def test_arbitrary_csv(rows, is_quoted):
    def cell(text: str) -> str:
        return '"' + text.replace('"', '""') + '"' if is_quoted else text

    lines = ["text,label", *(f"{cell(text)},{cell(label)}" for text, label in rows)]
    data = "\n".join(lines).encode("utf-8", "surrogatepass")
    check(targets.reviews(".csv"), data)
    check(targets.predicted(".csv"), data)
