"""What a wrong setting says, that every right one is used, and that it changes what it says."""

import ast
import inspect
import itertools
import shlex
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import get_type_hints

import pytest
import torch
import yaml
from helpers.corpus import ROOT, write_corpus
from helpers.trainings import read_epochs, read_events, refusal, train

from sentiment.config.config import Config, DataConfig, TrainingConfig
from sentiment.config.parser import load_config, parse_training, save_config, setting_keys
from sentiment.data.pipeline import TrainingData, prepare_training
from sentiment.runs.run import load_run
from sentiment.runs.weights import read_weights
from sentiment.training.trainer import Trainer


def parse(*arguments: str) -> Config:
    return parse_training(list(arguments), "train.py").config


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        ("--data.max_lenght 3", ["data.max_lenght", "did you mean data.max_length?"]),
        ("--max_length 3", ["max_length", "did you mean data.max_length?"]),
        ("--model.pooling maxx", ["model.pooling", "maxx", "did you mean max?"]),
        ("--model.pooling last+maxx", ["model.pooling", "last+maxx", "did you mean max?"]),
        ("--model.pooling max+max", ["model.pooling is 'max+max'", "different ones joined by +"]),
        ("--model.normalize_embedding x", ["model.normalize_embedding", "bool", "x"]),
        ("--model.implementation reference --model.cell gru", ["model.cell is 'gru'", "lstm"]),
        ("--model.hidden_size x", ["model.hidden_size", "Expected a int", "x"]),
        ("--training.gradient_clip x", ["training.gradient_clip", "float or null", "x"]),
        ("--vectors.name glove.6B.10d", ["vectors.name", "did you mean glove.6B.100d?"]),
        ("--data.validation_share 3", ["data.validation_share is 3.0", "between 0 and 1"]),
        ("--training.learning_rate -1", ["training.learning_rate is -1.0", "above 0"]),
        ("--training.num_epochs 0", ["training.num_epochs is 0", "from 1 to"]),
        ("--training.layer_rate_factor 0", ["layer_rate_factor is 0.0", "above 0 and at most 1"]),
        ("--training.unfreeze_epochs 1 --training.schedule plateau", ["choose another schedule"]),
        ("--data.class_names neg", ["data.class_names", "Expected tuple", "list, such as [a, b]"]),
        ("--data.class_names [neg]", ["data.class_names", "two names or more"]),
        ("--data.class_names [a,a]", ["data.class_names", "distinct"]),
        ("--device gpu", ["device is 'gpu'", "cuda:1"]),
        ("--seed -1", ["seed is -1", "from 0 to 4,294,967,295"]),
        ("--data.validation groups", ["data.group_column is not set: set it to the column"]),
        ("--data.group_column film", ["data.validation is not groups: set it to groups"]),
        (
            "--data.validation groups --data.group_column label",
            ["another column than text and label"],
        ),
        ("--data.stretch_length 0", ["data.stretch_length is 0"]),
        ("--data.num_folds 1", ["data.num_folds is 1, but must be from 2"]),
        ("--data.num_folds 3 --data.fold 4", ["data.fold is 4, but must be from 1 to", "3"]),
        ("--data.fold 2", ["data.fold is 2, but must be 1 unless data.num_folds is set"]),
        (
            "--data.encoding cp12520",
            ["data.encoding is 'cp12520', but must be an encoding of text"],
        ),
        ("--data.encoding rot13", ["an encoding of text"]),
        ("--data.delimiter ::", ["data.delimiter is '::', but must be one character or tab"]),
        ("--data.column_names [a,a]", ["distinct names"]),
        ("--vectors.freeze true", ["vectors.freeze is True", "no vectors are set"]),
        ("--vectors.name glove.6B.50d", ["of 50 dimensions", "model.embedding_size is 100"]),
        ("--training.weight_decay 0.1", ["training.weight_decay is 0.1", "adamw"]),
        (
            "--training.contrasts 1 --data.language de",
            ["training.contrasts is 1, but data.language is 'de'", "set training.contrasts to 0"],
        ),
        ("--training.contrasts 1 --training.class_weights balanced", ["weights is set, which"]),
        # The embedding would begin at 4, the end.
        ("--training.num_epochs 4 --training.unfreeze_epochs 2", ["would begin to learn after 4"]),
        (
            "--training.num_epochs 4 --training.unfreeze_epochs 1.4 --model.num_layers 2",
            ["the lowest layer would begin to learn after 4"],
        ),
        ("--training.class_weights '{pos: 0}'", ["of pos is 0.0", "above 0 and finite"]),
        ("--training.class_weights '{pos: .inf}'", ["of pos is inf, but must be above 0"]),
        ("--training.class_weights '{yes: 2}'", ["is True, but must be a name", 'yes as "yes"']),
        ("--training.class_weights '{pos: much}'", ["class_weights"]),
        ("--training.class_weights balance", ["did you mean balanced?"]),
        ("--objectives.adversarial -1", ["adversarial is -1.0, but must be at least 0"]),
        ("--objectives.perturbation_norm 0", ["norm is 0.0, but must be above 0"]),
        ("--objectives.unlabelled_batch_size 0", ["unlabelled_batch_size is 0, but must be"]),
        (
            "--training.batch_unit tokens --training.batch_size 4000 "
            "--objectives.unlabelled_batch_size 50",
            ["unlabelled_batch_size is 50 tokens, but data.max_length"],
        ),
        ("--distillation.teachers []", ["teachers is (), but must be folders, or null"]),
        ("--distillation.teachers [a,a]", ["but must be different folders"]),
        ("--distillation.weight .nan", ["distillation.weight is nan"]),
        ("--distillation.temperature 0.01", ["is 0.01, but must be from 0.1 to 100"]),
        ("--distillation.num_teachers -1", ["teachers is -1, but must be from 0 to 100"]),
        ("--objectives.unlabelled false --distillation.teachers [a]", ["but distillation needs"]),
        ("--distillation.teachers [a] --distillation.num_teachers 2", ["names some already"]),
        ("--pretraining.num_epochs 1 --model.cell gru", ["model.cell is 'gru'", "num_epochs"]),
        ("--pretraining.path model --model.cell gru", ["model.cell is 'gru'", "pretraining.path"]),
        ("--pretraining.num_epochs 1 --model.implementation reference", ["n 'reference', but"]),
        ("--pretraining.num_epochs 1 --model.num_layers 2", ["model.bidirectional is true, but"]),
        ("--pretraining.num_epochs 1 --vectors.path a --vectors.freeze true", ["freeze is True"]),
        ("--pretraining.objective autoencoder", ["2000, twice pretraining.max_length"]),
        ("--config nowhere.yaml", ["nowhere.yaml", "does not exist"]),
        ("--overwrit", ["overwrit", "did you mean overwrite?"]),
    ],
)
def test_a_wrong_setting_ends_in_one_line(arguments, parts, capsys):
    message = refusal(shlex.split(arguments), capsys, status=2)
    for part in parts:
        assert part in message


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ("data:\n  max_lenght: 3\n", ["max_lenght", "did you mean data.max_length?"]),
        ("trainig:\n  num_epochs: 3\n", ["trainig", "did you mean training"]),
        ("model:\n  hidden_size: big\n", ["model.hidden_size", "big"]),
        ("data: [1\n", ["settings.yaml, line 2: not YAML"]),
        ("", ["settings.yaml holds no settings"]),
        ("just words\n", ["settings.yaml holds no settings"]),
        ("config: a.yaml\nspace: {}\n", ["settings to search: give it to sentiment sweep"]),
        ("config: other.yaml", ["config is not a setting: give it as --config instead"]),
        ("data: /dev/zero", ["data must be a section of settings, not a str"]),
        ("training: {learning_rate: null}", ["training.learning_rate is null, but must have"]),
        ("seed: null", ["seed is null, but must have a value"]),
    ],
)
def test_a_wrong_settings_file_ends_in_one_line(content, parts, tmp_path, capsys):
    path = tmp_path / "settings.yaml"
    path.write_text(content)
    message = refusal(["--config", str(path)], capsys, status=2)
    for part in parts:
        assert part in message


def test_the_command_line_overrides_the_file(tmp_path):
    path = tmp_path / "settings.yaml"
    path.write_text("seed: 3\nmodel:\n  hidden_size: 7\n  num_layers: 2\n")
    file, option = ("--config", str(path)), ("--model.hidden_size", "9")
    for arguments in ((*file, *option), (*option, *file), (*option, f"--config={path}")):
        config = parse(*arguments)
        assert (config.seed, config.model.hidden_size, config.model.num_layers) == (3, 9, 2)


@pytest.mark.parametrize("name", ["quickstart", "imdb", "tutorial"])
def test_shipped_settings_are_valid(name):
    config = parse("--config", str(ROOT / "configs" / f"{name}.yaml"))
    assert config.output_dir == f"runs/{name}"


def test_saved_equals_loaded(tmp_path):
    config = Config(
        seed=5,
        data=DataConfig(class_names=("no", "ÿes")),
        training=TrainingConfig(gradient_clip=None, patience=3, learning_rate=1e-5),
    )
    save_config(config, tmp_path / "config.yaml")
    assert load_config(tmp_path / "config.yaml") == config
    assert parse("--config", str(tmp_path / "config.yaml")) == config


def test_settings_saved_before_a_choice_of_cells_still_load(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("model:\n  hidden_size: 7\n  pooling: last\n  forget_bias: 0.5\n")
    model = load_config(path).model
    assert (model.cell, model.implementation, model.learned_initial_state) == (
        "lstm", "packed", False,
    )  # fmt: skip


@pytest.mark.parametrize("before", ["pretraining", "baseline", "teacher-1"])
def test_resuming_a_training_that_has_not_begun_names_its_command(before, tmp_path, capsys):
    (tmp_path / f"run-{before}").mkdir()
    message = refusal(["--resume", str(tmp_path / "run")], capsys, status=2)
    assert "has not begun yet: repeat the command that started it" in message
    assert "no settings file" in refusal(["--resume", str(tmp_path / "other")], capsys, status=2)


def test_print_config_is_complete_and_reusable(tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        parse("--seed", "4", "--print_config")
    assert stopped.value.code == 0
    printed = capsys.readouterr().out
    assert yaml.safe_load(printed)["training"]["patience"] is None
    (tmp_path / "printed.yaml").write_text(printed)
    assert parse("--config", str(tmp_path / "printed.yaml")) == replace(Config(), seed=4)


def test_help_shows_every_setting(capsys):
    with pytest.raises(SystemExit):
        parse("--help")
    shown = capsys.readouterr().out
    for key in setting_keys():
        assert f"--{key} " in shown
    assert "held out where the data has no validation split" in " ".join(shown.split())


SECTIONS = {"": Config} | {
    name: hint for name, hint in get_type_hints(Config).items() if is_dataclass(hint)
}


@pytest.mark.parametrize("section", SECTIONS.values())
def test_every_setting_has_an_explanation(section):
    (body,) = (
        node.body
        for node in ast.parse(inspect.getsource(section)).body
        if isinstance(node, ast.ClassDef)
    )
    for setting, explanation in itertools.pairwise(body):
        if isinstance(setting, ast.AnnAssign) and ast.unparse(setting.target) not in SECTIONS:
            assert isinstance(explanation, ast.Expr), ast.unparse(setting)
            assert ast.literal_eval(explanation.value).endswith("."), ast.unparse(setting)


def test_every_setting_is_read_by_the_program():
    """Each setting is read by its name, or a property that derives from it is, outside of config.

    The model's settings are passed on as keywords, so the classifier has a parameter for each.
    """
    read: set[str] = set()
    for path in (ROOT / "src").rglob("*.py"):
        if path.parent.name == "config":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
                owner = ast.unparse(node.value).split(".")[-1].lstrip("_")
                read.add(f"{owner}.{node.attr}")
            elif path.name == "classifier.py" and isinstance(node, ast.arg):
                read.add(f"model.{node.arg}")
    for section, hint in SECTIONS.items():
        derived: dict[str, list[str]] = {}
        for name, member in vars(hint).items():
            if isinstance(member, property):
                for source in member.fget.__code__.co_names:
                    derived.setdefault(source, []).append(name)
        for field in fields(hint):
            owners = {"training": ("training", "config"), "": ("config",)}.get(section, (section,))
            names = [field.name, *derived.get(field.name, ())]
            accesses = {f"{owner}.{name}" for owner in owners for name in names}
            assert accesses & read, (section, field.name)


BASE = [
    "--training.num_epochs=1", "--training.batch_size=8", "--vocabulary.min_frequency=1",
    "--model.embedding_dropout=0", "--model.dropout=0",
]  # fmt: skip


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    return write_corpus(folder, splits={"train": 40, "validation": 16})


def fit(folder: Path, run: Path, *changes: str) -> dict[str, torch.Tensor]:
    """The weights after training."""
    return read_weights(train(folder, run, *BASE, *changes), "last")[0]


def prepare(folder: Path, *changes: str) -> TrainingData:
    return prepare_training(parse(f"--data.path={folder}", *BASE, *changes))


@pytest.fixture(scope="module")
def base(tiny, tmp_path_factory) -> dict[str, torch.Tensor]:
    return fit(tiny, tmp_path_factory.mktemp("base") / "run")


def test_the_base_is_reproduced(tiny, base, tmp_path):
    """Without this, every difference below would prove nothing."""
    again = fit(tiny, tmp_path / "run")
    assert all(torch.equal(again[name], weight) for name, weight in base.items())


@pytest.mark.parametrize(
    "change",
    [
        "--training.batch_size=16",
        "--training.batch_unit=tokens --training.batch_size=400",
        "--training.accumulation_steps=2",
        "--training.optimizer=adamw --training.weight_decay=0.5",
        "--training.learning_rate=0.02",
        "--training.schedule=linear",
        "--training.schedule=cosine",
        "--training.warmup_share=0.5",
        "--training.gradient_clip=0.001",
        "--training.gradient_clip=null",
        "--training.label_smoothing=0.2",
        "--training.class_weights.pos=3",
        "--training.precision=bf16",
        "--model.embedding_dropout=0.5",
        "--model.dropout=0.5",
        "--model.word_dropout=0.5",
        "--model.weight_dropout=0.5",
        "--model.normalize_embedding=true",
        "--model.forget_bias=0.5",
        "--model.input_init=uniform",
        "--model.recurrent_init=uniform",
        "--model.pooling=mean",
        "--model.pooling=last",
        "--model.implementation=reference",
        "--data.max_length=5",
        "--seed=1",
    ],
)
def test_a_setting_changes_the_weights(change, tiny, base, tmp_path):
    changes = change.split()
    if "gradient_clip=null" in change:  # the base's gradients must be large enough to be clipped
        changes = ["--training.learning_rate=0.2", change]
        base = fit(tiny, tmp_path / "other", "--training.learning_rate=0.2")
    weights = fit(tiny, tmp_path / "run", *changes)
    assert not torch.equal(weights["recurrence.weight_hh_l0"], base["recurrence.weight_hh_l0"])


@pytest.mark.parametrize(
    ("change", "added"),
    [
        ("--model.cell=gru", -2 * 8 * (8 + 8 + 2)),  # of four gates a direction, three are left
        ("--model.cell=rnn", -2 * 3 * 8 * (8 + 8 + 2)),
        ("--model.learned_initial_state=true", 2 * (8 + 8)),
        ("--model.pooling=attention", 16 * 16 + 16 + 16),
        ("--model.pooling=last+max+mean", 2 * 2 * 16),
    ],
)
def test_a_setting_changes_what_there_is_to_learn(change, added, tiny, base, tmp_path):
    run = tmp_path / "run"
    weights = fit(tiny, run, change, "--training.num_epochs=4", "--training.learning_rate=0.02")
    sizes = [sum(weight.numel() for weight in each.values()) for each in (weights, base)]
    assert sizes[0] == sizes[1] + added
    losses = [epoch["training"]["loss"] for epoch in read_epochs(run)]
    assert losses[-1] < losses[0]
    load_run(run)  # the settings alone rebuild the model


def test_epochs_have_orders_of_their_own(tiny, tmp_path, monkeypatch):
    orders: list[list[int]] = []
    original = Trainer.train_step

    def record(self, batches, *meters):
        orders.append(torch.cat(batches).tolist())
        return original(self, batches, *meters)

    monkeypatch.setattr(Trainer, "train_step", record)
    fit(tiny, tmp_path / "run", "--training.num_epochs=2")
    half = len(orders) // 2
    assert orders[:half] != orders[half:]
    for epoch in (orders[:half], orders[half:]):
        assert sorted(itertools.chain.from_iterable(epoch)) == list(range(40))


def test_plateau_reduces_the_rate(tiny, tmp_path):
    changes = [
        "--training.schedule=plateau", "--training.plateau_patience=0",
        "--training.plateau_factor=0.1", "--training.num_epochs=4",
        "--training.learning_rate=1e-9",  # nothing is learned, so accuracy stands still
    ]  # fmt: skip
    fit(tiny, tmp_path / "run", *changes)
    rates = [epoch["training"]["learning_rate"] for epoch in read_epochs(tmp_path / "run")]
    assert rates == pytest.approx([1e-9, 1e-9, 1e-10, 1e-11])


@pytest.mark.parametrize("monitor", ["accuracy", "f1", "auroc", "nll"])
def test_the_monitored_metric_decides_the_best_epoch(monitor, tiny, tmp_path):
    changes = [f"--training.monitor={monitor}", "--training.num_epochs=6"]
    fit(tiny, tmp_path / "run", *changes, "--training.learning_rate=0.05")
    epochs = read_epochs(tmp_path / "run")
    values = [epoch["validation"][monitor] for epoch in epochs]
    best_value = min(values) if monitor == "nll" else max(values)
    kept = [value for value, epoch in zip(values, epochs, strict=True) if epoch["is_best"]]
    assert kept[-1] == best_value


def test_hold_out_settings(tmp_path):
    write_corpus(tmp_path, splits={"train": 100})

    def validation(*changes: str) -> list[str]:
        return prepare(tmp_path, *changes).validation_reviews.texts

    assert len(validation()) == 10
    assert len(validation("--data.validation_share=0.3")) == 30
    assert validation("--data.validation_seed=1") != validation()
    assert validation("--seed=1") == validation(), "the run's seed leaves the hold-out alone"


def test_pictures_are_drawn_when_asked_for_and_change_nothing(tiny, tmp_path):
    """With dropout, whose random numbers a picture could consume."""
    weights = []
    for pictures in ("true", "false"):
        run, changes = tmp_path / pictures, [f"--training.pictures={pictures}"]
        weights.append(fit(tiny, run, *changes, "--model.dropout=0.5")["output.weight"])
        images = read_events(run, "validation").Tags()["images"]
        num_explanations = sum("explanation" in tag for tag in images)
        assert num_explanations == (3 if pictures == "true" else 0)
        assert bool(images) == (pictures == "true")
    assert torch.equal(*weights)
