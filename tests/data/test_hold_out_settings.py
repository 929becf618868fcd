"""``data.validation`` from settings to reviews: defaults, older runs, columns, rare words."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from helpers.review_files import write, write_text_folder

from sentiment.cli import main as cli
from sentiment.config.config import Config, DataConfig, deciding_settings
from sentiment.config.parser import parse_training
from sentiment.data.reviews import load_training_splits
from sentiment.data.tokenizer import TokenizedTexts
from sentiment.data.vocabulary import count_groups
from sentiment.runs.run import load_settings

TINY = [
    "--model.embedding_size=4", "--model.hidden_size=4", "--training.num_epochs=1",
    "--data.max_length=10", "--data.num_processes=1", "--device=cpu",
]  # fmt: skip


def write_reviews(folder: Path, name: str = "train.csv", first_film: str = "film 0") -> Path:
    """Write 40 reviews, four of each film; the second class follows the first."""
    columns = {
        "text": [f"film{n // 4} review{n} {'bad' if n < 20 else 'good'}" for n in range(40)],
        "label": ["neg"] * 20 + ["pos"] * 20,
        "film": [first_film, *(f"film {n // 4}" for n in range(1, 40))],
    }
    return write(folder / name, columns).parent


def train(tmp_path: Path, *options: str) -> int:
    folders = f"--data.path={tmp_path / 'data'}", f"--output_dir={tmp_path / 'run'}"
    return cli.train([*folders, *options, *TINY])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"validation": "groups"}, "set data.validation to groups and data.group_column"),
        ({"group_column": "film"}, "set data.validation to groups and data.group_column"),
        ({"validation": "groups", "group_column": "label"}, "another column than text and label"),
        ({"stretch_length": 0}, "data.stretch_length is 0"),
        ({"num_folds": 1}, "data.num_folds is 1, but must be from 2"),
        ({"num_folds": 3, "fold": 4}, "data.fold is 4, but must be from 1 to data.num_folds, 3"),
        ({"fold": 2}, "data.fold is 2"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        DataConfig(**settings)


@pytest.mark.parametrize("name", ["train.csv", "train.tsv", "train.jsonl", "train.parquet"])
def test_groups_are_read_from_every_format(tmp_path, name):
    write_reviews(tmp_path, name)
    data = DataConfig(path=str(tmp_path), validation="groups", group_column="film")
    train, validation = load_training_splits(data)
    sides = [{row // 4 for row in each.rows.tolist()} for each in (train, validation)]
    assert sides[0].isdisjoint(sides[1])
    assert len(train) + len(validation) == 40
    assert np.bincount(validation.labels).tolist() == [4, 4]


def test_stretches_are_neighbouring_rows(tmp_path):
    write_reviews(tmp_path)
    data = DataConfig(path=str(tmp_path), validation="stretches", stretch_length=4)
    _, validation = load_training_splits(data)
    starts = validation.rows.reshape(-1, 4)
    assert (starts % 4 == np.arange(4)).all()
    assert (np.diff(starts, axis=1) == 1).all()


def test_aclimdb_is_cut_by_the_numbers_of_its_files(tmp_path):
    """10_1.txt stands behind 9_1.txt, not behind 1_1.txt as by the alphabet."""
    texts = {
        f"train/{label}/{number}_1.txt": f"{label} review {number}"
        for label in ("neg", "pos")
        for number in range(20)
    }
    write_text_folder(tmp_path, texts)
    data = DataConfig(source="imdb", path=str(tmp_path), stretch_length=5, validation_share=0.25)
    _, validation = load_training_splits(data)
    for label in ("neg", "pos"):
        own = [int(text.split()[-1]) for text in validation.texts if text.startswith(label)]
        assert len(own) == 5
        assert own == list(range(own[0], own[0] + 5))
        assert own[0] % 5 == 0


def test_text_files_have_no_groups(tmp_path):
    texts = {f"train/{label}/0_1.txt": "a review" for label in ("neg", "pos")}
    write_text_folder(tmp_path, texts)
    data = DataConfig(path=str(tmp_path), validation="groups", group_column="film")
    with pytest.raises(ValueError, match="texts without columns, and so has no 'film': set data"):
        load_training_splits(data)


def test_a_run_tells_how_its_reviews_were_held_out(tmp_path, capsys):
    write_reviews(tmp_path / "data")
    run = tmp_path / "run"
    assert train(tmp_path, "--data.validation=groups", "--data.group_column=film") == 0
    assert "8 for validation (held out by groups of film)" in capsys.readouterr().out
    assert json.loads((run / "run.json").read_text())["hold_out"] == "by groups of film"
    assert cli.evaluate(["--run", str(run), "--split", "validation"]) == 0
    assert "held out by groups of film" in " ".join(capsys.readouterr().out.split())
    report = json.loads((run / "evaluation" / "validation" / "report.json").read_text())
    assert (report["num_reviews"], report["hold_out"]) == (8, "by groups of film")


def test_a_run_of_an_earlier_version_keeps_its_validation_reviews(tmp_path, monkeypatch):
    """Its settings name no hold-out, which was random then, of IMDB too."""
    monkeypatch.setattr("sentiment.runs.run._check_digest", lambda path, name: None)
    (tmp_path / "config.yaml").write_text("data:\n  source: imdb\n")
    assert load_settings(tmp_path).data.hold_out == "random"
    resumed = parse_training([f"--resume={tmp_path}"], "train.py").config
    assert resumed.data.hold_out == "random"
    (tmp_path / "config.yaml").write_text("data:\n  source: imdb\n  validation: null\n")
    assert load_settings(tmp_path).data.hold_out == "stretches"
    named, default = Config(data=DataConfig(validation="random")), Config()
    assert deciding_settings(named) == deciding_settings(default)


@pytest.mark.parametrize("name", ["train.csv", "train.jsonl", "train.parquet"])
def test_a_row_without_a_group_is_told(tmp_path, name):
    write_reviews(tmp_path, name, first_film=" ")
    data = DataConfig(path=str(tmp_path), validation="groups", group_column="film")
    with pytest.raises(ValueError, match=f"{name}, row 1: no film: fill it in"):
        load_training_splits(data)


@pytest.mark.parametrize("seed", range(20))
def test_groups_of_a_word_are_counted_as_by_hand(seed, monkeypatch):
    monkeypatch.setattr("sentiment.data.vocabulary.TOKENS_AT_ONCE", 9)  # in parts
    generator = np.random.default_rng(seed)
    texts = [list(generator.choice(list("abcde"), size)) for size in generator.integers(0, 6, 9)]
    groups = generator.integers(0, 5, len(texts)).tolist()
    lexicon = sorted(set().union(*texts))
    number = {word: place for place, word in enumerate(lexicon)}
    tokenized = TokenizedTexts(
        np.array([number[word] for text in texts for word in text], dtype=np.int32),
        np.cumsum([0, *map(len, texts)]),
        lexicon,
    )
    pairs = {(group, word) for text, group in zip(texts, groups, strict=True) for word in text}
    assert +count_groups(tokenized, np.array(groups)) == Counter(word for _, word in pairs)
    alone = Counter(word for text in texts for word in set(text))
    assert +count_groups(tokenized, None) == alone


def test_words_of_few_groups_are_left_out(tmp_path):
    write_reviews(tmp_path / "data")
    run = tmp_path / "run"
    options = [
        "--data.validation=stretches",
        "--data.stretch_length=4",
        "--vocabulary.min_groups=2",
    ]
    assert train(tmp_path, *options) == 0
    words = [line.split("\t")[0] for line in (run / "vocabulary.txt").read_text().splitlines()]
    assert words[2:] == ["bad", "good"], "each film's name stands in one stretch alone"


def test_words_that_no_two_groups_share_are_too_few(tmp_path, capsys):
    write_reviews(tmp_path / "data")
    assert train(tmp_path, "--vocabulary.min_groups=99") == 1
    assert "and in vocabulary.min_groups = 99 groups of reviews" in capsys.readouterr().err
