"""PackedLSTM against nn.LSTM on the PackedSequence: forward and backward of one training step.

Both run in this process in turns, so that what else the machine does meets both; the ratio is
what counts. The shape is a batch of reviews from a good bucket: 64 of 207 to 230 words, embedding
100, hidden 256.

    python benchmarks/recurrence.py [--layers 1] [--rounds 3] [--one-direction]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from sentiment.model import PackedLSTM
from sentiment.runtime import autocast, describe_device

BATCH, TIME, INPUT, HIDDEN = 64, 230, 100, 256


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--one-direction", action="store_true")
    options = parser.parse_args()
    torch.manual_seed(0)
    lengths = torch.randint(round(0.9 * TIME), TIME + 1, (BATCH,)).sort(descending=True).values
    lengths[0] = TIME
    x = torch.randn(BATCH, TIME, INPUT, requires_grad=True)
    shape = {"num_layers": options.layers, "bidirectional": not options.one_direction}
    theirs = nn.LSTM(INPUT, HIDDEN, batch_first=True, **shape)
    ours = PackedLSTM(INPUT, HIDDEN, **shape)
    ours.load_state_dict(theirs.state_dict())

    def packed() -> torch.Tensor:
        sequence = pack_padded_sequence(x, lengths, batch_first=True)
        return pad_packed_sequence(theirs(sequence)[0], batch_first=True)[0]

    steps = {
        "nn.LSTM, PackedSequence, fp32": (packed, torch.float32),
        "nn.LSTM, PackedSequence, bf16": (packed, torch.bfloat16),
        "nn.LSTM, reading the padding, fp32": (lambda: theirs(x)[0], torch.float32),
        "PackedLSTM, fp32": (lambda: ours(x, lengths)[0], torch.float32),
        "PackedLSTM, bf16": (lambda: ours(x, lengths)[0], torch.bfloat16),
    }
    medians = measure(steps, options.rounds)
    print(f"{describe_device(x.device)}, torch {torch.__version__}, {shape}")
    base = medians["nn.LSTM, PackedSequence, fp32"]
    for name, seconds in medians.items():
        print(f"{name:<36} {1000 * seconds:9.1f} ms  {base / seconds:6.1f} x")


def measure(
    steps: dict[str, tuple[Callable[[], torch.Tensor], torch.dtype]], rounds: int
) -> dict[str, float]:
    """Median seconds of each step's forward and backward, taken in turns after a warm-up."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(rounds + 1):
        for name, (forward, precision) in steps.items():
            started = time.perf_counter()
            with autocast(torch.device("cpu"), precision):
                output = forward()
            output.float().sum().backward()
            if turn > 0:
                seconds[name].append(time.perf_counter() - started)
    return {name: statistics.median(values) for name, values in seconds.items()}


if __name__ == "__main__":
    main()
