"""``--precision bf16``: how far it moves probabilities is measured and said, or it is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from sentiment import load
from sentiment.cli import main as cli
from sentiment.evaluation.evaluate import Rounding
from sentiment.runtime import device as runtime

CPU = torch.device("cpu")
has_bf16 = pytest.mark.skipif(
    runtime.find_precision("auto", CPU) != torch.bfloat16, reason="needs a processor with bf16"
)


@pytest.fixture(scope="module")
def run_path(corpus, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("precision") / "run"
    arguments = [
        f"--data.path={corpus}", f"--output_dir={path}", "--training.num_epochs=1",
        "--model.embedding_size=8", "--model.hidden_size=8", "--data.max_length=20",
    ]  # fmt: skip
    assert cli.train(arguments) == 0
    return path


@has_bf16
def test_evaluation_in_bf16_tells_what_it_changed(run_path, tmp_path, capsys):
    for precision in ("fp32", "bf16"):
        arguments = ["--run", run_path, "--split", "validation", "--precision", precision]
        assert cli.evaluate([*map(str, arguments), "--output", str(tmp_path / precision)]) == 0
    assert "Computed in bf16. On" in " ".join(capsys.readouterr().out.split())
    exact, rounded = (
        json.loads((tmp_path / name / "report.json").read_text()) for name in ("fp32", "bf16")
    )
    assert (exact["precision"], exact["rounding"]) == ("fp32", None)
    assert rounded["precision"] == "bf16"
    assert 0 < rounded["rounding"]["mean"] <= rounded["rounding"]["largest"] < 0.05
    assert rounded["nll"] == pytest.approx(exact["nll"], abs=0.02)
    assert rounded["nll"] != exact["nll"]


@has_bf16
def test_prediction_in_bf16_is_near_and_says_so(run_path, tmp_path, capsys):
    predictor = load(run_path, precision="bf16")
    assert predictor.rounding is None, "nothing is computed yet"
    (rounded,), (exact,) = (each.predict(["a great film"]) for each in (predictor, load(run_path)))
    assert rounded.probability == pytest.approx(exact.probability, abs=0.02)
    assert predictor.rounding is not None
    assert predictor.rounding.num_reviews == 1
    (tmp_path / "texts.txt").write_text("a great film\ndull\n")
    arguments = [run_path, "--file", tmp_path / "texts.txt", "--output", tmp_path / "out.csv"]
    assert cli.main(["predict", *map(str, arguments), "--precision", "bf16"]) == 0
    assert "On 2 reviews also computed in fp32" in " ".join(capsys.readouterr().err.split())


def test_a_processor_without_bf16_refuses_it(run_path, monkeypatch, capsys):
    monkeypatch.setattr(runtime, "_cpu_has_bf16", lambda: False)
    arguments = ["--run", str(run_path), "--split", "validation", "--device", "cpu"]
    assert cli.evaluate([*arguments, "--precision", "bf16"]) == 1
    assert "--precision is bf16, which cpu does not support" in capsys.readouterr().err
    assert cli.evaluate([*arguments, "--precision", "fp32"]) == 0


@pytest.mark.parametrize(
    ("rounding", "text"),
    [
        (Rounding(500, 0.00021, 0.0007, 0), "On 500 reviews also computed in fp32, probabilities"),
        (Rounding(1, 0.1, 0.1, 1), "; 1 decision changed."),
        (Rounding(9, 0.1, 0.2, 2), "by 0.1000 on average and 0.2000 at most; 2 decisions"),
        (Rounding(9, 0.1, 0.2, 0), "; no decisions changed."),
    ],
)
def test_what_is_said(rounding, text):
    assert text in str(rounding)
