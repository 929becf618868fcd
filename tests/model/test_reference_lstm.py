"""ReferenceLSTM's gates against the equations; its results are tested in test_recurrences.py."""

from __future__ import annotations

from dataclasses import fields

import pytest
import torch

from sentiment.model.reference_lstm import Gates, ReferenceLSTM

LENGTHS = torch.tensor([3, 7, 1, 5])


def previous(states: torch.Tensor, initial: torch.Tensor, *, reverse: bool) -> torch.Tensor:
    """The state before each word: that of the previous word, or of the next one in reverse."""
    before = torch.empty_like(states)
    for row, length in enumerate(LENGTHS.tolist()):
        for t in range(states.shape[1]):
            t_before = t + 1 if reverse else t - 1
            is_word = 0 <= t_before < length
            before[row, t] = states[row, t_before] if is_word else initial[row]
    return before


@pytest.mark.parametrize("with_initial", [False, True])
def test_the_trace_holds_the_equations(with_initial):
    torch.manual_seed(0)
    lstm = ReferenceLSTM(5, 8, 2, bidirectional=True).double()
    x = torch.randn(4, 7, 5, dtype=torch.float64)
    draw = torch.randn if with_initial else torch.zeros
    initial = draw(4, 4, 8, dtype=torch.float64), draw(4, 4, 8, dtype=torch.float64)
    layers = lstm.trace(x, LENGTHS, initial)
    padding = torch.arange(7) >= LENGTHS.unsqueeze(1)
    for layer, directions in enumerate(layers):
        for direction, gates in enumerate(directions):
            number = 2 * layer + direction
            for field in fields(Gates):
                values = getattr(gates, field.name)
                assert values.shape == (4, 7, 8)
                assert values[padding].eq(0).all()
            c = previous(gates.cell, initial[1][number], reverse=direction == 1)
            cell = gates.forget * c + gates.input * gates.candidate
            assert torch.allclose(gates.cell[~padding], cell[~padding], atol=1e-12)
            assert torch.allclose(gates.hidden, gates.output * gates.cell.tanh(), atol=1e-12)
            h = previous(gates.hidden, initial[0][number], reverse=direction == 1)
            W, U, b, d = lstm.layer_weights(layer)[4 * direction : 4 * direction + 4]
            sums = x @ W.T + b + h @ U.T + d
            for name, part in zip(
                ("input", "forget", "candidate", "output"), sums.chunk(4, dim=2), strict=True
            ):
                wanted = part.tanh() if name == "candidate" else part.sigmoid()
                assert torch.allclose(getattr(gates, name)[~padding], wanted[~padding], atol=1e-12)
        x = torch.cat([gates.hidden for gates in directions], dim=2)
