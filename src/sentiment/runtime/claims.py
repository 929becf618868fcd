"""Who works on what: files held by a process and by those it has started, until they end."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# The system lets go of a lock with the last process that has it open, in whatever way that ends.
# Other than filelock's, its descriptor can be handed on to a training: so nobody takes up a trial
# whose training has outlived the sweep that had started it.


class Claim:
    """A trial that this process works on.

    Args:
        descriptor: of the locked file, for processes that are to hold it too.
    """

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def release(self) -> None:
        """Let another process have it."""
        os.close(self.descriptor)


def try_claim(path: Path) -> Claim | None:
    """Hold a file, or None where another process does."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except BaseException:
        os.close(descriptor)
        raise
    return Claim(descriptor)


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Hold a file for the body, after waiting for whoever has it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
