"""Labelled reviews learned with the opinion of linear models that did not learn from them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.corpus import write_corpus
from helpers.processes import start_ranks
from helpers.review_files import write
from helpers.trainings import arguments, ended, refusal, stop_after, train

from sentiment.baseline.cross_fit import judge_labels
from sentiment.cli import main as cli
from sentiment.config.config import Config
from sentiment.data.reviews import Reviews, load_training_splits
from sentiment.diagnostics.run_diff import compare_runs
from sentiment.runs.manifest import read_manifest
from sentiment.runs.run import load_settings
from sentiment.runs.weights import read_tensors
from sentiment.training.distillation import soft_labels_path

HALF = "--distillation.labelled=0.5"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Without unlabelled reviews."""
    folder = tmp_path_factory.mktemp("reviews")
    return write_corpus(folder, splits={"train": 120, "validation": 30})


@pytest.fixture(scope="module")
def run(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(corpus, tmp_path_factory.mktemp("runs") / "run", HALF)


def films(num_films: int = 60) -> Reviews:
    """Of each film three reviews that share its name and a label, which says nothing else."""
    labels = np.random.default_rng(0).integers(0, 2, num_films).repeat(3)
    films = np.arange(num_films).repeat(3)
    texts = [f"film{film} seen number{place}" for place, film in enumerate(films.tolist())]
    return Reviews(texts, labels, ("neg", "pos"), "films", films)


def accuracy(reviews: Reviews) -> float:
    return float((judge_labels(reviews, Config()).argmax(axis=1) == reviews.labels).mean())


def test_opinions_come_from_other_groups_and_from_no_copies():
    reviews = films()
    assert accuracy(replace(reviews, groups=None)) > 0.8, "the names of films are remembered"
    assert accuracy(reviews) < 0.7
    copied = [f"film{film}" for film in np.arange(60).repeat(3)]
    apart = replace(reviews, texts=copied, groups=np.arange(180))
    assert accuracy(apart) < 0.7, "a copy in another group teaches nothing either"


def saved(run: Path) -> torch.Tensor:
    tensors, _ = read_tensors(soft_labels_path(run), read_manifest(run)["identity"])
    assert list(tensors) == ["second_opinion"]
    return tensors["second_opinion"]


def test_a_run_keeps_and_logs_the_opinions(run):
    config = load_settings(run)
    reviews, _ = load_training_splits(config.data)
    opinions = judge_labels(reviews, config)
    np.testing.assert_allclose(saved(run).numpy(), opinions, atol=1e-6)
    share = (opinions.argmax(axis=1) == reviews.labels).mean()
    line = f"linear models of the other folds predict {100 * share:.1f} % of the labels"
    assert line in (run / "train.log").read_text(encoding="utf-8")
    assert "teachers" not in read_manifest(run)


def test_it_learns_the_same_beside_other_terms(corpus, run, tmp_path):
    # A term without weight takes the other way through the passes.
    more = ["--objectives.entropy=1e-30", "--objectives.unlabelled=false"]
    other = train(corpus, tmp_path / "run", HALF, *more)
    difference = compare_runs(run, other)
    assert difference.weights < 1e-4, difference


def test_resumed_equals_never_stopped(corpus, run, tmp_path):
    broken = tmp_path / "run"
    stop_after(arguments(corpus, broken, HALF), 7)
    assert cli.train([f"--resume={broken}"]) == 0
    difference = compare_runs(run, broken)
    assert difference.is_equal and difference.num_points > 10, difference


def test_two_ranks_equal_one_process(corpus, tmp_path):
    exact = [HALF, "--model.dropout=0", "--model.embedding_dropout=0", "--device=cpu"]
    one = train(corpus, tmp_path / "one", *exact)
    two = tmp_path / "two"
    ended(start_ranks(2, cli.train, arguments(corpus, two, *exact)))
    assert torch.equal(saved(one), saved(two))
    difference = compare_runs(one, two)
    assert not difference.problems and difference.weights < 1e-4


def test_too_few_reviews_are_refused_with_a_mend_that_works(tmp_path, capsys):
    labels = ["pos", "neg", "pos", "neg"]
    write(tmp_path / "train.csv", {"text": ["one", "two", "three", "four"], "label": labels})
    texts = ["good film", "bad film", "fine film", "poor film"]
    write(tmp_path / "validation.csv", {"text": texts, "label": labels})
    command = arguments(tmp_path, tmp_path / "run", "--vocabulary.min_frequency=1", HALF)
    message = refusal(command, capsys)
    assert "no word occurs in 3 of its 4 training reviews: give more" in message
    assert not (tmp_path / "run").exists()
    assert cli.train([*command, "--distillation.labelled=0"]) == 0


@pytest.mark.parametrize("is_sorted", [False, True])
def test_a_single_group_is_refused_before_anything_is_trained(tmp_path, capsys, is_sorted):
    """A model of the other groups would contradict every label of a class that it never saw."""
    labels = ["pos", "neg"] * 50
    if is_sorted:
        labels = sorted(labels * 2)  # two stretches of each class, one of them held out
    words = {"pos": "good", "neg": "bad"}
    texts = [f"{words[label]} film number{number}" for number, label in enumerate(labels)]
    write(tmp_path / "train.csv", {"text": texts, "label": labels})
    stretches = ["--data.validation=stretches", "--pretraining.num_epochs=1", HALF]
    command = arguments(tmp_path, tmp_path / "run", "--vocabulary.min_frequency=1", *stretches)
    message = refusal(command, capsys)
    assert "all training reviews of class 'neg' are of one group: hold out shorter" in message
    assert list(tmp_path.iterdir()) == [tmp_path / "train.csv"]
    assert cli.train([*command, "--data.stretch_length=10"]) == 0
