"""A training of which one rank kills itself, the first time that the ranks are started.

torchrun … tests/helpers/failing_rank.py UPDATE [OPTIONS OF train.py]
"""

import os
import signal
import sys
import time
from pathlib import Path

from sentiment.cli.main import run_command
from sentiment.cli.train import execute, parse
from sentiment.runtime.distributed import num_restarts


def fail(update: int) -> None:
    if os.environ["RANK"] == "1" and num_restarts() == 0 and update == int(sys.argv[1]):
        (folder,) = [each for each in sys.argv if each.startswith("--output_dir=")]
        Path(f"{folder.partition('=')[2]}.killed").write_text(str(time.time()))
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    raise SystemExit(run_command(lambda: execute(parse(sys.argv[2:], "train"), fail)))
