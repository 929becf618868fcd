"""How time, disk, memory and messages of a training grow with reviews and GPUs: the formulas of
docs/scaling.md.

Constants are measured (scaling.json, written by benchmarks/ranks.py). What nobody could measure
here is assumed below, with its source.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

CONSTANTS = Path(__file__).with_name("scaling.json")

BATCH = 64  # reviews of a GPU in an update: configs/imdb.yaml
EPOCHS = 4
RECIPE_UPDATES = EPOCHS * math.ceil(22_500 / BATCH)  # on IMDB, a tenth held out
# Multiply-adds of both directions for a token: 4 gates of 256 units on 100 inputs and 256 states.
_PRODUCTS = 2 * 4 * 256 * (100 + 256)
_BYTES_OF_TOKEN = 4  # int32, on the GPU
_BYTES_OF_REVIEW = 16  # where it begins and its label, on the GPU
_ADAM_PASSES = 7  # over values of 4 bytes: weight, gradient and two moments read, three written


class Assumption(NamedTuple):
    """A figure of a machine that is not here.

    Attributes:
        value: of it.
        shown: the value with its unit.
        what: in words.
        source: whose figure it is.
    """

    value: float
    shown: str
    what: str
    source: str


_DGX = "[DGX H100](https://docs.nvidia.com/dgx-basepod/reference-architecture-infrastructure-\
foundation-enterprise-ai/latest/core-components.html)"
_H100 = "[H100 SXM](https://www.nvidia.com/en-us/data-center/h100/)"
_NCCL = "[NCCL's own model](https://github.com/NVIDIA/nccl/blob/01afd20/src/graph/tuning.cc)"

ASSUMED = {
    "gpus": Assumption(8, "8", "GPUs of a machine", _DGX),
    "gpu_memory": Assumption(80e9, "80 GB", "memory of a GPU", _H100),
    "memory": Assumption(2e12, "2 TB", "memory of a machine", _DGX),
    "disk": Assumption(8 * 3.84e12, "30.7 TB", "disk of a machine", _DGX),
    "peak": Assumption(989e12, "989 TFLOP/s", "bf16 products, without sparsity", _H100),
    "gpu_bandwidth": Assumption(3.35e12, "3.35 TB/s", "between a GPU and its memory", _H100),
    "nvlink": Assumption(450e9, "450 GB/s", "between GPUs of a machine, each way", _H100),
    "network": Assumption(50e9, "50 GB/s", "InfiniBand for each GPU, each way", _DGX),
    "nvlink_wait": Assumption(3.4e-6, "3.4 µs", "for a message within a machine", _NCCL),
    "network_wait": Assumption(8.5e-6, "8.5 µs", "for a message between machines", _NCCL),
    "time_step": Assumption(
        5e-6, "5 µs", "for a time step of the recurrence, at best",
        "our guess: a wait of all of a GPU's processors for each other; no vendor gives it",
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Constants:
    """The measured ones by name, and where they come from."""

    values: dict[str, float]
    origin: dict[str, Any]

    def __getitem__(self, name: str) -> float:
        return self.values[name]


def read_constants(path: Path = CONSTANTS) -> Constants:
    """What ``python -m benchmarks.ranks --write`` wrote."""
    origin = json.loads(path.read_text(encoding="utf-8"))
    return Constants(
        {name: float(each["value"]) for name, each in origin["constants"].items()}, origin
    )


def step_seconds(constants: Constants) -> dict[str, float]:
    """What an update of 64 reviews takes a GPU at least, by what binds it."""
    tokens = constants["tokens_per_batch"]
    return {
        "time steps": 2 * tokens / BATCH * ASSUMED["time_step"].value,  # forward and back
        "products": 6 * _PRODUCTS * tokens / ASSUMED["peak"].value,
        "optimizer": _ADAM_PASSES * constants["gradient_bytes"] / ASSUMED["gpu_bandwidth"].value,
    }


def compute_seconds(constants: Constants) -> float:
    """Of an update: the recurrence by its slowest part, then the optimizer."""
    parts = step_seconds(constants)
    return max(parts["time steps"], parts["products"]) + parts["optimizer"]


def exchange_seconds(constants: Constants, num_gpus: int) -> float:
    """Adding up the gradients of all GPUs, where nothing else is done meanwhile.

    Within a machine round a ring; between machines each GPU exchanges its eighth along a tree.
    """
    inside = min(num_gpus, int(ASSUMED["gpus"].value))
    machines = num_gpus // inside
    size = constants["gradient_bytes"]
    seconds = 2 * (inside - 1) * ASSUMED["nvlink_wait"].value
    seconds += 2 * (inside - 1) / inside * size / ASSUMED["nvlink"].value
    seconds += 2 * math.log2(machines) * ASSUMED["network_wait"].value
    return seconds + 2 * (machines - 1) / machines * size / inside / ASSUMED["network"].value


def tokenizing_speed(constants: Constants) -> float:
    """Tokens a second: one process puts together what others cut, so more of these help little."""
    return max(constants["tokenizing"], constants["tokenizing_by_two"])


def piece_bytes(constants: Constants, num_tokens: float) -> float:
    """Memory that the different pieces of so many tokens take while they are cut and counted."""
    growth = (num_tokens / constants["tokens"]) ** constants["pieces_growth"]
    return constants["piece_memory"] * constants["pieces"] * growth


def limits(constants: Constants, num_gpus: int = 8) -> dict[str, float]:
    """The most reviews that each resource of a machine holds, with so many ranks at most on it."""
    ranks = min(num_gpus, int(ASSUMED["gpus"].value))
    tokens = constants["tokens_per_review"]
    memory = ASSUMED["memory"].value
    readers = max(1, ranks - 1)  # all but the first read at once, when it is done
    return {
        "memory of a GPU": ASSUMED["gpu_memory"].value
        / (_BYTES_OF_TOKEN * tokens + _BYTES_OF_REVIEW),
        "memory: texts in all ranks": memory / (readers * constants["text_memory"] * tokens),
        "memory: tokenizing": memory / (constants["tokenizing_memory"] * tokens),
        "memory: tables in all ranks": memory / (ranks * constants["review_memory"]),
        "disk of tokens": ASSUMED["disk"].value / (constants["disk"] * tokens),
    }


def epoch_seconds(constants: Constants, num_reviews: int, num_gpus: int) -> dict[str, float]:
    """What an epoch takes, by what it is spent on; digests of the texts once in four epochs."""
    updates = math.ceil(num_reviews / (BATCH * num_gpus))
    return {
        "compute": updates * compute_seconds(constants),
        "exchange": updates * exchange_seconds(constants, num_gpus) if num_gpus > 1 else 0.0,
        "planning": num_reviews / constants["planning"],
        "digests": num_reviews * constants["tokens_per_review"] / constants["digesting"] / EPOCHS,
    }


def binding(constants: Constants, num_reviews: int, num_gpus: int) -> str:
    """What binds first: what does not fit, then too few updates, then where most time goes."""
    name, most = min(limits(constants, num_gpus).items(), key=lambda item: item[1])
    if num_reviews > most:
        return name
    if EPOCHS * math.ceil(num_reviews / (BATCH * num_gpus)) < RECIPE_UPDATES:
        return "batch"
    seconds = epoch_seconds(constants, num_reviews, num_gpus)
    return max(seconds, key=lambda each: seconds[each])
