"""The range test of the learning rate: what it measures, suggests, writes and leaves alone."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.trainings import SMALL, read_events, refusal

from sentiment.cli import main as cli
from sentiment.config.parser import parse_training
from sentiment.data.batches import BucketSampler
from sentiment.runs.run import build_model
from sentiment.runtime.device import set_up
from sentiment.tuning.lr_finder import RangeTest, measure_range, prepare_range, range_text, suggest

CPU = torch.device("cpu")


def measure(config, data, **changes) -> RangeTest:
    options = {"lowest": 1e-4, "highest": 1.0, "num_updates": 40, **changes}
    return measure_range(config, data, device=CPU, precision=torch.float32, **options)


@pytest.fixture(scope="module")
def prepared(corpus):
    config = parse_training([f"--data.path={corpus}", *SMALL], "test").config
    return config, prepare_range(config)


def curve(losses, *, span: int = 1, lowest: float = 1e-6) -> RangeTest:
    """A test of those losses, as if smoothed, over six decades."""
    rates = tuple(lowest * 10 ** (6 * place / (len(losses) - 1)) for place in range(len(losses)))
    return RangeTest(span, rates, tuple(losses), tuple(losses), "")


def test_losses_are_those_of_plain_updates_by_hand(prepared):
    """Against Adam, clipping and the loss written out, with the rate set before each update."""
    config, data = prepared
    found = measure(config, data, num_updates=20, highest=1e-2)
    set_up(CPU, config.seed)
    model = build_model(config.model, data.vocabulary, 2).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1)
    sampler = BucketSampler(data.train.lengths, batch_size=16, seed=config.seed)
    batches = []
    for epoch in (1, 2):
        sampler.set_epoch(epoch)
        batches += list(sampler)
    assert 15 == len(batches) / 2 < 20, "the test continues into a second epoch"
    rates = np.geomspace(1e-4, 1e-2, 20)
    for number in range(20):
        batch = data.train.batch(batches[number])
        optimizer.param_groups[0]["lr"] = rates[number]
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(batch.tokens, batch.lengths), batch.labels)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.training.gradient_clip)
        optimizer.step()
        assert found.losses[number] == pytest.approx(loss.item(), rel=1e-4), number
    assert found.learning_rates == pytest.approx(rates)


def test_only_other_settings_than_rate_and_schedule_matter(prepared):
    config, data = prepared
    expected = measure(config, data, num_updates=6)
    for change in ({"schedule": "plateau"}, {"schedule": "linear", "warmup_share": 0.5}):
        other = replace(config, training=replace(config.training, learning_rate=7.0, **change))
        assert measure(other, data, num_updates=6) == expected
    assert measure(replace(config, seed=1), data, num_updates=6).losses != expected.losses


def test_it_stops_where_the_loss_diverges(prepared):
    config, data = prepared
    test = measure(config, data, highest=1e6, num_updates=60)
    assert test.end == "the loss diverged" and len(test.losses) < 60
    assert test.smoothed[-1] > 4 * min(test.smoothed)
    assert all(each <= 4 * min(test.smoothed[: n + 1]) for n, each in enumerate(test.smoothed[:-1]))


@pytest.mark.parametrize("reaction", ["stop", "skip"])
def test_it_stops_where_the_loss_is_no_number(prepared, reaction):
    config, data = prepared
    free = replace(config.training, nonfinite=reaction, gradient_clip=None)
    test = measure(replace(config, training=free), data, highest=1e38, num_updates=30)
    assert test.end != "the highest rate was reached"
    assert all(map(math.isfinite, test.losses)), "what is written is finite"


def test_a_loss_that_is_never_finite_is_said_to_be(prepared):
    config, data = prepared
    with pytest.raises(ValueError, match="not finite at the lowest learning rate, 0.0001"):
        vectors = torch.full((len(data.vocabulary), 8), float("nan"))
        measure(config, replace(data, vectors=vectors))


def test_smoothing_is_the_weighted_mean_of_all_before(prepared):
    test = measure(*prepared, num_updates=40)
    assert test.span == 2
    for number, smoothed in enumerate(test.smoothed):
        weights = 0.5 ** np.arange(number, -1, -1)
        assert smoothed == pytest.approx(np.average(test.losses[: number + 1], weights=weights))


def test_suggestions_are_the_steepest_fall_and_the_minimum():
    """On a curve whose places are known: a logistic fall around 1e-3, and a rise from 1e-1 on."""
    logarithms = np.linspace(-6, 0, 601)
    losses = 0.7 - 0.5 / (1 + np.exp(-6 * (logarithms + 3))) + np.exp(8 * (logarithms + 0.9))
    losses[400:420] = 2.0  # coming down from a sudden rise is no steep fall
    found = suggest(curve(losses, span=10))
    assert math.log10(found.steepest) == pytest.approx(-3, abs=0.02)
    assert math.log10(found.minimum) == pytest.approx(logarithms[losses.argmin()], abs=1e-9)
    assert found.tenth_of_minimum == pytest.approx(found.minimum / 10)


@pytest.mark.parametrize(
    "losses",
    [np.full(100, 0.7), np.linspace(0.7, 0.65, 100), np.linspace(0.7, 3.0, 100), [0.7], [0.7, 0.1]],
    ids=["flat", "hardly falling", "rising", "one update", "two updates"],
)
def test_no_suggestion_without_a_fall(losses):
    test = curve(losses, span=5) if len(losses) > 1 else RangeTest(1, (1e-6,), (0.7,), (0.7,), "")
    assert suggest(test) is None
    assert "give more with --num_updates" in range_text(test, None)


def test_the_command_suggests_and_writes_its_folder_alone(corpus, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    options = ["--training.num_epochs=1", "--lowest=1e-5", "--num_updates=120"]
    arguments = [f"--data.path={corpus}", *SMALL, "--output_dir=runs/one", *options]
    assert cli.main(["find-lr", *arguments]) == 0
    printed = capsys.readouterr().out
    found = json.loads(Path("runs/one-find-lr/find-lr.json").read_text())
    assert found["tenth_of_minimum"] == pytest.approx(found["minimum"] / 10)
    for name in ("steepest", "tenth_of_minimum"):
        assert f"--training.learning_rate {found[name]:.1e}\n" in printed
    assert "Few updates make these rates uncertain" in printed
    assert [each.name for each in Path("runs").iterdir()] == ["one-find-lr"], "no run"
    names = sorted(each.name for each in Path("runs/one-find-lr").iterdir())
    assert names == ["find-lr.json", "find-lr.svg", "tensorboard"]
    points = found["points"]
    assert points[0]["learning_rate"] == pytest.approx(1e-5)
    picture = Path("runs/one-find-lr/find-lr.svg").read_text()
    for text in ("learning rate", "smoothed", f"steepest fall: {found['steepest']:.1e}"):
        assert text in picture
    # Done again, the files take the place of the first ones.
    assert cli.main(["find-lr", *arguments]) == 0
    assert json.loads(Path("runs/one-find-lr/find-lr.json").read_text()) == found
    events = read_events(Path("runs/one-find-lr"), "")
    drawn = [each.value for each in events.Scalars("find-lr/loss")]
    assert drawn == pytest.approx([each["loss"] for each in points])
    assert "pictures/find-lr" in events.Tags()["images"]


def test_a_run_is_not_touched_and_a_pre_training_must_be_there(corpus, tmp_path, capsys):
    (tmp_path / "run.json").write_text("{}")
    error = refusal([f"--data.path={corpus}", f"--output={tmp_path}"], capsys, "find-lr")
    assert "holds a run: choose another --output" in error
    assert [each.name for each in tmp_path.iterdir()] == ["run.json"]
    command = [f"--data.path={corpus}", f"--output={tmp_path / 'out'}"]
    error = refusal([*command, "--pretraining.num_epochs=1"], capsys, "find-lr")
    assert "call sentiment pretrain with these settings" in error
    error = refusal([*command, "--distillation.baseline=true"], capsys, "find-lr")
    assert "call sentiment baseline with these settings first" in error
    assert not (tmp_path / "out").exists()


def test_what_is_learned_beside_the_labels_is_so_here_too(prepared):
    config, data = prepared
    objectives = replace(config.objectives, entropy=5.0, unlabelled=False)
    other = measure(replace(config, objectives=objectives), data, num_updates=6)
    assert other.losses[0] == measure(config, data, num_updates=6).losses[0]
    assert other.losses != measure(config, data, num_updates=6).losses
