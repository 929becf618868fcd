"""Pre-training from the command line: what it learns, what starts from it, what stops change."""

import csv
import os
import shutil
import signal
from pathlib import Path

import pytest
import torch
from helpers.corpus import write_corpus
from helpers.pretraining import curves, options, pretrain, stop_before_batch
from helpers.review_files import read_rows, write
from helpers.trainings import refusal, stop_after

from sentiment.cli import main as cli
from sentiment.config.parser import parse_training
from sentiment.data.pipeline import prepare_pretraining
from sentiment.pretraining.pretrainer import Pretrainer
from sentiment.runs.initial import check_fits
from sentiment.runs.manifest import read_manifest
from sentiment.runs.run import is_finished, load_run
from sentiment.runs.weights import read_weights
from sentiment.training.checkpoint import CheckpointData, load_state, save_state, state_path


@pytest.fixture(scope="module")
def counting(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Reviews that count in a circle of ten words: only the first word cannot be predicted."""
    folder = tmp_path_factory.mktemp("counting")
    circle = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
    for split, count, shortest in (("train", 150, 12), ("validation", 10, 22)):
        texts = [
            " ".join(circle[(number + place) % 10] for place in range(shortest + number % 9))
            for number in range(count)
        ]
        write(folder / f"{split}.csv", {"text": texts, "label": ["neg", "pos"] * (count // 2)})
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
    copied = [row["text"].upper() for row in read_rows(folder / "validation.csv")][:3]
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
    more = f"--pretraining.path={finished}", "--training.batch_size=16"
    stop_after(options(reviews, run, *more, "--training.checkpoint_updates=1"), 2)
    shutil.rmtree(finished)
    assert cli.train([f"--resume={run}"]) == 0


def test_other_reviews_held_out_are_refused(reviews, finished, tmp_path, capsys):
    folder = write_corpus(tmp_path / "other", splits={"train": 60, "validation": 20}, seed=9)
    command = options(folder, tmp_path / "run", f"--pretraining.path={finished}")
    message = "which it may have learned from: train it with the same data"
    assert message in refusal(command, capsys)


def test_without_output_dir_it_lies_where_training_looks(reviews, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    given = [each for each in options(reviews, tmp_path) if not each.startswith("--output_dir")]
    assert pretrain(*given) == 0
    assert is_finished(Path("runs/quickstart-pretraining")) and not Path("runs/quickstart").exists()
    assert cli.train(given) == 0
    assert "already pre-trained" in capsys.readouterr().out


def test_it_runs_in_one_process(reviews, tmp_path, capsys, monkeypatch):
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_ADDR"):
        monkeypatch.setenv(name, "2" if name == "WORLD_SIZE" else "0")
    error = refusal(options(reviews, tmp_path / "run"), capsys, "pretrain")
    assert "pre-training runs in one process" in error


def run(reviews: Path, path: Path, *more: str) -> dict[str, torch.Tensor]:
    """The weights of a pre-training."""
    assert pretrain(*settings(reviews, path, *more)) == 0
    return read_weights(path, "last")[0]


def settings(reviews: Path, path: Path, *more: str) -> list[str]:
    few = "--pretraining.num_candidates=50", "--pretraining.warmup_share=0"
    return options(reviews, path, *few, "--pretraining.num_epochs=2", *more)


def assert_equal_trainings(path: Path, other: Path) -> None:
    weights, expected = (read_weights(each, "last")[0] for each in (path, other))
    assert all(torch.equal(weights[name], expected[name]) for name in expected)
    assert curves(path) == curves(other)


@pytest.fixture(scope="module")
def plain(reviews: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("plain") / "model"
    run(reviews, path)
    return path


@pytest.mark.parametrize(
    "option",
    [
        "seed=1", "pretraining.num_epochs=1", "pretraining.batch_size=20", "pretraining.window=9",
        "pretraining.max_length=12", "pretraining.learning_rate=0.01", "pretraining.dropout=0",
        "pretraining.warmup_share=0.4", "pretraining.gradient_clip=0.01",
        "pretraining.num_candidates=40",
    ],
)  # fmt: skip
def test_each_setting_has_an_effect(reviews, plain, tmp_path, option):
    changed, before = run(reviews, tmp_path / "run", f"--{option}"), read_weights(plain, "last")[0]
    name = "recurrence.weight_hh_l0"
    assert not torch.equal(changed[name], before[name])


@pytest.mark.parametrize("batch", [1, 7, 9])  # of 7 in an epoch
def test_a_stop_changes_nothing(reviews, plain, tmp_path, monkeypatch, batch):
    path = tmp_path / "model"
    stop_before_batch(monkeypatch, batch)
    with pytest.raises(SystemExit) as end:
        run(reviews, path)
    assert end.value.code == 143
    with pytest.raises(FileNotFoundError, match="is not finished"):
        check_fits(parse_training(settings(reviews, path), "test").config, path)
    state = load_state(path)
    values = {**state.values, "seconds": 1_000.0}
    save_state(path, CheckpointData(values, state.tensors))
    run(reviews, path)
    assert_equal_trainings(path, plain)
    assert read_manifest(path)["result"]["seconds"] > 1_000, "seconds before the stop count"


def test_a_stop_during_the_last_measurement_counts(reviews, plain, tmp_path, monkeypatch):
    measure = Pretrainer._measure

    def stopped(self):
        measure(self)
        if self._epoch == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    path = tmp_path / "model"
    monkeypatch.setattr(Pretrainer, "_measure", stopped)
    with pytest.raises(SystemExit):
        run(reviews, path)
    monkeypatch.setattr(Pretrainer, "_measure", measure)
    run(reviews, path)
    assert_equal_trainings(path, plain)


def test_checkpoints_by_count_are_not_missed_within_a_batch(reviews, tmp_path, monkeypatch):
    saved: list[int] = []
    monkeypatch.setattr(
        "sentiment.pretraining.pretrainer.save_state",
        lambda path, checkpoint: saved.append(checkpoint.values["update"]),
    )
    run(reviews, tmp_path / "model", "--training.checkpoint_updates=5")
    # At the end of the batch in which one was due, of up to four windows.
    assert all(any(due <= update < due + 4 for update in saved) for due in range(5, saved[-1], 5))


def test_non_finite_weights_are_never_saved(reviews, tmp_path, capsys):
    path = tmp_path / "model"
    more = "--pretraining.learning_rate=1e30", "--training.checkpoint_updates=1"
    error = refusal(settings(reviews, path, *more), capsys, "pretrain")
    assert "lower pretraining.learning_rate" in error
    state = load_state(path) if (path / "checkpoints").exists() else None
    for name, tensor in ({} if state is None else state.tensors).items():
        assert not tensor.is_floating_point() or tensor.isfinite().all(), name


def test_validation_reviews_of_one_word(tmp_path, capsys):
    folder = write_corpus(tmp_path / "reviews", splits={"train": 20, "validation": 2})
    (folder / "validation.csv").write_text("text,label\ngood,pos\nbad,neg\n", encoding="utf-8")
    error = refusal(settings(folder, tmp_path / "model"), capsys, "pretrain")
    assert "every validation review has fewer than two words" in error
