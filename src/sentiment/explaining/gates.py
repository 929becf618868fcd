"""Inside an LSTM while it reads a text: how far its gates open, and what its cells hold."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from sentiment.explaining.at_rest import at_rest
from sentiment.model import SentimentClassifier
from sentiment.model.reference_lstm import Gates, ReferenceLSTM

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
