"""The process before torch is loaded: environment variables for speed on a CPU and for results on a
GPU that can be repeated, and TensorBoard without TensorFlow.

The entry points set them; programs of your own call :func:`prepare_environment` before they import
torch. Importing this module imports nothing heavy.
"""

from __future__ import annotations

import os
import sys
from types import ModuleType

VARIABLES = {
    # Tensors in pages of 2 MB instead of 4 kB, where programs must ask for them
    # (/sys/kernel/mm/transparent_hugepage/enabled is madvise): a training step reads hundreds of
    # megabytes, and translating their addresses takes as long as the arithmetic, or twice as
    # long on a virtual machine. Read by torch at its first tensor, on Linux only.
    "THP_MEM_ALLOC_ENABLE": "1",
    # How long OpenMP's threads spin after a parallel loop before they sleep: by default some
    # milliseconds, on cores that the threads of the LSTM's two directions need. Read by GNU's
    # OpenMP, which torch uses on Linux, when it is loaded.
    "GOMP_SPINCOUNT": "10000",
    # Without a workspace of fixed size, cuBLAS may sum in another order at each call, and cuDNN's
    # recurrences with it: torch.nn.LSTM's documentation asks for this. Read at the first product.
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
}


def prepare_environment() -> None:
    """Set the variables, load torch, and let it treat denormal numbers as zero.

    For programs of your own; call it first, because threads inherit the setting when they start.
    """
    set_variables()
    import torch  # after the variables are set

    torch.set_flush_denormal(True)


def set_variables() -> None:
    """Set the variables that the user has not set, by these or OpenMP's names.

    TensorFlow, which TensorBoard would import if it is installed, is kept out too.
    """
    for name, value in VARIABLES.items():
        if name != "GOMP_SPINCOUNT" or "OMP_WAIT_POLICY" not in os.environ:
            os.environ.setdefault(name, value)
    keep_tensorflow_out()


def keep_tensorflow_out() -> None:
    """Let TensorBoard's writers do without TensorFlow.

    Where it is installed, they import it to open files, which takes seconds and half a gigabyte.
    They do not if there is a module ``tensorboard.compat.notf``.
    """
    name = "tensorboard.compat.notf"
    sys.modules.setdefault(name, ModuleType(name))
