"""Teachers that a training trains for itself: which they are, when they are trained, who may."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import pytest
from helpers.corpus import write_corpus
from helpers.distilling import SPLITS, learn_from, rewrite
from helpers.trainings import arguments, in_process, refusal

from sentiment.cli import main as cli
from sentiment.cli.train import train_teachers
from sentiment.config.config import Config, DistillationConfig, ModelConfig, PretrainingConfig
from sentiment.config.parser import TrainingRequest, load_config, parse_training, save_config
from sentiment.diagnostics import reproduce as reproducing
from sentiment.diagnostics.run_diff import compare_runs
from sentiment.runs.manifest import read_manifest
from sentiment.runtime.files import beside
from sentiment.training.distillation import own_teachers, plan_teachers, teacher_folders
from sentiment.training.step import TrainStep
from sentiment.tuning.search_space import check_space, read_space

TWO = "--distillation.num_teachers=2"


@pytest.fixture(scope="module")
def reviews(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("reviews"), splits=SPLITS)


@pytest.fixture(scope="module")
def student(reviews: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("student") / "run"
    assert cli.train(arguments(reviews, run, TWO)) == 0
    return run


def test_a_student_equals_one_whose_teachers_are_trained_by_hand(student, reviews, tmp_path):
    by_hand = [tmp_path / "first", tmp_path / "second"]
    for seed, folder in enumerate(by_hand, start=1):  # the student's seed is 0
        assert cli.train(arguments(reviews, folder, f"--seed={seed}")) == 0
        assert compare_runs(folder, Path(f"{student}-teacher-{seed}")).is_equal
    assert cli.train(arguments(reviews, tmp_path / "run", learn_from(*by_hand))) == 0
    likeness = compare_runs(student, tmp_path / "run")
    assert likeness.is_equal and likeness.num_points > 20, likeness
    described = read_manifest(student)["teachers"]
    assert [each["path"] for each in described] == [f"{student}-teacher-{n}" for n in (1, 2)]


def test_finished_teachers_stay(reviews, tmp_path, capsys):
    run = tmp_path / "run"
    assert cli.train(arguments(reviews, run, "--distillation.num_teachers=1")) == 0
    first = read_manifest(tmp_path / "run-teacher-1")
    assert cli.train(arguments(reviews, run, TWO, "--overwrite")) == 0
    assert read_manifest(tmp_path / "run-teacher-1") == first
    assert (tmp_path / "run-teacher-2").is_dir()
    before = read_manifest(run)
    message = refusal(arguments(reviews, run, TWO, "--model.dropout=0.1"), capsys)
    assert "run-teacher-1 has model.dropout 0.5, not 0.1: choose another output_dir" in message
    assert read_manifest(run) == before
    assert cli.train(arguments(reviews, run, TWO, "--model.dropout=0.1", "--overwrite")) == 0
    assert read_manifest(tmp_path / "run-teacher-1")["identity"] != first["identity"]


def test_a_teacher_that_was_stopped_goes_on(student, reviews, tmp_path, monkeypatch, capfd):
    """Ctrl-C in the second teacher, after which the same command is given again."""
    run, step, learning = tmp_path / "run", TrainStep.step, []

    def interrupted(updates: TrainStep, *given, **named):
        if updates not in learning:
            learning.append(updates)
        if len(learning) == 2 and updates.update == 7:
            os.kill(os.getpid(), signal.SIGINT)
        return step(updates, *given, **named)

    monkeypatch.setattr(TrainStep, "step", interrupted)
    with pytest.raises(SystemExit):
        cli.train(arguments(reviews, run, TWO))
    assert "the same command resumes the teacher" in capfd.readouterr().out
    assert not run.exists() and (tmp_path / "run-teacher-2").is_dir()
    assert cli.train(arguments(reviews, run, TWO)) == 0
    assert len(learning) == 4, "the first teacher is not trained again"
    assert read_manifest(tmp_path / "run-teacher-2")["result"]["num_resumed"] == 1
    assert compare_runs(student, run).is_equal


def test_teachers_of_other_reviews_are_refused_and_replaced(tmp_path, capsys):
    folder, run = write_corpus(tmp_path / "reviews", splits=SPLITS), tmp_path / "run"
    command = arguments(folder, run, "--distillation.num_teachers=1")
    assert cli.train(command) == 0
    others = write_corpus(tmp_path / "others", splits=SPLITS, seed=9)
    for split in ("train", "validation"):
        (folder / f"{split}.csv").write_bytes((others / f"{split}.csv").read_bytes())
        shutil.rmtree(run, ignore_errors=True)
        message = refusal(command, capsys)
        assert f"run-teacher-1 has other {split} reviews: choose another output_dir" in message
        assert cli.train([*command, "--overwrite"]) == 0
        student, teacher = (read_manifest(Path(f"{run}{end}")) for end in ("", "-teacher-1"))
        assert student["data"]["train"] == teacher["data"]["train"]


def test_a_teacher_that_cannot_be_used_is_met_before_anything_is_trained(
    student, reviews, tmp_path, capsys, monkeypatch
):
    for number in (1, 2):
        shutil.copytree(f"{student}-teacher-{number}", tmp_path / f"run-teacher-{number}")
    second = tmp_path / "run-teacher-2"
    command = arguments(reviews, tmp_path / "run", TWO)

    def replaced() -> bool:
        """Whether the second alone would be trained again."""
        request = TrainingRequest(parse_training(command, "test").config, overwrites=True)
        plan = plan_teachers(request, None, None)
        return [(Path(e.config.output_dir), e.overwrites) for e in plan] == [(second, True)]

    (second / "checkpoints" / "best" / "model.safetensors").unlink()
    assert "run-teacher-2 has lost its weights" in refusal(command, capsys)
    assert replaced()
    rewrite(second, result=None)
    assert "run-teacher-2 has lost its checkpoint" in refusal(command, capsys)
    assert replaced()
    with (second / "config.yaml").open("a", encoding="utf-8") as file:
        file.write("# edited")
    assert "run-teacher-2 is damaged (" in refusal(command, capsys)
    assert replaced()
    rewrite(second, kind="language model")
    for each in (command, [*command, "--overwrite"]):
        assert "where a teacher is to be, holds a pre-training" in refusal(each, capsys)
    (second / "run.json").unlink()
    for each in (command, [*command, "--overwrite"]):
        assert "run-teacher-2 is not empty" in refusal(each, capsys)


def test_teachers_of_another_language_model_are_not_used(reviews, tmp_path, capsys):
    run = tmp_path / "run"
    options = ["--pretraining.num_epochs=1", "--pretraining.window=10"]
    command = arguments(reviews, run, *options, "--distillation.num_teachers=1")
    assert cli.train(command) == 0
    before = read_manifest(tmp_path / "run-teacher-1")
    moved = (tmp_path / "run-pretraining").rename(tmp_path / "words")
    assert cli.train([*command, f"--pretraining.path={moved}", "--overwrite"]) == 0
    assert read_manifest(tmp_path / "run-teacher-1") == before, "it is the same one"
    other = tmp_path / "other"
    assert cli.main(["pretrain", *arguments(reviews, other, *options, "--seed=1")]) == 0
    shutil.rmtree(run)
    message = refusal([*command, f"--pretraining.path={other}"], capsys)
    assert "run-teacher-1 started from another pre-training" in message


def test_they_start_from_the_students_language_model(reviews, tmp_path):
    run = tmp_path / "run"
    options = [
        "--pretraining.num_epochs=1",
        "--pretraining.window=10",
        "--distillation.num_teachers=1",
    ]
    assert cli.train(arguments(reviews, run, *options)) == 0
    assert not list(tmp_path.glob("*-teacher-1-pretraining"))
    student, teacher = (read_manifest(Path(f"{run}{end}")) for end in ("", "-teacher-1"))
    assert student["pretraining"] == teacher["pretraining"]
    assert student["pretraining"]["path"] == f"{run}-pretraining"


def test_their_settings_are_the_students_but_for_seed_and_place():
    config = Config(
        output_dir="runs/a/", seed=3, model=ModelConfig(hidden_size=7),
        pretraining=PretrainingConfig(num_epochs=2),
        distillation=DistillationConfig(num_teachers=2, weight=3.0),
    )  # fmt: skip
    first, second = own_teachers(config, Path("words"))
    assert (first.seed, second.seed) == (304, 305)
    assert first.output_dir == "runs/a-teacher-1" and first.model == config.model
    assert first.pretraining == PretrainingConfig(num_epochs=2, path="words")
    assert not first.distillation.is_wanted, "they have no teachers themselves"
    assert teacher_folders(config) == [Path("runs/a-teacher-1"), Path("runs/a-teacher-2")]


def test_teachers_are_named_or_trained(tmp_path, capsys):
    with pytest.raises(SystemExit):
        parse_training(["--distillation.teachers=[a]", TWO], "test")
    assert "num_teachers is 2, but distillation.teachers names" in capsys.readouterr().err
    # Runs of before may have both: those named were taken.
    saved = Config(distillation=DistillationConfig(teachers=("a",), num_teachers=2))
    save_config(saved, tmp_path / "config.yaml")
    assert (config := load_config(tmp_path / "config.yaml")) == saved
    assert not list(own_teachers(config, None))
    assert teacher_folders(config) == [Path("a")]


def test_a_student_is_reproduced_from_the_same_teachers(student, capfd, monkeypatch, tmp_path):
    monkeypatch.setattr(reproducing, "run_module", in_process)
    assert cli.main(["reproduce", str(student), f"--output={tmp_path / 'again'}"]) == 0
    assert "equal to the bit: weights, metrics and curves" in capfd.readouterr().out
    assert [each.name for each in tmp_path.iterdir()] == ["again"]


def test_reviews_to_label_are_asked_for_before_a_teacher_is_trained(tmp_path, capsys):
    poor = write_corpus(tmp_path / "poor", splits={"train": 120, "validation": 30})
    message = refusal(arguments(poor, tmp_path / "run", TWO), capsys)
    assert "has no unsupervised split" in message
    assert "give it, or set distillation.num_teachers to 0" in message
    assert [each.name for each in tmp_path.iterdir()] == ["poor"]


def test_several_processes_train_none_but_use_what_there_is(student, reviews):
    config = cli_config(reviews, student)
    done: list[TrainingRequest] = []
    train_teachers(TrainingRequest(config), None, done.append, is_distributed=True)
    assert not done
    elsewhere = cli_config(reviews, student.parent / "other")
    message = "by one process each: .* --seed 1 --output_dir .*other-teacher-1"
    with pytest.raises(ValueError, match=message):
        train_teachers(TrainingRequest(elsewhere), None, done.append, is_distributed=True)


def cli_config(reviews: Path, run: Path) -> Config:
    return parse_training(arguments(reviews, run, TWO), "test").config


def test_who_trains_none(reviews, tmp_path, capsys):
    settings = [f"--data.path={reviews}", TWO]
    found = ["find-lr", *settings, f"--output={tmp_path / 'range'}"]
    message = refusal(found[1:], capsys, command_name="find-lr")
    assert "a range test trains no teachers" in message
    config = Config(distillation=DistillationConfig(num_teachers=2))
    with pytest.raises(ValueError, match="num_teachers would train teachers anew"):
        check_space(read_space({"model.hidden_size": {"choices": [8, 16]}}), config)


@pytest.mark.parametrize("count", [-1, 101])
def test_how_many(count):
    with pytest.raises(ValueError, match=f"num_teachers is {count}, but must be from 0 to 100"):
        DistillationConfig(num_teachers=count)


def test_what_belongs_to_a_run_lies_beside_it(tmp_path, monkeypatch):
    (tmp_path / "a").mkdir()
    monkeypatch.chdir(tmp_path / "a")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for place in (".", "../a", f"{tmp_path}/a/", "b/.."):
        assert Path(beside(place, "-x")).resolve() == tmp_path / "a-x"
    assert beside("runs/a", "-x") == "runs/a-x"
    assert beside("~", "-x") == str(tmp_path / "home-x")
    with pytest.raises(ValueError, match="output_dir is '/': choose a folder below it"):
        beside("/", "-x")
