"""Environment variables and threads; the package needs nothing that only POSIX systems have."""

import os
import subprocess
import sys

import joblib
import pytest
import torch
from helpers.corpus import write_corpus

from sentiment.environment import prepare_environment
from sentiment.runs.manifest import versions
from sentiment.runtime.device import exact_fp32, prepare_threads


@pytest.mark.parametrize(
    ("name", "value"), [("GOMP_SPINCOUNT", "10000"), ("CUBLAS_WORKSPACE_CONFIG", ":4096:8")]
)
def test_what_the_user_set_stays(name, value, monkeypatch):
    monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("THP_MEM_ALLOC_ENABLE", "0")
    prepare_environment()
    assert os.environ["THP_MEM_ALLOC_ENABLE"] == "0"
    assert os.environ.pop(name) == value


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


def test_tensorboard_does_not_load_tensorflow(tmp_path):
    (tmp_path / "tensorflow.py").write_text("raise SystemExit('TensorFlow was imported')")
    program = (
        "import sentiment; sentiment.load\n"
        "from torch.utils.tensorboard import SummaryWriter\n"
        f"SummaryWriter({str(tmp_path)!r}).add_scalar('loss', 1.0, 1)\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False,
        env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


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


def test_exact_fp32_changes_no_other_flag(monkeypatch):
    cudnn = torch.backends.cudnn
    for name in ("benchmark", "deterministic", "allow_tf32"):
        monkeypatch.setattr(cudnn, name, True)
    precision = torch.get_float32_matmul_precision()
    with exact_fp32():
        assert (cudnn.benchmark, cudnn.deterministic, cudnn.allow_tf32) == (True, True, False)
        assert torch.get_float32_matmul_precision() == "highest"
    assert cudnn.allow_tf32
    assert torch.get_float32_matmul_precision() == precision


def test_the_receipt_names_cudnn_where_there_is_a_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.backends.cudnn, "version", lambda: 91300)
    assert versions()["cudnn"] == "91300"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "cudnn" not in versions()


PROGRAM = """
import builtins, importlib, os, pkgutil, signal, sys
import datasets, joblib, optuna, tensorboard, torch.utils.tensorboard  # may use what POSIX has

for module, names in {
    os: "fork register_at_fork getuid geteuid getpgid killpg setsid sysconf mkfifo",
    signal: "SIGKILL SIGHUP SIGPIPE SIGQUIT SIGUSR1 SIGALRM alarm",
}.items():
    for name in names.split():
        delattr(module, name)

os.environ["USERNAME"] = "tests"  # as Windows sets it

hidden, original = {"resource", "fcntl", "pwd", "grp", "termios"}, builtins.__import__

def guarded_import(name, globals=None, *rest, **options):
    if name in hidden and (globals or {}).get("__name__", "").startswith("sentiment"):
        raise ModuleNotFoundError(name)
    return original(name, globals, *rest, **options)

builtins.__import__ = guarded_import
import sentiment
for module in pkgutil.walk_packages(sentiment.__path__, "sentiment."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)

from sentiment.cli.main import main
folder, run = sys.argv[1:]
for command in (
    f"train --data.path={folder} --output_dir={run} --model.embedding_size=4 "
    "--model.hidden_size=4 --training.num_epochs=1 --training.pictures=false",
    f"evaluate {run}",
    f"predict {run} great --device=cpu",
):
    assert main(command.split()) == 0, command
"""


def test_all_modules_and_a_small_run_work_without_posix(tmp_path):
    folder = write_corpus(tmp_path / "data", splits={"train": 40, "validation": 10, "test": 10})
    arguments = [sys.executable, "-c", PROGRAM, str(folder), str(tmp_path / "run")]
    done = subprocess.run(arguments, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert '"predicted"' in done.stdout.splitlines()[-1]
