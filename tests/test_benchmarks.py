"""The arithmetic of the benchmarks, their tables, the speed that README promises, and gpu.sh."""

import gzip
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from helpers.corpus import ROOT
from torch import nn
from torch.autograd import DeviceType
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from benchmarks.gpu import run, trainings
from benchmarks.gpu.kit import PACKAGES, pack_reviews, pack_vectors
from benchmarks.gpu.options import Options
from benchmarks.gpu.speed import _busy_seconds
from benchmarks.kernels import parse_kernels
from benchmarks.machine import Processor, parse_processor, results_name
from benchmarks.measure import faster, in_turns
from benchmarks.publish import PAGES, load_results, machines_side_by_side, one_table_a_machine
from benchmarks.step import Shape
from sentiment.config.parser import load_config, parse_training
from sentiment.model import PackedLSTM
from studies import fill


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages_hold_the_figures_of_the_results_files(page):
    text = page.read_text(encoding="utf-8")
    assert fill(text, PAGES[page](load_results())) == text, "run python -m benchmarks.publish"


def test_machines_are_shown_side_by_side():
    """The published results, and a second machine with one row less and a goal missed."""
    old = load_results()[0]
    changed = [
        {**row, "ratio": 9.0, "low": 8.0, "kernel": "ref"} if row["goal"] == 60 else row
        for row in old["rows"][1:]
    ]
    processor = {"name": "AMD EPYC", "family": 25, "model": 1, "flags": ["avx2"]}
    new = {**old, "date": "2030-01-01", "processor": processor, "rows": changed}
    lines = machines_side_by_side([old, new]).splitlines()
    (heading,) = [line for line in lines if line.startswith("| comparison")]
    assert heading.endswith(
        f"2 threads, {old['date']} | AMD EPYC (family 25, model 1), 2 threads, 2030-01-01 | goal |"
    )
    (single,) = [
        line for line in lines if "fp32 in the default environment" in line and line[-5:] == " 30 |"
    ]
    assert "| – | 30 |" in single
    (missed,) = [line for line in lines if "(goal 60 missed)" in line]
    assert "| 9 (goal 60 missed) | 60 |" in missed
    assert {line.count("|") for line in lines if "|" in line} == {5}


def test_a_ratio_is_of_medians_and_its_range_of_rounds():
    row = faster("section", "name", [4.0, 6.0, 5.0], [1.0, 3.0, 2.0], goal=2)
    assert (row.ratio, row.low, row.high) == (2.5, 2.0, 4.0)
    assert faster("section", "name", [6.0], [1.0, 3.0, 2.0]).ratio == 3.0


def test_contestants_take_turns():
    calls: list[str] = []
    contestants = {name: lambda name=name: calls.append(name) or float(len(calls)) for name in "ab"}
    seconds = in_turns(contestants, 2, warm_up=1)
    assert calls == list("ababab")
    assert seconds == {"a": [3.0, 5.0], "b": [4.0, 6.0]}


def test_the_products_of_a_step_are_those_of_the_equations():
    """Forward W x and U h; backward takes twice as many operations."""
    shape = Shape(batch=3, time=7, input=5, hidden=4, layers=2, directions=2)
    forward = 2 * 2 * 3 * 7 * 16 * ((5 + 4) + (8 + 4))
    assert sum(2 * times * m * k * n for times, m, k, n in shape.products()) == 3 * forward


VERBOSE = """\
onednn_verbose,v1,info,cpu,runtime:OpenMP,nthr:1
onednn_verbose,v1,primitive,exec,cpu,rnn,tried,forward_training,src:f32,,,l1t1mb2sic2slc2dhc2dic2,1
onednn_verbose,v1,primitive,exec,cpu,rnn,brgemm:avx2,forward_training,src:f32,,,t9dhc16dic16,1
onednn_verbose,v1,primitive,exec,cpu,rnn,ref,forward_training,src:f32,,,t9dhc16dic16,0.1
onednn_verbose,v1,primitive,exec,cpu,reorder,jit:uni,undef,src_f32,,,4x4,0.01
onednn_verbose,v1,primitive,exec,cpu,rnn,ref,backward,src:f32,,,t9dhc16dic16,0.1
onednn_verbose,exec,cpu,rnn,ref,forward_inference,src:f32,,,t9dhc16dic16,0.1
"""


def test_kernels_are_parsed_from_the_lines_of_the_recurrence():
    assert parse_kernels(VERBOSE, 16) == {
        "forward_training": "brgemm:avx2 and ref",
        "backward": "ref",
        "forward_inference": "ref",
    }
    assert parse_kernels("", 16) == {}


def test_processors_have_files_of_their_own_by_family_and_model():
    first = (
        "cpu family\t: 25\nmodel\t\t: 17\nmodel name\t: AMD EPYC\nflags\t\t: fpu avx2 avx512_bf16\n"
    )
    found = parse_processor(f"processor\t: 0\n{first}\nprocessor\t: 1\nmodel name\t: another\n")
    assert found == Processor("AMD EPYC", 25, 17, ("avx2", "avx512_bf16"))
    assert parse_processor("").flags == ()
    assert results_name(found, 2) == "amd-epyc-family-25-model-17-2-cores.json"
    assert results_name(Processor("AMD EPYC 7763 64-Core Processor", 25, 1), 1) == (
        "amd-epyc-7763-1-core.json"
    )


def median_seconds(function: Callable[[], object], rounds: int) -> float:
    function()
    seconds = []
    for _ in range(rounds):
        started = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


@pytest.mark.long
def test_the_recurrence_is_many_times_faster_than_the_packed_sequence(set_threads):
    """One training step of a batch of 64 reviews of up to 230 words, bidirectional 256."""
    set_threads(2)  # as in README's figures
    torch.manual_seed(0)
    lengths = torch.randint(207, 231, (64,)).sort(descending=True).values
    x = torch.randn(64, int(lengths[0]), 100, requires_grad=True)
    theirs = nn.LSTM(100, 256, batch_first=True, bidirectional=True)
    ours = PackedLSTM(100, 256, bidirectional=True)

    def packed() -> None:
        sequence = pack_padded_sequence(x, lengths, batch_first=True)
        pad_packed_sequence(theirs(sequence)[0], batch_first=True)[0].sum().backward()

    def exact() -> None:
        ours(x, lengths)[0].float().sum().backward()

    slow = median_seconds(packed, 1)
    assert slow / median_seconds(exact, 5) >= 15
    with torch.autocast("cpu", torch.bfloat16):
        assert slow / median_seconds(exact, 5) >= 25


TEXTS = ["It isn't a <br />bad film, Mr. Roy!", "A\tfilm&nbsp;of  warmth."]


def test_the_kit_holds_tokens_and_the_vectors_of_their_words(tmp_path):
    table = pa.table({"text": TEXTS, "label": [0, 1]})
    tokenized = pack_reviews(table, tmp_path / "train.parquet")
    packed = pq.read_table(tmp_path / "train.parquet")
    words = [tokenized.words(index) for index in range(2)]
    assert "n't" in words[0] and "Mr." in words[0]
    assert [text.split(" ") for text in packed.column("text").to_pylist()] == words
    assert packed.column("label").to_pylist() == [0, 1]

    values = " ".join(["0.123456"] * 300)
    source = tmp_path / "vectors.txt"
    source.write_text(f"film {values}\nunheard {values}\n", encoding="utf-8")
    pack_vectors(source, tokenized, tmp_path / "vectors.txt.gz")
    packed_vectors = gzip.decompress((tmp_path / "vectors.txt.gz").read_bytes()).decode()
    assert packed_vectors == f"film{300 * ' 0.123'}\n"


def test_without_spacy_the_kit_is_read_as_the_same_tokens(tmp_path):
    tokenized = pack_reviews(pa.table({"text": TEXTS}), tmp_path / "packed.parquet")
    program = (
        "import sys, pyarrow.parquet as pq\n"
        "from sentiment.data.tokenizer import cache_key, tokenize\n"
        "texts = pq.read_table(sys.argv[1]).column('text').to_pylist()\n"
        "cache_key(texts, lower_case=True)\n"
        "tokens = tokenize(texts, language='xx', num_processes=1)\n"
        "print([tokens.words(index) for index in range(len(tokens))])"
    )
    paths = [ROOT / "benchmarks" / "gpu" / "stand_in", ROOT / "src"]
    command = [sys.executable, "-c", program, str(tmp_path / "packed.parquet")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, paths))}
    found = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    words = [[word.lower() for word in tokenized.words(index)] for index in range(2)]
    assert found.stdout.strip() == str(words)


def test_with_the_kit_the_recipe_is_trained_as_it_is(tmp_path, monkeypatch):
    given: list[str] = []

    class StoppedError(Exception):
        pass

    def stop(command: str, *arguments: str, is_checked: bool) -> str:
        given.extend(arguments)
        raise StoppedError

    monkeypatch.setattr(trainings, "_run", stop)
    with pytest.raises(StoppedError):
        trainings.imdb(Options(device="cpu", is_dry=False, kit="kit", work=str(tmp_path)))
    config = parse_training(given, "train").config
    recipe = load_config(ROOT / "configs" / "imdb.yaml")
    assert (config.training, config.vocabulary) == (recipe.training, recipe.vocabulary)


def test_the_packages_of_the_kit_are_locked():
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    assert {line.split("==")[0] for line in lock} >= set(PACKAGES)


def test_a_step_that_hangs_is_stopped(tmp_path):
    with (tmp_path / "log.txt").open("w") as log:
        hanging = ["timeit", "-n1", "-r1", "import subprocess; subprocess.run(['sleep', '99'])"]
        assert run._call(hanging, 0.5, dict(os.environ), log) is None
        assert run._call(["timeit", "-n1", "-r1", "pass"], 60, dict(os.environ), log) == 0


def test_results_are_written_after_each_step_whatever_became_of_it(tmp_path, monkeypatch, capsys):
    row = {"name": "speed", "value": "2 s", "ratio": 0.5, "goal": 1.0}
    seen = []

    def call(module: list[str], *_: object) -> int | None:
        name, result = module[1], Path(module[3])
        if (tmp_path / "results.json").exists():
            seen.append(len(json.loads((tmp_path / "results.json").read_text())["steps"]))
        if name == "good":
            result.write_text(json.dumps({"rows": [row], "details": {"found": 1}}))
        return {"good": 0, "bad": 1, "slow": None}[name]

    monkeypatch.setattr(run, "_call", call)
    options = Options(device="cpu", is_dry=True, kit="", work=str(tmp_path))
    results = run.run_steps({"slow": 7.0, "bad": 7.0, "good": 7.0}, options, tmp_path)
    assert seen == [1, 2]
    assert json.loads((tmp_path / "results.json").read_text()) == results
    status = [step["status"] for step in results["steps"]]
    assert status == [
        "stopped at its limit of 7 s",
        "failed with exit status 1: see log.txt",
        "done",
    ]
    assert results["rows"] == [row] and results["steps"][2]["details"] == {"found": 1}
    assert "speed: 2 s; ratio 0.5, goal 1 missed" in capsys.readouterr().out


def test_kernels_that_run_at_once_are_counted_once():
    def event(start: float, end: float, kind: DeviceType = DeviceType.CUDA, **more: bool):
        span = SimpleNamespace(start=start, end=end)
        return SimpleNamespace(time_range=span, device_type=kind, **more)

    events = [
        event(10, 20), event(12, 15), event(18, 30), event(40, 50),
        event(0, 100, DeviceType.CPU), event(0, 100, is_user_annotation=True),
    ]  # fmt: skip
    assert _busy_seconds(SimpleNamespace(events=lambda: events)) == pytest.approx(30e-6)


def test_limits_add_up_to_less_than_nine_minutes():
    assert run.TOTAL_SECONDS < 9 * 60


@pytest.mark.long
def test_a_dry_run_passes_every_step(tmp_path):
    command = ["bash", str(ROOT / "benchmarks" / "gpu.sh"), "--device", "cpu", "--dry-run"]
    done = subprocess.run(
        [*command, "--output", str(tmp_path)], capture_output=True, text=True, check=False
    )
    log = (tmp_path / "log.txt").read_text(encoding="utf-8")
    assert done.returncode == 0, done.stdout + done.stderr + log[-5_000:]
    results = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert [step["name"] for step in results["steps"]] == list(run.STEPS)
    assert {step["status"] for step in results["steps"]} == {"done"}
    values = {row["name"]: row["value"] for row in results["rows"]}
    assert any("equal to the bit" in value for value in values.values())
    assert values["configs/imdb.yaml, accuracy on held-out stretches"].endswith("%")
    assert "a complete update vs cuDNN's kernel alone" in one_table_a_machine([results])
