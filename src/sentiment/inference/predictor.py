"""The library's interface: a trained run as a function from texts to predictions."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from sentiment.baseline.folder import load_baseline
from sentiment.comparison.significance import compare_losses, describe_gain, format_p
from sentiment.data.batches import EncodedCorpus, TextEncoder, windows
from sentiment.data.reviews import Reviews
from sentiment.display.console import sanitize, truncate
from sentiment.evaluation.calibration import apply_temperature, average_models
from sentiment.evaluation.evaluate import (
    BATCH_TOKENS,
    Predictions,
    Rounding,
    compute_logits,
    measure_rounding,
)
from sentiment.runs.manifest import holds_baseline
from sentiment.runs.run import Run, load_run
from sentiment.runtime.device import find_device, find_inference_precision
from sentiment.runtime.errors import UserError

# Texts that are sorted by length together: enough to leave hardly any padding in batches.
WINDOW = 20_000


@dataclass(frozen=True)
class Prediction:
    """The prediction for one text."""

    label: str  # name of the most probable class, or the one that the threshold decides for
    probability: float  # of that class
    probabilities: tuple[float, ...]  # of all classes, in the order of Predictor.class_names
    num_tokens: int  # number of tokens in the text, before truncation
    was_cut: bool  # whether the text was truncated to the run's data.max_length tokens


@dataclass(frozen=True)
class Member:
    """Another model of an ensemble."""

    path: Path
    # From texts to (num_texts, num_classes) calibrated log-probabilities.
    predict: Callable[[Sequence[str]], np.ndarray]


class Predictor:
    """Classifies texts with a trained run. Create one with :func:`load`.

    :attr:`temperature` is what logits are divided by before the softmax; :attr:`members` are the
    models whose predictions are averaged with the run's; :attr:`threshold` the lowest
    probability at which the positive class of two is predicted, None for the most probable class;
    :attr:`rounding` is how far bf16 changed the probabilities of the first texts, None in fp32.
    """

    def __init__(
        self,
        run: Run,
        device: torch.device,
        *,
        calibrated: bool = True,
        members: Sequence[Member] = (),
        threshold: float | None = None,
        batch_tokens: int = BATCH_TOKENS,
        precision: str = "fp32",
    ) -> None:
        check_threshold(threshold, run)
        self.run = run
        self.device = device
        self.model = run.model.to(device).eval()
        self.temperature = run.checkpoint.temperature if calibrated else 1.0
        self.members = members
        self.threshold = threshold
        self._positive = run.config.training.positive_index(run.class_names)
        self._batch_tokens = batch_tokens
        self._precision = find_inference_precision(precision, device)
        self.rounding: Rounding | None = None
        self._encoder = TextEncoder(run.vocabulary, run.config.data)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, in the order of ``Prediction.probabilities``."""
        return self.run.class_names

    def predict(
        self, texts: Iterable[str], *, report: Callable[[int], object] = lambda count: None
    ) -> list[Prediction]:
        """Classify texts, and return a prediction for each, in order.

        ``texts`` is any iterable of strings: a list, a pandas Series, a NumPy array, a generator, a
        column of a dataset. Texts of similar length are batched together; the batching does not
        affect the predictions beyond rounding. A text without words counts as one unknown word.
        ``report`` is called after each batch with its number of texts.

        Raises TypeError for a single string, a table, and an item that is not a string, which it
        names by its position.
        """
        texts = list(_check_texts(texts))
        if not texts:
            return []
        corpus = self.encode(texts)
        parts = [self._log_probabilities(corpus, report)]
        parts += [member.predict(texts) for member in self.members]
        log_probabilities = average_models(parts) if self.members else parts[0]
        probabilities = np.exp(log_probabilities).tolist()
        rows = zip(
            probabilities, corpus.full_lengths.tolist(), corpus.was_cut().tolist(), strict=True
        )
        return [self.decide(*row) for row in rows]

    def predict_stream(self, texts: Iterable[str], *, window: int = WINDOW) -> Iterator[Prediction]:
        """Classify a stream of texts, which may be endless, in order and in constant memory.

        ``window`` texts are read before they are predicted together. Large windows are faster, as
        batches hold less padding; 1 answers each text at once.

        Raises TypeError as :meth:`predict` does, and UserError if ``window`` is less than 1.
        """
        if window < 1:
            raise UserError(f"window is {window}, but must be at least 1")
        checked = _check_texts(texts)
        return (
            prediction for batch in windows(checked, window) for prediction in self.predict(batch)
        )

    def predict_log_probabilities(self, texts: Sequence[str]) -> np.ndarray:
        """(num_texts, num_classes) float64 log-probabilities of the run alone."""
        return self._log_probabilities(self.encode(texts), lambda count: None)

    def encode(self, texts: Sequence[str]) -> EncodedCorpus:
        """Encode texts as the model reads them; their labels are 0."""
        return self._encoder(texts)

    def _log_probabilities(
        self, corpus: EncodedCorpus, report: Callable[[int], object]
    ) -> np.ndarray:
        """(num_texts, num_classes) float64 log-probabilities at :attr:`temperature`."""
        if self._precision != torch.float32 and self.rounding is None:
            self.rounding = measure_rounding(self.model, corpus, self.device, self._batch_tokens)
        logits = compute_logits(
            self.model, corpus, device=self.device, precision=self._precision,
            batch_tokens=self._batch_tokens, report=report,
        )  # fmt: skip
        return apply_temperature(logits.numpy(), self.temperature)

    def decide(self, probabilities: Sequence[float], num_tokens: int, was_cut: bool) -> Prediction:
        """The prediction for a text whose classes have these probabilities."""
        best = probabilities.index(max(probabilities))
        if self.threshold is not None and self._positive is not None:
            is_positive = probabilities[self._positive] >= self.threshold
            best = self._positive if is_positive else 1 - self._positive
        label, probability = self.class_names[best], probabilities[best]
        return Prediction(label, probability, tuple(probabilities), num_tokens, was_cut)


def load_members(
    paths: Sequence[str | Path], run: Run, device: torch.device, *, precision: str
) -> list[Member]:
    """The other models of an ensemble, which must have the run's classes in the same order.

    Raises as :func:`load`, and UserError for other classes.
    """
    members = []
    for path in map(Path, paths):
        if holds_baseline(path):
            baseline = load_baseline(path)
            names, predict = baseline.class_names, baseline.predict_texts
        else:
            predictor = load(path, device=str(device), precision=precision)
            names, predict = predictor.class_names, predictor.predict_log_probabilities
        if names != run.class_names:
            raise UserError(
                f"{path} has the classes {', '.join(names)}, but {run.path} has "
                f"{', '.join(run.class_names)}: an ensemble needs the same, in the same order"
            )
        members.append(Member(path, predict))
    return members


def average_predictions(
    run: Path, predictions: Predictions, members: Sequence[Member], reviews: Reviews
) -> tuple[Predictions, str]:
    """A run's calibrated predictions of some reviews averaged with its members', and a remark that
    compares the ensemble with each model alone.
    """
    paths = [run, *(member.path for member in members)]
    alone = [predictions.log_probabilities, *(each.predict(reviews.texts) for each in members)]
    ensemble = replace(predictions, log_probabilities=average_models(alone))
    together = ensemble.is_right
    lines = [
        f"Predictions of {len(alone)} models are averaged. Each alone, and the ensemble's gain:"
    ]
    for path, log_probabilities in zip(paths, alone, strict=True):
        member = replace(predictions, log_probabilities=log_probabilities)
        points, test = describe_gain(member.is_right, together)
        _, p_value = compare_losses(member.losses, ensemble.losses)
        nll = f"NLL {ensemble.losses.mean() - member.losses.mean():+.4f}"
        if p_value is not None:
            nll += f", paired t p {format_p(p_value)}"
        accuracy = 100 * member.is_right.mean()
        lines.append(f"{sanitize(str(path))} {accuracy:.2f} % ({points}, {test}; {nll});")
    return ensemble, " ".join(lines).removesuffix(";") + "."


def check_threshold(threshold: float | None, run: Run) -> None:
    """Raise ``UserError`` unless a threshold fits the run's classes."""
    if threshold is None:
        return
    if not 0 <= threshold <= 1:
        raise UserError(f"the threshold is {threshold:g}, but must be from 0 to 1")
    if len(run.class_names) != 2:
        raise UserError(
            f"a threshold decides between two classes, but {run.path} has {len(run.class_names)}: "
            "leave it out"
        )


def _check_texts(texts: Iterable[str]) -> Iterator[str]:
    """The same texts; a wrong item raises TypeError when its turn comes, other mistakes at once."""
    if isinstance(texts, str | bytes):
        raise TypeError("a single text was given, where several are expected: predict([text])")
    # Iterating over these yields their columns' names, or whole rows.
    if isinstance(texts, Mapping) or hasattr(texts, "columns") or hasattr(texts, "column_names"):
        raise TypeError(
            f"a {type(texts).__name__} has several columns: predict one of them, as "
            'predict(table["text"])'
        )
    if not isinstance(texts, Iterable):
        raise TypeError(
            f"an object of type {type(texts).__name__} was given, where texts are expected"
        )
    return map(_check_text, itertools.count(), texts)


def _check_text(position: int, text: object) -> str:
    if isinstance(text, str):
        return text
    is_missing = str(text) in ("None", "nan", "<NA>", "NaT")
    raise TypeError(
        f"item {position} (counted from 0) is {truncate(repr(text), 60)} ({type(text).__name__}), "
        f"not a string{': leave it out, or replace it by a text' if is_missing else ''}"
    )


def load(
    run: str | Path,
    *,
    checkpoint: str = "best",
    device: str = "auto",
    calibrated: bool = True,
    ensemble: Sequence[str | Path] = (),
    threshold: float | None = None,
    batch_tokens: int = BATCH_TOKENS,
    precision: str = "fp32",
) -> Predictor:
    """Load a trained run to predict with it::

        from sentiment import load

        predictor = load("runs/imdb")
        for prediction in predictor.predict(["A lovely film.", "Two hours I want back."]):
            print(prediction.label, prediction.probability)

    Args:
        checkpoint: which weights to load, ``best`` or ``last``.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps``.
        calibrated: whether to divide logits by the run's temperature.
        ensemble: folders of other runs and linear models, whose predictions are averaged with the
            run's: ``["runs/imdb-baseline"]``.
        threshold: lowest probability at which the positive class of two is predicted, which is the
            run's ``training.positive_class``, or the second; None predicts the most probable class.
        batch_tokens: tokens in a batch, including padding; a longer text is a batch of its own.
        precision: arithmetic of matrix products, ``fp32`` or ``bf16``.

    Raises:
        FileNotFoundError: the folder is not a run, or one of its files is missing.
        UserError: a file is damaged, the device is missing or cannot compute in ``precision``, or
            the threshold does not fit the classes.
    """
    loaded, found = load_run(Path(run), checkpoint=checkpoint), find_device(device)
    members = load_members(ensemble, loaded, found, precision=precision)
    return Predictor(
        loaded, found, calibrated=calibrated, members=members, threshold=threshold,
        batch_tokens=batch_tokens, precision=precision,
    )  # fmt: skip
