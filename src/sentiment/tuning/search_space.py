"""The search file, and the space of settings that it describes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

from sentiment.config.config import WITHOUT_EFFECT, Config
from sentiment.config.parser import setting_keys
from sentiment.config.sections import Metric, require
from sentiment.config.yaml import read_yaml
from sentiment.display.console import did_you_mean
from sentiment.runtime.errors import UserError

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

# Other settings of the data decide which reviews validate, and these what the score is, so trials
# could not be compared.
_SEARCHED_DATA = {"data.max_length", "data.keep", "data.language", "data.lower_case"}
_OF_THE_SCORE = {"training.monitor", "training.positive_class"}


Space = dict[str, "BaseDistribution"]  # by the settings' dotted keys


def read_space(values: Any) -> Space:
    """The space of a search file: settings with low and high, log or step, or with choices.

    Raises ``UserError`` if a setting is unknown or cannot be searched, or its values are invalid.
    """
    if not isinstance(values, Mapping) or not values:
        raise UserError("space must list settings: training.learning_rate: {low: …, high: …}")
    keys = setting_keys()
    space: Space = {}
    for key, value in values.items():
        name = str(key)
        if name not in keys:
            raise UserError(f"space: there is no setting {name}{did_you_mean(name, list(keys))}")
        if name in WITHOUT_EFFECT:
            raise UserError(f"space: {name} does not change what is learned: leave it out")
        if name in _OF_THE_SCORE or (name.startswith("data.") and name not in _SEARCHED_DATA):
            raise UserError(f"space: {name} must be the same for all trials to be compared")
        try:
            space[name] = _read_dimension(value, keys[name])
        except ValueError as error:
            raise UserError(f"space: {name} {error}") from None
    return space


def with_values(config: Config, values: Mapping[str, Any]) -> Config:
    """The config with some settings replaced, by their dotted keys."""
    by_section: dict[str, dict[str, Any]] = {}
    for key, value in values.items():
        section, _, name = key.rpartition(".")
        by_section.setdefault(section, {})[name] = value
    changes = by_section.pop("", {})
    for section, section_changes in by_section.items():
        changes[section] = replace(getattr(config, section), **section_changes)
    return replace(config, **changes)


def check_space(space: Space, config: Config) -> None:
    """Raise ``UserError`` if a value is invalid, or each trial would pre-train or train teachers.

    A value that only contradicts another searched setting passes: trials may combine values that
    fit.
    """
    pretrains = config.pretraining.num_epochs > 0 or "pretraining.num_epochs" in space
    if pretrains and config.pretraining.path is None and "pretraining.path" not in space:
        raise UserError(
            "pretraining.num_epochs would pre-train anew for each trial: call sentiment pretrain "
            "with these settings and --output_dir FOLDER first, then sweep with "
            "--pretraining.path FOLDER"
        )
    if config.distillation.trains_teachers or "distillation.num_teachers" in space:
        raise UserError(
            "distillation.num_teachers would train teachers anew for each trial: train them "
            "first, then sweep with --distillation.num_teachers 0 and --distillation.teachers "
            "listing their folders"
        )
    for key, dimension in space.items():
        for value in _values(dimension):
            try:
                with_values(config, {key: value})
            except ValueError as error:
                if not any(other in str(error) for other in space if other != key):
                    raise UserError(f"space: {error}") from None


def _values(dimension: BaseDistribution) -> Sequence[Any]:
    """The choices, or both ends: a setting that allows them allows all numbers between."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(dimension, CategoricalDistribution):
        return dimension.choices
    assert isinstance(dimension, FloatDistribution | IntDistribution)
    return dimension.low, dimension.high


def _read_dimension(value: Any, hint: Any) -> BaseDistribution:
    if not isinstance(value, Mapping):
        raise UserError(f"is {value!r}, but must be {{low: …, high: …}} or {{choices: […]}}")
    for key in value:
        if key not in ("low", "high", "log", "step", "choices"):
            raise UserError(f"has {key}, but expected are low, high, log, step or choices")
    if "choices" in value:
        if len(value) > 1:
            raise UserError("has choices, which excludes low, high, log and step: leave them out")
        return _read_choices(value["choices"], hint)
    if "low" not in value or "high" not in value:
        raise UserError("needs both low and high, or choices")
    return _read_range(
        value["low"], value["high"], value.get("log", False), value.get("step"), hint
    )


def _read_choices(values: Any, hint: Any) -> BaseDistribution:
    from optuna.distributions import CategoricalDistribution

    if not isinstance(values, list) or len(values) < 2:
        raise UserError(f"has choices {values!r}, but they must be a list of two or more")
    for value in values:
        if not _fits(value, hint):
            raise UserError(f"has the choice {value!r}, which is not {_kinds(hint)}")
    if len({(type(value), value) for value in values}) < len(values):
        raise UserError("has the same choice twice: delete one")
    return CategoricalDistribution(values)


def _read_range(low: Any, high: Any, log: Any, step: Any, hint: Any) -> BaseDistribution:
    """Optuna's distribution, which itself checks order and signs of the numbers."""
    from optuna.distributions import FloatDistribution, IntDistribution

    kinds = (hint, *get_args(hint)) if get_origin(hint) is not Literal else ()
    if int not in kinds and float not in kinds:
        raise UserError(f"is not a number but {_kinds(hint)}: give choices")
    is_integer = float not in kinds
    for name, value in (("low", low), ("high", high), ("step", step)):
        if (name != "step" or value is not None) and not _fits(value, int if is_integer else float):
            kind = "an integer" if is_integer else "a number"
            raise UserError(f"has {name} {value!r}, but it must be {kind}")
    if not isinstance(log, bool):
        raise UserError(f"has log {log!r}, but it must be true or false")
    if step and not math.isclose(math.remainder(high - low, step), 0, abs_tol=1e-9):
        raise UserError(f"has step {step!r}, but whole steps must lead from {low!r} to {high!r}")
    if is_integer:
        return IntDistribution(low, high, log, 1 if step is None else step)
    return FloatDistribution(low, high, log, step)


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value is of a setting's type."""
    if get_origin(hint) is Literal:
        return isinstance(value, str) and value in get_args(hint)
    if get_args(hint):
        return any(_fits(value, kind) for kind in get_args(hint))
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return type(value) is hint


def _kinds(hint: Any) -> str:
    if get_origin(hint) is Literal:
        return f"one of {', '.join(get_args(hint))}"
    if get_args(hint):
        return " or ".join(_kinds(kind) for kind in get_args(hint))
    names = {int: "an integer", float: "a number", bool: "true or false", str: "a text"}
    return names.get(hint, "null")


_KEYS = ("config", "trials", "metric", "pruning", "space")


@dataclass(frozen=True, kw_only=True)
class Search:
    """A search file."""

    config: str | None  # the settings file that trials start from, None for the defaults
    trials: int
    metric: Metric | None  # what compares trials, None for training.monitor
    pruning: bool  # whether to end trials early whose scores fall behind
    space: Space
    text: dict[str, Any]  # the space as written in the file, to recognize the search


def read_search(path: Path) -> Search:
    """Read a search file; nothing in it is executed."""
    values = read_yaml(path)
    try:
        return _read_values(values)
    except ValueError as error:
        raise UserError(f"{path}: {error}") from None


def _read_values(values: Any) -> Search:
    if not isinstance(values, dict):
        raise UserError("must contain config, trials and space")
    if settings := {field.name for field in fields(Config)} & set(values):
        raise UserError(
            f"{min(settings)} is a setting of train.py: a search contains config, trials and space"
        )
    for key in values:
        if key not in _KEYS:
            raise UserError(f"unknown key {key!r}{did_you_mean(str(key), _KEYS)}")
    config, metric = values.get("config"), values.get("metric")
    trials, pruning = values.get("trials", 20), values.get("pruning", True)
    is_path = config is None or (isinstance(config, str) and config != "")
    require(is_path, "config", config, "the path of a settings file")
    is_metric = metric is None or metric in get_args(Metric)
    require(is_metric, "metric", metric, f"one of {', '.join(get_args(Metric))}")
    require(type(trials) is int and trials >= 1, "trials", trials, "an integer of at least 1")
    require(isinstance(pruning, bool), "pruning", pruning, "true or false")
    space = values.get("space")
    return Search(
        config=config, trials=trials, metric=metric, pruning=pruning,
        space=read_space(space), text={str(key): value for key, value in (space or {}).items()},
    )  # fmt: skip
