"""What must be set before torch computes: it makes a CPU up to twice as fast, some models more.

Importing this imports nothing heavy, so that the entry points can set the variables first. Whoever
uses the package without them calls :func:`prepare_environment` before importing torch.
"""

from __future__ import annotations

import os

VARIABLES = {
    # Tensors in pages of 2 MB instead of 4 kB, where the kernel leaves it to programs to ask
    # (/sys/kernel/mm/transparent_hugepage/enabled says madvise): a training step walks through
    # hundreds of megabytes, and looking up their addresses costs as much as the arithmetic,
    # twice over on a virtual machine. Read by torch at its first tensor, on Linux alone.
    "THP_MEM_ALLOC_ENABLE": "1",
    # How long OpenMP's threads turn on the spot after a parallel loop before they sleep. Some
    # milliseconds by default, which they take from the two directions of the LSTM, each of which
    # runs in a thread of its own. Read by GNU's OpenMP, torch's own on Linux, when it is loaded.
    "GOMP_SPINCOUNT": "10000",
}


def prepare_environment() -> None:
    """Set the variables, load torch, and let it take denormal numbers for zero.

    For programs of your own. Threads take over what the thread that started them had set, so call
    it first of all.
    """
    set_variables()
    import torch  # only now, with the variables set

    torch.set_flush_denormal(True)


def set_variables() -> None:
    """Set what nobody has set, by these names or by OpenMP's own."""
    for name, value in VARIABLES.items():
        if name != "GOMP_SPINCOUNT" or "OMP_WAIT_POLICY" not in os.environ:
            os.environ.setdefault(name, value)
