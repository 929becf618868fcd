"""Teachers that a training trains for itself, linear models among them."""

import os
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.corpus import write_corpus
from helpers.review_files import read_rows
from helpers.trainings import SPLITS, arguments, in_process, learn_from, refusal, rewrite, train
from scipy.special import softmax

from sentiment.baseline.folder import load_baseline
from sentiment.cli import main as cli
from sentiment.config.config import Config, DistillationConfig
from sentiment.config.parser import TrainingRequest, load_config, parse_training, save_config
from sentiment.data.reviews import load_split
from sentiment.diagnostics import reproduce as reproducing
from sentiment.diagnostics.run_diff import compare_runs
from sentiment.runs.manifest import read_manifest
from sentiment.runs.weights import read_tensors
from sentiment.runtime.files import beside
from sentiment.training.distillation import (
    own_teachers,
    plan_teachers,
    soft_labels_path,
    teacher_folders,
    train_teachers,
)
from sentiment.training.trainer import Trainer
from sentiment.tuning.search_space import check_space, read_space

ONE, TWO = ("--distillation.num_teachers=1", "--distillation.num_teachers=2")
SHORT = ["--training.num_epochs=1", "--training.log_every=1"]


@pytest.fixture(scope="module")
def student(reviews: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(reviews, tmp_path_factory.mktemp("student") / "run", *SHORT, TWO)


@pytest.fixture
def teachers(student: Path, tmp_path: Path) -> list[Path]:
    """Copies of the student's teachers, which a test may change, beside ``tmp_path / "run"``."""
    folders = []
    for end in ("-teacher-1", "-teacher-2"):
        folders.append(Path(shutil.copytree(f"{student}{end}", tmp_path / f"run{end}")))
    return folders


def plan(
    command: list[str], pretraining: Path | None = None, reviews: dict[str, Any] | None = None
) -> list[tuple[Path, bool]]:
    """The folders that would be trained in, and whether their content would be replaced."""
    request = parse_training(command, "test")
    teachers = plan_teachers(request, pretraining, reviews)
    return [(Path(teacher.config.output_dir), teacher.overwrites) for teacher in teachers]


def test_a_student_equals_one_whose_teachers_are_trained_by_hand(student, reviews, tmp_path):
    by_hand = [tmp_path / "first", tmp_path / "second"]
    for seed, folder in enumerate(by_hand, start=1):  # the student's seed is 0
        assert cli.train(arguments(reviews, folder, *SHORT, f"--seed={seed}")) == 0
        assert compare_runs(folder, Path(f"{student}-teacher-{seed}")).is_equal
    assert cli.train(arguments(reviews, tmp_path / "run", *SHORT, learn_from(*by_hand))) == 0
    difference = compare_runs(student, tmp_path / "run")
    assert difference.is_equal and difference.num_points > 20, difference
    paths = [entry["path"] for entry in read_manifest(student)["teachers"]]
    assert paths == [f"{student}-teacher-{number}" for number in (1, 2)]


def test_finished_teachers_are_kept(reviews, teachers, tmp_path, capsys):
    command = arguments(reviews, tmp_path / "run", *SHORT, TWO)
    assert plan(command) == plan([*command, "--overwrite"]) == []
    shutil.rmtree(teachers[1])
    assert plan(command) == [(teachers[1], False)]
    other = [*command, "--model.dropout=0.1"]
    message = refusal(other, capsys)
    assert "run-teacher-1 has model.dropout 0.5, not 0.1: choose another output_dir" in message
    assert plan([*other, "--overwrite"]) == [(teachers[0], True), (teachers[1], False)]


def test_a_stopped_teacher_is_resumed(student, reviews, tmp_path, monkeypatch, capfd):
    """Ctrl-C in the second teacher, after which the same command is given again."""
    run, train_step, trainers = tmp_path / "run", Trainer.train_step, []

    def interrupted(trainer: Trainer, *given):
        if trainer not in trainers:
            trainers.append(trainer)
        if len(trainers) == 2 and trainer.update == 5:
            os.kill(os.getpid(), signal.SIGINT)
        return train_step(trainer, *given)

    monkeypatch.setattr(Trainer, "train_step", interrupted)
    with pytest.raises(SystemExit):
        cli.train(arguments(reviews, run, *SHORT, TWO))
    assert "the same command resumes the teacher" in capfd.readouterr().out
    assert not run.exists() and (tmp_path / "run-teacher-2").is_dir()
    assert cli.train(arguments(reviews, run, *SHORT, TWO)) == 0
    assert len(trainers) == 4, "the first teacher is not trained again"
    assert read_manifest(tmp_path / "run-teacher-2")["result"]["num_resumed"] == 1
    assert compare_runs(student, run).is_equal


@pytest.mark.parametrize("split", ["train", "validation"])
def test_teachers_of_other_reviews_are_refused_or_replaced(reviews, teachers, tmp_path, split):
    command = arguments(reviews, tmp_path / "run", *SHORT, TWO)
    fingerprints = read_manifest(teachers[0])["data"]
    assert plan(command, reviews=fingerprints) == []
    fingerprints[split] = {"rows": 1, "sha256": "0" * 64}
    with pytest.raises(ValueError, match=f"run-teacher-1 has other {split} reviews: choose ano"):
        plan(command, reviews=fingerprints)
    replaced = plan([*command, "--overwrite"], reviews=fingerprints)
    assert replaced == [(folder, True) for folder in teachers]


def test_an_unusable_teacher_is_refused_before_any_training(reviews, teachers, tmp_path, capsys):
    second = teachers[1]
    command = arguments(reviews, tmp_path / "run", *SHORT, TWO)
    replacing = [*command, "--overwrite"]
    (second / "checkpoints" / "best" / "model.safetensors").unlink()
    assert "run-teacher-2 has lost its weights" in refusal(command, capsys)
    assert plan(replacing) == [(second, True)]
    rewrite(second, result=None)
    (second / "checkpoints" / "resume.safetensors").unlink()
    assert "run-teacher-2 has lost its checkpoint" in refusal(command, capsys)
    assert plan(replacing) == [(second, True)]
    with (second / "config.yaml").open("a", encoding="utf-8") as file:
        file.write("# edited")
    assert "run-teacher-2 is damaged (" in refusal(command, capsys)
    assert plan(replacing) == [(second, True)]
    rewrite(second, kind="language model")
    for given in (command, replacing):
        assert "is the folder for a teacher, but holds a pre-training" in refusal(given, capsys)
    (second / "run.json").unlink()
    for given in (command, replacing):
        assert "run-teacher-2 is not empty" in refusal(given, capsys)


def test_teachers_start_from_the_students_language_model(reviews, tmp_path, capsys):
    run, other = tmp_path / "run", tmp_path / "other"
    options = [*SHORT, "--pretraining.num_epochs=1", "--pretraining.window=10", ONE]
    command = arguments(reviews, run, *options)
    assert cli.train(command) == 0
    assert not list(tmp_path.glob("*-teacher-1-pretraining"))
    student, teacher = (read_manifest(Path(f"{run}{end}")) for end in ("", "-teacher-1"))
    assert student["pretraining"] == teacher["pretraining"]
    assert student["pretraining"]["path"] == f"{run}-pretraining"
    moved = (tmp_path / "run-pretraining").rename(tmp_path / "words")
    moved_command = [*command, f"--pretraining.path={moved}"]
    assert plan(moved_command, moved, student["data"]) == [], "it is the same language model"
    assert cli.main(["pretrain", *arguments(reviews, other, *options, "--seed=1")]) == 0
    with pytest.raises(ValueError, match="run-teacher-1 started from another pre-training"):
        plan([*command, f"--pretraining.path={other}"], other, student["data"])


def test_older_runs_may_name_teachers_and_train_some_and_took_those_that_are_named(tmp_path):
    saved = Config(distillation=DistillationConfig(teachers=("a",), num_teachers=2))
    save_config(saved, tmp_path / "config.yaml")
    assert (config := load_config(tmp_path / "config.yaml")) == saved
    assert not list(own_teachers(config, None))
    assert teacher_folders(config) == [Path("a")]


def test_a_student_is_reproduced_from_the_same_teachers(student, capfd, monkeypatch, tmp_path):
    monkeypatch.setattr(reproducing, "run_module", in_process)
    assert cli.main(["reproduce", str(student), f"--output={tmp_path / 'again'}"]) == 0
    assert "equal to the bit: weights, metrics and curves" in capfd.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["again"]


def test_unlabelled_reviews_are_checked_before_a_teacher_is_trained(student, tmp_path, capsys):
    poor = write_corpus(tmp_path / "poor", splits={"train": 120, "validation": 30})
    for option, off in ((TWO, "num_teachers to 0"), (learn_from(student), "teachers to null")):
        message = refusal(arguments(poor, tmp_path / "run", option), capsys)
        assert "has no unsupervised split" in message
        assert f"add it, or set distillation.{off}" in message
    assert [path.name for path in tmp_path.iterdir()] == ["poor"]


def test_several_processes_use_finished_teachers_but_train_none(student, reviews):
    def request(run: Path) -> TrainingRequest:
        return parse_training(arguments(reviews, run, *SHORT, TWO), "test")

    trained: list[TrainingRequest] = []
    train_teachers(request(student), None, trained.append, is_distributed=True)
    other = parse_training(
        arguments(reviews, student.parent / "other", *WARM, TWO, BASELINE), "test"
    )
    message = "by one process each: .* --seed 1 --output_dir .*other-teacher-1"
    with pytest.raises(ValueError, match=message) as refused:
        train_teachers(other, student.parent / "words", trained.append, is_distributed=True)
    assert not trained
    options = str(refused.value).partition("for the first one, ")[2]
    advised = parse_training([*arguments(reviews, student, *WARM, TWO), *options.split()], "test")
    assert advised.config == next(own_teachers(other.config, student.parent / "words"))


def test_commands_that_train_no_teachers(reviews, tmp_path, capsys):
    command = [f"--data.path={reviews}", TWO, f"--output={tmp_path / 'range'}"]
    message = refusal(command, capsys, "find-lr")
    assert "a range test trains no teachers" in message
    config = Config(distillation=DistillationConfig(num_teachers=2))
    with pytest.raises(ValueError, match="num_teachers would train teachers anew"):
        check_space(read_space({"model.hidden_size": {"choices": [8, 16]}}), config)


def test_folders_beside_a_run(tmp_path, monkeypatch):
    (tmp_path / "a").mkdir()
    monkeypatch.chdir(tmp_path / "a")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for path in (".", "../a", f"{tmp_path}/a/", "b/.."):
        assert Path(beside(path, "-x")).resolve() == tmp_path / "a-x"
    assert beside("runs/a", "-x") == "runs/a-x"
    assert beside("~", "-x") == str(tmp_path / "home-x")
    with pytest.raises(ValueError, match="output_dir is '/': choose a folder below it"):
        beside("/", "-x")


WARM = [*SHORT, "--distillation.temperature=2"]
BASELINE = "--distillation.baseline=true"


@pytest.fixture(scope="module")
def taught(reviews: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(reviews, tmp_path_factory.mktemp("taught") / "run", *WARM, BASELINE)


@pytest.fixture
def copied(taught: Path, tmp_path: Path) -> Path:
    """A copy of the baseline, next to ``tmp_path / "run"``."""
    return Path(shutil.copytree(f"{taught}-baseline", tmp_path / "run-baseline"))


def test_the_soft_labels_are_the_baselines_calibrated_probabilities(taught):
    baseline = load_baseline(Path(f"{taught}-baseline"))
    reviews = load_split(load_config(taught / "config.yaml").data, "unsupervised")
    logs = baseline.predict(reviews).log_probabilities
    tensors, _ = read_tensors(soft_labels_path(taught), read_manifest(taught)["identity"])
    expected = softmax(logs / (2 * baseline.temperature), axis=1)
    np.testing.assert_allclose(tensors["soft_labels"].numpy(), expected, atol=1e-6)
    (teacher,) = read_manifest(taught)["teachers"]
    assert teacher["path"] == f"{taught}-baseline"
    assert "baseline: " in (taught / "train.log").read_text(), "the run ends with the comparison"


def test_a_student_is_reproduced_from_the_same_baseline(taught, capfd, monkeypatch, tmp_path):
    monkeypatch.setattr(reproducing, "run_module", in_process)
    assert cli.main(["reproduce", str(taught), f"--output={tmp_path / 'again'}"]) == 0
    assert "equal to the bit: weights, metrics and curves" in capfd.readouterr().out


def test_a_named_baseline_teaches_the_same(taught, reviews, copied, tmp_path):
    assert cli.train(arguments(reviews, tmp_path / "named", *WARM, learn_from(copied))) == 0
    assert compare_runs(taught, tmp_path / "named").is_equal


def test_a_baseline_of_the_same_reviews_is_kept(taught, reviews, copied, tmp_path):
    before = (copied / "run.json").stat().st_mtime_ns
    assert cli.train(arguments(reviews, tmp_path / "run", *WARM, BASELINE)) == 0
    assert (copied / "run.json").stat().st_mtime_ns == before
    assert compare_runs(taught, tmp_path / "run").is_equal


def test_a_baseline_of_other_reviews_is_refused_or_replaced(copied, tmp_path, capsys):
    others = write_corpus(tmp_path / "others", splits=SPLITS, seed=5)
    command = arguments(others, tmp_path / "run", *WARM, BASELINE)
    assert f"{copied} holds a baseline: replace it with --overwrite" in refusal(command, capsys)
    named = arguments(others, tmp_path / "named", *WARM, learn_from(copied))
    assert f"the teacher {copied} held out 30 validation reviews" in refusal(named, capsys)
    assert cli.train([*command, "--overwrite"]) == 0
    rows = read_rows(copied / "evaluation" / "validation" / "predictions.csv")
    assert len(rows) == SPLITS["validation"]
    assert read_manifest(copied)["data"] == {
        split: read_manifest(tmp_path / "run")["data"][split] for split in ("train", "validation")
    }


def test_a_baseline_that_was_not_finished_is_refused(reviews, copied, tmp_path, capsys):
    (copied / ".begun").touch()
    command = arguments(reviews, tmp_path / "named", *WARM, learn_from(copied))
    assert "is not finished: train it again with sentiment baseline" in refusal(command, capsys)
