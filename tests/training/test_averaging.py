"""The running average of the weights: against its definition, and in a training."""

from __future__ import annotations

import pytest
import torch
from helpers.corpus import write_corpus
from helpers.trainings import arguments

from sentiment.cli import main as cli
from sentiment.model import SentimentClassifier
from sentiment.runs.run import load_run
from sentiment.training.optim import WeightAverage


def small_model() -> SentimentClassifier:
    return SentimentClassifier(vocabulary_size=5, num_classes=2, embedding_size=2, hidden_size=3)


def test_the_average_is_that_of_its_definition():
    torch.manual_seed(0)
    model = small_model()
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


def test_a_restored_average_goes_on_as_it_was():
    model = small_model()
    averages = [WeightAverage(model, 0.9) for _ in range(2)]
    for number in range(12):
        with torch.no_grad():
            model.output.weight.normal_()
        averages[0].update()
        if number == 5:
            averages[1].restore({key: value.clone() for key, value in averages[0].state().items()})
        elif number > 5:
            averages[1].update()
    assert torch.equal(averages[0].model.output.weight, averages[1].model.output.weight)


@pytest.fixture(scope="module")
def reviews(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reviews")
    return write_corpus(folder, splits={"train": 120, "validation": 30})


def test_the_averaged_weights_are_kept_and_the_others_trained_on(reviews, tmp_path):
    """A decay of next to nothing keeps the last weights: it must be the training without one."""
    runs = {}
    for name, settings in {"none": [], "hardly": ["--training.average_decay=1e-9"],
                           "long": ["--training.average_decay=0.9"]}.items():  # fmt: skip
        assert cli.train(arguments(reviews, tmp_path / name, *settings)) == 0
        model = load_run(tmp_path / name, checkpoint="last").model
        runs[name] = torch.cat([each.detach().flatten() for each in model.parameters()])
    assert torch.allclose(runs["hardly"], runs["none"], atol=1e-6)
    assert (runs["long"] - runs["none"]).norm() > 1e-3 * runs["none"].norm()
