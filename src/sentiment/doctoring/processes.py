"""How a process of our own ended, in a few words."""

from __future__ import annotations

import signal
from subprocess import CompletedProcess

_MEANINGS = {
    signal.SIGILL: "the processor lacks an instruction that it needs",
    signal.SIGKILL: "killed, as a system does that is out of memory",
    signal.SIGSEGV: "a library crashed",
}


def how_it_ended(done: CompletedProcess[str]) -> str:
    """The signal that ended it, or the last line of what it said."""
    if done.returncode < 0:
        ended_by = signal.Signals(-done.returncode)
        meaning = _MEANINGS.get(ended_by, "")
        return f"{ended_by.name}{': ' * bool(meaning)}{meaning}"
    lines = (done.stderr.strip() or done.stdout.strip()).splitlines()
    return lines[-1].strip() if lines else f"exit status {done.returncode}"
