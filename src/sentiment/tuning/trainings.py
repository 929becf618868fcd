"""For sweeps and cross-validations: trainings in child processes, claims, a folder's definition."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Literal

from filelock import FileLock, Timeout

from sentiment.config.config import Config, deciding_settings
from sentiment.config.parser import save_config
from sentiment.display.console import truncate
from sentiment.runtime.errors import UserError
from sentiment.runtime.files import LOCK, is_locked, write_json
from sentiment.runtime.processes import describe_exit
from sentiment.training.checkpoint import state_path

_TRAIN = [sys.executable, "-m", "sentiment", "train"]
_POLL_SECONDS = 0.2
_MAX_MESSAGE_LENGTH = 300


def folder_lock(folder: Path) -> FileLock:
    """The lock to hold while writing a folder's files; it ends with its process."""
    return FileLock(folder / LOCK)


def try_claim(path: Path, run: Path) -> FileLock | None:
    """Lock a claim file; None where another process works on the training.

    A claim is released when its process ends, even if it is killed. A training that outlives the
    command that started it still holds the lock of its run's folder, so that no second training
    starts there.
    """
    claim = FileLock(path, blocking=False)
    try:
        claim.acquire()
    except Timeout:
        return None
    if is_locked(run):
        claim.release()
        return None
    return claim


class SignalForwarder:
    """While its body runs, passes SIGINT, SIGTERM and SIGHUP on to the running training.

    A training writes a checkpoint at the first signal and exits at once at the second. While none
    runs, the second signal interrupts this process.
    """

    def __init__(self) -> None:
        self.signal = 0  # the number of the first signal received
        self.process: subprocess.Popen[bytes] | None = None  # the running training
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> SignalForwarder:
        names = ("SIGINT", "SIGTERM", "SIGHUP")  # Windows has no SIGHUP
        for number in (getattr(signal, name) for name in names if hasattr(signal, name)):
            if signal.getsignal(number) is not signal.SIG_IGN:  # nohup ignores SIGHUP
                self._previous[number] = signal.signal(number, self._forward)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _forward(self, number: int, frame: FrameType | None) -> None:
        if not self.signal:
            os.write(2, b"\nstopping after a checkpoint; a second signal stops at once\n")
            self.signal = number
        elif self.process is None:
            raise KeyboardInterrupt
        if self.process is not None:
            self.process.terminate()


@dataclass(frozen=True)
class TrainingOutcome:
    """How a training ended.

    It is stopped by a signal to this process, or because another process trains in this folder.
    """

    kind: Literal["complete", "pruned", "stopped", "failed"]
    message: str = ""  # why it failed


def run_training(
    config: Config,
    files: Path,
    *,
    forwarder: SignalForwarder,
    after_epoch: Callable[[dict[str, Any]], bool] = lambda entry: False,
) -> TrainingOutcome:
    """Train, or resume, in a child process.

    ``files`` is the path, without ending, of the files of its settings (.yaml) and output (.log).
    ``after_epoch`` is called with each entry of the run's metrics.json; True ends the training.
    """
    run = Path(config.output_dir)
    settings, log = files.with_suffix(".yaml"), files.with_suffix(".log")
    save_config(config, settings)
    command = [*_TRAIN, f"--config={settings}", "--auto_resume"]
    with log.open("ab") as output:
        start = output.tell()
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
            start_new_session=True,  # so that Ctrl-C reaches it once, through the forwarder
        )  # fmt: skip
    forwarder.process = process
    try:
        if forwarder.signal:  # it came before the process started
            process.terminate()
        is_pruned = _watch(process, run, forwarder, after_epoch)
    except BaseException:
        process.terminate()
        process.wait()
        raise
    finally:
        forwarder.process = None
    if process.returncode == 0:
        # Kept for more epochs, which no trial or fold gets; three times the weights' size.
        state_path(run).unlink(missing_ok=True)
        return TrainingOutcome("complete")
    if forwarder.signal:
        return TrainingOutcome("stopped")
    if is_pruned:
        return TrainingOutcome("pruned")
    if is_locked(run):  # by a training that a killed command left behind
        return TrainingOutcome("stopped")
    text = log.read_bytes()[start:].decode("utf-8", errors="replace")
    message = describe_exit(process.returncode, text)
    return TrainingOutcome("failed", truncate(message, _MAX_MESSAGE_LENGTH))


def read_epochs(run: Path) -> list[dict[str, Any]]:
    """The entries of a run's metrics.json, empty before its first epoch ends."""
    try:
        return json.loads((run / "metrics.json").read_text(encoding="utf-8"))["epochs"]
    except FileNotFoundError:
        return []


def _watch(
    process: subprocess.Popen[bytes],
    run: Path,
    forwarder: SignalForwarder,
    after_epoch: Callable[[dict[str, Any]], bool],
) -> bool:
    """Wait for the process to end; returns whether ``after_epoch`` ended it."""
    num_seen, is_pruned = 0, False
    while True:
        with suppress(subprocess.TimeoutExpired):
            process.wait(_POLL_SECONDS)
        has_ended = process.returncode is not None
        epochs = read_epochs(run)
        for entry in epochs[num_seen:]:
            should_end = after_epoch(entry)
            if should_end and not (has_ended or is_pruned or forwarder.signal):
                process.terminate()
                is_pruned = True
        num_seen = len(epochs)
        if has_ended:
            return is_pruned


def write_or_read_definition(
    path: Path, definition: dict[str, Any], *, kind: str, allowed: Collection[str]
) -> dict[str, Any]:
    """Write a new folder's definition; returns the one that is on disk.

    ``kind`` says what the folder holds, for messages; ``allowed`` are files and empty folders that
    may precede the definition. Raises ``FileExistsError`` if the folder holds something else.
    """
    if path.exists():
        return read_definition(path)
    for other in path.parent.iterdir():
        if other.name not in allowed or (other.is_dir() and any(other.iterdir())):
            raise FileExistsError(
                f"{path.parent} is not empty and holds no {kind}: choose another --output_dir"
            )
    write_json(path, definition)
    return definition


def read_definition(path: Path) -> dict[str, Any]:
    """Read a definition; ``UserError`` if it is damaged."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if values["settings"]["training.monitor"]:
            return values
    except (ValueError, LookupError, TypeError, RecursionError):
        pass
    raise UserError(f"{path} is damaged: start again in another --output_dir")


def check_unchanged(folder: Path, before: dict[str, Any], now: dict[str, Any]) -> None:
    """Raise ``UserError`` if a folder was started with other values."""
    # Settings that did not exist before had their default.
    known = {**deciding_settings(Config()), **before}
    known, now = (json.loads(json.dumps(values)) for values in (known, now))  # tuples become lists
    for key, value in now.items():
        previous = known.get(key)
        if previous != value:
            raise UserError(
                f"{folder} was started with {key} {previous!r}, not {value!r}: use the same value, "
                "or choose another --output_dir"
            )
