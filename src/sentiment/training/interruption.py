"""Ctrl-C and the signal to end: the first one waits for the step, the second one does not."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(Exception):
    """Training was stopped by a signal, and its checkpoint is written.

    Attributes:
        status: what the process is to exit with.
    """

    def __init__(self, number: int) -> None:
        self.status = 128 + number  # as a shell counts a program that a signal ended
        super().__init__(f"stopped by {signal.Signals(number).name}")


class StopRequests:
    """Notes a signal while its body runs, for training to end at the next whole step.

    Args:
        ends_at_second: whether a second signal ends the process at once. Ranks get each signal
            twice, from a terminal or scheduler and from their launcher, which ends those by itself
            that take too long.

    Attributes:
        signal: the number of the signal that came, 0 before.
    """

    def __init__(self, *, ends_at_second: bool = True) -> None:
        self.signal = 0
        self._ends_at_second = ends_at_second
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopRequests:
        # Python lets the main thread alone handle signals; elsewhere they do what they did.
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        # A rank that fails has yet to say why, and its launcher, which ends all ranks when one is
        # gone, must not be faster.
        is_failing_rank = kind is not None and not self._ends_at_second
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_IGN if is_failing_rank else handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.signal:
            if self._ends_at_second:
                os._exit(128 + number)
            return
        self.signal = number
        again = b"; once more stops at once" if self._ends_at_second else b""
        # Not by print, which the signal may have interrupted.
        os.write(2, b"\nstopping after this step and a checkpoint" + again + b"\n")
