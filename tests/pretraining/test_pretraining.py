"""Pre-training from the command line: made once, resumed, and started from."""

from __future__ import annotations

import csv
import os
import signal
from pathlib import Path

import pytest
import torch
from helpers import pretraining
from helpers.corpus import write_corpus
from helpers.pretraining import curves, pretrain, stop_before_batch

from sentiment.cli import main as cli
from sentiment.cli.train import execute, parse
from sentiment.config.parser import parse_training
from sentiment.data.pipeline import prepare_pretraining
from sentiment.pretraining.pretrainer import Pretrainer
from sentiment.runs.pretrained import check_fits
from sentiment.runs.run import is_finished, load_run
from sentiment.runs.weights import read_weights
from sentiment.runtime.processes import Interrupted
from sentiment.training.checkpoint import load_state, state_path


@pytest.fixture(scope="module")
def reviews(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reviews")
    write_corpus(folder, splits={"train": 60, "validation": 16, "unsupervised": 80})
    return folder


def options(reviews: Path, run: Path, *more: str) -> list[str]:
    longer = "--pretraining.num_epochs=2", "--pretraining.learning_rate=0.01"
    return pretraining.options(reviews, run, *longer, *more)


@pytest.fixture(scope="module")
def finished(reviews: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("finished") / "model"
    assert pretrain(*options(reviews, path)) == 0
    return path


@pytest.fixture(scope="module")
def counting(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Reviews that count in a circle of ten words: only the first word cannot be predicted."""
    folder = tmp_path_factory.mktemp("counting")
    circle = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
    for split, count in (("train", 150), ("validation", 10)):
        with (folder / f"{split}.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["text", "label"])
            for number in range(count):
                length = 12 + number % 9 + (split == "validation") * 10
                text = " ".join(circle[(number + place) % 10] for place in range(length))
                writer.writerow([text, ("neg", "pos")[number % 2]])
    return folder


@pytest.mark.parametrize("objective", ["language_model", "autoencoder"])
def test_it_learns_to_predict(counting, tmp_path, objective):
    path = tmp_path / "model"
    more = (
        f"--pretraining.objective={objective}", "--pretraining.num_epochs=8",
        "--pretraining.learning_rate=0.03", "--pretraining.window=80",
        "--pretraining.max_length=40",
        "--data.shared_reviews=ignore", "--pretraining.dropout=0", "--model.hidden_size=16",
    )  # fmt: skip
    assert pretrain(*options(counting, path, *more)) == 0
    written = curves(path)
    for direction in ("forward", "backward"):
        (_, first), *_, (_, last) = written[f"pretraining/sampled_loss_{direction}"]
        assert last < first / 3
        *_, (_, perplexity) = written[f"perplexity/{direction}"]
        assert perplexity < 2, "10 by chance"
    _, position = read_weights(path, "last")
    assert position.metrics["perplexity_forward"] == pytest.approx(
        written["perplexity/forward"][-1][1], rel=1e-5
    )
    assert not state_path(path).exists()


def test_validation_reviews_are_not_read(reviews, tmp_path):
    folder = tmp_path / "reviews"
    write_corpus(folder, splits={"train": 20, "validation": 8, "unsupervised": 10})
    with (folder / "validation.csv").open(encoding="utf-8", newline="") as file:
        copied = [row["text"].upper() for row in csv.DictReader(file)][:3]
    with (folder / "unsupervised.csv").open("a", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([(text, "-1") for text in copied])
    config = parse_training(options(folder, tmp_path / "run"), "test").config
    texts = prepare_pretraining(config)
    assert [len(each) for each in texts.corpora] == [20, 10]
    assert not {word for word in texts.vocabulary.itos if word.startswith("validation")}


def test_unlabelled_reviews_can_be_left_out(reviews, tmp_path):
    """As if the source had none, also in the vocabulary."""
    settings = [*options(reviews, tmp_path / "run"), "--pretraining.unlabelled=false"]
    found = prepare_pretraining(parse_training(settings, "test").config)
    poor = write_corpus(tmp_path / "poor", splits={"train": 60, "validation": 16})
    expected = prepare_pretraining(parse_training(options(poor, tmp_path / "run"), "test").config)
    (own,), (other,) = found.corpora, expected.corpora
    assert found.vocabulary.itos == expected.vocabulary.itos
    assert own.tokens.equal(other.tokens) and own.starts.equal(other.starts)
    assert found.fingerprints == expected.fingerprints
    assert found.fingerprints.keys() == {"train", "validation"}


def test_a_stopped_pretraining_is_resumed_by_the_same_command(
    reviews, finished, tmp_path, monkeypatch
):
    path = tmp_path / "model"
    arguments = options(reviews, path)
    stop_before_batch(monkeypatch, 7)
    with pytest.raises(SystemExit) as end:
        pretrain(*arguments)
    assert end.value.code == 143
    assert load_state(path).values["num_batches"] == 7
    with pytest.raises(FileNotFoundError, match="is not finished"):
        check_fits(parse_training(arguments, "test").config, path)
    assert pretrain(*arguments) == 0
    resumed, expected = (read_weights(each, "last")[0] for each in (path, finished))
    assert all(torch.equal(resumed[name], expected[name]) for name in expected)


def test_training_makes_it_once_and_starts_from_it(reviews, tmp_path, monkeypatch, capsys):
    run = tmp_path / "run"
    arguments = options(reviews, run, "--training.learning_rate=1e-12")
    assert cli.train(arguments) == 0
    beside = tmp_path / "run-pretraining"
    taken, _ = read_weights(beside, "last")
    model = load_run(run).model
    for name, tensor in model.state_dict().items():
        is_taken = name.startswith(("embedding.", "recurrence."))
        assert torch.allclose(tensor, taken[name], atol=1e-6) or not is_taken
    assert "unsupervised0" in load_run(run).vocabulary.stoi, "its vocabulary is taken too"
    monkeypatch.setattr(Pretrainer, "fit", lambda self: pytest.fail("made a second time"))
    assert cli.train([*arguments, "--overwrite"]) == 0
    assert "already pre-trained" in capsys.readouterr().out


def test_a_resumed_training_needs_it_no_more(reviews, finished, tmp_path):
    run = tmp_path / "run"
    arguments = options(reviews, run, f"--pretraining.path={finished}", "--training.num_epochs=2")

    def stop(update: int) -> None:
        if update == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted):
        execute(parse(arguments, "train"), stop)
    elsewhere = finished.rename(finished.with_name("elsewhere"))
    try:
        assert cli.train([f"--resume={run}"]) == 0
    finally:
        elsewhere.rename(finished)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("--model.hidden_size=9", "model.hidden_size is 9, but the pre-training in"),
        ("--data.lower_case=false", "data.lower_case is False, but the pre-training in"),
    ],
)
def test_one_that_does_not_fit_is_refused(reviews, finished, tmp_path, capsys, change, message):
    more = f"--pretraining.path={finished}", change
    assert cli.train(options(reviews, tmp_path / "run", *more)) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_other_reviews_held_out_are_refused(reviews, finished, tmp_path, capsys):
    folder = write_corpus(tmp_path / "other", splits={"train": 60, "validation": 20}, seed=9)
    more = f"--pretraining.path={finished}"
    assert cli.train(options(folder, tmp_path / "run", more)) == 1
    assert "which it may have learned from: train it with the same data" in capsys.readouterr().err


def test_a_folder_of_another_pretraining_is_refused(reviews, finished, capsys):
    assert pretrain(*options(reviews, finished, "--pretraining.window=9")) == 1
    error = capsys.readouterr().err
    assert "holds a pre-training whose pretraining.window is 8, not 9" in error
    assert f"to start anew, remove {finished}, or choose another output_dir" in error


def test_a_pretraining_is_no_classifier(finished, capsys):
    assert cli.evaluate(["--run", str(finished), "--split", "validation"]) == 1
    assert "is a pre-training, not a classifier" in capsys.readouterr().err


def test_without_output_dir_it_lies_where_training_looks(reviews, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    given = [each for each in options(reviews, tmp_path) if not each.startswith("--output_dir")]
    assert pretrain(*given) == 0
    assert is_finished(Path("runs/quickstart-pretraining")) and not Path("runs/quickstart").exists()
    assert cli.train(given) == 0
    assert "already pre-trained" in capsys.readouterr().out


def test_no_epochs_or_several_processes(reviews, tmp_path, capsys, monkeypatch):
    assert pretrain(*options(reviews, tmp_path / "a", "--pretraining.num_epochs=0")) == 1
    assert "pretraining.num_epochs is 0" in capsys.readouterr().err
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_ADDR"):
        monkeypatch.setenv(name, "2" if name == "WORLD_SIZE" else "0")
    assert pretrain(*options(reviews, tmp_path / "b")) == 1
    assert "pre-training runs in one process" in capsys.readouterr().err
