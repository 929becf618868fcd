"""A trained run as a function from texts to predictions::

from sentiment import load

predictor = load("runs/imdb")
for prediction in predictor.predict(["A lovely film.", "Two hours I want back."]):
    print(prediction.label, prediction.probability)

``predictor.predict_stream(texts)`` takes texts without end. Files: :mod:`sentiment.predicting`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from sentiment.data.batches import EncodedCorpus, TextEncoder, windows
from sentiment.evaluation.calibration import apply_temperature
from sentiment.evaluation.evaluate import BATCH_TOKENS, Rounding, compute_logits, measure_rounding
from sentiment.runs.run import Run, load_run
from sentiment.runtime.device import find_device, find_inference_precision
from sentiment.runtime.errors import UserError

# Texts that are sorted by length together: enough that a batch holds hardly any padding.
WINDOW = 20_000


@dataclass(frozen=True)
class Prediction:
    """What a run says of a text.

    Attributes:
        label: name of the most probable class.
        probability: its probability, by the run's temperature.
        probabilities: of every class, in the order of the run's ``class_names``.
        num_tokens: tokens of the text.
        was_cut: whether it has more of them than the run reads.
    """

    label: str
    probability: float
    probabilities: tuple[float, ...]
    num_tokens: int
    was_cut: bool


class Predictor:
    """Classifies texts by a run's model.

    Args:
        run: the run.
        device: where to compute.
        calibrated: whether probabilities are those at the run's temperature, or the raw ones.
        batch_tokens: tokens of a batch, padding included; a longer text stands alone.
        precision: arithmetic of matrix products, ``fp32`` or ``bf16``.

    Attributes:
        rounding: how far bf16 moved the probabilities of the first texts; None in fp32.

    Raises:
        UserError: ``precision`` is bf16, in which the device does not compute.
    """

    def __init__(
        self,
        run: Run,
        device: torch.device,
        *,
        calibrated: bool = True,
        batch_tokens: int = BATCH_TOKENS,
        precision: str = "fp32",
    ) -> None:
        self.run = run
        self.device = device
        self.model = run.model.to(device).eval()
        self.temperature = run.checkpoint.temperature if calibrated else 1.0
        self._batch_tokens = batch_tokens
        self._precision = find_inference_precision(precision, device)
        self.rounding: Rounding | None = None
        data = run.config.data
        self._encoder = TextEncoder(
            run.vocabulary,
            max_length=data.max_length,
            keep=data.keep,
            lower_case=data.lower_case,
        )

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the model's logits."""
        return self.run.class_names

    def predict(
        self, texts: Sequence[str], *, report: Callable[[int], object] = lambda count: None
    ) -> list[Prediction]:
        """Classify texts; a text of no words counts as one unknown word.

        Args:
            texts: any number of them, of any length.
            report: called with numbers of texts as they are classified.

        Raises:
            TypeError: ``texts`` is one string, or holds something else than strings.
        """
        if isinstance(texts, str) or not all(isinstance(text, str) for text in texts):
            raise TypeError("predict takes a list of strings: predict([text]) for one of them")
        if not texts:
            return []
        corpus = self.encode(texts)
        return self.describe(corpus, self.log_probabilities(corpus, report))

    def predict_stream(self, texts: Iterable[str], *, window: int = WINDOW) -> Iterator[Prediction]:
        """Classify texts as they come, in their order and in constant memory.

        Args:
            texts: any number of them, without end too.
            window: texts that are taken, and answered, together. More of them pad less; a source
                that is to be answered at once asks for 1.

        Raises:
            TypeError: ``texts`` is one string, or holds something else than strings.
            UserError: ``window`` is less than 1.
        """
        if isinstance(texts, str):
            raise TypeError("predict_stream takes strings: predict([text]) for one of them")
        if window < 1:
            raise UserError(f"window is {window}, but must be at least 1")
        return (each for taken in windows(texts, window) for each in self.predict(taken))

    def encode(self, texts: Sequence[str]) -> EncodedCorpus:
        """Texts as the model reads them, all with label 0."""
        return self._encoder(texts)

    def log_probabilities(
        self, corpus: EncodedCorpus, report: Callable[[int], object] = lambda count: None
    ) -> np.ndarray:
        """(num_texts, num_classes) log-probabilities at :attr:`temperature`, in float64."""
        if self._precision != torch.float32 and self.rounding is None:
            self.rounding = measure_rounding(self.model, corpus, self.device, self._batch_tokens)
        logits = compute_logits(
            self.model,
            corpus,
            device=self.device,
            precision=self._precision,
            batch_tokens=self._batch_tokens,
            report=report,
        )
        return apply_temperature(logits.numpy(), self.temperature)

    def describe(self, corpus: EncodedCorpus, log_probabilities: np.ndarray) -> list[Prediction]:
        """One prediction a text of a corpus and its log-probabilities."""
        rows = zip(
            np.exp(log_probabilities).tolist(),
            corpus.full_lengths.tolist(),
            corpus.was_cut().tolist(),
            strict=True,
        )
        predictions = []
        for probabilities, length, was_cut in rows:
            best = probabilities.index(max(probabilities))
            predictions.append(
                Prediction(
                    label=self.class_names[best],
                    probability=probabilities[best],
                    probabilities=tuple(probabilities),
                    num_tokens=length,
                    was_cut=was_cut,
                )
            )
        return predictions


def load(
    run: str | Path,
    *,
    checkpoint: str = "best",
    device: str = "auto",
    calibrated: bool = True,
    batch_tokens: int = BATCH_TOKENS,
    precision: str = "fp32",
) -> Predictor:
    """Load a trained run for predicting.

    Args:
        run: its folder.
        checkpoint: weights, ``best`` or ``last``.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps``.
        calibrated, batch_tokens, precision: as :class:`Predictor` says.

    Raises:
        FileNotFoundError: the folder is not a run, or a file of it is missing.
        UserError: a file is damaged, or the device is not there.
    """
    return Predictor(
        load_run(Path(run), checkpoint=checkpoint),
        find_device(device),
        calibrated=calibrated,
        batch_tokens=batch_tokens,
        precision=precision,
    )
