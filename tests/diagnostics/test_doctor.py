"""Each check of the installation, against an installation that is broken in that way."""

import json
import os
import shutil
import sys
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import joblib
import pytest
import torch
from helpers.corpus import ROOT

from sentiment.cli import main as cli
from sentiment.config.parser import parse_training
from sentiment.data.tokenizer import tokenize
from sentiment.diagnostics import doctor, machine
from sentiment.diagnostics.doctor import (
    check_corpus,
    check_libraries,
    check_python,
    check_recurrence,
    check_tensorboard,
    check_tokenizer,
    check_torch,
    check_training,
)
from sentiment.diagnostics.machine import CheckResult, check_cache_folder, check_folder
from sentiment.environment import VARIABLES
from sentiment.model import PackedLSTM
from sentiment.runtime import device as runtime

GB = 10**9
linux_only = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs Linux")


def assert_failed(result: CheckResult, message: str, advice: str) -> None:
    assert result.status == "fail"
    assert message in result.message
    assert advice in result.advice


def program(path: Path, text: str) -> str:
    """An executable in place of Python's."""
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def test_python_and_libraries_of_these_tests_are_as_required():
    assert check_python() == CheckResult(".".join(map(str, sys.version_info[:3])))
    result = check_libraries()
    assert result.status == "ok"
    assert f"torch {torch.__version__}" in result.message


def change_versions(monkeypatch, **versions: str | None) -> None:
    """Pretend that these versions are installed; None is not installed."""
    real = metadata.version

    def version(name: str) -> str:
        changed = versions.get(name, real(name))
        if changed is None:
            raise metadata.PackageNotFoundError(name)
        return changed

    monkeypatch.setattr(metadata, "version", version)


def test_versions_out_of_range_or_missing(monkeypatch):
    monkeypatch.setattr("platform.python_version", lambda: "3.9.1")
    assert_failed(check_python(), "3.9.1, but <3.14,>=3.10 is required", "virtual environment")
    # Nightly builds are in range, and extras are not needed.
    change_versions(monkeypatch, torch="2.14.0.dev20260101+cu130", hypothesis=None)
    assert check_libraries().status == "ok"
    change_versions(monkeypatch, torch="2.5.1", spacy="4.0.0", captum=None)
    result = check_libraries()
    assert_failed(result, "torch>=2.6: 2.5.1", 'pip install "torch>=2.6" ')
    assert "spacy<4,>=3.7: 4.0.0" in result.message
    assert "captum>=0.7: missing" in result.message
    assert result.message.count(":") == 3, "the others are fine"


def test_package_that_is_not_installed(monkeypatch):
    def missing(name: str) -> None:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "metadata", missing)
    monkeypatch.setattr(metadata, "requires", missing)
    for check in (check_python, check_libraries):
        assert_failed(check(), "not installed", "pip install -e .")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("kill -ILL $$", "SIGILL: the processor lacks an instruction"),
        ("echo a >&2; echo 'OSError: libtorch.so is not there' >&2; exit 1", "OSError: libtorch"),
        ("echo 262143.0", "262143.0"),
        ("exit 3", "exit status 3"),
    ],
)
def test_torch_that_crashes_or_miscounts(tmp_path, monkeypatch, text, found):
    monkeypatch.setattr(sys, "executable", program(tmp_path / "python", text))
    assert_failed(check_torch(), found, "reinstall torch")


def test_gpu_that_torch_does_not_see(tmp_path, monkeypatch):
    driver = tmp_path / "version"
    monkeypatch.setattr(runtime, "find_device", lambda name: torch.device("cpu"))
    assert machine.check_device(driver).status == "ok"
    driver.touch()
    result = machine.check_device(driver)
    assert result.status == "warn"
    assert "NVIDIA driver is installed" in result.message
    assert "pytorch.org" in result.advice


@pytest.mark.parametrize(("free_gb", "status"), [(100, "ok"), (0.5, "fail")])
def test_memory_of_a_gpu(monkeypatch, free_gb, status):
    monkeypatch.setattr(runtime, "find_device", lambda name: torch.device("cuda", 0))
    monkeypatch.setattr(runtime, "describe_device", lambda device: "cuda:0 (some GPU)")
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free_gb * 10**9, 140 * 10**9))
    result = machine.check_device()
    assert result.message == f"cuda:0 (some GPU), {free_gb:.1f} of 140.0 GB free"
    assert result.status == status


@pytest.mark.parametrize(("has_bf16", "status"), [(True, "ok"), (False, "warn")])
def test_precision_of_the_hardware(monkeypatch, has_bf16, status):
    monkeypatch.setattr(runtime, "find_device", lambda name: torch.device("cpu"))
    monkeypatch.setattr(runtime, "_cpu_has_bf16", lambda: has_bf16)
    result = machine.check_precision()
    assert result.status == status and result.message.startswith("bf16" if has_bf16 else "fp32")


@pytest.mark.parametrize(
    ("threads", "given", "status", "advised"),
    [
        (2, None, "ok", ""),
        (1, None, "ok", ""),  # as torch does where a core has two threads
        (2, "2", "ok", ""),
        (1, "1", "warn", "1 allowed cores stay idle: unset the variable"),
        (4, "4", "fail", "more threads than allowed cores (2) take several times"),
    ],
)
def test_threads_against_allowed_cores(monkeypatch, threads, given, status, advised):
    monkeypatch.setattr(joblib, "cpu_count", lambda: 2)
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    monkeypatch.setattr(runtime, "prepare_threads", lambda: None)
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    if given:
        monkeypatch.setenv("OMP_NUM_THREADS", given)
    result = machine.check_cores()
    assert result.message.startswith(f"{threads} thread{'s' * (threads > 1)} on 2 of 64 cores")
    assert ("OMP_NUM_THREADS" in result.message) == bool(given)
    assert result.status == status
    assert advised in result.advice


def test_environment_set_by_hand(monkeypatch):
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)
    assert machine.check_environment().status == "ok"
    monkeypatch.setenv("THP_MEM_ALLOC_ENABLE", "0")
    result = machine.check_environment()
    assert (result.status, result.message) == ("warn", "THP_MEM_ALLOC_ENABLE=0")
    assert "THP_MEM_ALLOC_ENABLE=1" in result.advice
    monkeypatch.setenv("THP_MEM_ALLOC_ENABLE", "1")
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    assert "OMP_WAIT_POLICY=active" in machine.check_environment().message


@linux_only
@pytest.mark.parametrize(
    ("chosen", "advised"),
    [("never", "echo madvise | sudo tee"), ("madvise", "leave THP_MEM_ALLOC_ENABLE at 1")],
)
def test_huge_pages_that_are_not_given(tmp_path, chosen, advised):
    setting, pages = tmp_path / "enabled", tmp_path / "smaps"
    choices = "always madvise never".replace(chosen, f"[{chosen}]")
    setting.write_text(f"{choices}\n")
    pages.write_text("Rss: 4 kB\nAnonHugePages:      2048 kB\n")
    result = machine.check_huge_pages(setting, pages)
    assert result.status == "warn"
    assert result.message == f"0 of 64 MB; the kernel's setting: {chosen}"
    assert advised in result.advice
    assert "unknown on this kernel" in machine.check_huge_pages(tmp_path / "nowhere", pages).message


@linux_only
def test_huge_pages_that_are_given(tmp_path, monkeypatch):
    setting = tmp_path / "enabled"
    setting.write_text("always [madvise] never\n")
    counts = iter([10 << 20, 72 << 20])
    monkeypatch.setattr(machine, "_huge_bytes", lambda pages: next(counts))
    result = machine.check_huge_pages(setting)
    assert result == CheckResult("62 of 64 MB; the kernel's setting: madvise")


@pytest.mark.parametrize(
    ("files", "free"),
    [
        ({}, 8.0),
        ({"memory.max": "max", "memory.current": 5 * GB, "memory.stat": ""}, 8.0),
        ({"memory.max": 4 * GB, "memory.current": 3 * GB, "memory.stat": "anon 1\n"}, 1.0),
        (
            {"memory.max": 4 * GB, "memory.current": 4 * GB,
             "memory.stat": f"file 7\ninactive_file {GB}\n"},
            1.0,
        ),
        (
            {"memory/memory.limit_in_bytes": 2 * GB, "memory/memory.usage_in_bytes": 2 * GB,
             "memory/memory.stat": f"inactive_file 3\ntotal_inactive_file {GB // 2}\n"},
            0.5,
        ),
    ],
)  # fmt: skip
def test_memory_is_the_least_of_what_system_and_container_allow(tmp_path, monkeypatch, files, free):
    system = SimpleNamespace(available=8 * GB)
    monkeypatch.setattr(machine.psutil, "virtual_memory", lambda: system)
    for name, value in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{value}\n")
    assert machine.free_memory_bytes(tmp_path) == pytest.approx(free * GB, abs=1024)


@pytest.mark.parametrize(("free_gb", "status"), [(0.7, "fail"), (2.0, "warn"), (5.0, "ok")])
def test_status_of_memory(monkeypatch, free_gb, status):
    monkeypatch.setattr(machine, "free_memory_bytes", lambda: int(free_gb * GB))
    result = machine.check_memory()
    assert (result.status, result.message) == (status, f"{free_gb:.1f} GB free")


def test_folders_are_left_as_they_were(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "none" / "yet"))
    monkeypatch.chdir(tmp_path)
    cache = tmp_path / "none" / "yet" / "sentiment"
    assert check_cache_folder().message.startswith(f"{cache}, ")
    assert machine.check_current_folder().message.startswith(f"{tmp_path}, ")
    assert list(tmp_path.iterdir()) == []


def test_folder_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert_failed(check_cache_folder(), "can't be written (Not a directory)", "--data.cache_dir")
    refused = Path("/proc/self")  # even root cannot write there
    if refused.is_dir():
        result = check_folder(refused, recommended_bytes=1, need="", alternative="go elsewhere")
        assert_failed(result, "/proc/self: can't be written", "go elsewhere")


@pytest.mark.parametrize(("free_gb", "status"), [(0.05, "fail"), (0.5, "warn"), (1.5, "ok")])
def test_folder_without_room(tmp_path, monkeypatch, free_gb, status):
    usage = SimpleNamespace(free=int(free_gb * GB))
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda path: usage)
    monkeypatch.chdir(tmp_path)
    result = machine.check_current_folder()
    assert result.status == status
    assert ("make room" in result.advice) == (status != "ok")


def test_tokenizer_that_cuts_otherwise(monkeypatch):
    assert check_tokenizer().status == "ok"

    def broken(texts, **_):
        return tokenize([text.replace("n't", " not") for text in texts])

    monkeypatch.setattr("sentiment.data.tokenizer.tokenize", broken)
    assert_failed(check_tokenizer(), "is not dr. strange", '"spacy>=3.7,<4"')


def test_tensorboard_that_reads_something_else_or_cannot_be_imported(monkeypatch):
    from torch.utils.tensorboard import SummaryWriter

    assert check_tensorboard().status == "ok"
    write = SummaryWriter.add_scalar
    monkeypatch.setattr(
        SummaryWriter, "add_scalar", lambda self, tag, value, step: write(self, tag, 2.0, step)
    )
    assert_failed(check_tensorboard(), "wrote 0.5 and read [2.0]", "pip install --upgrade")
    monkeypatch.setitem(sys.modules, "tensorboard.main", None)
    assert_failed(check_tensorboard(), "can't be imported", "pip install --upgrade")


def test_corpus_that_is_missing_or_cut_short(tmp_path, monkeypatch):
    assert check_corpus() == CheckResult("4,000 + 500 + 1,000 reviews")
    monkeypatch.setattr("sentiment.readers.sources._MINI_FOLDER", tmp_path / "mini")
    assert_failed(check_corpus(), "can't be read", "reinstall the package")
    shutil.copytree(ROOT / "src" / "sentiment" / "data" / "mini", tmp_path / "mini")
    lines = (tmp_path / "mini" / "test.csv").read_text(encoding="utf-8").splitlines()
    (tmp_path / "mini" / "test.csv").write_text("\n".join(lines[:101]), encoding="utf-8")
    assert_failed(check_corpus(), "4,000 + 500 + 100 reviews", "data/mini/generate.py")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda output: output + 1e-5, "differs from nn.LSTM by 1e-05"),
        (lambda output: output * float("nan"), "differs from nn.LSTM by nan"),
        (  # correct outputs, gradients a hundredth too large
            lambda output: output.detach() + 1.01 * (output - output.detach()),
            "gradients by 0.0",
        ),
        (  # wrong in bf16 alone
            lambda output: output + 0.2 * torch.is_autocast_enabled("cpu"),
            "bfloat16 differs from fp32 by 0.2",
        ),
    ],
)
def test_recurrence_that_differs(monkeypatch, change, message):
    forward = PackedLSTM.forward

    def changed(self, x, lengths, initial=None):
        output, states = forward(self, x, lengths, initial)
        return change(output), states

    monkeypatch.setattr(PackedLSTM, "forward", changed)
    monkeypatch.setattr(runtime, "find_precision", lambda name, device: torch.bfloat16)
    monkeypatch.setattr(runtime, "find_device", lambda name: torch.device("cpu"))
    assert_failed(check_recurrence(), message, "--model.implementation reference")


def test_recurrence_whose_reference_differs(monkeypatch):
    sigmoid = torch.Tensor.sigmoid
    monkeypatch.setattr(torch.Tensor, "sigmoid", lambda self: sigmoid(self) * 0.999)
    assert_failed(check_recurrence(), "from the equations by", "another version of torch")


def test_recurrence_is_exact_here_and_leaves_random_numbers_alone():
    state = torch.get_rng_state()
    result = check_recurrence()
    assert result.status == "ok"
    assert "equals nn.LSTM and the equations within " in result.message
    assert torch.equal(torch.get_rng_state(), state)


def test_settings_of_the_training_are_valid():
    config = parse_training(doctor._SETTINGS, "test")[0]
    assert config.training.num_epochs == 1
    assert config.data.source == "mini"


@pytest.mark.parametrize(
    ("loss", "accuracy", "seconds", "status"),
    [
        (0.4, 0.85, 7, "ok"),
        (0.4, 0.85, 40, "warn"),
        (0.69, 0.52, 7, "fail"),
        (float("nan"), 0.85, 7, "fail"),
        (0.4, float("nan"), 7, "fail"),
    ],
)
def test_status_of_a_training(loss, accuracy, seconds, status):
    assert doctor.judge_training(loss, accuracy, seconds).status == status


def test_training_that_fails(tmp_path, monkeypatch):
    text = "echo 'error: no space left' >&2; exit 1"
    monkeypatch.setattr(sys, "executable", program(tmp_path / "python", text))
    assert_failed(check_training(), "failed: no space left", "make train")


def test_training_without_end(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", program(tmp_path / "python", "exec sleep 20"))
    monkeypatch.setattr(doctor, "_MAX_SECONDS", 0.2)
    started = time.monotonic()
    assert_failed(check_training(), "not finished after 0 s", "what else is running")
    assert time.monotonic() - started < 5


def check_with(status: str) -> Callable[[], CheckResult]:
    return lambda: CheckResult("something", status, "do this" if status != "ok" else "")


def broken_check() -> CheckResult:
    raise RuntimeError("what\nnobody expected")


@pytest.fixture
def replace_checks(monkeypatch):
    """Replaces all checks by three with chosen results."""

    def choose(first: str, torch_check: str, last: Callable[[], CheckResult]) -> None:
        monkeypatch.setattr(doctor, "WITHOUT_TORCH", {"first": check_with(first)})
        monkeypatch.setattr(doctor, "check_torch", check_with(torch_check))
        monkeypatch.setattr(doctor, "WITH_TORCH", {"last": last})

    return choose


@pytest.mark.parametrize(
    ("first", "torch_check", "names"),
    [("ok", "fail", ["first", "torch"]), ("fail", "ok", ["first", "torch", "last"])],
)
def test_checks_that_need_torch_are_skipped_without_it(replace_checks, first, torch_check, names):
    replace_checks(first, torch_check, check_with("ok"))
    assert [name for name, _ in doctor.run_checks()] == names


def test_exit_status_and_table(replace_checks, capsys):
    replace_checks("ok", "ok", check_with("warn"))
    assert cli.main(["doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "first           something" + " " * 51 + "ok"
    assert lines[2].endswith("warn")
    assert lines[4] == "warn  last: do this"
    assert lines[-1].startswith("3 checks passed in ")
    replace_checks("warn", "ok", broken_check)
    assert cli.main(["doctor"]) == 1
    output, errors = capsys.readouterr()
    assert errors == "error: 1 of 3 checks failed\n"
    assert "RuntimeError: what" in output
    assert output.index("fail  last: ") < output.index("warn  first: ")
    assert "passed" not in output


@pytest.mark.parametrize(("last", "exit_status"), [("ok", 0), ("warn", 0), ("fail", 1)])
def test_json(replace_checks, capsys, last, exit_status):
    replace_checks("ok", "ok", check_with(last))
    assert cli.main(["doctor", "--json"]) == exit_status
    values = json.loads(capsys.readouterr().out)
    assert values["is_sound"] == (exit_status == 0)
    assert [check["name"] for check in values["checks"]] == ["first", "torch", "last"]
    advice = "" if last == "ok" else "do this"
    expected = {"name": "last", "message": "something", "status": last, "advice": advice}
    assert values["checks"][2] == expected


def test_everything_fits_80_columns():
    result = CheckResult("/a/very" * 30 + " and\nwords " * 9, "warn", "choose another " * 20)
    table = doctor.format_result("current folder", result)
    assert max(map(len, table.splitlines())) <= 80
    assert table.splitlines()[0].endswith(" warn")
    words = "".join(table.replace("warn", "").split())
    assert words == "currentfolder" + "/a/very" * 30 + "and␊words" * 9
    lines = doctor.format_advice({"x": result, "y": CheckResult("fine")}).splitlines()
    assert max(map(len, lines)) <= 80
    assert all(line.startswith("      ") for line in lines[1:])
