"""Rare classes: their weights in the loss, ties between epochs, and what training says of them."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.trainings import read_epochs, refusal, train
from hypothesis import given
from hypothesis import strategies as st
from sklearn.utils.class_weight import compute_class_weight

from sentiment import load
from sentiment.cli.train import parse
from sentiment.config.config import Config, TrainingConfig
from sentiment.data.pipeline import prepare_training
from sentiment.runs.weights import WeightsInfo
from sentiment.training.checkpoint import TrainerState
from sentiment.training.meters import EpochProgress
from sentiment.training.objectives import LabelLoss, class_weights

CPU = torch.device("cpu")
SCORES = st.lists(
    st.tuples(st.sampled_from([float("-inf"), 0.5, 0.96]), st.floats(0, 9)), min_size=1, max_size=9
)


@given(epochs=SCORES, restored_after=st.integers(0, 9))
def test_the_best_epoch_breaks_ties_by_nll_also_when_resumed(epochs, restored_after):
    state = TrainerState(EpochProgress(1, CPU))
    for number, (score, nll) in enumerate(epochs, 1):
        state.end_epoch(
            WeightsInfo(number, number, {"nll": nll}), (score, -nll), EpochProgress(number + 1, CPU)
        )
        if number == restored_after:
            values = json.loads(json.dumps(state.values(None)))
            state = TrainerState(EpochProgress(1, CPU))
            state.restore(values, EpochProgress(number + 1, CPU))
    keys = [(score, -nll) for score, nll in epochs]
    assert state.best_epoch == 1 + keys.index(max(keys))


@given(st.lists(st.integers(0, 3), min_size=2).filter(lambda labels: len(set(labels)) > 1))
def test_balanced_weights_are_those_of_scikit_learn(labels):
    names = ["a", "b", "c", "d"]
    weights = class_weights("balanced", np.array(labels), names)
    present = np.unique(labels)
    expected = compute_class_weight("balanced", classes=present, y=labels)
    assert weights[present] == pytest.approx(expected)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_a_review_of_weight_two_counts_like_two(smoothing):
    labels, logits = torch.tensor([0, 1, 1, 0, 2]), torch.randn(5, 3)
    names = ("a", "b", "c")
    config = Config(training=TrainingConfig(label_smoothing=smoothing))
    repeated = torch.cat((torch.arange(5), torch.tensor([1, 2, 4, 4])))  # b twice, c three times
    plain = LabelLoss(config, labels, names)(logits[repeated], labels[repeated]).mean()
    for weights in ({"b": 2, "c": 3}, {"a": 0.5, "b": 1, "c": 1.5}):
        training = replace(config.training, class_weights=weights)
        loss = LabelLoss(replace(config, training=training), labels, names)
        assert loss(logits, labels).mean() == pytest.approx(float(plain))


def test_weights_of_classes_that_are_numbers_are_read():
    config = parse(["--training.class_weights={1: 2, '0': 0.5}"], "train").config
    assert config.training.class_weights == {"1": 2.0, "0": 0.5}


def test_weights_of_unknown_classes_are_refused(corpus, tmp_path, capsys):
    command = [f"--data.path={corpus}", f"--output_dir={tmp_path / 'run'}"]
    error = refusal([*command, "--training.class_weights={poss: 2}"], capsys)
    assert "names 'poss', but the classes of" in error
    assert "are neg, pos (did you mean pos?)" in error
    error = refusal([*command, "--training.positive_class=good"], capsys)
    assert "training.positive_class is 'good', but must be one of neg, pos, or null" in error
    assert not (tmp_path / "run").exists()


@pytest.fixture(scope="module")
def skewed(tmp_path_factory) -> Path:
    """A folder whose class spam is 5 of 60 training reviews."""
    folder = tmp_path_factory.mktemp("skewed")
    words = ["won", "prize", "urgent", "hello", "mother", "lunch", "train"]
    rows = [f"{words[n % 7]} {words[n % 5]} {n},{'ham' if n % 12 else 'a spam'}" for n in range(60)]
    (folder / "train.csv").write_text("\n".join(["text,label", *rows]) + "\n")
    return folder


def test_training_says_what_is_rare_and_what_is_never_predicted(skewed, tmp_path, capsys):
    train(skewed, tmp_path / "run", "--training.learning_rate=1e-3")
    said = capsys.readouterr().out
    assert "validation has fewer than ten reviews of a spam (1), ham (6), so" in said
    assert "F1, average precision and thresholds are about ham, 92 % of the training" in said
    assert "--training.positive_class 'a spam'" in said
    assert said.count("         every validation review is predicted ham") == 2
    assert "Every review is predicted ham. To learn the other classes, train" in said
    assert "give more reviews of a spam." in said


def test_a_positive_class_is_what_f1_and_the_threshold_are_about(skewed, tmp_path, capsys):
    changes = ["--training.positive_class=a spam", "--training.monitor=f1"]
    run = train(skewed, tmp_path / "run", *changes)
    assert "F1, average precision" not in capsys.readouterr().out
    predictor = load(run)
    share = np.sort([row.probabilities[0] for row in predictor.predict(["won", "lunch train"])])
    flagged = load(run, threshold=float(share[1])).predict(["won", "lunch train"])
    assert sorted(row.label for row in flagged) == ["a spam", "ham"]
    assert predictor.run.checkpoint.threshold is not None
    best = [epoch["validation"] for epoch in read_epochs(run) if epoch["is_best"]][-1]
    assert best["f1"] == best["by_class"][0]["f1"]


def test_the_hold_out_that_is_advised_holds_ten_of_each_class(tmp_path, caplog):
    names = ["common"] * 160 + ["rare"] * 30
    rows = [f"text number {n},{name}" for n, name in enumerate(names)]
    (tmp_path / "train.csv").write_text("\n".join(["text,label", *rows]) + "\n")
    command = [f"--data.path={tmp_path}", "--vocabulary.min_frequency=1"]
    prepare_training(parse(command, "train").config)
    (share,) = re.findall(r"rare \(3\), .* with --data.validation_share ([0-9.]+),", caplog.text)
    data = prepare_training(parse([*command, f"--data.validation_share={share}"], "train").config)
    assert np.bincount(data.validation.labels).min() >= 10
    assert caplog.text.count("fewer than ten") == 1
