"""Pre-trainings that must not be used: of other reviews, other settings, in other folders."""

import csv
import json
import shutil
from pathlib import Path

import pytest
import torch
from helpers.corpus import write_corpus
from helpers.pretraining import options, pretrain
from helpers.trainings import in_process, learn_from, refusal, rewrite

from sentiment.cli import main as cli
from sentiment.config.config import Config
from sentiment.config.parser import parse_training
from sentiment.data import pipeline as pretraining_texts
from sentiment.data.pipeline import load_pretraining
from sentiment.data.reviews import file_fingerprint
from sentiment.diagnostics import reproduce as reproducing
from sentiment.pretraining.pretrainer import Pretrainer
from sentiment.pretraining.run import find_pretraining
from sentiment.runs.initial import check_same
from sentiment.runs.manifest import read_manifest
from sentiment.runs.run import is_finished
from sentiment.runs.weights import read_weights
from sentiment.runtime.distributed import DistributedContext
from sentiment.runtime.errors import UserError
from sentiment.runtime.processes import Interrupted
from sentiment.training.checkpoint import state_path
from sentiment.training.context import TrainingContext

CPU = torch.device("cpu")


def settings(*arguments: str) -> Config:
    return parse_training(list(arguments), "test").config


def find(*arguments: str, distributed: DistributedContext | None = None) -> Path | None:
    """The folder that a training with these settings would start from."""
    config, distributed = settings(*arguments), distributed or DistributedContext()
    path = Path(config.output_dir)
    return find_pretraining(TrainingContext(config, path, CPU, torch.float32, distributed))


@pytest.fixture
def never(monkeypatch) -> None:
    """No pre-training must begin."""
    monkeypatch.setattr(Pretrainer, "fit", lambda self: pytest.fail("pre-training began"))


def pretrain_and_stop(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    """Stop with a checkpoint before the first update."""

    def fit(self: Pretrainer) -> None:
        self._save_checkpoint()
        raise Interrupted(15)

    with monkeypatch.context() as patch:
        patch.setattr(Pretrainer, "fit", fit)
        with pytest.raises(SystemExit):
            pretrain(*arguments)


def add_review(folder: Path, split: str, text: str) -> None:
    with (folder / f"{split}.csv").open("a", encoding="utf-8", newline="") as file:
        csv.writer(file).writerow([text, "neg"])


@pytest.mark.parametrize("is_done", [False, True])
@pytest.mark.parametrize("split", ["train", "unsupervised"])
def test_other_reviews_are_refused(reviews, tmp_path, monkeypatch, capsys, split, is_done):
    folder = Path(shutil.copytree(reviews, tmp_path / "reviews"))
    path = tmp_path / "model"
    if is_done:
        assert pretrain(*options(folder, path)) == 0
    else:
        pretrain_and_stop(monkeypatch, *options(folder, path))
    assert state_path(path).exists() == (not is_done)
    add_review(folder, split, "one more that nobody has read")
    monkeypatch.setattr(Pretrainer, "fit", lambda self: pytest.fail("it goes on"))
    error = refusal(options(folder, path), capsys, "pretrain")
    assert f"the {split} reviews are " in error
    assert f"or remove {path} to start anew" in error


def test_another_file_of_vectors_is_refused(reviews, tmp_path, capsys, monkeypatch):
    file = tmp_path / "vectors.txt"
    file.write_text(f"great {'0.5 ' * 7}0.5\n")
    arguments = options(reviews, tmp_path / "model", f"--vectors.path={file}")
    assert pretrain(*arguments) == 0
    assert read_manifest(tmp_path / "model")["vectors"] == file_fingerprint(file)
    monkeypatch.setattr(Pretrainer, "fit", lambda self: pytest.fail("made again"))
    assert pretrain(*arguments) == 0
    file.write_text(f"great {'0.5 ' * 7}0.25\n")
    assert f"vectors.path is '{file}', with digest" in refusal(arguments, capsys, "pretrain")
    error = refusal(options(reviews, tmp_path / "model"), capsys, "pretrain")
    assert "with none, but the pre-training" in error


# {all} are the settings, {run} is the run to be, and {it} the pre-training.
REFUSALS = [
    ("train {all} --pretraining.path={it} --model.hidden_size=9", "model.hidden_size is 9, but"),
    ("train {all} --pretraining.path={it} --data.lower_case=false", "lower_case is False, but"),
    ("train {all} --pretraining.path={it} --data.shared_reviews=drop", "copies of test reviews"),
    ("train {all} --pretraining.path={run}", "pretraining.path and output_dir are both {run}"),
    ("train {all} --pretraining.path=nowhere", "no pre-training to start from (pretraining.path)"),
    ("train {all} --pretraining.num_epochs=0 --output_dir={it} --overwrite", "start from it"),
    ("train {all} --pretraining.num_epochs=0 --output_dir={it} --auto_resume", "start from it"),
    ("train --resume={it}", "start from it with --pretraining.path {it}"),
    ("pretrain {all} --output_dir={it} --pretraining.window=9", "window is 8, not 9"),
    ("pretrain {all} --pretraining.path={it}", "set pretraining.path to null"),
    ("pretrain {all} --pretraining.num_epochs=0", "pretraining.num_epochs is 0"),
    ("evaluate --run={it} --split=validation", "is a pre-training, not a classifier"),
    ("reproduce {it}", "{it} is a pre-training: only a classifier's run"),
]


@pytest.mark.parametrize(("command", "message"), REFUSALS)
def test_what_it_is_not_for(command, message, reviews, made, tmp_path, capsys, never):
    run = tmp_path / "run"
    values = {"all": " ".join(options(reviews, run)), "run": run, "it": made}
    name, *arguments = command.format(**values).split()
    assert message.format(**values) in refusal(arguments, capsys, name)
    read_weights(made, "last")


def test_a_folder_of_something_else_is_not_advised_to_be_overwritten(reviews, tmp_path, capsys):
    (tmp_path / "letter.txt").write_text("dear")
    error = refusal(options(reviews, tmp_path), capsys, "pretrain")
    assert "holds no pre-training: choose another output_dir" in error


def test_one_without_checkpoint_is_begun_again_with_other_settings(reviews, tmp_path, monkeypatch):
    path = tmp_path / "model"

    def fail(self: Pretrainer) -> None:
        raise UserError("the loss is not finite")

    with monkeypatch.context() as patch:
        patch.setattr(Pretrainer, "fit", fail)
        assert pretrain(*options(reviews, path)) == 1
    assert not is_finished(path)
    assert pretrain(*options(reviews, path, "--model.hidden_size=4")) == 0
    assert read_manifest(path)["result"]


@pytest.mark.parametrize(
    ("more", "key"),
    [
        (["--training.precision=bf16"], "training.precision"),
        (["--model.dropout=0.1", "--model.num_layers=2", "--model.bidirectional=false"],
         "model.dropout"),
    ],
)  # fmt: skip
def test_what_decides_it_is_compared(reviews, tmp_path, monkeypatch, more, key):
    path = tmp_path / "model"
    layers = [each for each in more if not each.startswith(f"--{key}")]
    pretrain_and_stop(monkeypatch, *options(reviews, path, *layers))
    check_same(settings(*options(reviews, path, *layers)), path)
    with pytest.raises(ValueError, match=key):
        check_same(settings(*options(reviews, path, *more)), path)


def test_dropout_that_is_not_applied_is_not(reviews, finished):
    check_same(settings(*options(reviews, finished, "--model.dropout=0.1")), finished)


def test_several_ranks_use_a_finished_pretraining(reviews, finished, tmp_path):
    beside = finished.rename(tmp_path / "run-pretraining")
    ranks = DistributedContext(rank=0, world_size=2)
    assert find(*options(reviews, tmp_path / "run"), distributed=ranks) == beside
    with pytest.raises(ValueError, match="pretraining.window is 8, not 9"):
        find(*options(reviews, tmp_path / "run", "--pretraining.window=9"), distributed=ranks)
    with pytest.raises(ValueError, match="pre-training runs in one process only"):
        find(*options(reviews, tmp_path / "other"), distributed=ranks)


def test_a_hub_out_of_reach_is_not_taken_for_one_without(monkeypatch):
    """The hub has unlabelled reviews: a pre-training without them would be another."""

    def unreachable(*_: object) -> None:
        raise FileNotFoundError("can't be reached")

    monkeypatch.setattr(pretraining_texts, "load_training_splits", lambda data: ("a", "b"))
    monkeypatch.setattr(pretraining_texts, "load_unlabelled", unreachable)
    with pytest.raises(FileNotFoundError, match="can't be reached"):
        load_pretraining(settings("--data.source=imdb"))
    assert load_pretraining(settings("--data.path=here")).keys() == {"train", "validation"}


@pytest.mark.parametrize(
    ("num_validation", "more", "message"),
    [
        (1, [], "all validation reviews are of one class"),
        (8, ["--objectives.entropy=1"], "objectives.entropy also learn from it"),
    ],
)
def test_unusable_reviews_are_met_before_it(tmp_path, capsys, never, num_validation, more, message):
    splits = {"train": 20, "validation": num_validation}
    folder = write_corpus(tmp_path / "reviews", splits=splits)
    assert message in refusal(options(folder, tmp_path / "run", *more), capsys)
    assert not (tmp_path / "run-pretraining" / "run.json").exists()


def test_a_teacher_not_to_be_trusted_is_met_before_it(reviews, tmp_path, capsys, never):
    other = write_corpus(tmp_path / "reviews", splits={"train": 40, "validation": 10}, seed=5)
    teacher = tmp_path / "teacher"
    assert cli.train(options(other, teacher, "--pretraining.num_epochs=0")) == 0
    command = options(reviews, tmp_path / "run", learn_from(teacher))
    assert "which it may have learned from" in refusal(command, capsys)


def test_a_classifier_is_no_pretraining(reviews, tmp_path, capsys):
    run = tmp_path / "classifier"
    assert cli.train(options(reviews, run, "--pretraining.num_epochs=0")) == 0
    command = options(reviews, tmp_path / "run", f"--pretraining.path={run}")
    message = "not a pre-training: choose another pretraining.path"
    assert message in refusal(command, capsys)
    rewrite(run, result=None)  # nor is it begun again as a pre-training
    message = "holds a classifier, not a pre-training: choose another output_dir"
    assert message in refusal(options(reviews, run), capsys, "pretrain")
    read_weights(run, "best")


def test_a_state_left_over_is_removed(reviews, finished, never):
    state_path(finished).write_bytes(b"left by a kill after the result was written")
    assert pretrain(*options(reviews, finished)) == 0
    assert not state_path(finished).exists()


@pytest.mark.parametrize("searched", [False, True])
def test_a_sweep_makes_none_per_trial(finished, tmp_path, capsys, searched):
    space = {"training.learning_rate": {"low": 1e-4, "high": 1e-2, "log": True}}
    fixed = [] if searched else ["--pretraining.num_epochs=1"]
    if searched:
        space["pretraining.num_epochs"] = {"low": 1, "high": 2}
    file = tmp_path / "sweep.yaml"
    file.write_text(json.dumps({"space": space, "trials": 1}))
    command = [file, f"--output_dir={tmp_path / 'sweep'}", "--show", *fixed]
    assert "would pre-train anew for each trial" in refusal(command, capsys, "sweep", status=2)
    assert cli.main(["sweep", *map(str, command), f"--pretraining.path={finished}"]) != 2


@pytest.fixture(scope="module")
def trained(reviews, tmp_path_factory) -> Path:
    """A run that has made its pre-training itself."""
    path = tmp_path_factory.mktemp("trained") / "run"
    assert cli.train(options(reviews, path)) == 0
    return path


def test_a_run_says_what_it_started_from(trained):
    path = trained.with_name("run-pretraining")
    told = read_manifest(trained)["pretraining"]
    assert told["path"] == str(path)
    assert told["identity"] == read_manifest(path)["identity"]
    weights = path / "checkpoints" / "last" / "model.safetensors"
    assert told["sha256"] == file_fingerprint(weights)["sha256"]


def test_reproducing_starts_from_the_same(trained, tmp_path, monkeypatch, capsys, never):
    monkeypatch.setattr(reproducing, "run_module", in_process)
    again = tmp_path / "again"
    assert cli.main(["reproduce", str(trained), f"--output={again}"]) == 0, capsys.readouterr().err
    assert "started from the same pre-training" in capsys.readouterr().out
    assert not Path(f"{again}-pretraining").exists()


@pytest.mark.parametrize("change", ["gone", "other"])
def test_reproducing_says_if_it_is_gone_or_another(trained, tmp_path, monkeypatch, capsys, change):
    monkeypatch.setattr(reproducing, "run_module", lambda *_, **__: pytest.fail("it trains"))
    path = trained.with_name("run-pretraining")
    kept = path.rename(tmp_path / "kept")
    try:
        if change == "other":
            shutil.copytree(kept, path)
            with (path / "checkpoints" / "last" / "model.safetensors").open("ab") as file:
                file.write(b"\0")
        error = refusal([trained, "--output", tmp_path / "again"], capsys, "reproduce")
    finally:
        shutil.rmtree(path, ignore_errors=True)
        kept.rename(path)
    message = {"gone": "started from is missing", "other": "has weights with digest"}[change]
    assert message in error
