"""What limits scaling: the formulas and tables of docs/scaling.md.

    python -m studies.scaling

Constants are measured by benchmarks/ranks.py, which writes scaling.json; figures of hardware that
was not available are assumed (``ASSUMED``), with their sources.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from studies import fill, markdown_table

PAGE = Path(__file__).parents[1] / "docs" / "scaling.md"
CONSTANTS = Path(__file__).with_name("scaling.json")

BATCH = 64  # reviews per GPU and update, as in configs/imdb.yaml
EPOCHS = 4
RECIPE_UPDATES = EPOCHS * math.ceil(22_500 / BATCH)  # on IMDB, with a tenth held out
# Multiply-adds per token, both directions: 4 gates of 256 units on 100 inputs and 256 states.
_PRODUCTS = 2 * 4 * 256 * (100 + 256)
_BYTES_OF_TOKEN = 4  # int32, on the GPU
_BYTES_OF_REVIEW = 16  # its offset and its label, on the GPU
_ADAM_PASSES = 7  # over values of 4 bytes: weight, gradient and two moments read, three written


class Assumption(NamedTuple):
    """A figure of hardware that was not available; ``shown`` is the value with its unit."""

    value: float
    shown: str
    what: str
    source: str


_DGX = "[DGX H100](https://docs.nvidia.com/dgx-basepod/reference-architecture-infrastructure-\
foundation-enterprise-ai/latest/core-components.html)"
_H100 = "[H100 SXM](https://www.nvidia.com/en-us/data-center/h100/)"
_NCCL = "[NCCL's tuning model](https://github.com/NVIDIA/nccl/blob/01afd20/src/graph/tuning.cc)"

ASSUMED = {
    "gpus": Assumption(8, "8", "GPUs per machine", _DGX),
    "gpu_memory": Assumption(80e9, "80 GB", "memory per GPU", _H100),
    "memory": Assumption(2e12, "2 TB", "memory per machine", _DGX),
    "disk": Assumption(8 * 3.84e12, "30.7 TB", "disk per machine", _DGX),
    "peak": Assumption(989e12, "989 TFLOP/s", "bf16 matrix products, without sparsity", _H100),
    "gpu_bandwidth": Assumption(3.35e12, "3.35 TB/s", "GPU memory bandwidth", _H100),
    "nvlink": Assumption(450e9, "450 GB/s", "NVLink per GPU, each way", _H100),
    "network": Assumption(50e9, "50 GB/s", "InfiniBand per GPU, each way", _DGX),
    "nvlink_wait": Assumption(3.4e-6, "3.4 µs", "latency of a message within a machine", _NCCL),
    "network_wait": Assumption(8.5e-6, "8.5 µs", "latency of a message between machines", _NCCL),
    "time_step": Assumption(
        5e-6, "5 µs", "one time step of the recurrence, at best",
        "our guess: one synchronization of a GPU's multiprocessors; no vendor states it",
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Constants:
    """The measured constants by name, and the contents of their file."""

    values: dict[str, float]
    origin: dict[str, Any]

    def __getitem__(self, name: str) -> float:
        return self.values[name]


def read_constants() -> Constants:
    """Read the file of ``python -m benchmarks.ranks --write``."""
    origin = json.loads(CONSTANTS.read_text(encoding="utf-8"))
    return Constants(
        {name: float(constant["value"]) for name, constant in origin["constants"].items()}, origin
    )


def step_seconds(constants: Constants) -> dict[str, float]:
    """Lower bounds of the time of an update of 64 reviews on a GPU, by cause."""
    tokens = constants["tokens_per_batch"]
    return {
        "time steps": 2 * tokens / BATCH * ASSUMED["time_step"].value,  # forward and backward
        "products": 6 * _PRODUCTS * tokens / ASSUMED["peak"].value,
        "optimizer": _ADAM_PASSES * constants["gradient_bytes"] / ASSUMED["gpu_bandwidth"].value,
    }


def compute_seconds(constants: Constants) -> float:
    """Time of an update: the slower part of the recurrence, then the optimizer."""
    parts = step_seconds(constants)
    return max(parts["time steps"], parts["products"]) + parts["optimizer"]


def exchange_seconds(constants: Constants, num_gpus: int) -> float:
    """Time of an all-reduce of the gradients, without overlap.

    A ring within a machine; between machines each GPU exchanges its eighth along a tree.
    """
    inside = min(num_gpus, int(ASSUMED["gpus"].value))
    machines = num_gpus // inside
    size = constants["gradient_bytes"]
    seconds = 2 * (inside - 1) * ASSUMED["nvlink_wait"].value
    seconds += 2 * (inside - 1) / inside * size / ASSUMED["nvlink"].value
    seconds += 2 * math.log2(machines) * ASSUMED["network_wait"].value
    return seconds + 2 * (machines - 1) / machines * size / inside / ASSUMED["network"].value


def tokenizing_speed(constants: Constants) -> float:
    """Tokens per second; one process assembles all tokens, so more processes help little."""
    return max(constants["tokenizing"], constants["tokenizing_by_two"])


def piece_bytes(constants: Constants, num_tokens: float) -> float:
    """Memory of the distinct pieces while tokenizing and counting."""
    growth = (num_tokens / constants["tokens"]) ** constants["pieces_growth"]
    return constants["piece_memory"] * constants["pieces"] * growth


def limits(constants: Constants, num_gpus: int = 8) -> dict[str, float]:
    """The number of reviews at which each resource of a machine is full."""
    ranks = min(num_gpus, int(ASSUMED["gpus"].value))
    tokens = constants["tokens_per_review"]
    memory = ASSUMED["memory"].value
    readers = max(1, ranks - 1)  # all but the first read at the same time, after it
    return {
        "memory of a GPU": ASSUMED["gpu_memory"].value
        / (_BYTES_OF_TOKEN * tokens + _BYTES_OF_REVIEW),
        "memory: texts in all ranks": memory / (readers * constants["text_memory"] * tokens),
        "memory: tokenizing": memory / (constants["tokenizing_memory"] * tokens),
        "memory: tables in all ranks": memory / (ranks * constants["review_memory"]),
        "disk of tokens": ASSUMED["disk"].value / (constants["disk"] * tokens),
    }


def epoch_seconds(constants: Constants, num_reviews: int, num_gpus: int) -> dict[str, float]:
    """Time of an epoch by activity; the texts are hashed once in four epochs."""
    updates = math.ceil(num_reviews / (BATCH * num_gpus))
    return {
        "compute": updates * compute_seconds(constants),
        "exchange": updates * exchange_seconds(constants, num_gpus) if num_gpus > 1 else 0.0,
        "planning": num_reviews / constants["planning"],
        "digests": num_reviews * constants["tokens_per_review"] / constants["digesting"] / EPOCHS,
    }


def binding(constants: Constants, num_reviews: int, num_gpus: int) -> str:
    """The bottleneck: what does not fit, else too few updates, else what takes the most time."""
    resource, max_reviews = min(limits(constants, num_gpus).items(), key=lambda item: item[1])
    if num_reviews > max_reviews:
        return resource
    if EPOCHS * math.ceil(num_reviews / (BATCH * num_gpus)) < RECIPE_UPDATES:
        return "batch"
    seconds = epoch_seconds(constants, num_reviews, num_gpus)
    return max(seconds, key=lambda name: seconds[name])


REVIEWS = tuple(10**power for power in range(5, 10))
GPUS = (1, 8, 64, 1024)


def measured_table(constants: Constants) -> str:
    """The measured constants and their origin."""
    origin = constants.origin
    torch = origin["packages"]["torch"]
    lines = [
        f"Measured on {origin['date']} on {origin['device']}, torch {torch}, revision "
        f"{origin['revision']}, {origin['reviews']} reviews, by `{origin['command']}`.",
        "",
    ]
    rows = [
        (constant["what"], f"{constants[name]:,.10g} {constant['unit']}".rstrip())
        for name, constant in origin["constants"].items()
    ]
    return "\n".join([*lines, markdown_table(("quantity", "value"), rows)])


def assumed_table(constants: Constants) -> str:
    """The assumptions and their sources."""
    rows = [(item.what, item.shown, item.source) for item in ASSUMED.values()]
    return markdown_table(("assumed, not measured", "value", "source"), rows)


def corpus_table(constants: Constants) -> str:
    """Time, disk and memory to prepare a corpus, once."""
    header = (
        "reviews", "tokens", "on disk", "tokenizing", "memory while tokenizing",
        "of which distinct pieces", "counting the vocabulary",
    )  # fmt: skip
    rows = []
    for reviews in REVIEWS:
        tokens = reviews * constants["tokens_per_review"]
        pieces = piece_bytes(constants, tokens)
        cells = (
            f"{reviews:,}", _short(tokens), _size(tokens * constants["disk"]),
            _time(tokens / tokenizing_speed(constants)),
            _size(tokens * constants["tokenizing_memory"] + pieces), _size(pieces),
            _time(tokens / constants["counting"]),
        )  # fmt: skip
        rows.append(cells)
    return markdown_table(header, rows)


def limits_table(constants: Constants) -> str:
    """How many reviews a machine with 8 GPUs can hold, the tightest limit first."""
    ordered = sorted(limits(constants).items(), key=lambda item: item[1])
    rows = [(name, _short(most)) for name, most in ordered]
    return markdown_table(("resource", "full at this many reviews"), rows)


def exchange_table(constants: Constants) -> str:
    """An update on 1 to 1,024 GPUs, with 64 reviews each."""
    header = (
        "GPUs", "reviews per batch", "compute, at least", "exchange", "share of exchange",
        "reviews for as many updates as on IMDB",
    )  # fmt: skip
    rows = []
    compute = compute_seconds(constants)
    for gpus in GPUS:
        exchange = exchange_seconds(constants, gpus) if gpus > 1 else 0.0
        cells = (
            f"{gpus:,}", f"{BATCH * gpus:,}", _time(compute), _time(exchange),
            f"{100 * exchange / (compute + exchange):.0f} %",
            _short(RECIPE_UPDATES / EPOCHS * BATCH * gpus),
        )  # fmt: skip
        rows.append(cells)
    return markdown_table(header, rows)


def epochs_table(constants: Constants) -> str:
    """Time of an epoch and its bottleneck, for each size."""
    titles = [f"{gpus:,} GPU{'s' * (gpus > 1)}" for gpus in GPUS]
    rows = []
    for reviews in REVIEWS:
        cells = []
        for gpus in GPUS:
            name = binding(constants, reviews, gpus)
            seconds = sum(epoch_seconds(constants, reviews, gpus).values())
            fits = reviews <= min(limits(constants, gpus).values())
            cells.append(f"{_time(seconds)}: {name}" if fits else f"does not fit: {name}")
        rows.append((f"{reviews:,}", *cells))
    return markdown_table(("reviews", *titles), rows)


TABLES: dict[str, Callable[[Constants], str]] = {
    "measured": measured_table,
    "assumed": assumed_table,
    "corpus": corpus_table,
    "limits": limits_table,
    "exchange": exchange_table,
    "epochs": epochs_table,
}


def _short(number: float) -> str:
    """Three digits and a unit, such as 27.2 billion."""
    for size, name in ((1e9, "billion"), (1e6, "million")):
        if number >= size:
            return f"{float(f'{number / size:.3g}'):,g} {name}"
    return f"{float(f'{number:.3g}'):,.0f}"


def _size(num_bytes: float) -> str:
    for size, name in ((1e12, "TB"), (1e9, "GB")):
        if num_bytes >= size:
            return f"{float(f'{num_bytes / size:.2g}'):g} {name}"
    return f"{float(f'{num_bytes / 1e6:.2g}'):g} MB"


def _time(seconds: float) -> str:
    for size, name in ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"), (1e-3, "ms")):
        if seconds >= size:
            return f"{float(f'{seconds / size:.2g}'):g} {name}"
    return f"{float(f'{seconds * 1e6:.2g}'):g} µs"


def filled(page: str, constants: Constants) -> str:
    """The page with all tables."""
    for name, table in TABLES.items():
        page = fill(page, table(constants), name)
    return page


def main() -> None:
    """Update the page."""
    page = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(filled(page, read_constants()), encoding="utf-8")


if __name__ == "__main__":
    main()
