"""Commands in processes of their own, without the seconds that importing torch takes.

They are forked from a server of multiprocessing that has imported the trainer once.
"""

import atexit
import multiprocessing
import os
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from helpers.corpus import ROOT

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(
    [
        "sentiment.cli.train", "sentiment.training.setup", "sentiment.training.trainer",
        "pandas", "pyarrow.parquet", "sklearn.metrics", "tensorboard", "torch._dynamo",
    ]
)  # fmt: skip


class Processes:
    """One function in one or more processes, and what all of them print."""

    def __init__(
        self,
        function: Callable[..., int],
        *arguments: object,
        environments: Sequence[dict[str, str]] = ({},),
    ) -> None:
        self.returncode: int | None = None
        self._folder = Path(tempfile.mkdtemp())
        self._processes = []
        for environment in environments:
            call = (self._folder, {**os.environ, **environment}, function, arguments)
            self._processes.append(_CONTEXT.Process(target=_call, args=call))
            self._processes[-1].start()
        atexit.register(self.kill)  # multiprocessing would wait for those of a failed test

    def communicate(self, timeout: float = 120) -> tuple[str, str]:
        """Wait for the end; returns standard output and standard error."""
        deadline = time.monotonic() + timeout
        for process in self._processes:
            process.join(max(0, deadline - time.monotonic()))
        late = [process for process in self._processes if process.is_alive()]
        self.kill()
        out, err = (self._folder.joinpath(name).read_text("utf-8") for name in ("out", "err"))
        shutil.rmtree(self._folder)
        assert not late, f"not done after {timeout} seconds: {out} {err}"
        self.returncode = next((each.exitcode for each in self._processes if each.exitcode), 0)
        return out, err

    def kill(self) -> None:
        for process in self._processes:
            process.kill()


def _call(
    folder: Path, environment: dict[str, str], function: Callable[..., int], arguments: Sequence
) -> None:
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(ROOT)
    for descriptor, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(folder / name, os.O_WRONLY | os.O_APPEND | os.O_CREAT), descriptor)
    sys.exit(function(*arguments))


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def start_ranks(num_ranks: int, function: Callable[..., int], *arguments: object) -> Processes:
    """Ranks with the environment variables that torchrun sets, but without torchrun."""
    common = {
        "WORLD_SIZE": str(num_ranks), "LOCAL_WORLD_SIZE": str(num_ranks),
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()),
    }  # fmt: skip
    ranks = [{**common, "RANK": str(n), "LOCAL_RANK": str(n)} for n in range(num_ranks)]
    return Processes(function, *arguments, environments=ranks)
