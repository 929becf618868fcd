"""A training that dies at a moment that a seed decides: after an update, or inside a write.

python tests/helpers/killed.py SEED MOST_MOMENTS [OPTIONS OF train.py]
"""

from __future__ import annotations

import os
import random
import signal
import sys
from pathlib import Path

from sentiment.cli.main import report_mistakes
from sentiment.cli.train import execute, parse
from sentiment.runs import weights as tensor_files
from sentiment.runtime import files as places


class Death:
    """Kills the process at the last of so many moments."""

    def __init__(self, num_moments: int) -> None:
        self._left = num_moments

    def is_due(self) -> bool:
        self._left -= 1
        return self._left == 0

    def pass_by(self, *_: object) -> None:
        if self.is_due():
            self.strike()

    @staticmethod
    def strike() -> None:
        os.kill(os.getpid(), signal.SIGKILL)


def lie_in_wait(death: Death) -> None:
    """Have every write pass by four times: half written, written, replaced, and after it."""
    atomic_write, replace = places.atomic_write, os.replace

    def writing(path: Path, data: bytes) -> None:
        if death.is_due():
            path.with_name(path.name + ".new").write_bytes(data[: len(data) // 2])
            death.strike()
        atomic_write(path, data)
        death.pass_by()

    def replacing(source: Path, target: Path) -> None:
        death.pass_by()
        replace(source, target)
        death.pass_by()

    places.atomic_write = tensor_files.atomic_write = writing
    os.replace = replacing


if __name__ == "__main__":
    death = Death(random.Random(int(sys.argv[1])).randint(1, int(sys.argv[2])))
    lie_in_wait(death)
    request = parse(sys.argv[3:], "killed")
    raise SystemExit(report_mistakes(lambda: execute(request, death.pass_by)))
