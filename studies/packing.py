"""What reading the padding changes, and what the reverse direction of a review is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence

from sentiment.model import PackedLSTM

_LENGTHS = (230, 180, 90, 20)


def study(folder: Path) -> dict[str, Any]:
    """Final states of reviews padded to the longest, against those of each review alone."""
    torch.manual_seed(0)
    lstm = nn.LSTM(100, 256, batch_first=True, bidirectional=True)
    packed = PackedLSTM(100, 256, bidirectional=True)
    packed.load_state_dict(lstm.state_dict())
    lengths = torch.tensor(_LENGTHS)
    x = 0.3 * torch.randn(len(lengths), int(lengths.max()), 100)
    x[torch.arange(x.shape[1]) >= lengths.unsqueeze(1)] = 0  # <pad> has an embedding of zeros
    with torch.inference_mode():
        alone = torch.cat(
            [lstm(row[:length].unsqueeze(0))[1][0] for row, length in zip(x, lengths, strict=True)],
            dim=1,
        )  # (directions, batch, hidden)
        finals = {
            "nn.LSTM on the padded batch": lstm(x)[1][0],
            "nn.LSTM on the PackedSequence": lstm(pack_padded_sequence(x, lengths, True))[1][0],
            "PackedLSTM": packed(x, lengths)[1][0],
        }
    return {
        name: [float((final - alone).norm(dim=2)[:, row].max() / alone.norm(dim=2)[:, row].max())
               for row in range(len(lengths))]
        for name, final in finals.items()
    }  # fmt: skip


def table(figures: dict[str, Any]) -> str:
    """A row for each way to run a batch: how far the final states are off, by length."""
    header = " | ".join(f"{length} words" for length in _LENGTHS)
    lines = [f"| final states, off by | {header} |", "|---" * (len(_LENGTHS) + 1) + "|"]
    for name, errors in figures.items():
        cells = " | ".join(f"{error:.0e}" if error < 0.01 else f"{error:.2f}" for error in errors)
        lines.append(f"| {name} | {cells} |")
    return "\n".join(lines)
