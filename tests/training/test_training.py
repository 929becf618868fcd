"""Training end to end on a corpus that a single word decides: curves, provenance, reviews shown."""

import re
import shutil
import sys
from dataclasses import replace
from html import unescape
from pathlib import Path
from traceback import walk_stack

import markdown
import pytest
import torch
from helpers.corpus import write_corpus
from helpers.trainings import arguments, read_epochs, read_events, refusal, train

from sentiment.cli import main as cli
from sentiment.config.parser import parse_training
from sentiment.data.batches import by_update
from sentiment.data.pipeline import prepare_training
from sentiment.data.tokenizer import clean
from sentiment.diagnostics.run_diff import check_inputs, read_provenance
from sentiment.runs.manifest import read_manifest
from sentiment.runs.run import build_model, create_run, load_run
from sentiment.training import meters
from sentiment.training import trainer as trainer_module
from sentiment.training.context import TrainingContext
from sentiment.training.logger import RunLogger
from sentiment.training.trainer import Trainer

LONGER = ["--training.num_epochs=4", "--training.learning_rate=0.02", "--training.log_every=5"]
NO_DROPOUT = ["--model.dropout=0", "--model.embedding_dropout=0"]


@pytest.fixture(scope="module")
def run_path(corpus, tmp_path_factory) -> Path:
    """A run trained by the train command."""
    path = tmp_path_factory.mktemp("runs") / "small"
    return train(corpus, path, *LONGER, "--model.embedding_dropout=0")


def make_trainer(corpus: Path, path: Path, *options: str) -> Trainer:
    config = parse_training(arguments(corpus, path, *NO_DROPOUT, *options), "test").config
    torch.manual_seed(config.seed)
    data = prepare_training(config)
    model = build_model(config.model, data.vocabulary, 2)
    create_run(path, config, data.class_names, data.vocabulary)
    context = TrainingContext(config, path, torch.device("cpu"), torch.float32)
    return Trainer(model, data, context, RunLogger(path))


def test_it_learns(run_path):
    history = read_epochs(run_path)
    assert len(history) == 4
    assert max(epoch["validation"]["accuracy"] for epoch in history) > 0.95
    assert history[-1]["training"]["loss"] < 0.5 * history[0]["training"]["loss"]


def test_tensorboard_holds_every_curve(run_path):
    train, validation = read_events(run_path, "train"), read_events(run_path, "validation")
    shared = {"loss/by_update", "accuracy/by_update", "loss/by_epoch", "accuracy/by_epoch"}
    figures = {
        "learning_rate", "gradient_norm", "tokens_per_second", "padding_share",
        "peak_memory_bytes",
    }  # fmt: skip
    assert set(train.Tags()["scalars"]) == shared | {f"training/{name}" for name in figures}
    best = {"best/accuracy", "best/f1", "best/macro_f1", "best/auroc", "best/nll"}
    more = {"f1/by_epoch", "auroc/by_epoch", *best}
    assert set(validation.Tags()["scalars"]) == shared | more
    parameters = {name for name, _ in load_run(run_path).model.named_parameters()}
    expected = {f"{kind}/{name}" for kind in ("weights", "gradients") for name in parameters}
    assert set(train.Tags()["histograms"]) == expected
    assert "reviews/text_summary" in validation.Tags()["tensors"]
    assert "_hparams_/session_start_info" in validation.PluginTagToContent("hparams")
    epochs = [event.step for event in train.Scalars("loss/by_epoch")]
    assert epochs == [event.step for event in validation.Scalars("loss/by_epoch")] == [1, 2, 3, 4]
    updates = [event.step for event in train.Scalars("loss/by_update")]
    assert updates == sorted(set(updates)), "no point stands twice"
    history = read_epochs(run_path)
    curve = [event.value for event in validation.Scalars("accuracy/by_epoch")]
    assert curve == pytest.approx([epoch["validation"]["accuracy"] for epoch in history])
    (words,) = (run_path / "tensorboard").rglob("metadata.tsv")
    vocabulary = load_run(run_path).vocabulary.itos
    assert words.read_text(encoding="utf-8").split("\n")[: len(vocabulary)] == vocabulary


def test_only_updates_count_as_time_of_training(corpus, tmp_path, monkeypatch):
    clock = iter(range(10**9))  # a second passes whenever someone looks
    monkeypatch.setattr(meters.time, "perf_counter", lambda: float(next(clock)))
    trainer = make_trainer(corpus, tmp_path / "run", "--training.checkpoint_updates=null")

    def slow(*_: object, **__: object) -> None:
        for _ in range(10_000):
            next(clock)

    for name in ("histograms", "figures", "reviews"):
        monkeypatch.setattr(RunLogger, name, slow)
    monkeypatch.setattr(trainer_module, "save_state", slow)
    trainer.fit()
    history = read_epochs(tmp_path / "run")
    for epoch in history:
        assert 0 < epoch["training"]["seconds"] < 10_000


def test_accumulated_batches_have_the_gradient_of_one_large_batch(corpus, tmp_path):
    """Batches of 100, 100 and 40 reviews: a mean of their means would be another gradient."""
    gradients = []
    for name, batch_size, steps in (("large", 240, 1), ("small", 100, 3)):
        sizes = f"--training.batch_size={batch_size}", f"--training.accumulation_steps={steps}"
        trainer = make_trainer(corpus, tmp_path / name, *sizes)
        (group,) = by_update(trainer._sampler, steps)
        trainer.train_step(group)
        gradients.append(torch.cat([each.grad.flatten() for each in trainer._model.parameters()]))
    assert gradients[0].norm() > 0
    assert (gradients[0] - gradients[1]).norm() <= 1e-4 * gradients[0].norm()


def test_early_stopping_keeps_the_best(corpus, tmp_path):
    settings = ["--training.num_epochs=30", "--training.patience=2",
                "--training.learning_rate=0.05", "--training.label_smoothing=0.5"]  # fmt: skip
    assert cli.train(arguments(corpus, tmp_path / "run", *settings)) == 0
    is_best = [epoch["is_best"] for epoch in read_epochs(tmp_path / "run")]
    assert len(is_best) < 30 and is_best[-3:] == [True, False, False]
    save = tmp_path / "run" / "checkpoints"
    assert (save / "best" / "model.safetensors").read_bytes() != (
        save / "last" / "model.safetensors"
    ).read_bytes()


@pytest.mark.parametrize("shared_reviews", ["report", "ignore"])
def test_training_opens_the_test_split_for_the_guard_alone(shared_reviews, corpus, tmp_path):
    """Watches which files of the corpus are opened while the command runs, and by whom."""
    folder = shutil.copytree(corpus, tmp_path / "corpus")
    (folder / "unsupervised.csv").write_bytes(b"\xff")
    opened: set[tuple[str, bool]] = set()
    watching = True

    def watch(event: str, details: tuple) -> None:
        if watching and event == "open" and str(details[0]).startswith(str(folder)):
            by_guard = "read_test_keys" in [frame.f_code.co_name for frame, _ in walk_stack(None)]
            opened.add((Path(details[0]).name, by_guard))

    sys.addaudithook(watch)
    more = "--training.num_epochs=1", f"--data.shared_reviews={shared_reviews}"
    assert cli.train(arguments(folder, tmp_path / "run", *more)) == 0
    watching = False
    by_guard = {("test.csv", True)} if shared_reviews == "report" else set()
    assert opened == {("train.csv", False), ("validation.csv", False)} | by_guard


@pytest.mark.cuda
def test_it_learns_on_cuda(corpus, tmp_path):
    assert cli.train(arguments(corpus, tmp_path / "run", *LONGER, "--device=cuda")) == 0
    assert load_run(tmp_path / "run").checkpoint.metrics["accuracy"] > 0.95


def test_averaged_weights_are_kept_and_the_others_trained(corpus, tmp_path):
    """A decay of almost 0 keeps the last weights: it must equal a training without average."""
    weights = {}
    for name, decay in {"none": "null", "hardly": "1e-9", "long": "0.9"}.items():
        settings = f"--training.average_decay={decay}", "--training.num_epochs=1"
        assert cli.train(arguments(corpus, tmp_path / name, *settings)) == 0
        model = load_run(tmp_path / name, checkpoint="last").model
        weights[name] = torch.cat([each.detach().flatten() for each in model.parameters()])
    assert torch.allclose(weights["hardly"], weights["none"], atol=1e-6)
    assert (weights["long"] - weights["none"]).norm() > 1e-3 * weights["none"].norm()


ALL = [
    "--objectives.adversarial=1", "--objectives.virtual_adversarial=0.7",
    "--objectives.entropy=0.5", "--objectives.perturbation_norm=2",
]  # fmt: skip
ONE_EPOCH = "--training.num_epochs=1"


@pytest.fixture(scope="module")
def run(reviews, tmp_path_factory) -> Path:
    """A run that learned from all terms."""
    return train(reviews, tmp_path_factory.mktemp("run") / "run", *ALL)


def term_curves(run: Path) -> dict[str, list[float]]:
    events = read_events(run, "train")
    return {
        tag.removeprefix("objectives/"): [point.value for point in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
        if tag.startswith("objectives/")
    }


def test_every_term_has_a_curve(run):
    curves = term_curves(run)
    assert curves.keys() == {"adversarial", "virtual_adversarial", "entropy"}
    for points in curves.values():
        assert len(points) == 4 and all(0 < value < 20 for value in points)
    assert max(curves["entropy"]) <= 0.6932


def test_the_logged_loss_is_that_of_the_labels(reviews, tmp_path):
    losses = []
    for name, settings in {"plain": [], "more": ["--objectives.entropy=100"]}.items():
        still = ["--training.learning_rate=1e-12", ONE_EPOCH]
        assert cli.train(arguments(reviews, tmp_path / name, *still, *settings)) == 0
        losses.append(read_epochs(tmp_path / name)[0]["training"]["loss"])
    assert losses[0] == pytest.approx(losses[1], abs=0.05)  # dropout differs
    assert term_curves(tmp_path / "more").keys() == {"entropy"}


def test_the_provenance_has_the_unlabelled_reviews(run):
    provenance, config = read_provenance(run), load_run(run).config
    unlabelled = provenance.data["unsupervised"]
    assert unlabelled["rows"] == 70
    check_inputs(provenance, config, run)
    data = {**provenance.data, "unsupervised": {**unlabelled, "sha256": "0" * 64}}
    with pytest.raises(ValueError, match="the unsupervised reviews are 70 with digest"):
        check_inputs(replace(provenance, data=data), config, run)


def test_a_source_without_unlabelled_reviews(tmp_path, capsys):
    folder = write_corpus(tmp_path / "reviews", splits={"train": 60, "validation": 30})
    for term in ("virtual_adversarial", "entropy"):
        command = arguments(folder, tmp_path / "run", f"--objectives.{term}=1", ONE_EPOCH)
        message = refusal(command, capsys)
        assert "has no unsupervised split" in message
        assert "set objectives.unlabelled to false to learn from the other reviews" in message
    assert cli.train([*command, "--objectives.unlabelled=false"]) == 0
    assert "unsupervised" not in read_manifest(tmp_path / "run")["data"]


def test_a_skipped_update_does_not_count(reviews, tmp_path):
    settings = [*ALL, "--training.nonfinite=skip", "--objectives.perturbation_norm=1e38", ONE_EPOCH]
    assert cli.train(arguments(reviews, tmp_path / "run", *settings)) == 0
    model = load_run(tmp_path / "run", checkpoint="last").model
    assert all(parameter.isfinite().all() for parameter in model.parameters())


# As in TensorBoard's text plugin.
EXTENSIONS = ["markdown.extensions.tables", "markdown.extensions.fenced_code"]


def render(path, *rows) -> str:
    """The HTML that TensorBoard makes of reviews."""
    run_logger = RunLogger(path)
    run_logger.reviews(list(rows), 1)
    run_logger.close()
    (event,) = read_events(path, "validation").Tensors("reviews/text_summary")
    (text,) = event.tensor_proto.string_val
    return markdown.markdown(text.decode(), extensions=EXTENSIONS)


@pytest.mark.parametrize(
    "text",
    [
        "- a point", "+ another", "1. one", "# of stars: 5", "===", "~~~ code ~~~", "| a | b |",
        "*bold* __more__ `code` \\* [a](b) ![c](d)", "[a]: http://b", "> said & done",
        "AT&T &amp; <b>bold</b> <!-- gone -->",
    ],
)  # fmt: skip
def test_reviews_and_names_are_shown_literally(text, tmp_path):
    page = render(tmp_path, (text, f"right {text}", text, 0.9))
    assert set(re.findall(r"</?(\w+)", page)) == {"p", "strong"}
    head, review = (unescape(re.sub("</?(p|strong)>", "", line)) for line in page.splitlines())
    assert head == f"{text}, 90.0%: wrong, it is right {text}"
    assert review == clean(text).strip()


def test_long_reviews_are_cut_and_control_characters_visible(tmp_path):
    long = "word\x1b " * 100_000
    page = render(tmp_path, (long, "neg", "neg", 0.9), ("short", "a\x1bb", "neg", 0.8))
    first, second = page.split("<hr />")
    assert "\x1b" not in page and "a␛b" in second and "short</p>" in second
    review = first.splitlines()[1]
    assert review.endswith(" …</p>") and 2_000 <= len(review) < 2_020
