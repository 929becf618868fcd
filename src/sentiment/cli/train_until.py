"""A training that kills itself after an update, as a power cut would, for proofs of resuming.

python -m sentiment.cli.train_until UPDATE [OPTIONS OF train.py]
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable

from sentiment.cli.main import report_mistakes
from sentiment.cli.train import execute, parse


def killing_after(last: int) -> Callable[[int], None]:
    """What kills this process when it is called after the last update."""

    def kill(update: int) -> None:
        if update == last:
            os.kill(os.getpid(), signal.SIGKILL)

    return kill


def main() -> int:
    """Train until then."""
    request = parse(sys.argv[2:], "train_until")
    return report_mistakes(lambda: execute(request, killing_after(int(sys.argv[1]))))


if __name__ == "__main__":
    raise SystemExit(main())
