"""Explaining a prediction: attributions, predictions after each word, LSTM gates."""

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
    frozen,
    integrated_gradients,
    read_words,
    shown,
)
from sentiment.inference.predictor import Predictor
from sentiment.model import SentimentClassifier
from sentiment.model.reference_lstm import Gates, ReferenceLSTM

# All prefixes of a review of T words have T * T / 2 tokens: enough for every prefix of 1,000.
_MOST_TOKENS = 500_000


@dataclass(frozen=True)
class PrefixPredictions:
    """Predictions for prefixes of a text."""

    num_read: np.ndarray  # (num_prefixes,) int64, ascending lengths in words, to the whole text
    probabilities: np.ndarray  # (num_prefixes, num_classes), calibrated
    stride: int  # words from one prefix to the next

    def at_words(self) -> np.ndarray:
        """(num_words, num_classes) probabilities of the shortest prefix that holds each word."""
        num_words = int(self.num_read[-1])
        return self.probabilities[np.searchsorted(self.num_read, np.arange(1, num_words + 1))]


def predict_prefixes(
    model: SentimentClassifier,
    ids: np.ndarray,
    *,
    temperature: float = 1.0,
    most_tokens: int = _MOST_TOKENS,
) -> PrefixPredictions:
    """Classify every prefix of a text, or every k-th prefix of a long one and the whole text.

    A bidirectional model reads each prefix as if the text ended there. All prefixes together have
    about ``most_tokens`` tokens at most, which decides k. Leaves the model in evaluation mode.
    """
    num_words = len(ids)
    stride = max(1, -(-num_words * num_words // (2 * most_tokens)))
    # Counted from the end, so that the last prefix is the whole text.
    num_read = np.arange(num_words, 0, -stride)[::-1].copy()
    lengths = torch.from_numpy(num_read)
    prefixes = EncodedCorpus(
        tokens=torch.arange(num_words, dtype=torch.int32),
        ids=torch.from_numpy(ids.astype(np.int32)),
        starts=torch.zeros_like(lengths),
        lengths=lengths,
        full_lengths=lengths,
        labels=torch.zeros_like(lengths),
    )
    logits = compute_logits(model, prefixes, device=model.embedding.weight.device)
    log_probabilities = apply_temperature(logits.numpy(), temperature)
    return PrefixPredictions(num_read, np.exp(log_probabilities), stride)


_UNITS_PER_TEXT = 12
_UNITS_PER_WORD = 3


@dataclass(frozen=True)
class GateTrace:
    """Gates and cell states after each word.

    Gates are (num_layers, directions, num_words) means over the units, 0 (closed) to 1 (open).
    Units are those of the last layer, numbered from 0, forward direction first.
    """

    forget: np.ndarray
    input: np.ndarray
    output: np.ndarray
    units: np.ndarray  # (num_units,) those with the largest absolute cell states, largest first
    cell: np.ndarray  # (num_units, num_words) their cell states
    strongest: np.ndarray  # (num_words, 3) the units with the largest cell states at each word
    strongest_cell: np.ndarray  # (num_words, 3) their cell states
    hidden_size: int  # number of units per direction

    @property
    def directions(self) -> int:
        """2 if bidirectional, else 1."""
        return self.forget.shape[1]

    @property
    def layer(self) -> str:
        """Names the last layer, as ``, layer 2``; empty if there is only one."""
        return f", layer {len(self.forget)}" if len(self.forget) > 1 else ""

    def unit_name(self, unit: int) -> str:
        """An arrow for the direction, and the number within it."""
        direction, number = divmod(int(unit), self.hidden_size)
        return f"{'→←'[direction]}{number}"


def trace_gates(model: SentimentClassifier, ids: np.ndarray) -> GateTrace | None:
    """Trace the gates over the words with ``ids``, (num_words,); None if not an LSTM."""
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
    with frozen(model), torch.no_grad():
        embedded = model.embed(torch.from_numpy(ids).to(device).unsqueeze(0))
        initial = None if model.initial_states is None else model.initial_states(1)
        layers = reference.eval().trace(embedded, torch.tensor([len(ids)]), initial)
    # (num_words, directions * hidden)
    cell = torch.cat([gates.cell[0] for gates in layers[-1]], dim=1).cpu().numpy()
    units = np.argsort(-np.abs(cell).max(axis=0), kind="stable")[:_UNITS_PER_TEXT]
    strongest = np.argsort(-np.abs(cell), axis=1, kind="stable")[:, :_UNITS_PER_WORD]
    return GateTrace(
        forget=_mean_openness(layers, "forget"),
        input=_mean_openness(layers, "input"),
        output=_mean_openness(layers, "output"),
        units=units,
        cell=cell[:, units].T,
        strongest=strongest,
        strongest_cell=np.take_along_axis(cell, strongest, axis=1),
        hidden_size=recurrence.hidden_size,
    )


def attention_weights(model: SentimentClassifier, ids: np.ndarray) -> np.ndarray | None:
    """Attention weights of the words, (num_words,), with sum 1; None without attention."""
    if model.attention is None:
        return None
    with frozen(model), torch.no_grad():
        tokens = torch.from_numpy(ids).to(model.embedding.weight.device).unsqueeze(0)
        lengths = torch.tensor([len(ids)])
        output, _ = model.run_recurrence(model.embed(tokens), lengths)
        return model.attention.weigh(output, lengths)[0].cpu().numpy()


def _mean_openness(layers: tuple[tuple[Gates, ...], ...], name: str) -> np.ndarray:
    """(num_layers, directions, num_words) means of the gate."""
    means = [[getattr(gates, name)[0].mean(dim=1) for gates in layer] for layer in layers]
    return torch.stack([torch.stack(layer) for layer in means]).cpu().numpy()


@dataclass(frozen=True)
class Explanation:
    """Explanation of a model's prediction for one text."""

    words: Words
    class_names: tuple[str, ...]  # in printable characters
    prefixes: PrefixPredictions
    attribution: Attribution
    gates: GateTrace | None  # None for other cells than LSTM
    attention: np.ndarray | None  # (num_words,) weights with sum 1; None without attention
    cell: str  # LSTM, GRU or RNN_TANH

    @property
    def probabilities(self) -> np.ndarray:
        """(num_classes,) calibrated probabilities of the whole text."""
        return self.prefixes.probabilities[-1]

    @property
    def ranking(self) -> np.ndarray:
        """(num_classes,) indices of the classes, the most probable first."""
        return np.argsort(-self.probabilities, kind="stable")

    def curves(self, most: int) -> list[int]:
        """The classes whose probabilities to draw: the second of two, or the most probable."""
        return [1] if len(self.class_names) == 2 else self.ranking[:most].tolist()

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
        """What negative attributions speak for: the other class or all others."""
        return self.class_names[0] if len(self.class_names) == 2 else f"not {self.towards}"

    @property
    def strengths(self) -> np.ndarray:
        """(num_words,) attributions divided by the largest absolute one, -1 to 1."""
        values = self.attribution.values
        return values / max(float(np.abs(values).max()), 1e-12)

    @property
    def no_gates(self) -> str:
        """Why there are no gates, as a clause; empty if there are."""
        if self.gates is not None:
            return ""
        return f"the recurrence is of kind {self.cell.partition('_')[0]}, without an LSTM's gates"

    def strongest_part(self, size: int) -> slice:
        """The ``size`` adjacent words with the largest absolute attributions in sum."""
        if len(self.words) <= size:
            return slice(0, len(self.words))
        sums = np.concatenate(([0.0], np.cumsum(np.abs(self.attribution.values))))
        start = int((sums[size:] - sums[:-size]).argmax())
        return slice(start, start + size)


def explain(predictor: Predictor, text: str, *, steps: int = 50) -> Explanation:
    """Explain a predictor's prediction for a text; one without words counts as one unknown word.

    ``steps`` is the number of gradients that
    :func:`sentiment.explain.attribution.integrated_gradients` starts with.
    """
    if not isinstance(text, str):
        raise TypeError(f"text is {type(text).__name__}, but must be a string")
    language = predictor.run.config.data.language
    words = read_words(predictor.encode([text]), 0, text, language=language)
    names, temperature = predictor.class_names, predictor.temperature
    return explain_words(predictor.model, words, names, temperature=temperature, steps=steps)


def explain_words(
    model: SentimentClassifier,
    words: Words,
    class_names: tuple[str, ...],
    *,
    temperature: float = 1.0,
    steps: int = 50,
    most_steps: int | None = None,
) -> Explanation:
    """Explain the prediction of a model, which may be in training, for words already read.

    ``class_names`` are in the order of the model's logits; for the steps, see
    :func:`sentiment.explain.attribution.integrated_gradients`. The model is not changed.
    """
    with frozen(model):
        return Explanation(
            words=words,
            class_names=tuple(map(shown, class_names)),
            prefixes=predict_prefixes(model, words.ids, temperature=temperature),
            attribution=integrated_gradients(model, words.ids, steps=steps, most_steps=most_steps),
            gates=trace_gates(model, words.ids),
            attention=attention_weights(model, words.ids),
            cell=model.recurrence.mode,
        )
