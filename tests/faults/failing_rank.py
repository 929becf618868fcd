"""A training of which one rank kills itself, the first time that the ranks are started.

torchrun … tests/faults/failing_rank.py UPDATE [OPTIONS OF train.py]
"""

from __future__ import annotations

import os
import signal
import sys

from sentiment.cli import report_mistakes
from sentiment.commands.train import execute, parse
from sentiment.world import num_restarts


def fail(update: int) -> None:
    if os.environ["RANK"] == "1" and num_restarts() == 0 and update == int(sys.argv[1]):
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    raise SystemExit(report_mistakes(lambda: execute(parse(sys.argv[2:], "train"), fail)))
