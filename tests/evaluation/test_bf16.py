"""``--precision bf16``: its effect on probabilities is measured and reported, or it is refused."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from helpers.untrained_run import make_run

from sentiment import load
from sentiment.cli import main as cli
from sentiment.data.pipeline import prepare_split
from sentiment.evaluation.evaluate import predict_corpus
from sentiment.runs.run import load_run
from sentiment.runtime import device as runtime

CPU = torch.device("cpu")
has_bf16 = pytest.mark.skipif(
    runtime.find_precision("auto", CPU) != torch.bfloat16,
    reason="needs a processor with bf16",
)


@pytest.fixture(scope="module")
def run_path(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("bf16") / "run").path


@pytest.fixture
def data(tmp_path):
    rows = [f"word{n} word{n + 1},{('bad', 'good', 'so; so')[n % 3]}" for n in range(30)]
    text = "\n".join(["text,label", *rows]).replace("so; so", '"so, so"')
    (tmp_path / "test.csv").write_text(text, encoding="utf-8")
    return tmp_path


@has_bf16
def test_evaluation_in_bf16_reports_what_it_changed(run_path, data, capsys):
    arguments = ["--run", run_path, "--data.path", data, "--output", data, "--precision", "bf16"]
    assert cli.evaluate(list(map(str, arguments))) == 0
    assert "Computed in bf16. Reviews also computed in fp32: 30;" in " ".join(
        capsys.readouterr().out.split()
    )
    report = json.loads((data / "report.json").read_text())
    assert report["precision"] == "bf16"
    assert 0 < report["rounding"]["mean"] <= report["rounding"]["largest"] < 0.05
    run = load_run(run_path)
    settings = replace(run.config.data, path=str(data))
    _, corpus = prepare_split(settings, "test", run.vocabulary, run.class_names)
    exact = predict_corpus(run.model, corpus, device=CPU).metrics().nll
    assert report["nll"] != exact == pytest.approx(report["nll"], abs=0.02)


@has_bf16
def test_prediction_in_bf16_is_close_and_says_so(run_path, tmp_path, capsys):
    predictor = load(run_path, precision="bf16")
    assert predictor.rounding is None, "nothing is computed yet"
    (rounded,), (exact,) = (each.predict(["word1 word2"]) for each in (predictor, load(run_path)))
    assert rounded.probability == pytest.approx(exact.probability, abs=0.02)
    assert predictor.rounding is not None and predictor.rounding.num_reviews == 1
    (tmp_path / "texts.txt").write_text("word1\nword2\n")
    arguments = [run_path, "--file", tmp_path / "texts.txt", "--output", tmp_path / "out.csv"]
    assert cli.main(["predict", *map(str, arguments), "--precision", "bf16"]) == 0
    assert "Reviews also computed in fp32: 2;" in " ".join(capsys.readouterr().err.split())


def test_a_processor_without_bf16_refuses_it(run_path, data, monkeypatch, capsys):
    monkeypatch.setattr(runtime, "_cpu_has_bf16", lambda: False)
    arguments = ["--run", str(run_path), "--data.path", str(data), "--device", "cpu"]
    assert cli.evaluate([*arguments, "--precision", "bf16"]) == 1
    assert "--precision is bf16, which cpu does not support" in capsys.readouterr().err
