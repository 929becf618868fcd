"""Checks of processor, memory, device and storage."""

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

from sentiment.runtime.environment import VARIABLES

Verdict = Literal["ok", "note", "mend"]


@dataclass(frozen=True)
class CheckResult:
    """What one check found.

    Attributes:
        found: a few words for the table.
        verdict: ok; note, which costs speed or comfort; or mend, with which something fails.
        advice: what to do, empty where all is well.
    """

    found: str
    verdict: Verdict = "ok"
    advice: str = ""

    def __post_init__(self) -> None:
        assert (self.verdict == "ok") == (self.advice == ""), "advice where it is needed"


_GB = 10**9
_LEAST_MEMORY = 1.0 * _GB  # the embedded corpus trains in 0.8 GB
_ENOUGH_MEMORY = 2.5 * _GB  # IMDB trains in 1.9 GB
_PROBE_BYTES = 64 << 20
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")


def check_device(nvidia: Path = Path("/proc/driver/nvidia/version")) -> CheckResult:
    """The device that ``--device auto`` takes; a GPU that torch does not see is worth a note."""
    import torch

    from sentiment.runtime.device import describe_device, find_device, prepare_threads

    prepare_threads()
    device = find_device("auto")
    found = describe_device(device)
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        found += f", {free / _GB:.1f} of {total / _GB:.1f} GB free"
        if free < _LEAST_MEMORY:
            advice = "end what else computes on this GPU, or train with --device cpu"
            return CheckResult(found, "mend", advice)
    elif nvidia.exists():
        built = f"for CUDA {torch.version.cuda}" if torch.version.cuda else "without CUDA"
        return CheckResult(
            f"{found}; an NVIDIA driver is there, but torch, built {built}, finds no GPU",
            "note",
            "to train on the GPU, install the build of torch for its driver "
            "(https://pytorch.org/get-started), and see that CUDA_VISIBLE_DEVICES does not hide it",
        )
    return CheckResult(found)


def check_precision() -> CheckResult:
    """Whether the device computes in bf16."""
    import torch

    from sentiment.runtime.device import find_device, find_precision

    if find_precision("auto", find_device("auto")) == torch.bfloat16:
        return CheckResult("bf16")
    return CheckResult(
        "fp32: this device has no bf16 arithmetic",
        "note",
        "nothing is wrong; where there is bf16 (AVX-512 BF16 or AMX, or a GPU since Ampere), "
        "training takes about half the time",
    )


def check_cores() -> CheckResult:
    """The threads torch computes in, against the cores that this process may use."""
    import joblib
    import torch

    from sentiment.runtime.device import prepare_threads

    prepare_threads()
    threads, allowed = torch.get_num_threads(), joblib.cpu_count()
    cores = os.cpu_count() or allowed
    found = f"{threads} thread{'s' * (threads != 1)} on {allowed} of {cores} cores"
    given = [f"{name}={os.environ[name]}" for name in _THREAD_VARIABLES if name in os.environ]
    if given:
        found += f" ({', '.join(given)})"
    if threads > allowed:
        return CheckResult(
            found,
            "mend",
            f"threads beyond the {allowed} allowed cores wait for each other, which takes several "
            f"times as long: {'unset it' if given else f'set OMP_NUM_THREADS={allowed}'}",
        )
    if threads < allowed and given:  # by itself torch takes a core's two threads for one
        return CheckResult(found, "note", f"{allowed - threads} allowed cores stay idle: unset it")
    return CheckResult(found)


def check_environment() -> CheckResult:
    """The variables that :mod:`sentiment.runtime.environment` sets unless they are set."""
    others = [
        f"{name}={os.environ.get(name, '')}"
        for name, value in VARIABLES.items()
        if os.environ.get(name) != value
    ]
    waiting = os.environ.get("OMP_WAIT_POLICY")
    if waiting:
        others.append(f"OMP_WAIT_POLICY={waiting}")
    if others:
        return CheckResult(
            ", ".join(others),
            "note",
            "set by hand; training is fastest with "
            f"{' '.join(f'{name}={value}' for name, value in VARIABLES.items())} and without "
            "OMP_WAIT_POLICY, which this program sees to where they are unset",
        )
    return CheckResult(", ".join(f"{name}={value}" for name, value in VARIABLES.items()))


def check_huge_pages(
    setting: Path = Path("/sys/kernel/mm/transparent_hugepage/enabled"),
    pages: Path = Path("/proc/self/smaps"),
) -> CheckResult:
    """Whether the kernel gives a tensor huge pages: asked for 64 MB, and counted."""
    import torch

    if not sys.platform.startswith("linux"):
        return CheckResult(f"not known to {platform.system()}")
    try:
        (chosen,) = re.findall(r"\[(\w+)\]", setting.read_text(encoding="ascii"))
        before = _huge_bytes(pages)
        tensor = torch.ones(_PROBE_BYTES, dtype=torch.uint8)
        given = _huge_bytes(pages) - before
        del tensor
    except (OSError, ValueError):
        return CheckResult(
            "this kernel does not tell",
            "note",
            "nothing is wrong; without huge pages a training step on a CPU takes up to twice as "
            "long",
        )
    found = f"{given >> 20} of {_PROBE_BYTES >> 20} MB asked for; the kernel's setting: {chosen}"
    if given >= _PROBE_BYTES / 2:
        return CheckResult(found)
    remedy = f"echo madvise | sudo tee {setting}"
    if chosen != "never":
        remedy = "leave THP_MEM_ALLOC_ENABLE at 1, and see that memory is not short"
    return CheckResult(
        found,
        "note",
        f"without huge pages a training step on a CPU takes up to twice as long: {remedy}",
    )


def _huge_bytes(pages: Path) -> int:
    lines = pages.read_text(encoding="utf-8", errors="replace").splitlines()
    return 1024 * sum(int(line.split()[1]) for line in lines if line.startswith("AnonHugePages"))


def check_memory(root: Path = Path("/")) -> CheckResult:
    """Memory that is free for this process, by the system and by the limit of its container."""
    free = free_memory_bytes(root)
    found = f"{free / _GB:.1f} GB free"
    if free < _LEAST_MEMORY:
        return CheckResult(
            found, "mend", "the smallest training takes 0.8 GB: end other programs, or allow more"
        )
    if free < _ENOUGH_MEMORY:
        return CheckResult(
            found, "note", "configs/imdb.yaml takes 1.9 GB: end other programs, or allow more"
        )
    return CheckResult(found)


def free_memory_bytes(root: Path = Path("/")) -> int:
    """Bytes that may still be taken; on systems without /proc all that the machine has."""
    try:
        text = (root / "proc/meminfo").read_text(encoding="ascii")
        free = 1024 * int(re.findall(r"MemAvailable:\s+(\d+) kB", text)[0])
    except (OSError, IndexError):
        free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    groups = root / "sys/fs/cgroup"
    for limit, used, statistics, cached in (  # versions 2 and 1 of control groups
        ("memory.max", "memory.current", "memory.stat", "inactive_file"),
        (
            "memory/memory.limit_in_bytes",
            "memory/memory.usage_in_bytes",
            "memory/memory.stat",
            "total_inactive_file",
        ),
    ):
        try:
            most, taken = (
                int((groups / each).read_text(encoding="ascii")) for each in (limit, used)
            )
            text = (groups / statistics).read_text(encoding="ascii")
        except (OSError, ValueError):  # no such group, or its limit is "max"
            continue
        # What files fill is given back as soon as it is asked for.
        taken -= sum(map(int, re.findall(rf"^{cached} (\d+)$", text, flags=re.MULTILINE)))
        free = min(free, max(0, most - taken))
    return free


_GB = 10**9


def check_cache_folder() -> CheckResult:
    """Where tokens and downloaded vectors are kept."""
    from sentiment.data.token_cache import default_cache_dir

    return check_folder(
        default_cache_dir(),
        enough_bytes=2 * _GB,
        purpose="the GloVe vectors, IMDB and its tokens take 1.2 GB",
        otherwise="choose another folder with --data.cache_dir, or with XDG_CACHE_HOME",
    )


def check_current_folder() -> CheckResult:
    """Where runs are kept, unless an output folder is given."""
    return check_folder(
        Path.cwd(),
        enough_bytes=_GB,
        purpose="a run takes 50 to 200 MB",
        otherwise="work in another folder, or choose one with --output_dir",
    )


def check_folder(folder: Path, *, enough_bytes: int, purpose: str, otherwise: str) -> CheckResult:
    """Try to write to a folder, which need not be there yet, and ask what room is left.

    Args:
        folder: where files are to lie.
        enough_bytes: free space that will do; a tenth of it is needed for anything at all.
        purpose: what takes the space.
        otherwise: what to do where it does not serve.
    """
    there = next(each for each in (folder, *folder.absolute().parents) if each.exists())
    try:
        with tempfile.NamedTemporaryFile(dir=there) as file:
            file.write(b"x" * 65_536)
            file.flush()
    except OSError as error:
        reason = error.strerror or type(error).__name__
        return CheckResult(f"{folder}: can't be written ({reason})", "mend", otherwise)
    free = shutil.disk_usage(there).free
    found = f"{folder}, {free / _GB:,.1f} GB free"
    if free < enough_bytes / 10:
        return CheckResult(found, "mend", f"{purpose}: make room, or {otherwise}")
    if free < enough_bytes:
        return CheckResult(found, "note", f"{purpose}: make room, or {otherwise}")
    return CheckResult(found)
