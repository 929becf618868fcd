"""Everything that explains one prediction, put together: see :func:`explain`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sentiment.explaining.at_rest import at_rest
from sentiment.explaining.attribution import Attribution, integrated_gradients
from sentiment.explaining.gates import GateCourse, trace_gates, weigh_words
from sentiment.explaining.opinion import Opinion, running_opinion
from sentiment.explaining.words import Words, read_words
from sentiment.model import SentimentClassifier
from sentiment.predictor import Predictor


@dataclass(frozen=True)
class Explanation:
    """Why a model says what it says of a text.

    Attributes:
        words: the words that it reads.
        class_names: of all classes.
        opinion: its probabilities after each word.
        attribution: what each word did.
        gates: what went on in the LSTM; None of a model that is none.
        attention: (num_words,) what the pooling weighs each word, 1 in sum; None of a model without
            attention.
        cell: the recurrence's kind, ``LSTM``, ``GRU`` or ``RNN_TANH``.
    """

    words: Words
    class_names: tuple[str, ...]
    opinion: Opinion
    attribution: Attribution
    gates: GateCourse | None
    attention: np.ndarray | None
    cell: str

    @property
    def probabilities(self) -> np.ndarray:
        """(num_classes,) of the whole text, calibrated."""
        return self.opinion.probabilities[-1]

    @property
    def label(self) -> str:
        """Name of the most probable class."""
        return self.class_names[int(self.probabilities.argmax())]

    @property
    def towards(self) -> str:
        """Name of the class that positive attributions speak for."""
        return self.class_names[self.attribution.target]

    @property
    def against(self) -> str:
        """What negative attributions speak for: the other class, or all others."""
        return self.class_names[0] if len(self.class_names) == 2 else f"not {self.towards}"

    @property
    def strengths(self) -> np.ndarray:
        """(num_words,) attributions as shares of the largest, from -1 to 1."""
        values = self.attribution.values
        return values / max(float(np.abs(values).max()), 1e-12)

    @property
    def no_gates(self) -> str:
        """Why no gates are shown, as a clause; empty where they are."""
        if self.gates is not None:
            return ""
        return f"the recurrence is of kind {self.cell.partition('_')[0]}, without an LSTM's gates"

    def strongest_part(self, size: int) -> slice:
        """So many words in a row, or all, whose attributions are largest together."""
        if len(self.words) <= size:
            return slice(0, len(self.words))
        sums = np.concatenate(([0.0], np.cumsum(np.abs(self.attribution.values))))
        start = int((sums[size:] - sums[:-size]).argmax())
        return slice(start, start + size)


def explain(predictor: Predictor, text: str, *, steps: int = 50) -> Explanation:
    """Explain what a run says of a text.

    Args:
        predictor: the run, by ``sentiment.load``.
        text: any text; one of no words counts as one unknown word.
        steps: gradients that the attributions begin with.

    Raises:
        TypeError: the text is not a string.
    """
    if not isinstance(text, str):
        raise TypeError(f"text is {type(text).__name__}, but must be a string")
    words = read_words(predictor.encode([text]), 0, text)
    return explain_words(
        predictor.model,
        words,
        predictor.class_names,
        temperature=predictor.temperature,
        steps=steps,
    )


def explain_words(
    model: SentimentClassifier,
    words: Words,
    class_names: tuple[str, ...],
    *,
    temperature: float = 1.0,
    steps: int = 50,
    most_steps: int | None = None,
) -> Explanation:
    """Explain what a model says of words that are read already, of a saved run or not.

    Args:
        model: the classifier, in whatever mode, which it is left in.
        words: by :func:`sentiment.explaining.words.read_words`.
        class_names: in the order of the model's logits.
        temperature: what logits are divided by for probabilities.
        steps, most_steps: gradients that the attributions begin and end with.
    """
    with at_rest(model):
        return Explanation(
            words=words,
            class_names=class_names,
            opinion=running_opinion(model, words.ids, temperature=temperature),
            attribution=integrated_gradients(model, words.ids, steps=steps, most_steps=most_steps),
            gates=trace_gates(model, words.ids),
            attention=weigh_words(model, words.ids),
            cell=model.recurrence.mode,
        )
