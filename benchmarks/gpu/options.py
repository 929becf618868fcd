"""What a step is given, which its process gets as JSON, and what it returns."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from benchmarks.measure import Row

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Options:
    """Where and at what size the steps run.

    Attributes:
        device: cuda or cpu.
        is_dry: sizes too small to measure anything, to try the code.
        kit: the folder that ``benchmarks.gpu.kit`` packed; empty in a dry run.
        work: a folder for runs and caches.
    """

    device: str
    is_dry: bool
    kit: str
    work: str

    def dump(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def parse(cls, text: str) -> Options:
        return cls(**json.loads(text))


@dataclass(frozen=True)
class Outcome:
    """What a step found; with a ``problem``, it counts as failed, and its rows are kept."""

    rows: list[Row]
    details: dict[str, Any] = field(default_factory=dict)
    problem: str = ""
