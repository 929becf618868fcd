"""What each word did: integrated gradients of words."""

from __future__ import annotations

import itertools
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from sentiment.data.batches import EncodedCorpus
from sentiment.data.tokenizer import clean, cut_pieces
from sentiment.data.vocabulary import UNK_ID
from sentiment.display.console import sanitize
from sentiment.model import SentimentClassifier
from sentiment.runtime.device import exact_fp32


@contextmanager
def at_rest(model: nn.Module) -> Iterator[None]:
    """A context without dropout and without gradients for the weights; left as it was found.

    Gradients flow to inputs only, in exact fp32.
    """
    was_training = {module: module.training for module in model.modules()}
    learned = [each for each in model.parameters() if each.requires_grad]
    model.eval().requires_grad_(False)
    try:
        with exact_fp32():
            yield
    finally:
        for module, mode in was_training.items():
            module.training = mode
        for parameter in learned:
            parameter.requires_grad_(True)


_TOKENS_AT_ONCE = 16_000  # forward and backward
_CUTS = (0.0, 1 / 64, 1 / 16, 1 / 4, 1 / 2, 1.0)  # to begin with, in shares of the line
# What is good enough, as shares of the difference: the error, and its pieces' errors, unsigned.
_TOLERANCE, _TOLERANCE_OF_PIECES = 0.01, 0.03
_MOST_TOKENS = 300_000  # a minute on two cores: where a long text's steps end
_NEGLIGIBLE = 1e-4  # of a score: beyond what fp32 gives


@dataclass(frozen=True)
class Attribution:
    """What each word adds to a score.

    The score is the second class's logit less the first's where there are two classes, else the
    predicted class's logit.

    Attributes:
        values: (num_words,) float64, summed over the embedding.
        target: the class that positive values speak for.
        score, baseline_score: of the text and of as many words of padding.
        num_steps: gradients taken.
    """

    values: np.ndarray
    target: int
    score: float
    baseline_score: float
    num_steps: int

    @property
    def difference(self) -> float:
        """What the values should add up to."""
        return self.score - self.baseline_score

    @property
    def error(self) -> float:
        """What they add up to beyond that."""
        return float(self.values.sum()) - self.difference

    @property
    def relative_error(self) -> float | None:
        """The error's size as a share of the difference; None where that is nothing."""
        size = abs(self.difference)
        return abs(self.error) / size if size > _NEGLIGIBLE else None

    @property
    def is_good(self) -> bool:
        """Whether the error is below 1 % of the difference, or nothing."""
        return abs(self.error) <= max(_TOLERANCE * abs(self.difference), _NEGLIGIBLE)


def integrated_gradients(
    model: SentimentClassifier, ids: np.ndarray, *, steps: int = 50, most_steps: int | None = None
) -> Attribution:
    """Attribute the model's score of a text to its words.

    Args:
        model: the classifier; it is left as it was.
        ids: (num_words,) the words' ids.
        steps: gradients to begin with; more are taken until the error is below 1 %.
        most_steps: where to stop all the same; None is 16 times as many, or fewer for a text of
            thousands of words.
    """
    if most_steps is None:
        most_steps = max(steps, min(16 * steps, _MOST_TOKENS // len(ids)))
    steps_of_piece = max(2, -(-steps // (len(_CUTS) - 1)))
    # cuDNN goes backward in training mode alone.
    with at_rest(model), torch.backends.cudnn.flags(enabled=False, allow_tf32=False):
        line = _Line(model, ids)
        pieces = [
            line.piece(start, end, steps_of_piece) for start, end in itertools.pairwise(_CUTS)
        ]
        num_steps = steps_of_piece * len(pieces)
        while num_steps + 2 * steps_of_piece <= most_steps and not line.is_good(pieces):
            worst = max(pieces, key=lambda piece: abs(piece.error))
            middle = (worst.start + worst.end) / 2
            pieces.remove(worst)
            pieces.append(line.piece(worst.start, middle, steps_of_piece))
            pieces.append(line.piece(middle, worst.end, steps_of_piece))
            num_steps += 2 * steps_of_piece
        return Attribution(
            values=np.sum([piece.values for piece in pieces], axis=0),
            target=line.target,
            score=line.score_at(1.0),
            baseline_score=line.score_at(0.0),
            num_steps=num_steps,
        )


@dataclass(frozen=True, eq=False)
class _Piece:
    """A part of the line: its values (num_words,) and what they add up to beyond the scores."""

    start: float
    end: float
    values: np.ndarray
    error: float


class _Line:
    """The way from the baseline to a text, whose points are numbered from 0 to 1."""

    def __init__(self, model: SentimentClassifier, ids: np.ndarray) -> None:
        from captum.attr import IntegratedGradients  # a second, which a start need not wait for

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
        """The score of the embeddings times ``point``."""
        if point not in self._scores:
            self._scores[point] = float(self._score(point * self._embedded, self._lengths))
        return self._scores[point]

    def piece(self, start: float, end: float, steps: int) -> _Piece:
        """Integrate from one point to another."""
        num_words = self._embedded.shape[1]
        attributed = self._method.attribute(
            end * self._embedded,
            start * self._embedded,
            additional_forward_args=(self._lengths,),  # captum repeats them with the steps
            n_steps=steps,
            internal_batch_size=max(1, _TOKENS_AT_ONCE // num_words),
        )
        values = attributed[0].sum(dim=1).double().cpu().numpy()  # (num_words,)
        error = float(values.sum()) - (self.score_at(end) - self.score_at(start))
        return _Piece(start, end, values, error)

    def is_good(self, pieces: list[_Piece]) -> bool:
        """Whether the pieces' errors are small, and do not only cancel."""
        difference = abs(self.score_at(1.0) - self.score_at(0.0))
        error = abs(sum(piece.error for piece in pieces))
        of_pieces = sum(abs(piece.error) for piece in pieces)
        return error <= max(_TOLERANCE * difference, _NEGLIGIBLE) and of_pieces <= max(
            _TOLERANCE_OF_PIECES * difference, _NEGLIGIBLE
        )


_JOINER = "\N{ZERO WIDTH JOINER}"
NO_WORDS = "∅"  # stands for the one unknown word that a text of no words counts as


@dataclass(frozen=True)
class Words:
    """What a model reads of a text.

    Attributes:
        written: (num_words,) as the text has them, before lower-casing.
        is_spaced: (num_words,) bool, whether white space stands before it in the text.
        positions: (num_words,) int64, its place among all words of the text, from 0.
        ids: (num_words,) int64, its id in the vocabulary.
        num_total: words of the text, before cutting; 0 where ``written`` is :data:`NO_WORDS`.
    """

    written: tuple[str, ...]
    is_spaced: np.ndarray
    positions: np.ndarray
    ids: np.ndarray
    num_total: int

    def __len__(self) -> int:
        return len(self.written)

    @property
    def is_unknown(self) -> np.ndarray:
        """(num_words,) bool, whether the vocabulary lacks it."""
        return self.ids == UNK_ID

    @property
    def num_cut(self) -> int:
        """Words of the text that the model does not read."""
        return max(0, self.num_total - len(self))

    @property
    def num_skipped(self) -> np.ndarray:
        """(num_words,) int64, how many words were cut right before each."""
        return np.diff(self.positions, prepend=-1) - 1

    @property
    def num_cut_off(self) -> int:
        """How many words were cut after the last one."""
        return max(0, self.num_total - 1 - int(self.positions[-1]))


def read_words(corpus: EncodedCorpus, index: int, text: str) -> Words:
    """The words that a corpus keeps of a review.

    Args:
        corpus: the encoded reviews.
        index: the review's place in it.
        text: the review.
    """
    pieces = clean(text).split()
    # spaCy's tokens of a piece are the piece again when put together, so nothing is guessed here.
    written, lengths = cut_pieces(pieces, lower_case=False)
    is_spaced = np.zeros(len(written) + 1, dtype=bool)
    is_spaced[np.cumsum([0, *lengths])] = True
    ids = corpus.batch(torch.tensor([index])).tokens[0].cpu().numpy().astype(np.int64)
    if not written:
        return Words((NO_WORDS,), is_spaced[:1], np.zeros(1, dtype=np.int64), ids, 0)
    num_kept, num_total = int(corpus.lengths[index]), int(corpus.full_lengths[index])
    assert num_total == len(written), "the text is not the corpus's"
    num_first = num_kept if corpus.heads is None else int(corpus.heads[index])
    num_first = min(num_first, num_kept)
    positions = np.arange(num_kept)
    positions[num_first:] += num_total - num_kept
    return Words(
        written=tuple(written[place] for place in positions.tolist()),
        is_spaced=is_spaced[positions],
        positions=positions,
        ids=ids,
        num_total=num_total,
    )


def shown(word: str) -> str:
    """The word, printable, without the invisible characters that parts of words often hold.

    Soft hyphens, marks of direction and other format characters go, but for the joiner inside
    emoji; a word of nothing else is still seen.
    """
    if word.isprintable():
        return word
    kept = (each for each in word if each == _JOINER or unicodedata.category(each) != "Cf")
    text = sanitize("".join(kept))
    return text if text.strip(_JOINER) else "\N{REPLACEMENT CHARACTER}"
