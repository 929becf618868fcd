"""How much each word adds to a prediction, by integrated gradients."""

from __future__ import annotations

import itertools
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from sentiment.data.batches import EncodedCorpus
from sentiment.data.tokenizer import cut_pieces, split_pieces
from sentiment.data.vocabulary import UNK_ID
from sentiment.display.console import sanitize
from sentiment.model import SentimentClassifier
from sentiment.runtime.device import exact_fp32


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Evaluation mode, exact fp32 and no gradients for weights; restores the model afterwards."""
    was_training = {module: module.training for module in model.modules()}
    learned = [parameter for parameter in model.parameters() if parameter.requires_grad]
    model.eval().requires_grad_(False)
    try:
        with exact_fp32():
            yield
    finally:
        for module, mode in was_training.items():
            module.training = mode
        for parameter in learned:
            parameter.requires_grad_(True)


_BATCH_TOKENS = 16_000  # per forward and backward pass
_CUTS = (0.0, 1 / 64, 1 / 16, 1 / 4, 1 / 2, 1.0)  # first intervals of the path
# Accepted errors, as shares of the difference: of the sum, and summed over intervals by size.
_TOLERANCE, _TOLERANCE_OF_SIZES = 0.01, 0.03
_MOST_TOKENS = 300_000  # limits the steps for a long text, to a minute on two cores
_NEGLIGIBLE = 1e-4  # of a score: below fp32's resolution


@dataclass(frozen=True)
class Attribution:
    """How much each word adds to the score.

    With two classes, the score is the second class's logit minus the first's; otherwise, it is the
    predicted class's logit.
    """

    values: np.ndarray  # (num_words,) float64, summed over the embedding
    target: int  # the class that positive values speak for
    score: float  # of the text
    baseline_score: float  # of equally many padding words
    num_steps: int  # number of gradients computed

    @property
    def difference(self) -> float:
        """The sum that the values should have."""
        return self.score - self.baseline_score

    @property
    def error(self) -> float:
        return float(self.values.sum()) - self.difference

    @property
    def relative_error(self) -> float | None:
        """The error's size as a share of the difference's; None if that is negligible."""
        size = abs(self.difference)
        return abs(self.error) / size if size > _NEGLIGIBLE else None

    @property
    def is_good(self) -> bool:
        """Whether the error is at most 1 % of the difference, or negligible."""
        return abs(self.error) <= max(_TOLERANCE * abs(self.difference), _NEGLIGIBLE)


def integrated_gradients(
    model: SentimentClassifier, ids: np.ndarray, *, steps: int = 50, most_steps: int | None = None
) -> Attribution:
    """Attribute the model's score of a text to its words (Sundararajan et al. 2017).

    The path from padding to the text, whose (num_words,) ids are given, is divided into intervals,
    and the interval with the largest error is halved until the total error is at most 1 %. This
    starts with ``steps`` gradients and ends with at most ``most_steps``, by default 16 times as
    many, or fewer for a text of thousands of words.
    """
    if most_steps is None:
        most_steps = max(steps, min(16 * steps, _MOST_TOKENS // len(ids)))
    steps_of_piece = max(2, -(-steps // (len(_CUTS) - 1)))
    # cuDNN has a backward pass in training mode only.
    with frozen(model), torch.backends.cudnn.flags(enabled=False, allow_tf32=False):
        path = _Path(model, ids)
        pieces = [path.piece(*ends, steps_of_piece) for ends in itertools.pairwise(_CUTS)]
        num_steps = steps_of_piece * len(pieces)
        while num_steps + 2 * steps_of_piece <= most_steps and not path.is_good(pieces):
            worst = max(pieces, key=lambda piece: abs(piece.error))
            middle = (worst.start + worst.end) / 2
            pieces.remove(worst)
            pieces.append(path.piece(worst.start, middle, steps_of_piece))
            pieces.append(path.piece(middle, worst.end, steps_of_piece))
            num_steps += 2 * steps_of_piece
        return Attribution(
            values=np.sum([piece.values for piece in pieces], axis=0),
            target=path.target,
            score=path.score_at(1.0),
            baseline_score=path.score_at(0.0),
            num_steps=num_steps,
        )


@dataclass(frozen=True, eq=False)
class _Piece:
    """An interval of the path; ``error`` is the sum of values minus the change of score."""

    start: float
    end: float
    values: np.ndarray
    error: float


class _Path:
    """The straight path from the baseline (0) to the text (1)."""

    def __init__(self, model: SentimentClassifier, ids: np.ndarray) -> None:
        from captum.attr import IntegratedGradients  # takes a second

        self._model = model
        device = model.embedding.weight.device
        tokens = torch.from_numpy(ids).to(device).unsqueeze(0)  # (1, num_words)
        self._lengths = torch.tensor([len(ids)])
        with torch.no_grad():
            self._embedded = model.embed(tokens)  # (1, num_words, embedding)
            logits = model.classify(self._embedded, self._lengths)[0]
        self.target = 1 if len(logits) == 2 else int(logits.argmax())
        self._method = IntegratedGradients(self._score)
        self._scores: dict[float, float] = {}

    def _score(self, embedded: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        logits = self._model.classify(embedded, lengths)  # (batch, num_classes)
        if logits.shape[1] == 2:
            return logits[:, 1] - logits[:, 0]
        return logits[:, self.target]

    @torch.no_grad()
    def score_at(self, point: float) -> float:
        """The score of the embeddings times ``point``, cached."""
        if point not in self._scores:
            self._scores[point] = float(self._score(point * self._embedded, self._lengths))
        return self._scores[point]

    def piece(self, start: float, end: float, steps: int) -> _Piece:
        num_words = self._embedded.shape[1]
        attributed = self._method.attribute(
            end * self._embedded,
            start * self._embedded,
            additional_forward_args=(self._lengths,),  # captum repeats them with the steps
            n_steps=steps,
            internal_batch_size=max(1, _BATCH_TOKENS // num_words),
        )
        values = attributed[0].sum(dim=1).cpu().double().numpy()  # (num_words,)
        error = float(values.sum()) - (self.score_at(end) - self.score_at(start))
        return _Piece(start, end, values, error)

    def is_good(self, pieces: list[_Piece]) -> bool:
        """Whether the errors are small, and not only because they cancel out."""
        difference = abs(self.score_at(1.0) - self.score_at(0.0))
        error = abs(sum(piece.error for piece in pieces))
        sizes = sum(abs(piece.error) for piece in pieces)
        return error <= max(_TOLERANCE * difference, _NEGLIGIBLE) and sizes <= max(
            _TOLERANCE_OF_SIZES * difference, _NEGLIGIBLE
        )


_JOINER = "\N{ZERO WIDTH JOINER}"
NO_WORDS = "∅"  # shown for the unknown word that a text without words counts as


@dataclass(frozen=True)
class Words:
    """The words of a text that a model reads."""

    written: tuple[str, ...]  # before lower-casing
    is_spaced: np.ndarray  # (num_words,) bool, whether white space precedes the word
    positions: np.ndarray  # (num_words,) int64, index among all words of the text
    ids: np.ndarray  # (num_words,) int64, ids in the vocabulary
    num_total: int  # number of words before truncation; 0 if ``written`` is NO_WORDS

    def __len__(self) -> int:
        return len(self.written)

    @property
    def is_unknown(self) -> np.ndarray:
        """(num_words,) bool."""
        return self.ids == UNK_ID

    @property
    def num_cut(self) -> int:
        """Number of words that truncation removed."""
        return max(0, self.num_total - len(self))

    @property
    def num_skipped(self) -> np.ndarray:
        """(num_words,) int64, number of words removed directly before each word."""
        return np.diff(self.positions, prepend=-1) - 1

    @property
    def num_cut_off(self) -> int:
        """Number of words removed after the last one."""
        return max(0, self.num_total - 1 - int(self.positions[-1]))


def read_words(corpus: EncodedCorpus, index: int, text: str, *, language: str) -> Words:
    """The words of review number ``index`` of a corpus, whose text is ``text``."""
    pieces = split_pieces(text, language)
    written, _ = cut_pieces(pieces, lower_case=False, language=language)
    is_spaced = _find_spaces(" ".join(pieces), written)
    ids = corpus.batch(torch.tensor([index])).tokens[0].cpu().numpy().astype(np.int64)
    if not written:
        return Words((NO_WORDS,), np.ones(1, dtype=bool), np.zeros(1, dtype=np.int64), ids, 0)
    num_kept, num_total = int(corpus.lengths[index]), int(corpus.full_lengths[index])
    assert num_total == len(written), "the text differs from the corpus"
    num_first = num_kept if corpus.heads is None else int(corpus.heads[index])
    num_first = min(num_first, num_kept)
    positions = np.arange(num_kept)
    positions[num_first:] += num_total - num_kept
    kept = tuple(written[index] for index in positions.tolist())
    return Words(kept, is_spaced[positions], positions, ids, num_total)


def _find_spaces(text: str, words: Sequence[str]) -> np.ndarray:
    """(num_words,) bool: whether a space or nothing precedes each word of the text."""
    is_spaced = np.zeros(len(words), dtype=bool)
    end = 0
    for index, word in enumerate(words):  # spaCy's tokens are the text but for spaces
        start = end + (text[end : end + 1] == " ")
        is_spaced[index] = start > end or end == 0
        end = start + len(word)
    return is_spaced


def shown(word: str) -> str:
    """The word in printable characters, without invisible ones such as soft hyphens.

    The joiner inside emoji stays; a word of invisible characters only becomes a replacement mark.
    """
    if word.isprintable():
        return word
    kept = (char for char in word if char == _JOINER or unicodedata.category(char) != "Cf")
    text = sanitize("".join(kept))
    return text if text.strip(_JOINER) else "\N{REPLACEMENT CHARACTER}"
