"""How many of how many, and how sure that is."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sentiment.evaluation.intervals import wilson_interval


@dataclass(frozen=True)
class Tally:
    """A count out of a total."""

    count: int
    total: int

    @property
    def share(self) -> float:
        """The count's share of the total; 0 of nothing."""
        return self.count / self.total if self.total else 0.0

    @property
    def interval(self) -> tuple[float, float]:
        """The share's 95 % interval (Wilson 1927), which takes the cases for independent."""
        return wilson_interval(self.count, self.total) if self.total else (0.0, 1.0)

    def as_dict(self, count: str, total: str, share: str) -> dict[str, object]:
        """The figures under the names given for them, for JSON."""
        return {
            total: self.total,
            count: self.count,
            share: self.share if self.total else None,
            f"{share}_ci95": list(self.interval) if self.total else None,
        }


def add(tallies: Iterable[Tally]) -> Tally:
    """Counts and totals added up."""
    count = total = 0
    for each in tallies:
        count, total = count + each.count, total + each.total
    return Tally(count, total)
