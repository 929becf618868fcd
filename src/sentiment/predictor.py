"""A trained run as a function from texts to predictions::

from sentiment import load

predictor = load("runs/imdb")
for prediction in predictor.predict(["A lovely film.", "Two hours I want back."]):
    print(prediction.label, prediction.probability)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from sentiment.evaluation.calibration import apply_temperature
from sentiment.evaluation.evaluate import predict_corpus
from sentiment.runs import Run, load_run
from sentiment.runtime import find_device
from sentiment.text.batches import EncodedCorpus
from sentiment.text.pipeline import encode_texts
from sentiment.text.tokenizer import Tokenizer


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
    """Classifies texts by a run's model, in fp32.

    Args:
        run: the run.
        device: where to compute.
    """

    def __init__(self, run: Run, device: torch.device) -> None:
        self.run = run
        self.device = device
        self.model = run.model.to(device)
        self._tokenizer = Tokenizer(lower_case=run.config.data.lower_case)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the model's logits."""
        return self.run.class_names

    def predict(self, texts: Sequence[str]) -> list[Prediction]:
        """Classify texts; a text of no words counts as one unknown word.

        Args:
            texts: any number of them, of any length.

        Raises:
            TypeError: ``texts`` is one string, or holds something else than strings.
        """
        if isinstance(texts, str) or not all(isinstance(text, str) for text in texts):
            raise TypeError("predict takes a list of strings: predict([text]) for one of them")
        if not texts:
            return []
        corpus = self.encode(texts)
        return self.describe(corpus, self.log_probabilities(corpus))

    def encode(self, texts: Sequence[str]) -> EncodedCorpus:
        """Texts as the model reads them, all with label 0."""
        run = self.run
        return encode_texts(texts, run.vocabulary, run.config.data, tokenizer=self._tokenizer)

    def log_probabilities(self, corpus: EncodedCorpus) -> np.ndarray:
        """(num_texts, num_classes) calibrated log-probabilities."""
        predictions = predict_corpus(self.model, corpus, device=self.device, progress=False)
        return apply_temperature(predictions.log_probabilities, self.run.checkpoint.temperature)

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


def load(run: str | Path, *, checkpoint: str = "best", device: str = "auto") -> Predictor:
    """Load a trained run for predicting.

    Args:
        run: its folder.
        checkpoint: weights, ``best`` or ``last``.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps``.

    Raises:
        FileNotFoundError: the folder is not a run, or a file of it is missing.
        ValueError: a file is damaged, or the device is not there.
    """
    return Predictor(load_run(Path(run), checkpoint=checkpoint), find_device(device))
