"""What holds for every input: a result or a one-line error of ours, soon and in little memory."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

SECONDS = 20  # far more than any input needs: the machine may be busy
MAX_MEMORY = 1_200 * 2**20  # of a process that has loaded torch, spaCy and all targets


def result_or_error(call: Callable[[], T], *names: str, longest: int = 3_000) -> T | None:
    """A call's result, or None if it ends in an error that may be shown to a user.

    The message must have fewer than ``longest`` characters, and contain one of ``names``, so that
    its reader knows the file.
    """
    try:
        return call()
    except (ValueError, OSError) as error:
        kind, message = type(error), str(error)
        is_ours = kind is ValueError or kind.__module__.startswith("sentiment.")
        assert is_ours or issubclass(kind, OSError), repr(error)
        assert message, f"an error without a message: {error!r}"
        assert "\n" not in message, f"more than one line: {message!r}"
        assert len(message) < longest, f"{len(message)} characters: {message[:300]!r}"
        assert any(name in message for name in names), f"{names} not in {message!r}"
        return None


@contextmanager
def within_time() -> Iterator[None]:
    """Fail if the block takes too long, even in an endless loop."""

    def stop(number: int, frame: object) -> None:
        raise AssertionError(f"not done after {SECONDS} seconds")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def check_memory() -> None:
    """Fail if this process has ever used too much memory."""
    # Not ru_maxrss, which a process inherits from the one that started it.
    status = Path("/proc/self/status")
    if not status.exists():
        return  # only Linux tells
    (kilobytes,) = re.findall(r"VmHWM:\s+(\d+) kB", status.read_text())
    peak = int(kilobytes) * 1024
    assert peak < MAX_MEMORY, f"{peak // 2**20:,} MiB"
