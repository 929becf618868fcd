"""Environment variables and threads."""

from __future__ import annotations

import os
import subprocess
import sys

import joblib
import pytest
import torch

from sentiment.runtime.device import prepare_threads
from sentiment.runtime.environment import prepare_environment


def test_what_the_user_set_stays(monkeypatch):
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    monkeypatch.setenv("THP_MEM_ALLOC_ENABLE", "0")
    prepare_environment()
    assert os.environ["THP_MEM_ALLOC_ENABLE"] == "0"
    assert os.environ.pop("GOMP_SPINCOUNT") == "10000"


def test_openmps_own_name_for_waiting_counts_too(monkeypatch):
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    prepare_environment()
    assert "GOMP_SPINCOUNT" not in os.environ


def test_the_commands_prepare_before_torch_is_loaded(tmp_path):
    """Afterwards would be too late: libraries read these variables as they are loaded."""
    program = (
        "import sys, sentiment.cli.main as cli\n"
        "prepare = cli.set_variables\n"
        "cli.set_variables = lambda: print('torch' in sys.modules) or prepare()\n"
        f"cli.evaluate(['--run', {str(tmp_path)!r}])\n"
        "print('torch' in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.stdout.split() == ["False", "True"], done.stderr


@pytest.mark.parametrize(("given", "expected"), [(None, 1), ("2", 2)])
def test_threads_are_those_allowed(monkeypatch, given, expected):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    monkeypatch.setattr(joblib, "cpu_count", lambda: 1)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if given:
        monkeypatch.setenv("OMP_NUM_THREADS", given)
    try:
        prepare_threads()
        assert torch.get_num_threads() == expected
    finally:
        torch.set_num_threads(before)
