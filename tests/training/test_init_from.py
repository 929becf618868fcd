"""A training that starts from a run: its weights by words and classes, and what must agree."""

import json
import shutil

import pytest
from helpers.corpus import write_corpus
from helpers.trainings import refusal, stop_after, train

from sentiment import load
from sentiment.cli import main as cli
from sentiment.config.config import Config
from sentiment.config.sections import PretrainingConfig, TrainingConfig
from sentiment.data.vocabulary import token_counts
from sentiment.diagnostics.run_diff import check_inputs, compare_runs, read_provenance
from sentiment.runs.run import load_run, load_settings
from sentiment.runtime.files import file_sha256
from sentiment.training.checkpoint import load_state

TEXTS = ["a great film", "the plot was dull", "music in a scene", "zzz"]
STILL = "--training.learning_rate=1e-30"  # nothing is learned


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """A run with every kind of weights, on other reviews."""
    folder = tmp_path_factory.mktemp("first")
    corpus = write_corpus(folder / "old", splits={"train": 60, "validation": 20}, seed=1)
    layers = ["--model.pooling=last+attention", "--model.learned_initial_state=true"]
    return train(corpus, folder / "run", *layers)


@pytest.fixture(scope="module")
def reviews(tmp_path_factory):
    """Reviews with a word of their own and, in ``stars``, with other classes."""
    folder = write_corpus(tmp_path_factory.mktemp("new"), splits={"train": 60, "validation": 20})
    for path in list(folder.iterdir()):
        text = path.read_text().replace(" film", " gadget")
        path.write_text(text)
        (folder / "stars").mkdir(exist_ok=True)
        stars = text.replace(",neg", ",one").replace(",pos", ",two")
        (folder / "stars" / path.name).write_text(stars.replace("one", "three", 5))
    return folder


def options(first, corpus, run, *more):
    settings = f"--config={first / 'config.yaml'}"
    start = f"--training.init_from={first}"
    return [settings, f"--data.path={corpus}", f"--output_dir={run}", start, *more]


def probabilities(run, names=("neg", "pos")):
    predictor = load(run, calibrated=False)
    order = [predictor.class_names.index(name) for name in names]
    return [[each.probabilities[index] for index in order] for each in predictor.predict(TEXTS)]


@pytest.mark.parametrize("vocabulary", ["keep", "extend"])
def test_it_starts_as_the_run_predicts(vocabulary, first, reviews, tmp_path):
    """Also where classes are in another order, and words at other places."""
    run = tmp_path / "run"
    changes = ["--data.class_names=[pos,neg]", f"--training.init_vocabulary={vocabulary}", STILL]
    assert cli.train(options(first, reviews, run, *changes)) == 0
    for row, expected in zip(probabilities(run), probabilities(first), strict=True):
        assert row == pytest.approx(expected, abs=1e-6)
    old, new = load_run(first).vocabulary, load_run(run).vocabulary
    assert ("gadget" in new.itos) == (vocabulary == "extend")
    counts = dict(zip(new.itos, token_counts(new), strict=True))
    text = " ".join((reviews / "train.csv").read_text().split())
    added = text.split().count("dull") if vocabulary == "extend" else 0
    assert counts["dull"] == pytest.approx(old.freqs["dull"] + added, abs=added // 8)
    assert set(old.itos) <= set(new.itos)
    start = json.loads((run / "run.json").read_text())["initial_run"]
    assert start["path"] == str(first)
    assert start["sha256"] == file_sha256(first / "checkpoints" / "best" / "model.safetensors")


def test_other_classes_get_a_new_last_layer(first, reviews, tmp_path, capsys):
    run = tmp_path / "run"
    capsys.readouterr()
    assert cli.train(options(first, reviews / "stars", run, STILL)) == 0
    line = f"a new last layer for the classes one, three, two, since {first} has neg, pos"
    assert line in capsys.readouterr().out
    old, new = load_run(first), load_run(run)
    assert new.class_names == ("one", "three", "two")
    for name, weight in old.model.state_dict().items():
        if not name.startswith(("output.", "embedding.")):
            assert weight.equal(new.model.state_dict()[name]), name


def test_it_resumes_to_the_bit_without_the_run(first, reviews, tmp_path):
    start, whole, broken = tmp_path / "start", tmp_path / "whole", tmp_path / "broken"
    shutil.copytree(first, start)
    assert cli.train(options(start, reviews, whole)) == 0
    stop_after(options(start, reviews, broken), 3)
    shutil.rmtree(start)
    assert load_state(broken).values["updates"]["update"] == 0
    assert cli.train([f"--resume={broken}"]) == 0
    assert compare_runs(whole, broken).is_equal


def test_a_run_with_other_layers_names_the_options_that_fit(first, reviews, tmp_path, capsys):
    changes = ["--model.hidden_size=4", "--model.pooling=max", "--data.lower_case=false"]
    command = options(first, reviews, tmp_path / "run", *changes)
    message = refusal(command, capsys)
    assert "differs in model.hidden_size, data.lower_case, model.pooling: give --mod" in message
    advice = message.strip().partition(": give ")[2].split()
    assert cli.train([*command, *advice, "--training.num_epochs=1"]) == 0


def test_what_is_no_finished_run_is_refused(first, reviews, tmp_path, capsys):
    begun = tmp_path / "begun"
    stop_after(options(first, reviews, begun), 3)
    for folder, message in (
        (begun, f"is not finished: resume it with python train.py --resume {begun}"),
        (tmp_path / "none", "training.init_from must name a run: "),
    ):
        command = options(folder, reviews, tmp_path / "run")[1:]
        assert message in refusal(command, capsys)
    command = options(first, reviews, first, "--overwrite")
    assert f"training.init_from and output_dir are both {first}" in refusal(command, capsys)
    assert load_run(first)
    with pytest.raises(ValueError, match="pretraining.num_epochs also decides the initial"):
        Config(training=TrainingConfig(init_from="a"), pretraining=PretrainingConfig(num_epochs=1))


def test_the_same_source_with_another_hold_out_is_warned_of(tmp_path, capsys):
    corpus = write_corpus(tmp_path / "corpus", splits={"train": 80})
    first, run = tmp_path / "first", tmp_path / "run"
    train(corpus, first, "--training.num_epochs=1")
    for seed, is_warned in ((0, False), (1, True)):
        capsys.readouterr()
        changes = [f"--data.validation_seed={seed}", "--overwrite"]
        assert cli.train(options(first, corpus, run, *changes)) == 0
        assert ("perhaps on some that are held out now" in capsys.readouterr().out) == is_warned


def test_a_reproduction_needs_the_same_run(first, reviews, tmp_path):
    start, run = tmp_path / "start", tmp_path / "run"
    shutil.copytree(first, start)
    assert cli.train(options(start, reviews, run)) == 0
    provenance, config = read_provenance(run), load_settings(run)
    check_inputs(provenance, config, run)
    weights = start / "checkpoints" / "best" / "model.safetensors"
    weights.write_bytes(weights.read_bytes() + b" ")
    with pytest.raises(ValueError, match=f"the run {start} has weights with digest"):
        check_inputs(provenance, config, run)
