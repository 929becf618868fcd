"""A training that kills itself after an update, to check that it can be resumed.

python -m sentiment.cli.train_until UPDATE [OPTIONS OF train.py]
"""

from __future__ import annotations

import sys

from sentiment.cli.main import run_command
from sentiment.cli.train import execute, parse
from sentiment.runtime.processes import kill_this_process


def main() -> int:
    """Train, and end at once after the given update."""
    last = int(sys.argv[1])
    request = parse(sys.argv[2:], "train_until")

    def after_update(update: int) -> None:
        if update == last:
            kill_this_process()

    return run_command(lambda: execute(request, after_update))


if __name__ == "__main__":
    raise SystemExit(main())
