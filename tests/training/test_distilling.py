"""Reviews labelled by finished runs: what they say, what is learned of it, who is refused."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest
import torch
from helpers.corpus import BAD, FILLER, GOOD, write_corpus
from helpers.distilling import SPLITS, learn_from, rewrite
from helpers.objectives import (
    CPU,
    LABELLED,
    SIZE,
    UNLABELLED,
    Alone,
    expected_loss,
    learn,
    make_model,
)
from helpers.processes import start_ranks
from helpers.trainings import arguments, ended, in_process, refusal
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import sentiment
from sentiment.cli import main as cli
from sentiment.cli.train import execute, parse
from sentiment.config.config import (
    Config,
    DataConfig,
    DistillationConfig,
    ModelConfig,
    ObjectivesConfig,
    TrainingConfig,
)
from sentiment.config.parser import parse_training
from sentiment.data.pipeline import prepare_training
from sentiment.diagnostics import reproduce as reproducing
from sentiment.diagnostics.run_diff import compare_runs
from sentiment.model import SentimentClassifier
from sentiment.runs.manifest import read_manifest
from sentiment.runs.run import load_run
from sentiment.runs.weights import read_tensors
from sentiment.runtime.distributed import DistributedContext
from sentiment.training import distillation as module
from sentiment.training.adversarial import soft_cross_entropy
from sentiment.training.checkpoint import state_path
from sentiment.training.distillation import soft_labels_path, teach
from sentiment.training.objectives import build_mixture

DECIDED = ["--training.num_epochs=6", "--training.learning_rate=0.03"]  # what is said differs


def unlabelled_texts(folder: Path) -> list[str]:
    with (folder / "unsupervised.csv").open(encoding="utf-8", newline="") as file:
        return [row["text"] for row in csv.DictReader(file)]


def kept_labels(run: Path) -> torch.Tensor:
    tensors, _ = read_tensors(soft_labels_path(run), read_manifest(run)["identity"])
    return tensors["soft_labels"]


@pytest.fixture(scope="module")
def reviews(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("reviews"), splits=SPLITS)


@pytest.fixture(scope="module")
def teachers(reviews: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two runs that read differently: other words, other lengths, other cells."""
    folder = tmp_path_factory.mktemp("teachers")
    first, second = folder / "first", folder / "second"
    assert cli.train(arguments(reviews, first, *DECIDED)) == 0
    different = ["--vocabulary.min_frequency=1", "--data.max_length=12", "--data.keep=tail",
                 "--model.cell=gru", "--data.lower_case=false", "--seed=1"]  # fmt: skip
    assert cli.train(arguments(reviews, second, *DECIDED, *different)) == 0
    return first, second


@pytest.fixture(scope="module")
def student(reviews, teachers, tmp_path_factory) -> tuple[Path, str]:
    """A run that learned from both, and its log."""
    run = tmp_path_factory.mktemp("student") / "run"
    assert cli.train(arguments(reviews, run, learn_from(*teachers))) == 0
    return run, (run / "train.log").read_text(encoding="utf-8")


# The term.


def test_the_term_against_torchs_own():
    soft = torch.randn(6, 4).softmax(1)
    logits = torch.randn(6, 4)
    expected = torch.nn.functional.cross_entropy(logits, soft, reduction="none")
    assert torch.allclose(soft_cross_entropy(soft, logits, 1.0), expected, atol=1e-6)
    warm = torch.nn.functional.cross_entropy(logits / 3, soft, reduction="none")
    assert torch.allclose(soft_cross_entropy(soft, logits, 3.0), 9 * warm, atol=1e-5)


def test_a_high_temperature_compares_logits():
    """Hinton et al., eq. 4: then the gradient is that of their squared distance, nearly."""
    logits = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    others = torch.randn(5, 3, dtype=torch.float64)
    temperature = 1e4
    labels = (others / temperature).softmax(1)
    soft_cross_entropy(labels, logits, temperature).sum().backward()
    distance = (logits - logits.mean(1, keepdim=True)) - (others - others.mean(1, keepdim=True))
    assert torch.allclose(logits.grad, distance.detach() / 3, atol=1e-3)


def soft_labels_of(num_classes: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(7)
    return (2 * torch.randn(len(UNLABELLED), num_classes, generator=generator)).softmax(1)


def make_config(weight: float, temperature: float, **objectives: float) -> Config:
    return Config(
        data=DataConfig(max_length=10),
        model=ModelConfig(embedding_size=SIZE, hidden_size=3),
        training=TrainingConfig(batch_size=3, accumulation_steps=2),
        objectives=ObjectivesConfig(perturbation_norm=0.7, **objectives),  # as the oracle's
        distillation=DistillationConfig(teachers=("one",), weight=weight, temperature=temperature),
    )


def make_mixture(model: SentimentClassifier, config: Config, num_classes: int = 2):
    return build_mixture(
        model, UNLABELLED, config, device=CPU, precision=torch.float32,
        distributed=DistributedContext(), soft_labels=soft_labels_of(num_classes),
    )  # fmt: skip


@pytest.mark.parametrize("num_classes", [2, 3])
@pytest.mark.parametrize("temperature", [1.0, 2.5])
@pytest.mark.parametrize(
    "others", [{}, {"entropy": 0.3}, {"virtual_adversarial": 0.6, "adversarial": 0.8}]
)
def test_an_update_equals_its_reviews_one_by_one(others, temperature, num_classes):
    model = make_model(num_classes)
    config = make_config(0.4, temperature, **others)
    mixture = make_mixture(model, config, num_classes)
    groups = [torch.tensor([0, 5, 1]), torch.tensor([3, 2])]
    loss = learn(mixture, groups)
    unlabelled = [int(each) for n in range(2) for each in mixture.portions._batches.batch(n)]
    assert len(unlabelled) == 5 and len(set(unlabelled)) == 5
    rows = [(LABELLED, int(index)) for index in torch.cat(groups)]
    rows += [(UNLABELLED, index) for index in unlabelled]
    alone = Alone(model)
    expected = expected_loss(alone, config, rows, mixture._seed)
    means = []
    for index in unlabelled:
        start, length = int(UNLABELLED.starts[index]), int(UNLABELLED.lengths[index])
        words = alone.table[UNLABELLED.tokens[start : start + length].long()]
        log = (alone.logits(words) / temperature).log_softmax(0)
        means.append(-(soft_labels_of(num_classes)[index].double() * log).sum())
    mean = torch.stack(means).mean()
    expected = expected + 0.4 * temperature**2 * mean
    expected.backward()
    assert loss == pytest.approx(float(expected.detach()), rel=1e-5)
    largest = max(float(each.abs().max()) for each in alone.gradients().values())
    for name, gradient in alone.gradients().items():
        own = dict(model.named_parameters())[name].grad
        assert torch.allclose(own.double(), gradient, atol=1e-4 * largest), name
    told = mixture.sums.take_means(DistributedContext())["distillation"]
    assert told == pytest.approx(temperature**2 * float(mean.detach()), rel=1e-5)


@pytest.mark.parametrize(
    ("others", "num_passes"),
    [({}, 2), ({"entropy": 1.0}, 2), ({"virtual_adversarial": 1.0}, 4)],
)
def test_a_batch_without_labels_is_classified_once_for_all(others, num_passes, monkeypatch):
    classify, calls = SentimentClassifier.classify, []
    monkeypatch.setattr(
        SentimentClassifier, "classify", lambda *given: calls.append(1) or classify(*given)
    )
    mixture = make_mixture(make_model(), make_config(1.0, 1.0, **others))
    learn(mixture, [torch.tensor([0, 3, 5])])
    assert len(calls) == num_passes


# What the teachers say.


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_soft_labels_are_the_mean_of_what_the_teachers_say(
    temperature, reviews, teachers, tmp_path
):
    options = arguments(
        reviews,
        tmp_path / "run",
        learn_from(*teachers),
        f"--distillation.temperature={temperature}",
    )
    config = parse_training(options, "test").config
    data = prepare_training(config)
    texts = unlabelled_texts(reviews)
    assert data.unlabelled_reviews.texts == texts
    said = []
    for each in teachers:
        predictor = sentiment.load(each, device="cpu", calibrated=False)
        predictor.temperature = temperature
        said.append(torch.tensor([each.probabilities for each in predictor.predict(texts)]))
    assert not torch.allclose(said[0], said[1], atol=0.05)
    found = teach(config, data, CPU)
    assert found.dtype == torch.float32
    assert torch.allclose(found, torch.stack(said).mean(0).float(), atol=1e-6)


def test_a_run_keeps_and_tells_what_they_said(student, teachers, reviews):
    run, log = student
    labels = kept_labels(run)
    assert labels.shape == (70, 2)
    said = [
        torch.tensor([p.probabilities for p in sentiment.load(each, device="cpu", calibrated=False)
                      .predict(unlabelled_texts(reviews))])
        for each in teachers
    ]  # fmt: skip
    assert torch.allclose(labels, torch.stack(said).mean(0).float(), atol=1e-6)
    sure = 100 * float((labels.amax(1) > 0.9).float().mean())
    negative = 100 * float((labels.argmax(1) == 0).float().mean())
    assert (
        f"soft labels: 70 reviews by 2 teachers; {sure:.1f} % of them at over 90 %; "
        f"neg {negative:.1f} %, pos {100 - negative:.1f} %"
    ) in log
    events = EventAccumulator(str(run / "tensorboard" / "train")).Reload()
    tags = [each for each in events.Tags()["scalars"] if each.startswith("objectives/")]
    assert tags == ["objectives/distillation"]
    points = [each.value for each in events.Scalars("objectives/distillation")]
    assert len(points) == len(events.Scalars("loss/by_update")) > 2
    assert all(0 < each < 5 for each in points) and points[-1] < points[0]


def test_the_receipt_names_the_teachers(student, teachers):
    description = read_manifest(student[0])
    assert [each["path"] for each in description["teachers"]] == [str(each) for each in teachers]
    for entry, path in zip(description["teachers"], teachers, strict=True):
        assert entry["identity"] == read_manifest(path)["identity"]
        assert len(entry["sha256"]) == 64
    assert description["data"]["unsupervised"]["rows"] == 70
    assert "teachers" not in read_manifest(teachers[0])


def test_without_teachers_nothing_is_asked_or_kept(teachers, monkeypatch, reviews, tmp_path):
    monkeypatch.setattr(module, "load_run", lambda *_, **__: pytest.fail("a teacher was asked"))
    options = ["--distillation.weight=3", "--distillation.temperature=2"]
    assert cli.train(arguments(reviews, tmp_path / "run", *DECIDED, *options)) == 0
    assert not soft_labels_path(tmp_path / "run").exists()
    assert "unsupervised" not in read_manifest(tmp_path / "run")["data"]
    likeness = compare_runs(teachers[0], tmp_path / "run")
    assert likeness.is_equal, "these settings are read by nobody then"


def test_weight_and_temperature_change_what_is_learned(student, reviews, teachers, tmp_path):
    found = [student[0]]
    for name, change in {"a": "weight=2", "b": "temperature=2"}.items():
        options = [learn_from(*teachers), f"--distillation.{change}"]
        assert cli.train(arguments(reviews, tmp_path / name, *options)) == 0
        for other in found:
            assert compare_runs(other, tmp_path / name).weights > 0
        found.append(tmp_path / name)


def test_what_the_teachers_know_is_learned_where_labels_say_nothing(reviews, teachers, tmp_path):
    """Labelled reviews are one text with both labels: only the teacher tells good from bad."""
    poor = write_corpus(tmp_path / "poor", splits={"unsupervised": 300}, seed=5)
    shutil.copy(reviews / "validation.csv", poor)
    rows = [(" ".join([*GOOD, *FILLER, *BAD]), label) for label in ("neg", "pos")] * 10
    with (poor / "train.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *rows])
    accuracy = {}
    settings = [
        "--training.num_epochs=10", "--training.learning_rate=0.03", "--training.batch_size=2",
        "--vocabulary.min_frequency=1", "--objectives.unlabelled_batch_size=32",
        "--model.dropout=0", "--model.embedding_dropout=0",
    ]  # fmt: skip
    for name, more in {"alone": [], "taught": [learn_from(teachers[0])]}.items():
        assert cli.train(arguments(poor, tmp_path / name, *settings, *more)) == 0
        epochs = json.loads((tmp_path / name / "metrics.json").read_text())["epochs"]
        accuracy[name] = epochs[-1]["validation"]["accuracy"]
    teacher = read_manifest(teachers[0])["result"]["metrics"]["accuracy"]
    assert teacher > 0.9
    assert accuracy["taught"] > 0.9
    assert accuracy["alone"] < 0.8


# Put down and taken up, by several ranks, again.


def stop_after(command: list[str], last: int) -> None:
    class PowerCutError(BaseException):
        pass

    def cut(update: int) -> None:
        if update == last:
            raise PowerCutError

    with pytest.raises(PowerCutError):
        execute(parse(command, "train"), cut)


@pytest.mark.parametrize(
    "more",
    [
        [],
        ["--training.accumulation_steps=2", "--objectives.virtual_adversarial=1",
         "--objectives.entropy=0.5", "--distillation.temperature=2"],
    ],
)  # fmt: skip
def test_resumed_equals_never_stopped_and_needs_no_teacher(more, reviews, teachers, tmp_path):
    folder = Path(shutil.copytree(teachers[0], tmp_path / "teacher"))
    whole, broken = (
        arguments(reviews, tmp_path / name, learn_from(folder), *more)
        for name in ("whole", "broken")
    )
    assert cli.train(whole) == 0
    stop_after(broken, 2)
    shutil.rmtree(folder)
    for last in (4, 7):
        stop_after([f"--resume={tmp_path / 'broken'}"], last)
    assert cli.train([f"--resume={tmp_path / 'broken'}"]) == 0
    likeness = compare_runs(tmp_path / "whole", tmp_path / "broken")
    assert likeness.is_equal, likeness
    assert likeness.num_points > 20
    assert torch.equal(kept_labels(tmp_path / "whole"), kept_labels(tmp_path / "broken"))


def test_a_kill_before_the_first_checkpoint_costs_nothing(reviews, teachers, tmp_path):
    run = tmp_path / "run"
    command = [*arguments(reviews, run, learn_from(teachers[0])), "--auto_resume"]
    stop_after(command, 2)
    state_path(run).unlink()  # as if killed when labels were kept and nothing else
    assert soft_labels_path(run).is_file()
    assert cli.train(command) == 0
    assert cli.train(arguments(reviews, run, "--overwrite")) == 0
    assert not soft_labels_path(run).exists()


def test_labels_that_are_gone_or_of_others_are_told(reviews, teachers, tmp_path, capsys):
    run = tmp_path / "run"
    stop_after(arguments(reviews, run, learn_from(teachers[0])), 2)
    path = soft_labels_path(run)
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    assert "is damaged" in refusal([f"--resume={run}"], capsys)
    module.save_soft_labels(run, torch.ones(71, 2))
    assert "is not of this run's reviews: its files were mixed up" in refusal(
        [f"--resume={run}"], capsys
    )
    path.unlink()
    message = refusal([f"--resume={run}"], capsys)
    assert "has no soft_labels.safetensors, what its teachers said: copy it" in message
    path.write_bytes(whole)
    assert cli.train([f"--resume={run}"]) == 0


def test_two_ranks_equal_one_process(reviews, teachers, tmp_path):
    exact = ["--model.dropout=0", "--model.embedding_dropout=0", "--device=cpu",
             "--objectives.unlabelled_batch_size=7", "--training.accumulation_steps=2",
             learn_from(*teachers)]  # fmt: skip
    one, two = tmp_path / "one", tmp_path / "two"
    assert cli.train(arguments(reviews, one, *exact)) == 0
    out, _ = ended(start_ranks(2, cli.train, arguments(reviews, two, *exact)))
    assert out.count("soft labels: 70 reviews by 2 teachers") == 1
    assert torch.equal(kept_labels(one), kept_labels(two))
    likeness = compare_runs(one, two)
    assert not likeness.problems and likeness.num_points > 20
    assert likeness.weights < 1e-4 and likeness.metrics < 1e-4 and likeness.curves < 1e-3


def test_a_range_test_learns_from_them_too(reviews, teachers, tmp_path):
    settings = [
        f"--data.path={reviews}", "--model.embedding_size=8", "--model.hidden_size=8",
        "--training.precision=fp32", "--training.batch_size=16", "--device=cpu",
    ]  # fmt: skip
    losses = []
    for name, more in {"alone": [], "taught": [learn_from(*teachers)]}.items():
        options = ["find-lr", *settings, *more, "--num_updates=12", f"--output={tmp_path / name}"]
        assert cli.main(options) == 0
        (file,) = (tmp_path / name).glob("*.json")
        losses.append(json.loads(file.read_text()))
    assert losses[0] != losses[1]


def test_a_student_is_reproduced(student, capfd, monkeypatch):
    monkeypatch.setattr(reproducing, "run_module", in_process)
    assert cli.main(["reproduce", str(student[0])]) == 0
    shown = capfd.readouterr().out
    assert "labelled by 2 teachers, as then" in shown
    assert "equal to the bit: weights, metrics and curves" in shown


def test_other_teachers_are_not_reproduced_from(reviews, teachers, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(reproducing, "run_module", lambda *_, **__: pytest.fail("training began"))
    folder, run = tmp_path / "teacher", tmp_path / "run"
    shutil.copytree(teachers[0], folder)
    assert cli.train(arguments(reviews, run, learn_from(folder))) == 0
    weights = "checkpoints/{}/model.safetensors"
    shutil.rmtree(folder)
    shutil.copytree(teachers[1], folder)
    message = refusal([str(run)], capsys, command_name="reproduce")
    assert f"the teacher {folder} has identity" in message and f"but {run} learned" in message
    shutil.rmtree(folder)
    assert f"{folder} is not a run" in refusal([str(run)], capsys, command_name="reproduce")
    shutil.copytree(teachers[0], folder)
    shutil.copy(folder / weights.format("last"), folder / weights.format("best"))
    assert "has weights with digest" in refusal([str(run)], capsys, command_name="reproduce")
    rewrite(run, teachers=[{"path": "x"}])
    assert "has no whole receipt" in refusal([str(run)], capsys, command_name="reproduce")


# Who is refused.


@pytest.fixture
def teacher(teachers: tuple[Path, Path], tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(teachers[0], tmp_path / "teacher"))


def test_who_is_no_teacher(reviews, teacher, tmp_path, capsys):
    run = tmp_path / "run"
    command = arguments(reviews, run, learn_from(teacher))
    result = read_manifest(teacher)["result"]
    rewrite(teacher, result=None)
    assert f"the teacher {teacher} is not finished: resume it" in refusal(command, capsys)
    rewrite(teacher, result=result, kind="language model")
    assert f"the teacher {teacher} is a pre-training, no classifier" in refusal(command, capsys)
    rewrite(teacher, kind=None)
    shutil.rmtree(teacher / "checkpoints" / "best")
    assert "has no weights" in refusal(command, capsys)
    shutil.rmtree(teacher)
    message = refusal(command, capsys)
    assert f"{teacher} is not a run" in message
    assert "distillation.teachers must name folders of finished runs" in message
    assert not run.exists(), "nothing is left behind"


def test_a_run_does_not_teach_itself(reviews, teacher, capsys):
    own = teacher.parent / "elsewhere" / ".." / teacher.name
    command = [*arguments(reviews, teacher, learn_from(own)), "--overwrite"]
    assert "is where the student is to be written" in refusal(command, capsys)
    assert load_run(teacher).class_names == ("neg", "pos")


def test_who_may_have_learned_what_it_must_not_is_no_teacher(teacher, tmp_path, capsys):
    other = write_corpus(tmp_path / "other", splits=SPLITS, seed=9)
    command = arguments(other, tmp_path / "run", learn_from(teacher))
    message = refusal(command, capsys)
    assert f"the teacher {teacher} held out 30 validation reviews with digest" in message
    assert "which it may have learned from: train it with the same data" in message
    assert not (tmp_path / "run").exists()
    rewrite(teacher, data=None)
    assert "held out unknown validation reviews" in refusal(command, capsys)


def test_classes_must_be_the_same(reviews, teacher, tmp_path, capsys):
    swapped = "--data.class_names=[pos,neg]"
    message = refusal(arguments(reviews, tmp_path / "run", learn_from(teacher), swapped), capsys)
    assert "has the classes neg, pos, but these reviews have pos, neg" in message


def test_reviews_to_label_are_needed(teacher, tmp_path, capsys):
    poor = write_corpus(tmp_path / "poor", splits={"train": 120, "validation": 30})
    message = refusal(arguments(poor, tmp_path / "run", learn_from(teacher)), capsys)
    assert "has no unsupervised split" in message
    assert "distillation has it labelled: give it, or set distillation.teachers to null" in message


def test_a_teacher_of_no_numbers_is_named(reviews, teacher, tmp_path, capsys, monkeypatch):
    def broken(*_: object, **__: object) -> None:
        raise ValueError("the model's logits are not numbers")

    monkeypatch.setattr(module, "predict_corpus", broken)
    message = refusal(arguments(reviews, tmp_path / "run", learn_from(teacher)), capsys)
    assert f"{teacher}: the model's logits are not numbers" in message


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"teachers": ()}, "distillation.teachers is (), but must be folders, or null"),
        ({"teachers": ("a", " ")}, "but must be folders, or null"),
        ({"teachers": ("a", "a")}, "but must be different folders"),
        ({"weight": 0.0}, "distillation.weight is 0.0, but must be above 0 and finite"),
        ({"weight": float("nan")}, "distillation.weight is nan"),
        ({"temperature": 0.01}, "distillation.temperature is 0.01, but must be from 0.1 to 100"),
    ],
)
def test_wrong_settings(settings, message):
    with pytest.raises(ValueError) as error:
        DistillationConfig(**settings)
    assert message in str(error.value)


def test_unlabelled_reviews_must_be_allowed():
    with pytest.raises(
        ValueError, match="False, but distillation has .* or distillation.teachers to null"
    ):
        Config(
            objectives=ObjectivesConfig(unlabelled=False),
            distillation=DistillationConfig(teachers=("a",)),
        )
