"""What differs between two runs: data, environment, weights, metrics."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, replace
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
from sentiment.runs.manifest import (
    git_state,
    is_baseline,
    is_pretraining,
    read_manifest,
    versions,
)
from sentiment.runs.pretrained import describe_pretraining
from sentiment.runs.run import load_run
from sentiment.runtime.device import describe_device, find_device, find_precision
from sentiment.runtime.errors import UserError
from sentiment.training.distillation import (
    check_named_teachers,
    check_same_teachers,
    describe_teachers,
)


def check_reviews_here(then: dict[str, dict[str, Any]], config: Config, run: Path) -> None:
    """Refuse other reviews.

    Args:
        then: fingerprints of those of the run, by split.
        config: where they lie now.
        run: for the message.

    Raises:
        FileNotFoundError: there are none.
        UserError: they are others.
    """
    data = config.data
    if data.shared_reviews == "report":  # the training will, and it changes no review
        data = replace(data, shared_reviews="ignore")
    train, validation = load_training_splits(data)
    now = {"train": reviews_fingerprint(train), "validation": reviews_fingerprint(validation)}
    if reads_unlabelled(config):
        now["unsupervised"] = reviews_fingerprint(load_unlabelled(data, validation))
    check_reviews(then, now, run)


def check_reviews(
    then: dict[str, dict[str, Any]], now: dict[str, dict[str, Any]], run: Path
) -> None:
    """Refuse reviews whose fingerprints are others; arguments and errors as above."""
    for split, wanted in then.items():
        found = now[split]
        if found != wanted:
            raise UserError(
                f"the {split} reviews are {found['rows']} with digest {found['sha256'][:12]}, but "
                f"{run} was trained with {wanted['rows']} with {wanted['sha256'][:12]}: give the "
                "reviews of then by --data.path"
            )


def check_vectors(then: dict[str, Any] | None, config: Config, run: Path) -> None:
    """Refuse another file of vectors, whatever its name is.

    Args:
        then: fingerprint of the run's, None without one.
        config: where it lies now; one that is chosen by name is downloaded where need be.
        run: for the message.

    Raises:
        FileNotFoundError: there is none.
        UserError: it is another.
    """
    if then is None:
        return
    path = vectors_path(config.vectors, cache_dir(config.data))
    if path is None or not path.is_file():
        raise FileNotFoundError(
            f"no file {path} with the vectors of {run} ({then.get('name')}): give it by "
            "--vectors.path"
        )
    found = file_fingerprint(path)
    if found["sha256"] != then["sha256"]:
        raise UserError(
            f"{path} has digest {found['sha256'][:12]}, but the vectors of {run} had "
            f"{then['sha256'][:12]}: give those of then by --vectors.path"
        )


def check_teachers_here(then: list[dict[str, str]], config: Config, run: Path) -> None:
    """Refuse to learn from others than the run did.

    Args:
        then: who its teachers were.
        config: where they lie now.
        run: for the message.

    Raises:
        FileNotFoundError: one is not there.
        UserError: one is another.
    """
    check_named_teachers(config)
    check_same_teachers(then, describe_teachers(config), run)


def check_pretraining_here(then: dict[str, str] | None, run: Path) -> None:
    """Refuse to start from another pre-training than the run did.

    Args:
        then: which it was, None without one.
        run: for the message.

    Raises:
        FileNotFoundError: it is gone.
        UserError: it is another.
    """
    if then is None:
        return
    try:
        now = describe_pretraining(Path(then["path"]).expanduser())
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"the pre-training {then['path']} that {run} started from is gone ({error}): put it "
            "back there"
        ) from error
    for name, what in (("identity", "identity"), ("sha256", "weights with digest")):
        if now[name] != then[name]:
            raise UserError(
                f"the pre-training {then['path']} has {what} {now[name][:12]}, but {run} started "
                f"from one with {then[name][:12]}: put that of then there"
            )


class Difference(NamedTuple):
    """Something that was otherwise.

    Attributes:
        name: what.
        then, now: how it was, and how it is.
    """

    name: str
    then: str
    now: str

    def __str__(self) -> str:
        return f"{self.name}: {self.then} then, {self.now} now"


@dataclass(frozen=True)
class RunEnvironment:
    """All but settings and data that can decide the last digits of a training.

    Attributes:
        versions: by name.
        revision: of the code, None without git.
        is_dirty: whether the code was changed after it.
        device: in words, without its number and its threads.
        precision: arithmetic of matrix products.
        threads: of each process.
        ranks: processes.
    """

    versions: dict[str, str]
    revision: str | None
    is_dirty: bool
    device: str
    precision: str
    threads: int
    ranks: int

    @property
    def device_type(self) -> str:
        """``cpu``, ``cuda`` or ``mps``."""
        return self.device.split(" ")[0]

    def differences(self, now: RunEnvironment) -> list[Difference]:
        """What of these is otherwise now; of git the revision alone."""
        found = [
            Difference(name, self.versions.get(name, "unknown"), now.versions.get(name, "unknown"))
            for name in sorted(self.versions.keys() | now.versions.keys())
        ]
        revisions = [(each.revision or "unknown")[:12] for each in (self, now)]
        found.append(Difference("revision", *revisions))
        for name in ("device", "precision", "threads", "ranks"):
            found.append(Difference(name, str(getattr(self, name)), str(getattr(now, name))))
        return [each for each in found if each.then != each.now]


@dataclass(frozen=True)
class Receipt:
    """What a finished run says of itself.

    Attributes:
        circumstances: what it was trained by and on.
        data: fingerprints of its reviews, by split.
        vectors: fingerprint of its file of vectors, None without one.
        teachers: who labelled its unlabelled reviews: folder, identity, digest of the weights.
        pretraining: the same of the pre-training that it started from, None without one.
        result: what training came to.
    """

    circumstances: RunEnvironment
    data: dict[str, dict[str, Any]]
    vectors: dict[str, Any] | None
    teachers: list[dict[str, str]]
    pretraining: dict[str, str] | None
    result: dict[str, Any]

    @property
    def accuracy(self) -> float:
        """On the validation reviews, after the best epoch; between 0 and 1."""
        return self.result["metrics"]["accuracy"]

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of it."""
        low, high = self.result["metrics"]["accuracy_ci95"]
        return low, high

    @property
    def loss(self) -> float:
        """Mean negative log-likelihood of the validation reviews, after the best epoch."""
        return self.result["metrics"]["nll"]


def read_receipt(run: Path) -> Receipt:
    """The receipt of a finished run.

    Raises:
        FileNotFoundError: the folder is not a run.
        UserError: run.json is damaged or has no receipt, or the run is not finished.
    """
    values = read_manifest(run)
    if is_pretraining(values):
        raise UserError(f"{run} is a pre-training: only a classifier's run can be reproduced")
    if is_baseline(values):
        raise UserError(f"{run} is a baseline: make it again with sentiment baseline --overwrite")
    if "result" not in values:
        raise UserError(
            f"{run} is not finished, so there is nothing to compare with: resume it with python "
            f"train.py --resume {run}"
        )
    try:
        git = values["git"] or {"revision": None, "is_dirty": False}
        receipt = Receipt(
            RunEnvironment(
                versions=dict(values["versions"]),
                revision=git["revision"],
                is_dirty=git["is_dirty"],
                device=_kind_of(values["device"]),
                precision=values["precision"],
                threads=int(values["threads"]),
                ranks=int(values["ranks"]),
            ),
            data={split: dict(values["data"][split]) for split in _splits(values["data"])},
            vectors=values["vectors"],
            teachers=[dict(each) for each in values.get("teachers", [])],
            pretraining=dict(values["pretraining"]) if "pretraining" in values else None,
            result=dict(values["result"]),
        )
        _look_at_all(receipt)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(
            f"{run / 'run.json'} has no whole receipt ({error!r}): this run cannot be reproduced; "
            "train it again, from its config.yaml"
        ) from error
    return receipt


def _splits(data: dict[str, Any]) -> list[str]:
    """Splits that were learned from or chosen by: those without labels where there were any."""
    return ["train", "validation", *(["unsupervised"] if "unsupervised" in data else [])]


def _look_at_all(receipt: Receipt) -> None:
    """Meet now what would be missed after hours of training."""
    low, high = receipt.interval
    numbers = [low, high, receipt.accuracy, receipt.loss, receipt.result["seconds"]]
    if not all(isinstance(each, float | int) for each in numbers):
        raise TypeError(f"no numbers: {numbers}")
    vectors = [] if receipt.vectors is None else [receipt.vectors]
    for each in [*receipt.data.values(), *vectors]:
        if not isinstance(each["sha256"], str) or not isinstance(each["bytes"], int):
            raise TypeError(f"no fingerprint: {each}")
    pretraining = [] if receipt.pretraining is None else [receipt.pretraining]
    for each in [*receipt.teachers, *pretraining]:
        if not all(isinstance(each[name], str) for name in ("path", "identity", "sha256")):
            raise TypeError(f"no teacher or pre-training: {each}")
    if not all(isinstance(each["rows"], int) for each in receipt.data.values()):
        raise TypeError("no number of reviews")
    if not all(isinstance(receipt.result[name], int) for name in ("best_epoch", "num_epochs")):
        raise TypeError("no number of epochs")


def current_environment(config: Config, *, ranks: int, threads: int) -> RunEnvironment:
    """What a training of these settings would be done by and on, here and now.

    Raises:
        UserError: the device is not there.
    """
    device = find_device(config.device)
    git = git_state() or {"revision": None, "is_dirty": False}
    return RunEnvironment(
        versions=versions(),
        revision=git["revision"],
        is_dirty=git["is_dirty"],
        device=_kind_of(describe_device(device)),
        precision=str(find_precision(config.training.precision, device)).removeprefix("torch."),
        threads=threads,
        ranks=ranks,
    )


def plain(circumstances: RunEnvironment) -> dict[str, Any]:
    """The same for JSON."""
    return asdict(circumstances)


def _kind_of(device: str) -> str:
    """Which of several equal GPUs it was does not matter, and threads are told apart."""
    return re.sub(r", \d+ threads\)$", ")", re.sub(r"^cuda:\d+", "cuda", device))


# What depends on the clock and on the memory that is free.
_MEASURED = {"seconds", "tokens_per_second", "peak_memory_bytes"}


@dataclass(frozen=True)
class RunDiff:
    """How far two runs are from each other.

    Attributes:
        weights: largest difference of a weight, of the best or the last ones.
        metrics: largest difference of a figure in metrics.json.
        curves: largest difference of a point in TensorBoard.
        num_points: points that were compared.
        problems: what stands in one run only, in words.
    """

    weights: float
    metrics: float
    curves: float
    num_points: int
    problems: tuple[str, ...]

    @property
    def is_equal(self) -> bool:
        """Whether nothing differs, to the bit."""
        return not self.problems and self.largest == 0

    @property
    def largest(self) -> float:
        """The largest difference of all."""
        return max(self.weights, self.metrics, self.curves)


def compare_runs(first: Path, second: Path) -> RunDiff:
    """Compare two finished runs.

    Raises:
        FileNotFoundError, UserError: one cannot be read.
    """
    problems: list[str] = []
    weights = max(_weights_distance(first, second, name, problems) for name in ("best", "last"))
    histories = [_without_measured(_read_metrics(run)) for run in (first, second)]
    metrics = _distance(histories[0], histories[1], "metrics.json", problems)
    curves = [_read_curves(run) for run in (first, second)]
    distance = _distance(curves[0], curves[1], "TensorBoard", problems)
    num_points = sum(len(points) for points in curves[0].values())
    return RunDiff(weights, metrics, distance, num_points, tuple(problems))


def _weights_distance(first: Path, second: Path, name: str, problems: list[str]) -> float:
    runs = [load_run(path, checkpoint=name) for path in (first, second)]
    if runs[0].vocabulary.itos != runs[1].vocabulary.itos:
        problems.append("the vocabularies differ")
        return float("inf")
    states = [run.model.state_dict() for run in runs]
    if {key: value.shape for key, value in states[0].items()} != {
        key: value.shape for key, value in states[1].items()
    }:
        problems.append("the models differ")
        return float("inf")
    if runs[0].checkpoint.epoch != runs[1].checkpoint.epoch:
        epochs = " and ".join(str(run.checkpoint.epoch) for run in runs)
        problems.append(f"the {name} weights are of epochs {epochs}")
    return max(
        _difference(value.double().numpy(), states[1][key].double().numpy())
        for key, value in states[0].items()
    )


def _difference(first: np.ndarray, second: np.ndarray) -> float:
    """Largest difference; where one is no number and the other is another, it is infinite."""
    is_same = (first == second) | (np.isnan(first) & np.isnan(second))
    if is_same.all():
        return 0.0
    with np.errstate(invalid="ignore"):
        distance = np.abs(first - second)[~is_same]
    return float(np.nan_to_num(distance, nan=np.inf, posinf=np.inf).max())


def _read_metrics(run: Path) -> Any:
    return json.loads((run / "metrics.json").read_text(encoding="utf-8"))


def _without_measured(values: Any) -> Any:
    if isinstance(values, dict):
        return {key: _without_measured(each) for key, each in values.items()
                if key not in _MEASURED}  # fmt: skip
    return [_without_measured(each) for each in values] if isinstance(values, list) else values


def _read_curves(run: Path) -> dict[str, list[tuple[int, float]]]:
    """All scalars and the outlines of all histograms, by folder and tag."""
    # Takes a second, and only this needs it.
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found: dict[str, list[tuple[int, float]]] = {}
    for name in ("train", "validation"):
        folder = run / "tensorboard" / name
        events = EventAccumulator(str(folder), {"scalars": 0, "histograms": 0}).Reload()
        for tag in events.Tags()["scalars"]:
            if tag.rpartition("/")[2] not in _MEASURED:
                points = [(each.step, each.value) for each in events.Scalars(tag)]
                found[f"{name}/{tag}"] = sorted(points)
        for tag in events.Tags()["histograms"]:
            points = [(each.step, each.histogram_value.sum_squares) for each in
                      events.Histograms(tag)]  # fmt: skip
            found[f"{name}/{tag}"] = sorted(points)
    return found


def _distance(first: Any, second: Any, place: str, problems: list[str]) -> float:
    """Largest difference of two numbers in nested values; what has no partner is a problem."""
    if isinstance(first, dict) and isinstance(second, dict):
        for key in sorted(first.keys() ^ second.keys()):
            problems.append(f"{place}: {key} stands in one only")
        shared = [key for key in first if key in second]
        return max(
            (_distance(first[key], second[key], f"{place}: {key}", problems) for key in shared),
            default=0.0,
        )
    if isinstance(first, list | tuple) and isinstance(second, list | tuple):
        if len(first) != len(second):
            problems.append(f"{place}: {len(first)} entries and {len(second)}")
        pairs = zip(first, second, strict=False)
        return max((_distance(one, two, place, problems) for one, two in pairs), default=0.0)
    if first == second or (first is second):
        return 0.0
    numbers = (int, float)
    if isinstance(first, numbers) and isinstance(second, numbers):
        return _difference(np.array(first, dtype=np.float64), np.array(second, dtype=np.float64))
    problems.append(f"{place}: {first!r} and {second!r}")
    return float("inf")
