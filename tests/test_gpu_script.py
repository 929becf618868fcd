"""``benchmarks/gpu.sh``: its kit, its limits, and all of its steps in a dry run on the CPU."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers.corpus import ROOT
from torch.autograd import DeviceType

from benchmarks.gpu import run
from benchmarks.gpu.kit import PACKAGES, pack_reviews, pack_vectors
from benchmarks.gpu.options import Options
from benchmarks.gpu.speed import _busy_seconds
from benchmarks.publish import one_table_a_machine

TEXTS = ["It isn't a <br />bad film, Mr. Roy!", "A\tfilm&nbsp;of  warmth."]


def test_the_kit_holds_tokens_and_the_vectors_of_their_words(tmp_path):
    table = pa.table({"text": TEXTS, "label": [0, 1]})
    tokenized = pack_reviews(table, tmp_path / "train.parquet")
    packed = pq.read_table(tmp_path / "train.parquet")
    words = [tokenized.words(index) for index in range(2)]
    assert "n't" in words[0] and "mr." in words[0]
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
    assert found.stdout.strip() == str([tokenized.words(index) for index in range(2)])


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
