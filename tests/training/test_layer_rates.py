"""Layers that learn at falling rates, and one after another (Howard & Ruder 2018)."""

from __future__ import annotations

import pytest
import torch

from sentiment.config.config import TrainingConfig
from sentiment.config.parser import parse_training
from sentiment.model import SentimentClassifier
from sentiment.training.optim import Schedule, build_optimizer

RATE = 0.08


def build(**options) -> SentimentClassifier:
    return SentimentClassifier(
        vocabulary_size=9, num_classes=2, embedding_size=4, hidden_size=3, num_layers=2,
        learned_initial_state=True, pooling="attention", **options,
    )  # fmt: skip


def rates(model: SentimentClassifier, optimizer: torch.optim.Optimizer) -> dict[str, float]:
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {
        names[id(each)]: group["lr"] for group in optimizer.param_groups for each in group["params"]
    }


def depth_of(name: str) -> int:
    if name.startswith("embedding"):
        return 3
    if name.startswith("initial_states") or "_l0" in name:
        return 2
    return 1 if "_l1" in name else 0


def test_rates_fall_from_the_linear_layer_down():
    model = build()
    optimizer = build_optimizer(model, TrainingConfig(learning_rate=RATE, layer_rate_factor=0.5))
    found = rates(model, optimizer)
    assert set(found) == {name for name, _ in model.named_parameters()}
    for name, rate in found.items():
        assert rate == pytest.approx(RATE * 0.5 ** depth_of(name)), name


def test_decay_stays_with_the_matrices():
    config = TrainingConfig(optimizer="adamw", weight_decay=0.1, layer_rate_factor=0.5)
    model = build()
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    for group in build_optimizer(model, config).param_groups:
        for parameter in group["params"]:
            name = names[id(parameter)]
            is_factor = parameter.dim() >= 2 and not name.startswith(("embedding", "initial"))
            assert (group["weight_decay"] > 0) == is_factor, name


def test_layers_begin_one_after_another():
    """With 10 updates an epoch and half an epoch of waiting, each begins 5 updates later."""
    config = TrainingConfig(
        num_epochs=4, learning_rate=RATE, unfreeze_epochs=0.5, schedule="linear", optimizer="adamw",
        weight_decay=0.1,
    )  # fmt: skip
    model = build()
    optimizer = build_optimizer(model, config)
    schedule = Schedule(optimizer, config, num_updates=40)
    start = {name: each.detach().clone() for name, each in model.named_parameters()}
    first_change: dict[str, int] = {}
    tokens, lengths = torch.tensor([[3, 4, 5], [6, 7, 8]]), torch.tensor([3, 3])
    for update in range(40):
        for name, rate in rates(model, optimizer).items():
            expected = RATE * (1 - update / 40) if update >= 5 * depth_of(name) else 0.0
            assert rate == pytest.approx(expected), (update, name)
        optimizer.zero_grad()
        model(tokens, lengths)[:, 0].sum().backward()
        optimizer.step()
        schedule.after_update()
        for name, each in model.named_parameters():
            if not torch.equal(each, start[name]):
                first_change.setdefault(name, update)
    # Attention's weights before the recurrence has moved may get a gradient of nothing but zeros.
    assert {name: 5 * depth_of(name) for name in first_change} == first_change
    assert {depth_of(name) for name in first_change} == {0, 1, 2, 3}


def test_one_group_for_all_where_nothing_is_asked():
    groups = build_optimizer(build(), TrainingConfig()).param_groups
    assert {group["lr"] for group in groups} == {1e-3}
    assert len(groups) == 2


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--training.layer_rate_factor=0", "training.layer_rate_factor is 0.0, but must be above"),
        ("--training.layer_rate_factor=1.5", "must be above 0 and at most 1"),
        ("--training.unfreeze_epochs=0", "training.unfreeze_epochs is 0.0, but must be above 0"),
        ("--training.unfreeze_epochs=1", "choose another training.schedule"),
    ],
)
def test_values_out_of_range(option, message, capsys):
    with pytest.raises(SystemExit):
        parse_training([option, "--training.schedule=plateau"], "train.py")
    assert message in capsys.readouterr().err
