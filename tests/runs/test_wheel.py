"""An installed wheel works without the repository."""

from __future__ import annotations

import fnmatch
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.corpus import ROOT


def declared_patterns() -> list[str]:
    """The patterns of [tool.setuptools.package-data]; Python 3.10 has no tomllib."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    _, _, rest = text.partition("[tool.setuptools.package-data]\nsentiment = [")
    return [pattern.strip().strip('"') for pattern in rest.partition("]")[0].split(",")]


def test_every_data_file_of_the_package_is_declared():
    source = ROOT / "src" / "sentiment"
    names = [path.relative_to(source).as_posix() for path in source.rglob("*") if path.is_file()]
    files = [name for name in names if not name.endswith((".py", ".pyc"))]
    assert len(files) > 5
    for name in files:
        assert any(fnmatch.fnmatch(name, pattern) for pattern in declared_patterns()), name


@pytest.mark.long
def test_a_wheel_trains_checks_and_examines_itself(tmp_path):
    source, wheels, installed = tmp_path / "source", tmp_path / "wheels", tmp_path / "installed"
    empty = tmp_path / "empty"
    empty.mkdir()
    shutil.copytree(ROOT / "src", source / "src")  # setuptools writes into its source folder
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, source)
    pip = [sys.executable, "-m", "pip", "-q", "--disable-pip-version-check"]
    build = ["wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(wheels), str(source)]
    subprocess.run([*pip, *build], check=True)
    (wheel,) = wheels.iterdir()
    install = ["install", "--no-deps", "--target", str(installed), str(wheel)]
    subprocess.run([*pip, *install], check=True)

    def sentiment(*arguments: str) -> str:
        environment = {**os.environ, "PYTHONPATH": str(installed)}
        command = [sys.executable, "-m", "sentiment", *arguments]
        done = subprocess.run(command, cwd=empty, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    sentiment(
        "train", "--output_dir=run", "--model.embedding_size=4", "--model.hidden_size=4",
        "--training.num_epochs=1", "--training.pictures=false",
    )  # fmt: skip
    assert "negation" in sentiment("check", "run").lower()
    assert "checks passed" in sentiment("doctor")
    assert [path.name for path in Path(empty).iterdir()] == ["run"]
