"""What a check finds, and how bad it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Verdict = Literal["ok", "note", "mend"]


@dataclass(frozen=True)
class Finding:
    """What one check found.

    Attributes:
        found: a few words for the table.
        verdict: ok; note, which costs speed or comfort; or mend, with which something fails.
        advice: what to do, empty where all is well.
    """

    found: str
    verdict: Verdict = "ok"
    advice: str = ""

    def __post_init__(self) -> None:
        assert (self.verdict == "ok") == (self.advice == ""), "advice where it is needed"
