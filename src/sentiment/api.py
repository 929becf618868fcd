"""Training and evaluating from a program or a notebook: the commands as functions.

Mistakes are exceptions, most of them :class:`sentiment.UserError`. Its messages name options as on
the command line: in Python, ``--data.path FOLDER`` is ``**{"data.path": "FOLDER"}``, and
``--overwrite`` is ``overwrite=True``.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from sentiment.cli import evaluate as evaluate_command
from sentiment.cli import train as train_command
from sentiment.config.parser import parse_training, setting_keys
from sentiment.inference.predictor import Prediction, Predictor, load, load_members
from sentiment.runs.manifest import read_manifest
from sentiment.runtime.device import find_device
from sentiment.runtime.processes import Interrupted

logger = logging.getLogger("sentiment")


@dataclass(frozen=True, eq=False)
class TrainedRun:
    """A finished run.

    ``metrics`` are those of its best epoch on the validation reviews, by name, with the 95 %
    interval of the accuracy as ``accuracy_ci95``.
    """

    path: Path
    metrics: dict[str, Any]
    predictor: Predictor = field(repr=False)

    def predict(self, texts: Iterable[str]) -> list[Prediction]:
        """Classify texts, as :meth:`sentiment.Predictor.predict`."""
        return self.predictor.predict(texts)


@dataclass(frozen=True, eq=False, repr=False)
class EvaluatedRun(TrainedRun):
    """A run and its results on a split, shown as the tables of ``sentiment evaluate``.

    ``metrics`` are those of report.json, with 95 % intervals under names that end in ``_ci95``.
    """

    report: Path  # the page
    texts: list[str]  # the reviews of the split
    labels: list[str]  # their right classes
    predictions: list[Prediction]  # of the reviews, in their order
    tables: str

    def __repr__(self) -> str:
        return self.tables


def train(
    settings: str | os.PathLike[str] | Mapping[str, Any] | None = None,
    *,
    overwrite: bool = False,
    resume: str | os.PathLike[str] | None = None,
    auto_resume: bool = False,
    **changes: Any,
) -> TrainedRun:
    """Train a classifier, as ``sentiment train`` does::

        import sentiment

        run = sentiment.train("configs/imdb.yaml", seed=1, **{"training.num_epochs": 3})
        print(run.metrics["accuracy"], run.predict(["A lovely film."]))

    After an interruption (Ctrl-C, or the notebook's button), training first writes a checkpoint,
    then passes the signal on to the program; a second one does not wait for the checkpoint. Log
    lines go to the program's own logging if it shows level INFO, or if the program has set the
    level of the logger ``sentiment``; else to standard output. A script calls this below
    ``if __name__ == "__main__":``, because tokenizing a large corpus starts processes that import
    it.

    Args:
        settings: a YAML file, or settings by their names, dotted or nested; None takes the
            defaults.
        overwrite: whether a run in ``output_dir`` is replaced.
        resume: a run's folder, to continue it with its own settings.
        auto_resume: whether a run in ``output_dir`` is continued if there is one.
        changes: settings that differ from ``settings``.

    Raises:
        UserError: a setting or a file is wrong.
        OSError: a file cannot be read or written.
    """
    arguments = [f"--resume={os.fspath(resume)}"] if resume is not None else []
    arguments += ["--overwrite"] * overwrite + ["--auto_resume"] * auto_resume
    if isinstance(settings, Mapping):
        changes = _flatten(settings) | _flatten(changes)
    elif settings is not None:
        arguments.append(f"--config={os.fspath(settings)}")
    arguments += [f"--{key}={_as_text(value)}" for key, value in _flatten(changes).items()]
    request = parse_training(arguments, "sentiment.train", exit_on_error=False)
    # The program's own random numbers stay as they are.
    with _shown_log(), torch.random.fork_rng(devices=[]):
        try:
            train_command.execute(request)
        except Interrupted as stop:
            signal.raise_signal(stop.signal)  # to the program's own handler
            raise
    path = Path(request.config.output_dir).expanduser()
    metrics = read_manifest(path)["result"]["metrics"]
    return TrainedRun(path, metrics, load(path, device=request.config.device))


def evaluate(run: str | os.PathLike[str], split: str = "test", **options: Any) -> EvaluatedRun:
    """Measure a run on a split and write its report, as ``sentiment evaluate`` does::

        result = sentiment.evaluate("runs/imdb", **{"data.path": "other_reviews"})
        print(result)  # the tables
        low, high = result.metrics["accuracy_ci95"]

    Args:
        run: the run's folder.
        split: ``train``, ``validation`` or ``test``.
        options: the command's, without dashes: ``data.path`` and other settings of the reviews,
            ``output``, ``max_lengths``, ``checkpoint``, ``ensemble``, ``device``, ``precision``.

    Raises:
        UserError: an option or a file is wrong.
        OSError: a file cannot be read or written.
    """
    arguments = [os.fspath(run), f"--split={split}"]
    for key, value in options.items():
        if isinstance(value, list | tuple) and key not in setting_keys():
            arguments += [f"--{key}", *map(_as_text, value)]
        else:
            arguments.append(f"--{key}={_as_text(value)}")
    parsed = evaluate_command.parse(arguments, "sentiment.evaluate", raises=True)
    with _shown_log():
        outcome = evaluate_command.evaluate(parsed)
    assert outcome is not None  # there is one rank
    evaluation, reviews = outcome.evaluation, outcome.reviews
    rows = zip(
        evaluation.calibrated.probabilities.tolist(), evaluation.num_tokens.tolist(),
        evaluation.was_cut.tolist(), strict=True,
    )  # fmt: skip
    device = find_device(parsed.device)
    members = load_members(parsed.ensemble, outcome.run, device, precision=parsed.precision)
    predictor = Predictor(outcome.run, device, members=members, precision=parsed.precision)
    return EvaluatedRun(
        path=outcome.run.path,
        metrics=evaluation.as_dict(),
        predictor=predictor,
        report=outcome.report,
        texts=reviews.texts,
        labels=[reviews.class_names[label] for label in reviews.labels],
        predictions=[predictor.decide(*row) for row in rows],
        tables=outcome.text,
    )


def _flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Settings by their dotted keys, of sections that may be nested; some values are mappings."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        key = f"{prefix}{name}"
        is_section = isinstance(value, Mapping) and key not in setting_keys()
        flat |= _flatten(value, f"{key}.") if is_section else {key: value}
    return flat


def _as_text(value: Any) -> str:
    """A value as on the command line."""
    value = _plain(value)
    if isinstance(value, str):
        return value
    return yaml.safe_dump(value, default_flow_style=True, width=1e9).splitlines()[0]


def _plain(value: Any) -> Any:
    """A value without paths, NumPy's numbers, tuples and other mappings than dict."""
    if isinstance(value, Mapping):
        return {_plain(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return value.item() if isinstance(value, np.generic) else value


@contextmanager
def _shown_log() -> Iterator[None]:
    """Print the log's lines while the body runs, unless the program's logging shows them, or the
    program has set the logger's level.
    """
    if logger.level != logging.NOTSET or (
        logger.hasHandlers() and logger.isEnabledFor(logging.INFO)
    ):
        yield
        return
    handler, propagates = logging.StreamHandler(sys.stdout), logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False  # the program's handlers would show the lines a second time
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(logging.NOTSET)
        logger.propagate = propagates
