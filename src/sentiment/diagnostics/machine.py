"""Doctor's checks of processor, memory, device and storage."""

from __future__ import annotations

import os
import platform
import re
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil

from sentiment.environment import VARIABLES

Status = Literal["ok", "warn", "fail"]


@dataclass(frozen=True)
class CheckResult:
    """The result of one check."""

    message: str  # a few words for the table
    status: Status = "ok"  # warn: something costs speed or comfort; fail: something does not work
    advice: str = ""  # what to do, empty if the status is ok

    def __post_init__(self) -> None:
        assert (self.status == "ok") == (self.advice == ""), "advice exactly where it is needed"


_GB = 10**9
_MIN_MEMORY = 1.0 * _GB  # the embedded corpus trains in 0.8 GB
_RECOMMENDED_MEMORY = 4.5 * _GB  # IMDB trains in 3.7 GB
_PROBE_BYTES = 64 << 20
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")


def check_device(nvidia: Path = Path("/proc/driver/nvidia/version")) -> CheckResult:
    """The device that ``--device auto`` takes, and whether torch misses a GPU."""
    import torch

    from sentiment.runtime.device import describe_device, find_device, prepare_threads

    prepare_threads()
    device = find_device("auto")
    message = describe_device(device)
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        message += f", {free / _GB:.1f} of {total / _GB:.1f} GB free"
        if free < _MIN_MEMORY:
            advice = "end the other programs on this GPU, or train with --device cpu"
            return CheckResult(message, "fail", advice)
    elif nvidia.exists():
        built = f"for CUDA {torch.version.cuda}" if torch.version.cuda else "without CUDA"
        message += f"; an NVIDIA driver is installed, but torch, built {built}, finds no GPU"
        advice = (
            "to train on the GPU, check that torch is built for its driver "
            "(https://pytorch.org/get-started), and that CUDA_VISIBLE_DEVICES does not hide the GPU"
        )
        return CheckResult(message, "warn", advice)
    return CheckResult(message)


def check_precision() -> CheckResult:
    """Whether the device computes in bf16."""
    import torch

    from sentiment.runtime.device import find_device, find_precision

    if find_precision("auto", find_device("auto")) == torch.bfloat16:
        return CheckResult("bf16")
    faster = "bf16 (AVX-512 BF16, AMX, or a GPU since Ampere) takes about half the time"
    advice = f"nothing is wrong; {faster}"
    return CheckResult("fp32: this device has no bf16 arithmetic", "warn", advice)


def check_cores() -> CheckResult:
    """torch's threads, compared with the cores that this process may use."""
    import joblib
    import torch

    from sentiment.runtime.device import prepare_threads

    prepare_threads()
    threads, allowed = torch.get_num_threads(), joblib.cpu_count()
    cores = os.cpu_count() or allowed
    message = f"{threads} thread{'s' * (threads != 1)} on {allowed} of {cores} cores"
    variables = [f"{name}={os.environ[name]}" for name in _THREAD_VARIABLES if name in os.environ]
    if variables:
        message += f" ({', '.join(variables)})"
    if threads > allowed:
        remedy = "unset the variable" if variables else f"set OMP_NUM_THREADS={allowed}"
        advice = f"more threads than allowed cores ({allowed}) take several times as long: {remedy}"
        return CheckResult(message, "fail", advice)
    if threads < allowed and variables:  # by default torch uses one thread for each physical core
        idle = allowed - threads
        return CheckResult(message, "warn", f"{idle} allowed cores stay idle: unset the variable")
    return CheckResult(message)


def check_environment() -> CheckResult:
    """The variables that :mod:`sentiment.environment` sets unless they are set."""
    defaults = [f"{name}={value}" for name, value in VARIABLES.items()]
    changed = [
        f"{name}={os.environ.get(name, '')}"
        for name, value in VARIABLES.items()
        if os.environ.get(name) != value
    ]
    if policy := os.environ.get("OMP_WAIT_POLICY"):
        changed.append(f"OMP_WAIT_POLICY={policy}")
    if not changed:
        return CheckResult(", ".join(defaults))
    advice = (
        f"training is fastest with {' '.join(defaults)} and without OMP_WAIT_POLICY: unset them, "
        "and this program sets what it needs"
    )
    return CheckResult(", ".join(changed), "warn", advice)


def check_huge_pages(
    setting: Path = Path("/sys/kernel/mm/transparent_hugepage/enabled"),
    pages: Path = Path("/proc/self/smaps"),
) -> CheckResult:
    """Whether the kernel backs a tensor of 64 MB by huge pages."""
    import torch

    if not sys.platform.startswith("linux"):
        return CheckResult(f"not known on {platform.system()}")
    slow = "without huge pages a training step on a CPU takes up to twice as long"
    try:
        (mode,) = re.findall(r"\[(\w+)\]", setting.read_text(encoding="ascii"))
        before = _huge_bytes(pages)
        tensor = torch.ones(_PROBE_BYTES, dtype=torch.uint8)
        received = _huge_bytes(pages) - before
        del tensor
    except (OSError, ValueError):
        return CheckResult("unknown on this kernel", "warn", f"nothing is wrong, but {slow}")
    message = f"{received >> 20} of {_PROBE_BYTES >> 20} MB; the kernel's setting: {mode}"
    if received >= _PROBE_BYTES / 2:
        return CheckResult(message)
    remedy = f"echo madvise | sudo tee {setting}"
    if mode != "never":
        remedy = "leave THP_MEM_ALLOC_ENABLE at 1, and check that memory is not short"
    return CheckResult(message, "warn", f"{slow}: {remedy}")


def _huge_bytes(pages: Path) -> int:
    lines = pages.read_text(encoding="utf-8", errors="replace").splitlines()
    return 1024 * sum(int(line.split()[1]) for line in lines if line.startswith("AnonHugePages"))


def check_memory() -> CheckResult:
    free = free_memory_bytes()
    message, advice = f"{free / _GB:.1f} GB free", "end other programs, or allow more"
    if free < _MIN_MEMORY:
        return CheckResult(message, "fail", f"the smallest training takes 0.8 GB: {advice}")
    if free < _RECOMMENDED_MEMORY:
        return CheckResult(message, "warn", f"configs/imdb.yaml takes 3.7 GB: {advice}")
    return CheckResult(message)


def free_memory_bytes(groups: Path = Path("/sys/fs/cgroup")) -> int:
    """Bytes that may still be allocated, by the system and by the limit of the container."""
    free = psutil.virtual_memory().available
    for names in (  # control groups, version 2 and version 1
        ("memory.max", "memory.current", "memory.stat", "inactive_file"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat",
         "total_inactive_file"),
    ):  # fmt: skip
        *files, inactive = names
        try:
            limit, used, statistics = (
                (groups / name).read_text(encoding="ascii") for name in files
            )
            # The system gives up cached files as soon as a program needs the memory.
            (cached,) = re.findall(rf"^{inactive} (\d+)$", statistics, re.MULTILINE) or ["0"]
            free = min(free, max(0, int(limit) - int(used) + int(cached)))
        except (OSError, ValueError):  # no such group, or its limit is "max"
            continue
    return free


def check_cache_folder() -> CheckResult:
    from sentiment.data.tokenizer import default_cache_dir

    return check_folder(
        default_cache_dir(),
        recommended_bytes=2 * _GB,
        need="the GloVe vectors, IMDB and its tokens take 1.2 GB",
        alternative="choose another folder with --data.cache_dir or XDG_CACHE_HOME",
    )


def check_current_folder() -> CheckResult:
    return check_folder(
        Path.cwd(),
        recommended_bytes=_GB,
        need="a run takes 50 to 200 MB",
        alternative="work in another folder, or choose one with --output_dir",
    )


def check_folder(
    folder: Path, *, recommended_bytes: int, need: str, alternative: str
) -> CheckResult:
    """Whether a folder, which need not exist yet, can be written and has free space."""
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    try:
        with tempfile.NamedTemporaryFile(dir=existing) as file:
            file.write(b"x" * 65_536)
            file.flush()
    except OSError as error:
        reason = error.strerror or type(error).__name__
        return CheckResult(f"{folder}: can't be written ({reason})", "fail", alternative)
    free = shutil.disk_usage(existing).free
    message = f"{folder}, {free / _GB:,.1f} GB free"
    if free >= recommended_bytes:
        return CheckResult(message)
    status: Status = "fail" if free < recommended_bytes / 10 else "warn"
    return CheckResult(message, status, f"{need}: make room, or {alternative}")
