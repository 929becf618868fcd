"""What a wrong setting says, and that every right one is used."""

from __future__ import annotations

import ast
import inspect
import itertools
import shlex
from dataclasses import fields, is_dataclass, replace
from typing import get_type_hints

import pytest
import yaml
from helpers.corpus import ROOT

from sentiment.config.config import Config, DataConfig, TrainingConfig
from sentiment.config.parser import load_config, parse_training, save_config, setting_keys


def parse(*arguments: str) -> Config:
    return parse_training(list(arguments), "train.py").config


def refusal(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that wrong arguments end in."""
    with pytest.raises(SystemExit) as stopped:
        parse(*arguments)
    assert stopped.value.code == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    return message


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
        ("--vectors.freeze true", ["vectors.freeze is True", "no vectors are set"]),
        ("--vectors.name glove.6B.50d", ["of 50 dimensions", "model.embedding_size is 100"]),
        ("--training.weight_decay 0.1", ["training.weight_decay is 0.1", "adamw"]),
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
        (
            "--distillation.teachers [a] --distillation.num_teachers 2",
            ["names some already"],
        ),
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
    message = refusal(shlex.split(arguments), capsys)
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
    message = refusal(["--config", str(path)], capsys)
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


def test_a_damaged_settings_file_is_named(tmp_path):
    path = tmp_path / "config.yaml"
    for content in ("model: 3\n", "seed: -1\n", "data: [1\n", "nonsense: 1\n"):
        path.write_text(content)
        with pytest.raises(ValueError, match="not a valid settings file"):
            load_config(path)
    with pytest.raises(FileNotFoundError, match="no settings file"):
        load_config(tmp_path / "missing.yaml")


@pytest.mark.parametrize("before", ["pretraining", "baseline", "teacher-1"])
def test_resuming_a_training_that_has_not_begun_names_its_command(before, tmp_path, capsys):
    (tmp_path / f"run-{before}").mkdir()
    message = refusal(["--resume", str(tmp_path / "run")], capsys)
    assert "has not begun yet: repeat the command that started it" in message
    assert "no settings file" in refusal(["--resume", str(tmp_path / "other")], capsys)


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
