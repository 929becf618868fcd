"""What differs between two runs: how they were trained, weights, metrics and curves."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sentiment.config.config import Config
from sentiment.data.pipeline import cache_dir, reads_unlabelled, vectors_path
from sentiment.data.reviews import (
    file_fingerprint,
    load_training_splits,
    load_unlabelled,
    reviews_fingerprint,
)
from sentiment.runs.initial import INITIAL
from sentiment.runs.manifest import (
    check_fingerprints,
    git_state,
    is_baseline,
    is_pretraining,
    read_manifest,
    versions,
)
from sentiment.runs.run import load_run
from sentiment.runs.weights import describe_weights
from sentiment.runtime.device import describe_device, find_device, find_precision
from sentiment.runtime.errors import UserError
from sentiment.training.distillation import (
    check_named_teachers,
    check_same_run,
    check_same_teachers,
    describe_teachers,
)


class Difference(NamedTuple):
    """A part of the environment that has changed."""

    name: str
    then: str
    now: str

    def __str__(self) -> str:
        return f"{self.name}: {self.then} then, {self.now} now"


@dataclass(frozen=True)
class RunEnvironment:
    """Everything but settings and data that can change a training's last digits."""

    versions: dict[str, str]  # of Python and the libraries
    revision: str | None  # of the code, None without git
    is_dirty: bool  # whether the code had uncommitted changes
    device: str  # described without the number of a GPU and without threads
    precision: str  # of matrix products
    threads: int  # of each process
    ranks: int

    @property
    def device_type(self) -> str:
        """``cpu``, ``cuda`` or ``mps``."""
        return self.device.split(" ")[0]

    def differences(self, now: RunEnvironment) -> list[Difference]:
        """What has changed, except uncommitted changes."""
        pairs = [
            Difference(name, self.versions.get(name, "unknown"), now.versions.get(name, "unknown"))
            for name in sorted(self.versions.keys() | now.versions.keys())
        ]
        revisions = [(side.revision or "unknown")[:12] for side in (self, now)]
        pairs.append(Difference("revision", *revisions))
        for name in ("device", "precision", "threads", "ranks"):
            pairs.append(Difference(name, str(getattr(self, name)), str(getattr(now, name))))
        return [pair for pair in pairs if pair.then != pair.now]


@dataclass(frozen=True)
class Provenance:
    """How a finished run was trained, and its result, from run.json."""

    environment: RunEnvironment
    data: dict[str, dict[str, Any]]  # fingerprint of the reviews of each split
    vectors: dict[str, Any] | None  # fingerprint of the vectors' file
    teachers: list[dict[str, str]]  # path, identity and digest of the weights
    pretraining: dict[str, str] | None  # the same of the pre-training it started from
    initial_run: dict[str, str] | None  # the same of the run it started from
    result: dict[str, Any]  # best epoch, its metrics, duration
    accuracy: float  # on the validation reviews, of the best epoch, from 0 to 1
    interval: tuple[float, float]  # the accuracy's 95 % interval
    loss: float  # mean negative log-likelihood of the validation reviews in the best epoch


def read_provenance(run: Path) -> Provenance:
    """The provenance of a finished run; ``UserError`` if run.json lacks something."""
    values = read_manifest(run)  # whose checksum it has verified
    if is_pretraining(values):
        raise UserError(f"{run} is a pre-training: only a classifier's run can be reproduced")
    if is_baseline(values):
        raise UserError(f"{run} is a baseline: train it again with sentiment baseline --overwrite")
    if "result" not in values:
        raise UserError(
            f"{run} is not finished, so it has no result to compare with: resume it with python "
            f"train.py --resume {run}"
        )
    try:
        splits = ["train", "validation", *({"unsupervised"} & values["data"].keys())]
        metrics = values["result"]["metrics"]
        low, high = metrics["accuracy_ci95"]
        return Provenance(
            environment=_environment(values),
            data={split: values["data"][split] for split in splits},
            vectors=values["vectors"],
            teachers=values.get("teachers", []),
            pretraining=values.get("pretraining"),
            initial_run=values.get("initial_run"),
            result=values["result"],
            accuracy=metrics["accuracy"],
            interval=(low, high),
            loss=metrics["nll"],
        )
    except KeyError as error:
        raise UserError(
            f"{run / 'run.json'} lacks what is needed to reproduce the run ({error}): train it "
            "again from its config.yaml"
        ) from error


def current_environment(config: Config, *, ranks: int, threads: int) -> RunEnvironment:
    """The environment of a training with these settings on this machine."""
    device = find_device(config.device)
    precision = find_precision(config.training.precision, device)
    return _environment({
        "versions": versions(),
        "git": git_state(),
        "device": describe_device(device),
        "precision": str(precision).removeprefix("torch."),
        "threads": threads,
        "ranks": ranks,
    })  # fmt: skip


def _environment(values: dict[str, Any]) -> RunEnvironment:
    """The environment that run.json's values describe."""
    git = values["git"] or {"revision": None, "is_dirty": False}
    return RunEnvironment(
        versions=values["versions"],
        revision=git["revision"],
        is_dirty=git["is_dirty"],
        device=_device_kind(values["device"]),
        precision=values["precision"],
        threads=values["threads"],
        ranks=values["ranks"],
    )


def _device_kind(device: str) -> str:
    """Without the number of one of several equal GPUs, and without threads."""
    return re.sub(r", \d+ threads?\)$", ")", re.sub(r"^cuda:\d+", "cuda", device))


def check_inputs(provenance: Provenance, config: Config, run: Path) -> None:
    """Check that reviews, vectors, teachers and pre-training are those of the run.

    Raises:
        FileNotFoundError, UserError: an input is missing, or has changed.
    """
    check_named_teachers(config)
    check_same_teachers(provenance.teachers, describe_teachers(config), run)
    if provenance.pretraining is not None:
        _check_source(provenance.pretraining, "last", "pre-training", run)
    if provenance.initial_run is not None:
        _check_source(provenance.initial_run, INITIAL, "run", run)
    data = config.data
    if data.shared_reviews == "report":  # the training reports them; it changes no review
        data = replace(data, shared_reviews="ignore")
    train, validation = load_training_splits(data)
    now = {"train": reviews_fingerprint(train), "validation": reviews_fingerprint(validation)}
    if reads_unlabelled(config):
        now["unsupervised"] = reviews_fingerprint(load_unlabelled(data, train, validation))
    check_reviews(provenance.data, now, run)
    if provenance.vectors is not None:
        _check_vectors(provenance.vectors, config, run)


def check_reviews(
    then: dict[str, dict[str, Any]], now: dict[str, dict[str, Any]], run: Path
) -> None:
    """Raise ``UserError`` if the fingerprints of a split's reviews differ."""
    now = {split: now[split] for split in then}
    advice = "give the original reviews with --data.path"
    check_fingerprints(then, now, owner=str(run), advice=advice)


def _check_vectors(then: dict[str, Any], config: Config, run: Path) -> None:
    path = vectors_path(config.vectors, cache_dir(config.data))
    if path is None or not path.is_file():
        raise FileNotFoundError(
            f"no file {path} with the vectors of {run} ({then.get('name')}): give it with "
            "--vectors.path"
        )
    digest = file_fingerprint(path)["sha256"]
    if digest != then["sha256"]:
        raise UserError(
            f"{path} has digest {digest[:12]}, but the vectors of {run} had "
            f"{then['sha256'][:12]}: give the original file with --vectors.path"
        )


def _check_source(then: dict[str, str], weights: str, kind: str, run: Path) -> None:
    path = then["path"]
    try:
        now = describe_weights(Path(path).expanduser(), weights)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"the {kind} {path} that {run} started from is missing ({error}): put it back"
        ) from error
    check_same_run(then, now, kind, run)


# These depend on the clock and on free memory, or follow from the confusion matrix and are missing
# in earlier runs.
_NOT_COMPARED = {"seconds", "tokens_per_second", "peak_memory_bytes", "macro_f1", "by_class"}


@dataclass(frozen=True)
class RunDiff:
    """The largest differences of two runs; an infinite one means not comparable."""

    weights: float  # best or last
    metrics: float  # numbers in metrics.json
    curves: float  # points in TensorBoard
    num_points: int  # number of points compared
    problems: tuple[str, ...]  # other differences, in words

    @property
    def is_equal(self) -> bool:
        """To the bit."""
        return not self.problems and self.largest == 0

    @property
    def largest(self) -> float:
        return max(self.weights, self.metrics, self.curves)


def compare_runs(first: Path, second: Path) -> RunDiff:
    """Compare two finished runs."""
    problems: list[str] = []
    weights = max(_compare_weights(first, second, name, problems) for name in ("best", "last"))
    metrics = [json.loads((run / "metrics.json").read_text("utf-8")) for run in (first, second)]
    curves = [_read_curves(run) for run in (first, second)]
    return RunDiff(
        weights=weights,
        metrics=compare_values(metrics[0], metrics[1], "metrics.json", problems),
        curves=compare_values(curves[0], curves[1], "TensorBoard", problems),
        num_points=sum(map(len, curves[0].values())),
        problems=tuple(problems),
    )


def _compare_weights(first: Path, second: Path, name: str, problems: list[str]) -> float:
    one, other = (load_run(path, checkpoint=name) for path in (first, second))
    if one.vocabulary.itos != other.vocabulary.itos:
        problems.append("the vocabularies differ")
        return math.inf
    states = one.model.state_dict(), other.model.state_dict()
    shapes = [{key: tensor.shape for key, tensor in state.items()} for state in states]
    if shapes[0] != shapes[1]:
        problems.append("the models differ")
        return math.inf
    if one.checkpoint.epoch != other.checkpoint.epoch:
        epochs = f"{one.checkpoint.epoch} and {other.checkpoint.epoch}"
        problems.append(f"the {name} weights are of epochs {epochs}")
    return max(
        _difference(tensor.double().numpy(), states[1][key].double().numpy())
        for key, tensor in states[0].items()
    )


def _read_curves(run: Path) -> dict[str, list[tuple[int, float]]]:
    """All scalars, and the sums of squares of all histograms, by folder and tag."""
    # Imported here because it takes a second.
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    curves: dict[str, list[tuple[int, float]]] = {}
    for name in ("train", "validation"):
        folder = str(run / "tensorboard" / name)
        events = EventAccumulator(folder, {"scalars": 0, "histograms": 0}).Reload()
        for tag in events.Tags()["scalars"]:
            if tag.rpartition("/")[2] not in _NOT_COMPARED:
                points = [(event.step, event.value) for event in events.Scalars(tag)]
                curves[f"{name}/{tag}"] = sorted(points)
        for tag in events.Tags()["histograms"]:
            squares = [
                (event.step, event.histogram_value.sum_squares) for event in events.Histograms(tag)
            ]
            curves[f"{name}/{tag}"] = sorted(squares)
    return curves


def compare_values(first: Any, second: Any, where: str, problems: list[str]) -> float:
    """The largest difference of numbers in nested values; others are added to ``problems``."""
    if isinstance(first, dict) and isinstance(second, dict):
        for key in sorted((first.keys() ^ second.keys()) - _NOT_COMPARED):
            problems.append(f"{where}: only one has {key}")
        pairs = [
            (first[key], second[key], f"{where}: {key}")
            for key in first
            if key in second and key not in _NOT_COMPARED
        ]
    elif isinstance(first, list | tuple) and isinstance(second, list | tuple):
        if len(first) != len(second):
            problems.append(f"{where}: {len(first)} and {len(second)} entries")
        pairs = [(one, other, where) for one, other in zip(first, second, strict=False)]
    elif first == second or first is second:
        return 0.0
    elif isinstance(first, int | float) and isinstance(second, int | float):
        return _difference(np.float64(first), np.float64(second))
    else:
        problems.append(f"{where}: {first!r} and {second!r}")
        return math.inf
    return max((compare_values(*pair, problems) for pair in pairs), default=0.0)


def _difference(first: Any, second: Any) -> float:
    """The largest difference of two arrays; infinite where only one is NaN."""
    first, second = np.atleast_1d(first), np.atleast_1d(second)
    is_same = (first == second) | (np.isnan(first) & np.isnan(second))
    if is_same.all():
        return 0.0
    with np.errstate(invalid="ignore"):
        differences = np.abs(first - second)[~is_same]
    return float(np.nan_to_num(differences, nan=np.inf, posinf=np.inf).max())
