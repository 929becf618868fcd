"""What each word did: integrated gradients over the embedded words, by captum.

Sundararajan, Taly & Yan, *Axiomatic Attribution for Deep Networks*, ICML 2017: the gradient of a
score by the words' embeddings, integrated on the straight line from a baseline (here zeros, the
embedding of padding) to the text. Over all words it adds up to the score's difference between the
two, which says how good a numeric integral is.

A max over time has a kink wherever another word takes the lead, most of them near the baseline,
where all words are nearly alike. Steps spread over the whole line miss those. So the line is cut
into pieces, captum integrates each (a baseline may be any point), and the piece whose sum is
farthest from its own difference of scores is halved until the error is small.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import torch

from sentiment.explaining.at_rest import at_rest
from sentiment.model import SentimentClassifier

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
