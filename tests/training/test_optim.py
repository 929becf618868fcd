"""Optimizer, schedules, layer rates (Howard & Ruder 2018) and averaged weights."""

import math

import pytest
import torch

from sentiment.config.config import TrainingConfig
from sentiment.model import SentimentClassifier
from sentiment.training.optim import Schedule, WeightAverage, build_optimizer

RATE = 0.08


def build(**options) -> SentimentClassifier:
    return SentimentClassifier(
        vocabulary_size=9, num_classes=2, embedding_size=4, hidden_size=3, num_layers=2,
        learned_initial_state=True, pooling="attention", **options,
    )  # fmt: skip


def by_name(model: SentimentClassifier, optimizer: torch.optim.Optimizer, key: str) -> dict:
    """A value of the optimizer's groups for each parameter."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {
        names[id(each)]: group[key] for group in optimizer.param_groups for each in group["params"]
    }


def depth_of(name: str) -> int:
    if name.startswith("embedding"):
        return 3
    if name.startswith("initial_states") or "_l0" in name:
        return 2
    return 1 if "_l1" in name else 0


def test_rates_fall_from_the_linear_layer_down_and_only_matrices_decay():
    config = TrainingConfig(
        learning_rate=RATE, layer_rate_factor=0.5, optimizer="adamw", weight_decay=0.1
    )
    model = build()
    optimizer = build_optimizer(model, config)
    rates, decays = (by_name(model, optimizer, key) for key in ("lr", "weight_decay"))
    assert set(rates) == {name for name, _ in model.named_parameters()}
    for name, parameter in model.named_parameters():
        assert rates[name] == pytest.approx(RATE * 0.5 ** depth_of(name)), name
        is_factor = parameter.dim() >= 2 and not name.startswith(("embedding", "initial"))
        assert (decays[name] > 0) == is_factor, name


def test_layers_start_one_after_another():
    """With 10 updates per epoch and half an epoch of waiting, each starts 5 updates later."""
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
        for name, rate in by_name(model, optimizer, "lr").items():
            expected = RATE * (1 - update / 40) if update >= 5 * depth_of(name) else 0.0
            assert rate == pytest.approx(expected), (update, name)
        optimizer.zero_grad()
        model(tokens, lengths)[:, 0].sum().backward()
        optimizer.step()
        schedule.after_update()
        for name, each in model.named_parameters():
            if not torch.equal(each, start[name]):
                first_change.setdefault(name, update)
    # Before the recurrence has changed, attention's weights may get a gradient of zeros.
    assert {name: 5 * depth_of(name) for name in first_change} == first_change
    assert {depth_of(name) for name in first_change} == {0, 1, 2, 3}


def rates_by_update(schedule: str, num_updates: int = 10, **settings) -> list[float]:
    config = TrainingConfig(learning_rate=1.0, schedule=schedule, **settings)
    optimizer = build_optimizer(torch.nn.Linear(2, 2), config)
    scheduler = Schedule(optimizer, config, num_updates)
    result = []
    for _ in range(num_updates):
        result.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.after_update()
    return result


def test_schedules():
    assert rates_by_update("constant") == [1.0] * 10
    assert rates_by_update("linear") == pytest.approx([1 - i / 10 for i in range(10)])
    assert rates_by_update("cosine") == pytest.approx(
        [(1 + math.cos(math.pi * i / 10)) / 2 for i in range(10)]
    )
    warm = rates_by_update("linear", warmup_share=0.3)
    assert warm[:4] == pytest.approx([0.25, 0.5, 0.75, 1.0])
    assert warm[4:] == pytest.approx([1 - i / 7 for i in range(1, 7)])


def test_the_average_is_that_of_its_definition():
    torch.manual_seed(0)
    model = build()
    average = WeightAverage(model, 0.6)
    expected: torch.Tensor | None = None
    for number in range(30):
        with torch.no_grad():
            model.output.weight.normal_()
        average.update()
        kept = min(0.6, (1 + number) / (10 + number))
        now = model.output.weight.detach().double()
        expected = now if expected is None else kept * expected + (1 - kept) * now
    assert torch.allclose(average.model.output.weight.double(), expected, atol=1e-6)
    assert not torch.allclose(average.model.output.weight, model.output.weight)
