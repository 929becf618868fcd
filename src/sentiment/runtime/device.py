"""Device, precision, threads, memory and seeds."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import numpy as np
import psutil
import torch

from sentiment.runtime.errors import UserError


def find_device(name: str, local_rank: int | None = None) -> torch.device:
    """The device of a name in the settings; ``auto`` takes CUDA, then MPS, then the CPU.

    With ``local_rank``, each rank of this machine gets its own GPU.
    """
    if local_rank is not None:
        return _find_rank_device(name, local_rank)
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda", torch.cuda.current_device())
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    device = torch.device(name)
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            available = f"{count} CUDA device{'s' * (count != 1)}" if count else "no CUDA device"
            raise UserError(f"device is {name!r}, but {available} can be found: use auto or cpu")
        return torch.device("cuda", device.index or 0)
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise UserError("device is 'mps', which this machine lacks: use auto or cpu")
    return device


def _find_rank_device(name: str, local_rank: int) -> torch.device:
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if name not in ("auto", "cuda"):
        raise UserError(f"device is {name!r}, but several ranks need auto, cpu or cuda")
    count = torch.cuda.device_count()
    if count == 0:
        raise UserError("device is 'cuda', but no CUDA device can be found: use auto or cpu")
    if local_rank >= count:
        raise UserError(
            f"rank {local_rank} of this machine has no GPU, as there are {count}: start at most "
            f"{count} processes with --nproc-per-node, or give --device cpu"
        )
    torch.cuda.set_device(local_rank)  # else each rank takes some memory of the first GPU
    return torch.device("cuda", local_rank)


def describe_device(device: torch.device) -> str:
    """The device's name for people, as cuda:0 (NVIDIA H100)."""
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    if device.type == "cpu":
        count = torch.get_num_threads()
        return f"cpu ({_processor_name()}, {count} thread{'s' * (count != 1)})"
    return str(device)


def _processor_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if "model name" in line)
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def find_inference_precision(name: str, device: torch.device) -> torch.dtype:
    """The data type of ``--precision`` for inference; bf16 is refused where it would be emulated,
    more slowly than fp32.
    """
    if name == "bf16" and find_precision("auto", device) != torch.bfloat16:
        raise UserError(f"--precision is bf16, which {device} does not support: leave it at fp32")
    return torch.bfloat16 if name == "bf16" else torch.float32


_BF16_NAMES = ("BF16", "FP16", "AMX", "AVX10")  # in names of instruction sets that have bf16


def find_precision(name: str, device: torch.device) -> torch.dtype:
    """The data type of matrix products: ``torch.bfloat16`` or ``torch.float32``.

    ``auto`` takes bf16 where the hardware supports it, not where it would be emulated.
    """
    if name == "fp32":
        return torch.float32
    has_bf16 = device.type == "cpu" and _cpu_has_bf16()
    if device.type == "cuda":
        has_bf16 = torch.cuda.get_device_capability(device) >= (8, 0)
    if name == "bf16" and not has_bf16 and device.type != "cpu":
        raise UserError(f"training.precision is 'bf16', which {device} does not support")
    return torch.bfloat16 if has_bf16 or name == "bf16" else torch.float32


def _cpu_has_bf16() -> bool:
    # oneDNN limited to older instructions would emulate bf16, several times as slowly.
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA", "").upper()
    if limit not in ("", "ALL", "DEFAULT") and not any(name in limit for name in _BF16_NAMES):
        return False
    names = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")  # private; may disappear
    return any(getattr(torch.cpu, name)() for name in names if hasattr(torch.cpu, name))


def autocast(device: torch.device, precision: torch.dtype) -> AbstractContextManager[None]:
    if precision == torch.float32:
        return nullcontext()
    return torch.autocast(device.type, precision)


@contextmanager
def exact_fp32() -> Iterator[None]:
    """A context in which CUDA does not round factors of fp32 products to TF32."""
    # Not by cudnn.flags, which also resets benchmark and deterministic.
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    _set_fp32_precision("highest", False)
    try:
        yield
    finally:
        _set_fp32_precision(*before)


def _set_fp32_precision(of_products: str, allows_tf32_in_cudnn: bool) -> None:
    torch.set_float32_matmul_precision(of_products)
    torch.backends.cudnn.allow_tf32 = allows_tf32_in_cudnn


def set_up(device: torch.device, seed: int) -> None:
    """Seed torch, for initial weights and dropout, and let CUDA use TF32 for products in fp32."""
    torch.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.set_device(device)
        _set_fp32_precision("high", True)


def get_rng_state(device: torch.device) -> torch.Tensor:
    if device.type == "cuda":
        return torch.cuda.get_rng_state(device)
    return torch.mps.get_rng_state() if device.type == "mps" else torch.get_rng_state()


def set_rng_state(state: torch.Tensor, device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.set_rng_state(state, device)
    elif device.type == "mps":
        torch.mps.set_rng_state(state)
    else:
        torch.set_rng_state(state)


def mixed_seed(*numbers: int) -> int:
    """One seed from several numbers."""
    # SeedSequence mixes the low bits too, and torch's CPU generator reads only those.
    return int(np.random.SeedSequence([abs(number) for number in numbers]).generate_state(1)[0])


def prepare_threads(local_size: int = 1) -> None:
    """Set denormals and the number of threads; to be called before anything is computed.

    Denormal numbers count as 0: gradients that vanish over a long review become denormal, and an
    Intel processor takes a hundred times as long for each. Threads started later inherit this.

    There is a thread for each available core, unless OMP_NUM_THREADS is set. torch does not see the
    limit of a container: with two of 64 cores it would start 64 threads, which wait for each other.
    The ``local_size`` ranks of this machine share its cores; their launcher sets OMP_NUM_THREADS to
    1 if it is not set, so a 1 is not the user's choice.
    """
    torch.set_flush_denormal(True)
    chosen = os.environ.get("OMP_NUM_THREADS")
    if chosen is None or (local_size > 1 and chosen == "1"):
        import joblib  # here, because it makes a semaphore

        cores = joblib.cpu_count() // local_size
        limit = cores if local_size > 1 else torch.get_num_threads()
        torch.set_num_threads(max(1, min(limit, cores)))


def peak_memory_bytes(device: torch.device) -> int:
    """Peak memory so far: allocated on a GPU, else resident in the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:  # on Windows
        memory = psutil.Process().memory_info()
        return getattr(memory, "peak_wset", memory.rss)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # kilobytes, except on macOS
