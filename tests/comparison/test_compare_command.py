"""``sentiment compare``: which runs it accepts and refuses, and what it writes."""

import json
import re
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import untrained_run
from helpers.corpus import BAD, FILLER, GOOD, ROOT, write_corpus
from helpers.predictions import Page
from helpers.review_files import read_rows, write
from helpers.trainings import refusal

from sentiment import load
from sentiment.cli import main as cli
from sentiment.comparison.run_groups import Classifier, load_classifier, load_common_reviews
from sentiment.config.config import DataConfig
from sentiment.data.pipeline import prepare_split
from sentiment.evaluation.evaluate import predict_corpus
from sentiment.readers.sources import is_same_source
from sentiment.runs.manifest import read_manifest, write_manifest
from sentiment.runs.run import load_run

WORDS = Counter({word: 9 for word in [*GOOD, *BAD, *FILLER]})


def make_run(path: Path, data: Path, *, classes=("neg", "pos"), seed=0, temperature=1.0, **more):
    settings = DataConfig(path=str(data), class_names=classes, **more)
    sizes = {"embedding_size": 8, "hidden_size": 8}
    options = {"words": WORDS, "seed": seed, "temperature": temperature, **sizes}
    return untrained_run.make_run(path, classes, data=settings, **options).path


@pytest.fixture(scope="module")
def runs(corpus, tmp_path_factory) -> Path:
    """Folders ``short`` and ``long`` with two seeds each, which truncate reviews differently."""
    folder = tmp_path_factory.mktemp("compare")
    for seed in (2, 10):
        make_run(folder / "short" / f"seed{seed}", corpus, seed=seed, max_length=5)
        make_run(folder / "long" / f"seed{seed}", corpus, seed=seed + 1, lower_case=False)
    return folder


def compare(*arguments: object) -> int:
    return cli.main(["compare", *map(str, arguments)])


def read(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "compare.json").read_text(encoding="utf-8"))


def write_reviews(folder: Path, *splits: str, labels: Sequence[str], start="") -> Path:
    """Reviews of varied words after a text."""
    middles = [" ".join([*GOOD, *BAD, *FILLER][n % 7 :: 1 + n % 5]) for n in range(30)]
    for split in splits:
        texts = [f"{start}{middle} {split}{n}" for n, middle in enumerate(middles)]
        write(folder / f"{split}.csv", {"text": texts, "label": [*labels] * (30 // len(labels))})
    return folder


def classifiers(*paths: Path) -> list[Classifier]:
    return [load_classifier(path) for path in paths]


def fail(capsys, *arguments: object) -> str:
    return refusal(arguments, capsys, "compare")


def test_two_runs_have_the_results_of_their_evaluations(runs, tmp_path, capsys):
    paths = runs / "short" / "seed2", runs / "long" / "seed2"
    assert compare(*paths, "--split", "test", "--output", tmp_path) == 0
    printed = capsys.readouterr().out
    result = read(tmp_path)
    (pair,) = result["pairs"]
    is_right = []
    for path, group in zip(paths, result["sides"], strict=True):
        run = load_run(path)
        reviews, corpus = prepare_split(run.config.data, "test", run.vocabulary, run.class_names)
        predictions = predict_corpus(run.model, corpus, device=torch.device("cpu"))
        metrics = predictions.metrics()
        assert group["accuracy"] == pytest.approx(metrics.accuracy)
        assert group["nll"] == pytest.approx(metrics.nll)
        is_right.append(predictions.predicted == reviews.labels)
    assert pair["only_first"] == (is_right[0] & ~is_right[1]).sum()
    assert pair["only_second"] == (is_right[1] & ~is_right[0]).sum()
    assert result["settings"]["data.max_length"] == ["5", "400"]
    for text in ("McNemar p", "kappa", *result["verdicts"][0].split()[:5], "resamples"):
        assert text in printed


def test_the_page_is_complete_and_shows_texts_literally(runs, tmp_path):
    write_reviews(tmp_path, "test", labels=("neg", "pos"), start="<script>alert()</script> ")
    paths = runs / "short" / "seed2", runs / "long" / "seed2"
    assert compare(*paths, "--split=test", "--data.path", tmp_path, "--output", tmp_path) == 0
    result = read(tmp_path)
    text = (tmp_path / "compare.html").read_text(encoding="utf-8")
    page = Page(text)
    assert 1 <= len(result["disagreements"]) <= 10
    assert page.unclosed == [] and page.active == []
    assert page.text.count("<script>alert(") == len(result["disagreements"])
    assert result["verdicts"][0] in page.text
    assert text.count("<svg") == 2
    for review in result["disagreements"]:
        assert len({prediction["class"] for prediction in review["said"].values()}) == 2


def test_groups_are_compared_by_their_seeds_in_80_columns(runs, tmp_path, capsys):
    deep = tmp_path / "a_rather_long_name_of_a_folder" / "and_another_one_that_is_as_long"
    shutil.copytree(runs / "short", deep)
    assert compare(deep, runs / "long", "--output", tmp_path) == 0
    printed = capsys.readouterr().out
    lines = printed.splitlines()[:-1]  # the last one names a file in full
    assert max(map(len, lines)) <= 80
    assert any("±" in line and "(2 runs)" in line for line in lines)
    result = read(tmp_path)
    assert result["pairs"] == [] and result["seeds"][0]["num_runs"] == [2, 2]
    first, second = (group["accuracy"] for group in result["sides"])
    assert result["seeds"][0]["difference"] == pytest.approx(second - first)
    assert [run["seed"] for run in result["runs"]] == [2, 10, 3, 11], "seed10 after seed2"
    assert "2 seeds are few" in printed and "averaged" in printed
    assert "seed" not in result["settings"]
    assert Page((tmp_path / "compare.html").read_text(encoding="utf-8")).unclosed == []


def test_a_single_group_and_a_run_with_itself(runs, tmp_path):
    assert compare(runs / "long", "--output", tmp_path) == 0
    result = read(tmp_path)
    assert [(pair["first"], pair["second"]) for pair in result["pairs"]] == [("A1", "A2")]
    assert result["settings"] == {"seed": ["3", "11"]}
    copy = shutil.copytree(runs / "long" / "seed2", tmp_path / "copy")
    assert compare(copy, copy) == 0
    output = copy / "evaluation" / "compare-validation-copy"
    result = read(output)
    assert result["pairs"][0]["difference"] == 0 and result["pairs"][0]["mcnemar_p"] == 1
    assert result["disagreements"] == [] and result["settings"] == {}
    assert result["pairs"][0]["difference_ci95"] is None
    assert '<td class="number">undefined</td>' in (output / "compare.html").read_text("utf-8")


def test_disagreements_are_those_of_predict(corpus, tmp_path):
    """At the runs' temperatures; rows are numbered from 1."""
    paths = [
        make_run(tmp_path / str(seed), corpus, seed=seed, temperature=temperature)
        for seed, temperature in ((1, 4.0), (2, 0.5))
    ]
    assert compare(*paths, "--output", tmp_path / "out") == 0
    disagreements = read(tmp_path / "out")["disagreements"]
    assert disagreements
    rows = read_rows(corpus / "validation.csv")
    predictors = [load(path) for path in paths]
    for review in disagreements:
        row = rows[review["row"] - 1]
        assert review["right"] == row["label"]
        for said, predictor in zip(review["said"].values(), predictors, strict=True):
            (expected,) = predictor.predict([row["text"]])
            assert said["class"] == expected.label
            assert said["probability"] == pytest.approx(expected.probability, abs=1e-6)
    words = Page((tmp_path / "out" / "compare.html").read_text(encoding="utf-8")).words
    assert all(f"(row {review['row']})" in words for review in disagreements)


def test_groups_that_are_not_seeds_of_one_recipe_are_noted(runs, tmp_path):
    for name in ("short", "long"):
        shutil.copytree(runs / name / "seed2", tmp_path / "mixed" / name)
    for name in ("a", "b"):
        shutil.copytree(runs / "long" / "seed2", tmp_path / "twice" / name)
    assert compare(tmp_path / "mixed", tmp_path / "twice", "--output", tmp_path) == 0
    result = read(tmp_path)
    notes = " ".join(result["notes"])
    assert "runs of A differ in data.max_length" in notes
    assert "Runs of B have the same seed" in notes
    assert result["sides"][1]["accuracy_deviation"] == 0
    assert "Diamonds: mean" in (tmp_path / "compare.html").read_text(encoding="utf-8")


def test_a_source_may_have_several_paths(corpus, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(corpus.parent))
    data = DataConfig(path=str(corpus))
    assert is_same_source(data, DataConfig(path=f"~/{corpus.name}"))
    assert not is_same_source(data, DataConfig(path=str(tmp_path)))
    assert is_same_source(DataConfig(source="imdb"), DataConfig(source="imdb", max_length=9))
    mini = DataConfig(path=str(ROOT / "src" / "sentiment" / "data" / "mini"))
    assert is_same_source(DataConfig(source="mini"), mini)
    assert not is_same_source(DataConfig(source="imdb"), DataConfig(source="mini"))


def test_runs_that_may_know_the_reviews_are_refused(runs, tmp_path, capsys):
    data = write_corpus(tmp_path / "data", splits={"train": 80, "test": 20}, seed=5)
    one = make_run(tmp_path / "one", data)
    other = make_run(tmp_path / "other", data, validation_seed=7)
    larger = make_run(tmp_path / "larger", data, validation_share=0.3)
    known = runs / "long" / "seed2"
    cases = (other, "validation_seed"), (larger, "validation_share"), (known, "path")
    for path, setting in cases:
        pair = classifiers(one, path)
        for split in ("train", "validation"):
            with pytest.raises(ValueError, match=f"data.{setting} of {path} is .* of {one}"):
                load_common_reviews(pair, split)
    error = fail(capsys, one, other, f"--data.path={data}", "--output", tmp_path / "out")
    assert re.search(rf"{re.escape(str(other))} was trained on \d+% of these reviews", error)
    assert not (tmp_path / "out").exists(), "nothing is written"
    for path in (other, known):
        assert load_common_reviews(classifiers(one, path), "test")[1] == []


def test_known_reviews_are_counted_or_said_to_be_possible(runs, corpus, tmp_path):
    data = write_corpus(tmp_path / "data", splits={"train": 80, "test": 49}, seed=5)
    run, other = make_run(tmp_path / "run", data), runs / "long" / "seed2"
    known = (corpus / "train.csv").read_text(encoding="utf-8").splitlines()[1]
    with (data / "test.csv").open("a", encoding="utf-8") as file:
        file.write(known.upper().replace(",NEG", ",neg") + "\n")
    _, notes = load_common_reviews(classifiers(run, other), "test")
    assert notes == [f"{other} was trained on 2.0% of these reviews, or on copies of them."]
    moved = make_run(tmp_path / "moved", tmp_path / "gone")
    _, notes = load_common_reviews(classifiers(run, moved), "test")
    assert "can't be read, so it may have been trained on some of these reviews" in notes[0]


def test_user_errors_are_one_line(runs, tmp_path, capsys):
    run = runs / "long" / "seed2"
    assert "nothing to compare it with" in fail(capsys, run)
    for path in (tmp_path, tmp_path / "nowhere", run / "run.json"):
        assert f"{path} is not a folder of a run, nor one that holds" in fail(capsys, run, path)
    assert "is a file" in fail(capsys, run, run, "--output", run / "run.json")
    copy = shutil.copytree(run, tmp_path / "copy")
    (copy / "checkpoints" / "best" / "model.safetensors").unlink()
    assert "has no weights" in fail(capsys, run, copy)
    write_manifest(copy, {**read_manifest(copy), "class_names": ["pos", "neg"]})
    shutil.copytree(run / "checkpoints", copy / "checkpoints", dirs_exist_ok=True)
    error = fail(capsys, run, copy)
    assert f"{copy} has the classes pos, neg, but {run} has neg, pos" in error
    assert not (run / "evaluation").exists(), "nothing is written"
