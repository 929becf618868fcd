"""Each check of the installation against one that is broken in just that way."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import textwrap
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
from sentiment.diagnostics import doctor as examination
from sentiment.diagnostics import installation as trial
from sentiment.diagnostics import machine
from sentiment.diagnostics import machine as storage
from sentiment.diagnostics.doctor import advice, as_json, examine, row
from sentiment.diagnostics.installation import (
    check_corpus,
    check_libraries,
    check_python,
    check_recurrence,
    check_tensorboard,
    check_tokenizer,
    check_torch,
)
from sentiment.diagnostics.machine import (
    CheckResult,
    check_cache_folder,
    check_current_folder,
    check_folder,
)
from sentiment.model import PackedLSTM
from sentiment.runtime import device as runtime
from sentiment.runtime.environment import VARIABLES


def assert_mend(finding: CheckResult, found: str, advised: str) -> None:
    assert finding.verdict == "mend"
    assert found in finding.found
    assert advised in finding.advice


def program(path: Path, text: str) -> str:
    """An executable to stand in for Python's."""
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


# --- versions


def test_python_and_libraries_of_these_tests_are_as_required():
    assert check_python() == CheckResult(".".join(map(str, sys.version_info[:3])))
    finding = check_libraries()
    assert finding.verdict == "ok"
    assert f"torch {torch.__version__}" in finding.found


def test_python_too_old(monkeypatch):
    monkeypatch.setattr("platform.python_version", lambda: "3.9.1")
    assert_mend(check_python(), "3.9.1, but <3.14,>=3.10 is needed", "virtual environment")


def change_versions(monkeypatch, **versions: str | None) -> None:
    """Make installed versions look otherwise; None is not installed."""
    real = metadata.version

    def version(name: str) -> str:
        changed = versions.get(name, real(name))
        if changed is None:
            raise metadata.PackageNotFoundError(name)
        return changed

    monkeypatch.setattr(metadata, "version", version)


def test_libraries_out_of_range_or_missing(monkeypatch):
    change_versions(monkeypatch, torch="2.5.1", spacy="4.0.0", captum=None)
    finding = check_libraries()
    assert_mend(finding, "torch>=2.6: 2.5.1", 'pip install "torch>=2.6" ')
    assert "spacy<4,>=3.7: 4.0.0" in finding.found
    assert "captum>=0.7: missing" in finding.found
    assert finding.found.count(":") == 3, "the others are as they should be"


def test_builds_and_versions_to_come_are_in_range_and_extras_not_needed(monkeypatch):
    change_versions(monkeypatch, torch="2.14.0.dev20260101+cu130", hypothesis=None)
    assert check_libraries().verdict == "ok"


def test_package_that_is_not_installed(monkeypatch):
    def missing(name: str) -> None:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "metadata", missing)
    monkeypatch.setattr(metadata, "requires", missing)
    for check in (check_python, check_libraries):
        assert_mend(check(), "not installed", "pip install -e .")


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
    assert_mend(check_torch(), found, "install torch anew")


# --- machine


def test_gpu_that_torch_does_not_see(tmp_path, monkeypatch):
    driver = tmp_path / "version"
    monkeypatch.setattr(runtime, "find_device", lambda name: torch.device("cpu"))
    assert machine.check_device(driver).verdict == "ok"
    driver.touch()
    finding = machine.check_device(driver)
    assert finding.verdict == "note"
    assert "NVIDIA driver is there" in finding.found
    assert "pytorch.org" in finding.advice


@pytest.mark.parametrize(("free_gb", "verdict"), [(100, "ok"), (0.5, "mend")])
def test_memory_of_a_gpu(monkeypatch, free_gb, verdict):
    monkeypatch.setattr(runtime, "find_device", lambda name: torch.device("cuda", 0))
    monkeypatch.setattr(runtime, "describe_device", lambda device: "cuda:0 (some GPU)")
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free_gb * 10**9, 140 * 10**9))
    finding = machine.check_device()
    assert finding.found == f"cuda:0 (some GPU), {free_gb:.1f} of 140.0 GB free"
    assert finding.verdict == verdict


@pytest.mark.parametrize(("has_bf16", "verdict"), [(True, "ok"), (False, "note")])
def test_precision_of_the_hardware(monkeypatch, has_bf16, verdict):
    monkeypatch.setattr(runtime, "find_device", lambda name: torch.device("cpu"))
    monkeypatch.setattr(runtime, "_cpu_has_bf16", lambda: has_bf16)
    finding = machine.check_precision()
    assert (finding.verdict, finding.found[:4].strip(":")) == (
        verdict,
        "bf16" if has_bf16 else "fp32",
    )


@pytest.mark.parametrize(
    ("threads", "given", "verdict", "advised"),
    [
        (2, None, "ok", ""),
        (1, None, "ok", ""),  # as torch does where a core has two threads
        (2, "2", "ok", ""),
        (1, "1", "note", "1 allowed cores stay idle: unset it"),
        (4, "4", "mend", "threads beyond the 2 allowed cores wait for each other"),
    ],
)
def test_threads_against_allowed_cores(monkeypatch, threads, given, verdict, advised):
    monkeypatch.setattr(joblib, "cpu_count", lambda: 2)
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    monkeypatch.setattr(runtime, "prepare_threads", lambda: None)
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    if given:
        monkeypatch.setenv("OMP_NUM_THREADS", given)
    finding = machine.check_cores()
    assert finding.found.startswith(f"{threads} thread{'s' * (threads > 1)} on 2 of 64 cores")
    assert ("OMP_NUM_THREADS" in finding.found) == bool(given)
    assert finding.verdict == verdict
    assert advised in finding.advice


def test_environment_set_by_hand(monkeypatch):
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)
    assert machine.check_environment().verdict == "ok"
    monkeypatch.setenv("THP_MEM_ALLOC_ENABLE", "0")
    finding = machine.check_environment()
    assert (finding.verdict, finding.found) == ("note", "THP_MEM_ALLOC_ENABLE=0")
    assert "THP_MEM_ALLOC_ENABLE=1" in finding.advice
    monkeypatch.setenv("THP_MEM_ALLOC_ENABLE", "1")
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    assert "OMP_WAIT_POLICY=active" in machine.check_environment().found


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="of Linux's kernel")
@pytest.mark.parametrize(
    ("chosen", "advised"),
    [("never", "echo madvise | sudo tee"), ("madvise", "leave THP_MEM_ALLOC_ENABLE at 1")],
)
def test_huge_pages_that_are_not_given(tmp_path, chosen, advised):
    setting, pages = tmp_path / "enabled", tmp_path / "smaps"
    choices = "always madvise never".replace(chosen, f"[{chosen}]")
    setting.write_text(f"{choices}\n")
    pages.write_text("Rss: 4 kB\nAnonHugePages:      2048 kB\n")
    finding = machine.check_huge_pages(setting, pages)
    assert finding.verdict == "note"
    assert finding.found == f"0 of 64 MB asked for; the kernel's setting: {chosen}"
    assert advised in finding.advice
    assert "does not tell" in machine.check_huge_pages(tmp_path / "nowhere", pages).found


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="of Linux's kernel")
def test_huge_pages_that_are_given(tmp_path, monkeypatch):
    setting = tmp_path / "enabled"
    setting.write_text("always [madvise] never\n")
    counts = iter([10 << 20, 72 << 20])
    monkeypatch.setattr(machine, "_huge_bytes", lambda pages: next(counts))
    finding = machine.check_huge_pages(setting)
    assert finding == CheckResult("62 of 64 MB asked for; the kernel's setting: madvise")


GB = 10**9


@pytest.mark.parametrize(
    ("files", "free"),
    [
        ({}, 8.0),
        ({"memory.max": "max", "memory.current": 5 * GB, "memory.stat": ""}, 8.0),
        ({"memory.max": 4 * GB, "memory.current": 3 * GB, "memory.stat": "anon 1\n"}, 1.0),
        (
            {
                "memory.max": 4 * GB,
                "memory.current": 4 * GB,
                "memory.stat": f"file 7\ninactive_file {GB}\n",
            },
            1.0,
        ),
        (
            {
                "memory/memory.limit_in_bytes": 2 * GB,
                "memory/memory.usage_in_bytes": 2 * GB,
                "memory/memory.stat": f"inactive_file 3\ntotal_inactive_file {GB // 2}\n",
            },
            0.5,
        ),
    ],
)
def test_memory_is_the_least_of_what_system_and_container_allow(tmp_path, files, free):
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc" / "meminfo").write_text(
        f"MemFree: 1 kB\nMemAvailable: {8 * GB // 1024} kB\n"
    )
    for name, value in files.items():
        path = tmp_path / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{value}\n")
    assert machine.free_memory_bytes(tmp_path) == pytest.approx(free * GB, abs=1024)


@pytest.mark.parametrize(("free_gb", "verdict"), [(0.7, "mend"), (2.0, "note"), (3.0, "ok")])
def test_verdict_on_memory(monkeypatch, free_gb, verdict):
    monkeypatch.setattr(machine, "free_memory_bytes", lambda root: int(free_gb * GB))
    finding = machine.check_memory()
    assert (finding.verdict, finding.found) == (verdict, f"{free_gb:.1f} GB free")


# --- folders


def test_folders_are_left_as_they_were(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "none" / "yet"))
    monkeypatch.chdir(tmp_path)
    for check, folder in (
        (check_cache_folder, tmp_path / "none" / "yet" / "sentiment"),
        (check_current_folder, tmp_path),
    ):
        assert check().found.startswith(f"{folder}, ")
    assert list(tmp_path.iterdir()) == []


def test_folder_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert_mend(check_cache_folder(), "can't be written (Not a directory)", "--data.cache_dir")
    refused = Path("/proc/self")  # where root cannot write either
    if refused.is_dir():
        finding = check_folder(refused, enough_bytes=1, purpose="it", otherwise="go elsewhere")
        assert_mend(finding, "/proc/self: can't be written", "go elsewhere")


@pytest.mark.parametrize(("free_gb", "verdict"), [(0.05, "mend"), (0.5, "note"), (1.5, "ok")])
def test_folder_without_room(tmp_path, monkeypatch, free_gb, verdict):
    monkeypatch.setattr(
        storage.shutil, "disk_usage", lambda path: SimpleNamespace(free=int(free_gb * GB))
    )
    monkeypatch.chdir(tmp_path)
    finding = check_current_folder()
    assert finding.verdict == verdict
    assert ("make room" in finding.advice) == (verdict != "ok")


# --- libraries at work


def test_tokenizer_that_cuts_otherwise(monkeypatch):
    assert check_tokenizer().verdict == "ok"
    broken: Callable = lambda texts, **_: tokenize([text.replace("n't", " not") for text in texts])  # noqa: E731
    monkeypatch.setattr("sentiment.data.tokenizer.tokenize", broken)
    assert_mend(check_tokenizer(), "is not dr. strange", '"spacy>=3.7,<4"')


def test_tensorboard_that_cannot_be_imported(monkeypatch):
    assert check_tensorboard().verdict == "ok"
    monkeypatch.setitem(sys.modules, "tensorboard.main", None)
    assert_mend(check_tensorboard(), "can't be imported", "pip install --upgrade")


def test_tensorboard_that_reads_something_else(monkeypatch):
    from torch.utils.tensorboard import SummaryWriter

    write = SummaryWriter.add_scalar
    monkeypatch.setattr(
        SummaryWriter, "add_scalar", lambda self, tag, value, step: write(self, tag, 2.0, step)
    )
    assert_mend(check_tensorboard(), "wrote 0.5 and read [2.0]", "pip install --upgrade")


def test_corpus_that_is_missing_or_cut_short(tmp_path, monkeypatch):
    assert check_corpus() == CheckResult("4,000 + 500 + 1,000 reviews")
    monkeypatch.setattr("sentiment.data.sources._MINI_FOLDER", tmp_path / "mini")
    assert_mend(check_corpus(), "can't be read", "pip install -e from a checkout")
    shutil.copytree(ROOT / "src" / "sentiment" / "data" / "mini", tmp_path / "mini")
    lines = (tmp_path / "mini" / "test.csv").read_text(encoding="utf-8").splitlines()
    (tmp_path / "mini" / "test.csv").write_text("\n".join(lines[:101]), encoding="utf-8")
    assert_mend(check_corpus(), "4,000 + 500 + 100 reviews", "data/mini/generate.py")


# --- the recurrence


def break_lstm(monkeypatch, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
    right = PackedLSTM.forward

    def forward(self, x, lengths, initial=None):
        output, states = right(self, x, lengths, initial)
        return change(output), states

    monkeypatch.setattr(PackedLSTM, "forward", forward)


def test_recurrence_is_exact_here():
    finding = check_recurrence()
    assert finding.verdict == "ok"
    assert "equals nn.LSTM and the equations within " in finding.found


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda output: output + 1e-5, "is 1e-05 off nn.LSTM"),
        (lambda output: output * float("nan"), "is nan off nn.LSTM"),
        (  # outputs as they should be, gradients a hundredth too large
            lambda output: output.detach() + 1.01 * (output - output.detach()),
            "its gradients 0.0",
        ),
    ],
)
def test_recurrence_that_differs(monkeypatch, change, found):
    break_lstm(monkeypatch, change)
    assert_mend(check_recurrence(), found, "--model.implementation reference")


def test_recurrence_whose_reference_differs(monkeypatch):
    right = torch.Tensor.sigmoid
    monkeypatch.setattr(torch.Tensor, "sigmoid", lambda self: right(self) * 0.999)
    assert_mend(check_recurrence(), "off the equations", "another version of torch")


def test_recurrence_that_is_wrong_in_bf16_alone(monkeypatch):
    monkeypatch.setattr(runtime, "find_precision", lambda name, device: torch.bfloat16)
    break_lstm(
        monkeypatch,
        lambda output: output + 0.2 if torch.is_autocast_enabled("cpu") else output,
    )
    monkeypatch.setattr(runtime, "find_device", lambda name: torch.device("cpu"))
    assert_mend(check_recurrence(), "is 0.2 off its fp32 in bfloat16", "another version of torch")


def test_recurrence_leaves_random_numbers_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    check_recurrence()
    assert torch.equal(torch.rand(3), expected)


# --- the trial


def test_settings_of_the_trial_are_known():
    config = parse_training(trial._SETTINGS, "test")[0]
    assert config.training.num_epochs == 1
    assert config.data.source == "mini"


@pytest.mark.parametrize(
    ("loss", "accuracy", "seconds", "verdict"),
    [
        (0.4, 0.85, 7, "ok"),
        (0.4, 0.85, 40, "note"),
        (0.69, 0.52, 7, "mend"),
        (float("nan"), 0.85, 7, "mend"),
        (0.4, float("nan"), 7, "mend"),
    ],
)
def test_verdict_on_a_training(loss, accuracy, seconds, verdict):
    assert trial.judge(loss, accuracy, seconds).verdict == verdict


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("kill -ILL $$", "failed: SIGILL: the processor lacks an instruction"),
        ("kill -KILL $$", "failed: SIGKILL: killed, as a system does that is out of memory"),
        ("echo 'error: no space left' >&2; exit 1", "failed: error: no space left"),
    ],
)
def test_training_that_fails(tmp_path, monkeypatch, text, found):
    monkeypatch.setattr(sys, "executable", program(tmp_path / "python", text))
    assert_mend(trial.check_training(), found, "make train")


def test_training_without_end(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", program(tmp_path / "python", "exec sleep 20"))
    monkeypatch.setattr(trial, "_MOST_SECONDS", 0.2)
    started = time.monotonic()
    assert_mend(trial.check_training(), "not done after 0 s", "what else computes here")
    assert time.monotonic() - started < 5


# --- all of it


def of(verdict: str) -> Callable[[], CheckResult]:
    return lambda: CheckResult("something", verdict, "do this" if verdict != "ok" else "")


def broken() -> CheckResult:
    raise RuntimeError("what\nnobody expected")


@pytest.fixture
def few_checks(monkeypatch):
    """Checks to choose verdicts for, in place of the real ones."""

    def choose(first: str, torch_check: str, last: Callable[[], CheckResult]) -> None:
        monkeypatch.setattr(examination, "FIRST", {"first": of(first)})
        monkeypatch.setattr(examination, "check_torch", of(torch_check))
        monkeypatch.setattr(examination, "WITH_TORCH", {"last": last})

    return choose


def test_what_needs_torch_is_not_examined_where_it_crashes(few_checks):
    few_checks("ok", "mend", of("ok"))
    assert [name for name, _ in examine()] == ["first", "torch"]
    few_checks("mend", "ok", of("ok"))
    assert [name for name, _ in examine()] == ["first", "torch", "last"]


def test_a_check_that_fails_is_a_finding(few_checks):
    few_checks("ok", "ok", broken)
    assert_mend(dict(examine())["last"], "RuntimeError: what", "--json")


def test_exit_status_and_table(few_checks, capsys):
    few_checks("ok", "ok", of("note"))
    assert cli.main(["doctor"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "first           something" + " " * 51 + "ok"
    assert printed[2].endswith("note")
    assert printed[4] == "note  last: do this"
    assert printed[-1].startswith("sound: 3 checks in ")
    few_checks("note", "ok", broken)
    assert cli.main(["doctor"]) == 1
    captured = capsys.readouterr()
    assert captured.err == "error: 1 of 3 checks found what must be mended\n"
    assert captured.out.index("mend  last: ") < captured.out.index("note  first: ")
    assert "sound" not in captured.out


@pytest.mark.parametrize(("last", "status"), [("ok", 0), ("note", 0), ("mend", 1)])
def test_json_says_the_same(few_checks, capsys, last, status):
    few_checks("ok", "ok", of(last))
    assert cli.main(["doctor", "--json"]) == status
    said = json.loads(capsys.readouterr().out)
    assert said["is_sound"] == (status == 0)
    assert [each["name"] for each in said["checks"]] == ["first", "torch", "last"]
    advised = "" if last == "ok" else "do this"
    assert said["checks"][2] == {
        "name": "last",
        "found": "something",
        "verdict": last,
        "advice": advised,
    }


def test_everything_fits_80_columns():
    finding = CheckResult("/a/very" * 30 + " and\nwords " * 9, "note", "choose another " * 20)
    table = row("current folder", finding)
    assert max(map(len, table.splitlines())) <= 80
    assert table.splitlines()[0].endswith(" note")
    words = "".join(table.replace("note", "").split())
    assert words == "currentfolder" + "/a/very" * 30 + "and␊words" * 9
    lines = advice({"x": finding, "y": CheckResult("fine")}).splitlines()
    assert max(map(len, lines)) <= 80
    assert all(line.startswith("      ") for line in lines[1:])
    assert json.loads(as_json({"x": finding}))["checks"][0]["found"] == finding.found


def test_mistyped_option_is_one_line(capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(["doctor", "--jsno"])
    assert stopped.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_help_answers_at_once():
    code = textwrap.dedent(
        """
        import sys, sentiment.cli.main
        try:
            sentiment.cli.main.main(["doctor", "--help"])
        finally:
            print([name for name in ("torch", "numpy", "spacy") if name in sys.modules])
        """
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("[]\n")


@pytest.mark.long
def test_this_installation_is_sound(tmp_path):
    command = "import sys; from sentiment.cli.main import main; sys.exit(main(sys.argv[1:]))"
    done = subprocess.run(
        [sys.executable, "-c", command, "doctor", "--json"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    checks = {each["name"]: each for each in json.loads(done.stdout)["checks"]}
    assert list(checks) == [*examination.FIRST, "torch", *examination.WITH_TORCH]
    assert "of validation right" in checks["training"]["found"]
    assert list(tmp_path.iterdir()) == []
