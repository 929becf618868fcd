"""``sentiment compare`` as a user meets it: which runs it takes and refuses, what it writes."""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.corpus import BAD, FILLER, GOOD, ROOT, write_corpus

from sentiment import load
from sentiment.cli import main as cli
from sentiment.comparison.run_groups import (
    RunGroup,
    differing_settings,
    find_runs,
    group_notes,
    load_classifier,
)
from sentiment.config.config import Config, DataConfig, ModelConfig, flat_settings
from sentiment.data.sources import is_same_source
from sentiment.data.vocabulary import build_vocabulary
from sentiment.runs.manifest import read_manifest, write_manifest
from sentiment.runs.run import build_model, create_run, load_run
from sentiment.runs.weights import WeightsInfo, save_weights

WORDS = Counter({word: 9 for word in [*GOOD, *BAD, *FILLER]})


def make_run(
    path: Path,
    data: Path,
    *,
    seed: int = 0,
    classes: tuple[str, ...] = ("neg", "pos"),
    temperature: float = 1.0,
    **more: Any,
) -> Path:
    """A run as training leaves it, in no time: of random weights, which answer far apart."""
    config = Config(
        output_dir=str(path),
        seed=seed,
        data=DataConfig(path=str(data), class_names=classes, **more),
        model=ModelConfig(embedding_size=8, hidden_size=8),
    )
    vocabulary = build_vocabulary(WORDS, max_size=None, min_frequency=1)
    create_run(path, config, classes, vocabulary)
    torch.manual_seed(seed)
    sizes = {"vocabulary_size": len(vocabulary), "num_classes": len(classes)}
    model = build_model(config.model, **sizes)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(5)
    save_weights(
        path, "best", model, WeightsInfo(epoch=1, update=1, metrics={}, temperature=temperature)
    )
    return path


@pytest.fixture(scope="module")
def runs(corpus, tmp_path_factory) -> Path:
    """Folders ``short`` and ``long`` of two seeds each, which read reviews differently."""
    folder = tmp_path_factory.mktemp("compare")
    for seed in (2, 10):
        make_run(folder / "short" / f"seed{seed}", corpus, seed=seed, max_length=5)
        make_run(folder / "long" / f"seed{seed}", corpus, seed=seed + 1, lower_case=False)
    return folder


def compare(*arguments: object) -> int:
    return cli.main(["compare", *map(str, arguments)])


def fail(capsys, *arguments: object) -> str:
    capsys.readouterr()
    assert compare(*arguments) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    return error


class Balance(HTMLParser):
    """Tags that were opened and not closed, and the text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_two_runs_are_those_of_the_evaluation(runs, tmp_path, capsys):
    paths = runs / "short" / "seed2", runs / "long" / "seed2"
    assert compare(*paths, "--split", "test", "--output", tmp_path) == 0
    printed = capsys.readouterr().out
    found = json.loads((tmp_path / "compare.json").read_text())
    (pair,) = found["pairs"]
    rows = []
    for path, side in zip(paths, found["sides"], strict=True):
        output = tmp_path / path.parent.name
        assert cli.evaluate(["--run", str(path), "--output", str(output)]) == 0
        report = json.loads((output / "report.json").read_text())
        assert side["accuracy"] == pytest.approx(report["accuracy"])
        assert side["nll"] == pytest.approx(report["nll"])
        lines = (output / "predictions.csv").read_text().splitlines()[1:]
        rows.append([line.split(",")[1] == line.split(",")[2] for line in lines])
    assert pair["only_first"] == sum(a and not b for a, b in zip(*rows, strict=True))
    assert pair["only_second"] == sum(b and not a for a, b in zip(*rows, strict=True))
    assert found["settings"]["data.max_length"] == ["5", "400"]
    for text in ("McNemar p", "kappa", *found["verdicts"][0].split()[:5], "resamples"):
        assert text in printed


def test_lines_are_at_most_80_columns(runs, tmp_path, capsys):
    deep = tmp_path / "a_rather_long_name_of_a_folder" / "and_another_one_that_is_as_long"
    shutil.copytree(runs / "short", deep)
    assert compare(deep, runs / "long", deep / "seed10", "--output", tmp_path / "out") == 0
    lines = capsys.readouterr().out.splitlines()[:-1]  # the last names a file, whole
    assert max(map(len, lines)) <= 80
    assert any("±" in line and "(2 runs)" in line for line in lines)


def test_the_page_is_whole_and_takes_texts_for_texts(runs, tmp_path):
    words = [*GOOD, *BAD, *FILLER]
    rows = (
        f"<script>alert({n})</script> {' '.join(words[n % 7 :: 1 + n % 5])},{('neg', 'pos')[n % 2]}"
        for n in range(40)
    )
    (tmp_path / "test.csv").write_text("\n".join(["text,label", *rows]) + "\n")
    output = tmp_path / "out"
    paths = runs / "short" / "seed2", runs / "long" / "seed2"
    assert compare(*paths, "--split=test", f"--data.path={tmp_path}", "--output", output) == 0
    found = json.loads((output / "compare.json").read_text())
    page = (output / "compare.html").read_text(encoding="utf-8")
    assert 1 <= len(found["disagreements"]) <= 10
    assert "<script" not in page and "src=" not in page and "http-equiv" not in page
    read = Balance(page)
    assert read.open == []
    assert read.text.count("<script>alert(") == len(found["disagreements"])
    assert found["verdicts"][0] in read.text
    assert page.count("<svg") == 2
    for each in found["disagreements"]:
        assert len({said["class"] for said in each["said"].values()}) == 2


def test_control_characters_of_texts_names_and_paths_are_seen(tmp_path, capsys):
    labels = "\x1b[31mbad", "go\x08od"
    data = tmp_path / "data\x1b[2J"
    data.mkdir()
    words = [*GOOD, *BAD, *FILLER]
    for split in ("train", "test"):
        rows = (
            f"{' '.join(words[n % 7 :: 1 + n % 5])} \x1b[2J\x08\x07 {split},{labels[n % 2]}"
            for n in range(40)
        )
        (data / f"{split}.csv").write_text("\n".join(["text,label", *rows]) + "\n")
    one = make_run(tmp_path / "one\x1b[1m", data, classes=labels)
    other = make_run(tmp_path / "other\x08", data, classes=labels, seed=1)
    output = tmp_path / "out\x1b[3m"
    assert compare(one, other, "--split=test", "--output", output) == 0
    printed = capsys.readouterr()
    page = (output / "compare.html").read_text(encoding="utf-8")
    assert not set("\x1b\x07\x08") & set(printed.out + printed.err + page)
    assert "data␛[2J" in printed.out and "out␛[3m" in printed.out and "one␛[1m" in printed.out
    assert "␛[2J␈␇ test" in page and "␛[31mbad" in page and "go␈od" in page
    assert page.count("<svg") == 2 == page.count("</svg>")


def test_groups_are_compared_by_their_seeds(runs, tmp_path, capsys):
    assert compare(runs / "short", runs / "long", "--output", tmp_path) == 0
    printed = capsys.readouterr().out
    found = json.loads((tmp_path / "compare.json").read_text())
    assert found["pairs"] == [] and found["seeds"][0]["num_runs"] == [2, 2]
    first, second = found["sides"]
    assert found["seeds"][0]["difference"] == pytest.approx(second["accuracy"] - first["accuracy"])
    assert [run["seed"] for run in found["runs"]] == [2, 10, 3, 11], "seed10 after seed2"
    assert "2 seeds are few" in printed and "averaged" in printed
    assert "seed" not in found["settings"]
    assert Balance((tmp_path / "compare.html").read_text(encoding="utf-8")).open == []


def test_a_group_alone_and_a_run_with_itself(runs, tmp_path):
    output = tmp_path / "out"
    assert compare(runs / "long", "--output", output) == 0
    found = json.loads((output / "compare.json").read_text())
    assert [(pair["first"], pair["second"]) for pair in found["pairs"]] == [("A1", "A2")]
    assert found["settings"] == {"seed": ["3", "11"]}
    copy = shutil.copytree(runs / "long" / "seed2", tmp_path / "copy")
    assert compare(copy, copy) == 0
    output = copy / "evaluation" / "compare-validation-copy"
    found = json.loads((output / "compare.json").read_text())
    assert found["pairs"][0]["difference"] == 0 and found["pairs"][0]["mcnemar_p"] == 1
    assert found["disagreements"] == [] and found["settings"] == {}
    assert found["pairs"][0]["difference_ci95"] is None
    page = (output / "compare.html").read_text("utf-8")
    assert '<td class="number">undefined</td>' in page


def test_disagreements_are_those_of_predict(corpus, tmp_path):
    """At the runs' temperatures, by rows that the page counts from 1 and the file from 0."""
    paths = [
        make_run(tmp_path / str(seed), corpus, seed=seed, temperature=temperature)
        for seed, temperature in ((1, 4.0), (2, 0.5))
    ]
    assert compare(*paths, "--output", tmp_path / "out") == 0
    found = json.loads((tmp_path / "out" / "compare.json").read_text())["disagreements"]
    assert found
    with (corpus / "validation.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    predictors = [load(path) for path in paths]
    for each in found:
        row = rows[each["row"]]
        assert each["right"] == row["label"]
        for said, predictor in zip(each["said"].values(), predictors, strict=True):
            (expected,) = predictor.predict([row["text"]])
            assert said["class"] == expected.label
            assert said["probability"] == pytest.approx(expected.probability, abs=1e-6)
    text = Balance((tmp_path / "out" / "compare.html").read_text(encoding="utf-8")).text
    assert all(f"(row {each['row'] + 1})" in text for each in found)


def test_means_that_do_not_differ_have_their_caption(runs, tmp_path):
    twice = tmp_path / "twice"
    for name in ("a", "b"):
        shutil.copytree(runs / "long" / "seed2", twice / name)
    assert compare(twice, runs / "short" / "seed2", "--output", tmp_path) == 0
    found = json.loads((tmp_path / "compare.json").read_text())
    assert found["sides"][0]["accuracy_deviation"] == 0
    assert "Diamonds: mean" in (tmp_path / "compare.html").read_text(encoding="utf-8")


def test_one_place_has_one_name(corpus, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(corpus.parent))
    here = DataConfig(path=str(corpus))
    assert is_same_source(here, DataConfig(path=f"~/{corpus.name}"))
    assert not is_same_source(here, DataConfig(path=str(tmp_path)))
    assert is_same_source(DataConfig(source="imdb"), DataConfig(source="imdb", max_length=9))
    assert is_same_source(
        DataConfig(source="mini"),
        DataConfig(path=str(ROOT / "src" / "sentiment" / "data" / "mini")),
    )
    assert not is_same_source(DataConfig(source="imdb"), DataConfig(source="mini"))
    one, other = make_run(tmp_path / "one", corpus), tmp_path / "other"
    make_run(other, Path("~") / corpus.name, seed=1)
    assert compare(one, other, "--output", tmp_path / "out") == 0


def test_a_folder_of_different_recipes_is_said(runs, tmp_path):
    mixed = tmp_path / "mixed"
    for name in ("short", "long"):
        shutil.copytree(runs / name / "seed2", mixed / name)
    shutil.copytree(runs / "long" / "seed2", tmp_path / "twice" / "a")
    shutil.copytree(runs / "long" / "seed2", tmp_path / "twice" / "b")
    assert compare(mixed, tmp_path / "twice", "--output", tmp_path) == 0
    notes = " ".join(json.loads((tmp_path / "compare.json").read_text())["notes"])
    assert "runs of A differ in data.max_length" in notes
    assert "Runs of B have the same seed" in notes


def test_three_classes(tmp_path):
    labels = ("bad", "fair", "good")
    for split, count in (("train", 90), ("validation", 30)):
        rows = (f"{labels[n % 3]}ish and more of {split}{n},{labels[n % 3]}" for n in range(count))
        (tmp_path / f"{split}.csv").write_text("text,label\n" + "\n".join(rows) + "\n")
    one = make_run(tmp_path / "one", tmp_path, classes=labels)
    other = make_run(tmp_path / "other", tmp_path, classes=labels, seed=1)
    assert compare(one, other, "--output", tmp_path / "out") == 0
    found = json.loads((tmp_path / "out" / "compare.json").read_text())
    assert found["class_names"] == list(labels) and found["num_reviews"] == 30
    error_counts = [found["pairs"][0][key] for key in ("both_right", "only_first", "only_second",
                                                       "neither")]  # fmt: skip
    assert sum(error_counts) == 30


def test_runs_that_may_know_the_reviews_are_refused(runs, tmp_path, capsys):
    data = write_corpus(tmp_path / "data", splits={"train": 80, "test": 20}, seed=5)
    one = make_run(tmp_path / "one", data)
    other = make_run(tmp_path / "other", data, validation_seed=7)
    larger = make_run(tmp_path / "larger", data, validation_share=0.3)
    output = tmp_path / "out"
    known = runs / "long" / "seed2"
    for path, setting in [
        (other, "validation_seed"),
        (larger, "validation_share"),
        (known, "path"),
    ]:
        error = fail(capsys, one, path, "--output", output)
        assert f"data.{setting} of {path} is " in error and str(one) in error
        assert fail(capsys, one, path, "--split=train", "--output", output).count(setting)
    error = fail(capsys, one, other, f"--data.path={data}", "--output", output)
    assert re.search(rf"{re.escape(str(other))} was trained on \d+% of these reviews", error)
    assert not output.exists(), "nothing is written"
    assert compare(one, other, "--split=test", "--output", output) == 0
    assert compare(one, known, "--split=test", "--output", output) == 0, "no review is known"


def test_known_reviews_are_counted_or_said_to_be_unknown(runs, corpus, tmp_path):
    data = write_corpus(tmp_path / "data", splits={"train": 80, "test": 49}, seed=5)
    run = make_run(tmp_path / "run", data)
    known = (corpus / "train.csv").read_text(encoding="utf-8").splitlines()[1]
    with (data / "test.csv").open("a", encoding="utf-8") as file:
        file.write(known.upper().replace(",NEG", ",neg") + "\n")
    arguments = run, runs / "long" / "seed2", "--split=test", "--output", tmp_path
    assert compare(*arguments) == 0
    notes = json.loads((tmp_path / "compare.json").read_text())["notes"]
    assert notes[0] == (
        f"{runs / 'long' / 'seed2'} was trained on 2.0% of these reviews, or on copies of them."
    )
    moved = make_run(tmp_path / "moved", tmp_path / "gone")
    assert compare(run, moved, "--split=test", "--output", tmp_path) == 0
    notes = json.loads((tmp_path / "compare.json").read_text())["notes"]
    assert "can't be read, so it may have been trained on some of these reviews" in notes[0]


def test_mistakes_are_one_line(runs, tmp_path, capsys):
    run = runs / "long" / "seed2"
    assert "nothing to compare it with" in fail(capsys, run)
    assert "holds no run" in fail(capsys, run, tmp_path)
    assert "does not exist" in fail(capsys, tmp_path / "nowhere", run)
    assert "run.json is a file" in fail(capsys, run / "run.json", run)
    assert "is a file" in fail(capsys, run, run, "--output", run / "run.json")
    copy = shutil.copytree(run, tmp_path / "copy")
    (copy / "checkpoints" / "best" / "model.safetensors").unlink()
    assert "has no weights" in fail(capsys, run, copy)
    write_manifest(copy, {**read_manifest(copy), "class_names": ["pos", "neg"]})
    (copy / "checkpoints" / "best").rmdir()
    shutil.copytree(run / "checkpoints" / "best", copy / "checkpoints" / "best")
    error = fail(capsys, run, copy)
    assert f"{copy} has the classes pos, neg, but {run} has neg, pos" in error
    assert not (run / "evaluation").exists(), "nothing is written"
    for arguments in ([], [str(run), "--split=tset"], [str(run), "--bogus"]):
        with pytest.raises(SystemExit) as stopped:
            compare(*arguments)
        assert stopped.value.code == 2


def test_settings_that_change_nothing_learned_are_no_difference(corpus, tmp_path):
    """Two seeds that differ in them are still seeds of one recipe."""
    runs = []
    for seed in (0, 1):
        path = make_run(tmp_path / f"seed{seed}", corpus, seed=seed, cache_dir=f"cache{seed}")
        classifier = load_classifier(path)
        training = replace(
            classifier.config.training,
            pictures=bool(seed),
            checkpoint_minutes=1.0 + seed,
            checkpoint_updates=10 + seed,
            log_every=5 + seed,
        )
        config = replace(classifier.config, training=training, device=("cpu", "auto")[seed])
        runs.append(replace(classifier, settings=flat_settings(config)))
    assert differing_settings([run.settings for run in runs]) == {"seed": ["0", "1"]}
    assert group_notes([RunGroup("A", tmp_path, tuple(runs))]) == []


def test_runs_are_found_by_name_and_told_apart_by_settings(runs):
    assert [path.name for path in find_runs(runs / "long")] == ["seed2", "seed10"]
    assert find_runs(runs / "long" / "seed2") == [runs / "long" / "seed2"]
    settings = [flat_settings(load_run(runs / name / "seed2").config) for name in ("short", "long")]
    assert differing_settings(settings) == {
        "seed": ["2", "3"],
        "data.max_length": ["5", "400"],
        "data.lower_case": ["true", "false"],
    }
