"""A few validation reviews, the same in every epoch: what is said of them, and why."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch

from sentiment.evaluation.calibration import apply_temperature
from sentiment.evaluation.evaluate import Predictions
from sentiment.explaining.picture import explanation_figure
from sentiment.explaining.words import Words, read_words
from sentiment.model import SentimentClassifier
from sentiment.text.batches import EncodedCorpus
from sentiment.text.reviews import Reviews

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_NUM_TOLD = 8
_NUM_EXPLAINED = 3
_LONGEST_EXPLAINED = 60  # tokens: a picture is read at a glance, and made in a moment


class Showcase:
    """Chooses reviews by a seed, and shows how a model takes them.

    Args:
        reviews: those that training is validated on.
        corpus: the same, encoded.
        seed: of the choice.
    """

    def __init__(self, reviews: Reviews, corpus: EncodedCorpus, seed: int) -> None:
        self._reviews = reviews
        self._corpus = corpus
        generator = np.random.default_rng(seed)
        count = min(_NUM_TOLD, len(reviews))
        self._told = np.sort(generator.choice(len(reviews), count, replace=False)).tolist()
        lengths = corpus.lengths.numpy()
        shortest = np.argsort(lengths, kind="stable")
        short = shortest[: max(_NUM_EXPLAINED, (lengths <= _LONGEST_EXPLAINED).sum())]
        count = min(_NUM_EXPLAINED, len(short))
        self._explained = np.sort(generator.choice(short, count, replace=False)).tolist()
        self._words: dict[int, Words] = {}

    def verdicts(
        self, predictions: Predictions, temperature: float
    ) -> list[tuple[str, str, str, float]]:
        """Some reviews with text, class, predicted class and its calibrated probability."""
        names = self._reviews.class_names
        probabilities = np.exp(apply_temperature(predictions.log_probabilities, temperature))
        rows = []
        for index in self._told:
            predicted = int(predictions.predicted[index])
            probability = float(probabilities[index, predicted])
            label = names[int(predictions.labels[index])]
            rows.append((self._reviews.texts[index], label, names[predicted], probability))
        return rows

    def explanations(
        self, model: SentimentClassifier, temperature: float
    ) -> Iterator[tuple[str, Figure]]:
        """Names, with rows counted from 1, and pictures of some short reviews."""
        for index in self._explained:
            if index not in self._words:  # read late: it waits for spaCy
                self._words[index] = read_words(self._corpus, index, self._reviews.texts[index])
            words, names = self._words[index], self._reviews.class_names
            # Explaining draws random numbers, which training would then lack: settings that only
            # tell must change nothing.
            with torch.random.fork_rng(devices=[]):
                figure = explanation_figure(model, words, names, temperature=temperature)
            yield f"explanation_of_row_{index + 1}", figure
