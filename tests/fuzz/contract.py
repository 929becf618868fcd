"""What must hold of every input: a result, or one line of our own, soon and in little memory."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

SECONDS = 20  # far beyond any input of these: a machine may be busy
MOST_MEMORY = 1_200 * 2**20  # of a process that has loaded torch and spaCy and all of the targets


def result_or_error(call: Callable[[], T], *names: str, longest: int = 3_000) -> T | None:
    """A call's result, None where it ends in an error that is fit to be shown.

    Args:
        call: what to try.
        longest: characters that the message may have.
        names: one of which the message must have, so that its reader knows the file.
    """
    try:
        return call()
    except (ValueError, OSError) as error:
        kind, message = type(error), str(error)
        is_ours = kind is ValueError or kind.__module__.startswith("sentiment.")
        assert is_ours or issubclass(kind, OSError), repr(error)
        assert message, f"an error that says nothing: {error!r}"
        assert "\n" not in message, f"more than one line: {message!r}"
        assert len(message) < longest, f"{len(message)} characters: {message[:300]!r}"
        assert any(name in message for name in names), f"{names} not in {message!r}"
        return None


@contextmanager
def within_time() -> Iterator[None]:
    """Fail what hangs, even inside of a loop without end."""

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
    """Fail if this process ever held more than it may."""
    # Not ru_maxrss, which a process takes over from the one that started it.
    status = Path("/proc/self/status")
    if not status.exists():
        return  # only Linux tells
    (kilobytes,) = re.findall(r"VmHWM:\s+(\d+) kB", status.read_text())
    peak = int(kilobytes) * 1024
    assert peak < MOST_MEMORY, f"{peak // 2**20:,} MiB at the most"
