"""Description of the machine: processor, available cores, installed versions.

Virtual machines may report the same processor name for several generations ("AMD EPYC"), so family
and model are recorded too, and the flags that decide which kernels can run.
"""

from __future__ import annotations

import datetime
import platform
import re
import subprocess
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import joblib
import torch

from sentiment.runtime.device import describe_device

_PACKAGES = ("torch", "torchtext", "spacy", "numpy", "keras", "tensorflow-cpu")
_FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")
_CPUINFO = Path("/proc/cpuinfo")


@dataclass(frozen=True)
class Processor:
    """A processor; ``flags`` holds those of ``_FLAGS`` that it has."""

    name: str
    family: int | None = None
    model: int | None = None
    flags: tuple[str, ...] = ()


def parse_processor(cpuinfo: str) -> Processor:
    """The first processor in the text of /proc/cpuinfo."""
    fields: dict[str, str] = {}
    for line in cpuinfo.splitlines():
        key, _, value = line.partition(":")
        fields.setdefault(key.strip(), value.strip())
    name = fields.get("model name") or platform.processor() or platform.machine()
    numbers = [fields.get(key, "") for key in ("cpu family", "model")]
    family, model = (int(number) if number.isdigit() else None for number in numbers)
    present = fields.get("flags", "").split()
    return Processor(name, family, model, tuple(flag for flag in _FLAGS if flag in present))


def find_processor() -> Processor:
    """The processor of this machine; only its name without /proc/cpuinfo."""
    return parse_processor(_CPUINFO.read_text(encoding="utf-8") if _CPUINFO.is_file() else "")


def num_cores() -> int:
    """Cores that this process may use, by affinity and container quota."""
    return int(joblib.cpu_count())


def results_name(processor: Processor, cores: int) -> str:
    """The name of a machine's results file, such as ``amd-epyc-7763-2-cores.json``.

    Family and model are in it where the processor's name has no number.
    """
    name = re.sub(r"\((R|TM)\)|@.*|\b\d+-Core\b|\b(CPU|Processor)\b", " ", processor.name)
    words = re.findall(r"[a-z0-9]+", name.lower())
    if processor.family is not None and not re.search(r"\d", name):
        words += ["family", str(processor.family), "model", str(processor.model)]
    return "-".join([*words, str(cores), "core" if cores == 1 else "cores"]) + ".json"


def describe_machine() -> dict[str, Any]:
    """Machine, versions, date and revision."""
    revision = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parent,
    )
    packages = {}
    for name in _PACKAGES:
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            packages[name] = None
    return {
        "device": describe_device(torch.device("cpu")),
        "processor": asdict(find_processor()),
        "cores": num_cores(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "python": platform.python_version(),
        "packages": packages,
        "date": datetime.date.today().isoformat(),
        "revision": revision.stdout.strip() or None,
    }
