"""A search file: which settings to begin with, what to search among them, in how many trials."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

import yaml

from sentiment.config import Config
from sentiment.plain_yaml import read_yaml
from sentiment.searching.space import Space, read_space
from sentiment.suggestions import did_you_mean

Metric = Literal["accuracy", "f1", "auroc", "nll"]

_KEYS = ("config", "trials", "metric", "pruning", "space")


class _Loader(yaml.SafeLoader):
    """Takes 1e-3 for a number, as settings files do; YAML 1.1 wants 1.0e-3."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+"), list("-+0123456789")
)


@dataclass(frozen=True, kw_only=True)
class Search:
    """What a search file says.

    Attributes:
        config: the settings file that trials begin from, None for the defaults.
        trials: trainings in all.
        metric: what they are compared by, None for the settings' training.monitor.
        pruning: whether trials that fall behind are ended early.
        space: what is searched.
        text: the space as the file has it, to know a search again by.
    """

    config: str | None
    trials: int
    metric: Metric | None
    pruning: bool
    space: Space
    text: dict[str, Any]


def read_search(path: Path) -> Search:
    """Read a search file; nothing in it is executed.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it says something else; the message names the file.
    """
    try:
        values = read_yaml(path, _Loader)
    except FileNotFoundError:
        raise FileNotFoundError(f"there is no search file {path}") from None
    try:
        return _read_values(values)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _read_values(values: Any) -> Search:
    if not isinstance(values, dict):
        raise ValueError("must hold config, trials and space")
    if settings := {each.name for each in fields(Config)} & set(values):
        raise ValueError(
            f"{min(settings)} is a setting, for train.py: a search holds config, trials and space"
        )
    for key in values:
        if key not in _KEYS:
            raise ValueError(f"unknown key {key!r}{did_you_mean(str(key), _KEYS)}")
    config, metric = values.get("config"), values.get("metric")
    if not (config is None or (isinstance(config, str) and config)):
        raise ValueError(f"config is {config!r}, but must be a settings file")
    if metric is not None and metric not in get_args(Metric):
        raise ValueError(f"metric is {metric!r}, but must be one of {', '.join(get_args(Metric))}")
    trials = values.get("trials", 20)
    if type(trials) is not int or trials < 1:
        raise ValueError(f"trials is {trials!r}, but must be an integer of at least 1")
    pruning = values.get("pruning", True)
    if not isinstance(pruning, bool):
        raise ValueError(f"pruning is {pruning!r}, but must be true or false")
    space = values.get("space")
    return Search(
        config=config, trials=trials, metric=metric, pruning=pruning,
        space=read_space(space), text={str(key): value for key, value in (space or {}).items()},
    )  # fmt: skip
