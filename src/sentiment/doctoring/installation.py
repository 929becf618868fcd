"""Python and the libraries: their versions, and whether torch can be loaded at all."""

from __future__ import annotations

import platform
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata

from sentiment.doctoring.findings import Finding
from sentiment.doctoring.processes import how_it_ended

_SHOWN = ("torch", "torchtext", "spacy", "datasets", "tensorboard", "numpy")
_TORCH_SECONDS = 60.0
_REINSTALL = "install the package anew: make setup, or pip install -e . in its checkout"


def check_python() -> Finding:
    """Python's version against the range that the package names."""
    from packaging.specifiers import SpecifierSet

    version = platform.python_version()
    try:
        wanted = metadata.metadata("sentiment")["Requires-Python"]
    except metadata.PackageNotFoundError:
        return Finding(f"{version}; the package itself is not installed", "mend", _REINSTALL)
    if not SpecifierSet(wanted).contains(version, prereleases=True):
        return Finding(
            f"{version}, but {wanted} is needed",
            "mend",
            f"make a virtual environment with a Python {wanted} and {_REINSTALL}",
        )
    return Finding(version)


def check_libraries() -> Finding:
    """The version of each library that the package requires, against its range."""
    try:
        problems = list(_problems())
    except metadata.PackageNotFoundError:
        return Finding("unknown: the package itself is not installed", "mend", _REINSTALL)
    if problems:
        wanted = " ".join(f'"{requirement}"' for requirement, _ in problems)
        found = "; ".join(f"{requirement}: {found}" for requirement, found in problems)
        return Finding(found, "mend", f"pip install {wanted}")
    return Finding(", ".join(f"{name} {metadata.version(name)}" for name in _SHOWN))


def _problems() -> Iterator[tuple[str, str]]:
    """Each requirement that is not met, and what there is instead."""
    from packaging.requirements import Requirement

    for line in metadata.requires("sentiment") or []:
        requirement = Requirement(line)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        wanted = f"{requirement.name}{requirement.specifier}"
        try:
            version = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            yield wanted, "missing"
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            yield wanted, version


def check_torch() -> Finding:
    """Whether torch can be loaded and multiplies, in a process that may crash without us."""
    code = "import torch; print(float((torch.ones(64, 64) @ torch.ones(64, 64)).sum()))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=_TORCH_SECONDS,
        check=False,
    )
    if done.returncode != 0 or done.stdout.split()[-1:] != ["262144.0"]:
        return Finding(
            f"does not compute: {how_it_ended(done)}",
            "mend",
            "install torch anew, in the build for this machine (https://pytorch.org/get-started); "
            "what needs it was not examined",
        )
    return Finding("loads and multiplies")
