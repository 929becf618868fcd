"""Rare classes: their weights in the loss, ties between epochs, and what training says of them."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers.trainings import refusal
from hypothesis import given
from hypothesis import strategies as st
from sklearn.utils.class_weight import compute_class_weight

from sentiment.cli.train import parse
from sentiment.config.config import TrainingConfig
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
    config = TrainingConfig(label_smoothing=smoothing)
    repeated = torch.cat((torch.arange(5), torch.tensor([1, 2, 4, 4])))  # b twice, c three times
    plain = LabelLoss(config, labels, names)(logits[repeated], labels[repeated]).mean()
    for weights in ({"b": 2, "c": 3}, {"a": 0.5, "b": 1, "c": 1.5}):
        loss = LabelLoss(replace(config, class_weights=weights), labels, names)
        assert loss(logits, labels).mean() == pytest.approx(float(plain))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("balanced", "balanced"),
        ("{pos: 3, neg: 0.5}", {"pos": 3.0, "neg": 0.5}),
        ("{1: 2, '0': 1}", {"1": 2.0, "0": 1.0}),
    ],
)
def test_weights_are_read(value, expected):
    assert parse([f"--training.class_weights={value}"], "train").config.training.class_weights == (
        expected
    )


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("{pos: 0}", "training.class_weights of pos is 0.0, but must be above 0 and finite"),
        ("{pos: .inf}", "of pos is inf, but must be above 0"),
        ("{yes: 2}", """is True, but must be a name: write one like yes as "yes\""""),
        ("balance", "did you mean balanced?"),
        ("{pos: much}", "class_weights"),
    ],
)
def test_bad_weights_are_refused(value, message, capsys):
    with pytest.raises(SystemExit):
        parse([f"--training.class_weights={value}"], "train")
    assert message in capsys.readouterr().err


def test_weights_of_unknown_classes_are_refused(corpus, tmp_path, capsys):
    command = [f"--data.path={corpus}", f"--output_dir={tmp_path / 'run'}"]
    error = refusal([*command, "--training.class_weights={poss: 2}"], capsys)
    assert "names 'poss', but the classes of" in error
    assert "are neg, pos (did you mean pos?)" in error
    assert not (tmp_path / "run").exists()
