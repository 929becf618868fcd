"""An explanation of one text: attributions, gates, predictions after each word."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from sentiment.data.batches import EncodedCorpus
from sentiment.evaluation.calibration import apply_temperature
from sentiment.evaluation.evaluate import compute_logits
from sentiment.explain.attribution import (
    Attribution,
    Words,
    at_rest,
    integrated_gradients,
    read_words,
)
from sentiment.inference.predictor import Predictor
from sentiment.model import SentimentClassifier
from sentiment.model.reference_lstm import Gates, ReferenceLSTM

# Every beginning of a review of T words has T * T / 2 tokens: all of them up to 1,000 words.
_MOST_TOKENS = 500_000


@dataclass(frozen=True)
class PrefixPredictions:
    """What a model says of the beginnings of a text.

    Attributes:
        num_read: (num_points,) int64, words read at each point, rising; the last is all of them.
        probabilities: (num_points, num_classes) of each class, calibrated.
        stride: words from one point to the next, 1 where each word has its point.
    """

    num_read: np.ndarray
    probabilities: np.ndarray
    stride: int

    def at_words(self) -> np.ndarray:
        """(num_words, num_classes), the probabilities at the first point that has read a word."""
        num_words = int(self.num_read[-1])
        return self.probabilities[np.searchsorted(self.num_read, np.arange(1, num_words + 1))]


def running_opinion(
    model: SentimentClassifier,
    ids: np.ndarray,
    *,
    temperature: float = 1.0,
    most_tokens: int = _MOST_TOKENS,
) -> PrefixPredictions:
    """Classify every beginning of a text; for a long one every k-th, and all of it.

    A bidirectional model reads each beginning from its own end, as if the text ended there.

    Args:
        model: the classifier; it is left in evaluation mode.
        ids: (num_words,) the words' ids.
        temperature: what logits are divided by.
        most_tokens: the least k is taken whose beginnings have about so many tokens together.
    """
    num_words = len(ids)
    stride = max(1, -(-num_words * num_words // (2 * most_tokens)))
    # The first words come short, so that the last point is the whole text.
    num_read = np.arange(num_words, 0, -stride)[::-1].copy()
    lengths = torch.from_numpy(num_read)
    beginnings = EncodedCorpus(
        tokens=torch.arange(num_words, dtype=torch.int32),
        ids=torch.from_numpy(ids.astype(np.int32)),
        starts=torch.zeros_like(lengths),  # all of them begin where the text does
        lengths=lengths,
        full_lengths=lengths,
        labels=torch.zeros_like(lengths),
    )
    device = model.embedding.weight.device
    logits = compute_logits(model, beginnings, device=device)
    log_probabilities = apply_temperature(logits.numpy(), temperature)
    return PrefixPredictions(num_read, np.exp(log_probabilities), stride)


_UNITS_OF_TEXT = 12  # whose course is shown
_UNITS_OF_WORD = 3


@dataclass(frozen=True)
class GateCourse:
    """Gates and cell states word by word.

    Units of the last layer are numbered from 0, those of the reverse direction after the others.

    Attributes:
        forget, input, output: (num_layers, directions, num_words) mean openness over the units,
            from 0 to 1.
        units: (num_units,) int64, the units whose cell state is largest anywhere in the text, by
            its size, largest first.
        cell: (num_units, num_words) their cell states.
        strongest: (num_words, few) int64, the units with the largest cell states at each word.
        strongest_cell: (num_words, few) their cell states.
        hidden_size: units of each direction.
    """

    forget: np.ndarray
    input: np.ndarray
    output: np.ndarray
    units: np.ndarray
    cell: np.ndarray
    strongest: np.ndarray
    strongest_cell: np.ndarray
    hidden_size: int

    @property
    def directions(self) -> int:
        """2 if a second LSTM reads the text from its end, else 1."""
        return self.forget.shape[1]

    def unit_name(self, unit: int) -> str:
        """The direction it reads in, and its number there."""
        direction, number = divmod(int(unit), self.hidden_size)
        return f"{'→←'[direction]}{number}"


def trace_gates(model: SentimentClassifier, ids: np.ndarray) -> GateCourse | None:
    """Read a text and watch the gates.

    Args:
        model: the classifier; it is left as it was.
        ids: (num_words,) the words' ids.

    Returns:
        The gates; None of a model that is no LSTM and has none, or others.
    """
    recurrence = model.recurrence
    if recurrence.mode != "LSTM":
        return None
    reference = ReferenceLSTM(
        recurrence.input_size,
        recurrence.hidden_size,
        recurrence.num_layers,
        bidirectional=recurrence.bidirectional,
    )
    device = model.embedding.weight.device
    reference.to(device).load_state_dict(recurrence.state_dict())
    with at_rest(model), torch.no_grad():
        embedded = model.embed(torch.from_numpy(ids).to(device).unsqueeze(0))
        initial = None if model.initial_states is None else model.initial_states(1)
        layers = reference.eval().trace(embedded, torch.tensor([len(ids)]), initial)
    # (num_words, directions * hidden)
    cell = torch.cat([gates.cell[0] for gates in layers[-1]], dim=1).cpu().numpy()
    units = np.argsort(-np.abs(cell).max(axis=0), kind="stable")[:_UNITS_OF_TEXT]
    strongest = np.argsort(-np.abs(cell), axis=1, kind="stable")[:, :_UNITS_OF_WORD]
    return GateCourse(
        forget=_mean_openness(layers, "forget"),
        input=_mean_openness(layers, "input"),
        output=_mean_openness(layers, "output"),
        units=units,
        cell=cell[:, units].T,
        strongest=strongest,
        strongest_cell=np.take_along_axis(cell, strongest, axis=1),
        hidden_size=recurrence.hidden_size,
    )


def weigh_words(model: SentimentClassifier, ids: np.ndarray) -> np.ndarray | None:
    """What attention weighs each word: (num_words,), 1 in sum; None of a model without attention.

    Args:
        model: the classifier; it is left as it was.
        ids: (num_words,) the words' ids.
    """
    if model.attention is None:
        return None
    with at_rest(model), torch.no_grad():
        tokens = torch.from_numpy(ids).to(model.embedding.weight.device).unsqueeze(0)
        lengths = torch.tensor([len(ids)])
        output, _ = model.run_recurrence(model.embed(tokens), lengths)
        return model.attention.weigh(output, lengths)[0].cpu().numpy()


def _mean_openness(layers: tuple[tuple[Gates, ...], ...], name: str) -> np.ndarray:
    """(num_layers, directions, num_words) of the gate of that name."""
    means = [[getattr(gates, name)[0].mean(dim=1) for gates in layer] for layer in layers]
    return torch.stack([torch.stack(layer) for layer in means]).cpu().numpy()


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
    opinion: PrefixPredictions
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
        words: by :func:`sentiment.explain.attribution.read_words`.
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
