"""Unlabelled reviews labelled by finished runs: their soft labels, what is learned, refusals."""

import shutil
from pathlib import Path

import pytest
import torch
from helpers.corpus import write_corpus
from helpers.processes import start_ranks
from helpers.review_files import read_rows
from helpers.trainings import (
    SPLITS,
    arguments,
    ended,
    learn_from,
    read_events,
    refusal,
    rewrite,
    stop_after,
    train,
)

import sentiment
from sentiment.cli import main as cli
from sentiment.config.parser import parse_training
from sentiment.data.pipeline import SoftLabels, prepare_training
from sentiment.diagnostics import reproduce as reproducing
from sentiment.diagnostics.run_diff import compare_runs
from sentiment.runs.manifest import read_manifest
from sentiment.runs.run import load_run
from sentiment.runs.weights import read_tensors
from sentiment.training import distillation as module
from sentiment.training.checkpoint import state_path
from sentiment.training.distillation import soft_labels_path, teach

DECIDED = ["--training.num_epochs=12", "--training.learning_rate=0.03"]  # predictions differ
ONE_EPOCH = "--training.num_epochs=1"


def saved_labels(run: Path) -> torch.Tensor:
    tensors, _ = read_tensors(soft_labels_path(run), read_manifest(run)["identity"])
    return tensors["soft_labels"]


@pytest.fixture(scope="module")
def teachers(reviews: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two runs that read differently: other vocabularies, lengths, cells."""
    folder = tmp_path_factory.mktemp("teachers")
    different = ["--vocabulary.min_frequency=1", "--data.max_length=12", "--data.keep=tail",
                 "--model.cell=gru", "--data.lower_case=false", "--seed=1"]  # fmt: skip
    first = train(reviews, folder / "first", *DECIDED)
    return first, train(reviews, folder / "second", *DECIDED, *different)


@pytest.fixture(scope="module")
def student(reviews, teachers, tmp_path_factory) -> Path:
    """A run that learned from both."""
    return train(reviews, tmp_path_factory.mktemp("student") / "run", learn_from(*teachers))


def mean_prediction(teachers, reviews: Path, temperature: float = 1.0) -> torch.Tensor:
    """What ``sentiment.load`` predicts for the unlabelled reviews, averaged over teachers."""
    texts = [row["text"] for row in read_rows(reviews / "unsupervised.csv")]
    predictions = []
    for teacher in teachers:
        predictor = sentiment.load(teacher, device="cpu", calibrated=False)
        predictor.temperature = temperature
        predictions.append(torch.tensor([p.probabilities for p in predictor.predict(texts)]))
    assert not torch.allclose(predictions[0], predictions[1], atol=0.05)
    return torch.stack(predictions).mean(0).float()


def test_soft_labels_are_the_teachers_mean_prediction(reviews, teachers, student, tmp_path):
    assert torch.allclose(saved_labels(student), mean_prediction(teachers, reviews), atol=1e-6)
    warm = [learn_from(*teachers), "--distillation.temperature=3"]
    config = parse_training(arguments(reviews, tmp_path / "run", *warm), "test").config
    labels = teach(config, prepare_training(config), torch.device("cpu")).unlabelled
    assert labels.dtype == torch.float32
    assert torch.allclose(labels, mean_prediction(teachers, reviews, 3.0), atol=1e-6)


def test_a_run_logs_the_labels_and_the_term(student):
    labels = saved_labels(student)
    sure = 100 * float((labels.amax(1) > 0.9).float().mean())
    negative = 100 * float((labels.argmax(1) == 0).float().mean())
    assert (
        f"soft labels: 70 by 2 teachers, {sure:.1f} % over 90 %; "
        f"neg {negative:.1f} %, pos {100 - negative:.1f} %"
    ) in (student / "train.log").read_text(encoding="utf-8")
    events = read_events(student, "train")
    tags = [tag for tag in events.Tags()["scalars"] if tag.startswith("objectives/")]
    assert tags == ["objectives/distillation"]
    points = [point.value for point in events.Scalars("objectives/distillation")]
    assert len(points) == len(events.Scalars("loss/by_update")) > 2
    assert all(0 < value < 5 for value in points)


def test_resumed_equals_never_stopped_and_needs_no_teacher(reviews, teachers, tmp_path):
    folder = Path(shutil.copytree(teachers[0], tmp_path / "teacher"))
    more = [learn_from(folder), "--training.accumulation_steps=2", "--objectives.entropy=0.5",
            "--training.pieces=1",
            "--objectives.virtual_adversarial=1", "--distillation.temperature=2"]  # fmt: skip
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert cli.train(arguments(reviews, whole, *more)) == 0
    stop_after(arguments(reviews, broken, *more), 2)
    shutil.rmtree(folder)
    stop_after([f"--resume={broken}"], 7)
    assert cli.train([f"--resume={broken}"]) == 0
    difference = compare_runs(whole, broken)
    assert difference.is_equal and difference.num_points > 20, difference
    assert torch.equal(saved_labels(whole), saved_labels(broken))


def test_a_kill_before_the_first_checkpoint_costs_nothing(reviews, teachers, tmp_path, monkeypatch):
    run = tmp_path / "run"
    command = [*arguments(reviews, run, learn_from(teachers[0]), ONE_EPOCH), "--auto_resume"]
    stop_after(command, 2)
    state_path(run).unlink()  # as if killed after the labels were saved
    assert soft_labels_path(run).is_file()
    assert cli.train(command) == 0
    asked = "a teacher was asked"
    monkeypatch.setattr(module, "load_classifier", lambda *_, **__: pytest.fail(asked))
    without = ["--overwrite", ONE_EPOCH, "--distillation.weight=3"]
    assert cli.train(arguments(reviews, run, *without)) == 0
    assert not soft_labels_path(run).exists()
    assert "unsupervised" not in read_manifest(run)["data"]


def test_labels_that_are_damaged_missing_or_of_other_reviews(reviews, teachers, tmp_path, capsys):
    run = tmp_path / "run"
    stop_after(arguments(reviews, run, learn_from(teachers[0])), 2)
    path, resume = soft_labels_path(run), [f"--resume={run}"]
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    assert "is damaged" in refusal(resume, capsys)
    module.save_soft_labels(run, SoftLabels(torch.ones(71, 2)))
    message = "does not fit this run's reviews: files were mixed up"
    assert message in refusal(resume, capsys)
    path.unlink()
    assert "soft_labels.safetensors is missing, the soft labels of its" in refusal(resume, capsys)


def test_two_ranks_equal_one_process(reviews, teachers, tmp_path):
    exact = ["--model.dropout=0", "--model.embedding_dropout=0", "--device=cpu",
             "--objectives.unlabelled_batch_size=7", "--training.accumulation_steps=2",
             ONE_EPOCH, "--training.log_every=1", learn_from(*teachers)]  # fmt: skip
    one, two = tmp_path / "one", tmp_path / "two"
    assert cli.train(arguments(reviews, one, *exact)) == 0
    out, _ = ended(start_ranks(2, cli.train, arguments(reviews, two, *exact)))
    assert out.count("soft labels: 70 by 2 teachers") == 1
    assert torch.equal(saved_labels(one), saved_labels(two))
    difference = compare_runs(one, two)
    assert not difference.problems and difference.num_points > 20
    assert difference.weights < 1e-4 and difference.metrics < 1e-4 and difference.curves < 1e-3


def test_other_teachers_are_not_reproduced_from(reviews, teachers, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(reproducing, "run_module", lambda *_, **__: pytest.fail("training began"))
    folder, run = tmp_path / "teacher", tmp_path / "run"
    shutil.copytree(teachers[0], folder)
    assert cli.train(arguments(reviews, run, learn_from(folder), ONE_EPOCH)) == 0
    shutil.rmtree(folder)
    shutil.copytree(teachers[1], folder)
    message = refusal([str(run)], capsys, "reproduce")
    assert f"the teacher {folder} has identity" in message and f"but {run} learned" in message
    shutil.rmtree(folder)
    assert f"{folder} is not a run" in refusal([str(run)], capsys, "reproduce")
    shutil.copytree(teachers[0], folder)
    best, last = (folder / f"checkpoints/{name}/model.safetensors" for name in ("best", "last"))
    shutil.copy(last, best)
    assert "has weights with digest" in refusal([str(run)], capsys, "reproduce")


@pytest.fixture
def teacher(teachers: tuple[Path, Path], tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(teachers[0], tmp_path / "teacher"))


def test_what_cannot_be_a_teacher(reviews, teacher, tmp_path, capsys):
    run = tmp_path / "run"
    command = arguments(reviews, run, learn_from(teacher))
    result = read_manifest(teacher)["result"]
    rewrite(teacher, result=None)
    assert f"the teacher {teacher} is not finished: resume it" in refusal(command, capsys)
    rewrite(teacher, result=result, kind="language model")
    assert f"the teacher {teacher} is a pre-training, not a classifier" in refusal(command, capsys)
    rewrite(teacher, kind=None)
    shutil.rmtree(teacher / "checkpoints" / "best")
    assert "has no weights" in refusal(command, capsys)
    shutil.rmtree(teacher)
    message = refusal(command, capsys)
    assert f"{teacher} is not a run" in message
    assert "distillation.teachers must name folders of finished runs" in message
    assert not run.exists(), "nothing is left behind"


def test_a_run_does_not_teach_itself(reviews, teacher, capsys):
    same = teacher.parent / "elsewhere" / ".." / teacher.name
    command = [*arguments(reviews, teacher, learn_from(same)), "--overwrite"]
    assert "is also the student's output_dir" in refusal(command, capsys)
    assert load_run(teacher).class_names == ("neg", "pos")


def test_a_teacher_must_have_held_out_the_same_reviews(teacher, tmp_path, capsys):
    other = write_corpus(tmp_path / "other", splits=SPLITS, seed=9)
    command = arguments(other, tmp_path / "run", learn_from(teacher))
    message = refusal(command, capsys)
    assert f"the teacher {teacher} held out 30 validation reviews with digest" in message
    assert "which it may have learned from: train it with the same data" in message
    assert not (tmp_path / "run").exists()
    rewrite(teacher, data=None)
    assert "held out unknown validation reviews" in refusal(command, capsys)


def test_a_teacher_must_have_the_same_classes(reviews, teacher, tmp_path, capsys):
    swapped = "--data.class_names=[pos,neg]"
    message = refusal(arguments(reviews, tmp_path / "run", learn_from(teacher), swapped), capsys)
    assert "has the classes neg, pos, but these reviews have pos, neg" in message


def test_a_teacher_with_non_finite_logits_is_named(reviews, teacher, tmp_path, capsys, monkeypatch):
    def broken(*_: object, **__: object) -> None:
        raise ValueError("the model's logits are not numbers")

    monkeypatch.setattr("sentiment.comparison.run_groups.predict_corpus", broken)
    message = refusal(arguments(reviews, tmp_path / "run", learn_from(teacher)), capsys)
    assert f"{teacher}: the model's logits are not numbers" in message
