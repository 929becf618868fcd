"""What run.json says of how a run was trained, and whether the same is available here."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from sentiment.config.config import Config
from sentiment.data.pipeline import cache_dir, reads_unlabelled, vectors_path
from sentiment.data.reviews import (
    file_fingerprint,
    load_training_splits,
    load_unlabelled,
    reviews_fingerprint,
)
from sentiment.runs.manifest import (
    check_fingerprints,
    git_state,
    is_baseline,
    is_pretraining,
    read_manifest,
    versions,
)
from sentiment.runs.pretrained import describe_pretraining
from sentiment.runtime.device import describe_device, find_device, find_precision
from sentiment.runtime.errors import UserError
from sentiment.training.distillation import (
    check_named_teachers,
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
    """Everything but settings and data that can change a training's last digits.

    Attributes:
        versions: of Python and the libraries.
        revision: of the code, None without git.
        is_dirty: whether the code had uncommitted changes.
        device: its description, without the number of a GPU and without threads.
        precision: of matrix products.
        threads: threads of each process.
        ranks: number of processes.
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
        """What has changed; uncommitted changes are not compared."""
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
class Receipt:
    """How a finished run was trained, and its result.

    Attributes:
        environment: versions, device and the like.
        data: fingerprint of the reviews of each split.
        vectors: fingerprint of the vectors' file, None without one.
        teachers: path, identity and digest of the weights of each teacher.
        pretraining: the same of the pre-training it started from, None without one.
        result: best epoch, its metrics, duration.
    """

    environment: RunEnvironment
    data: dict[str, dict[str, Any]]
    vectors: dict[str, Any] | None
    teachers: list[dict[str, str]]
    pretraining: dict[str, str] | None
    result: dict[str, Any]

    @property
    def accuracy(self) -> float:
        """Validation accuracy of the best epoch, from 0 to 1."""
        return self.result["metrics"]["accuracy"]

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the accuracy."""
        low, high = self.result["metrics"]["accuracy_ci95"]
        return low, high

    @property
    def loss(self) -> float:
        """Mean negative log-likelihood of the validation reviews in the best epoch."""
        return self.result["metrics"]["nll"]


def read_receipt(run: Path) -> Receipt:
    """The receipt of a finished run.

    Raises:
        FileNotFoundError: the folder is not a run.
        UserError: run.json is damaged or lacks something, or the run is not finished.
    """
    values = read_manifest(run)
    if is_pretraining(values):
        raise UserError(f"{run} is a pre-training: only a classifier's run can be reproduced")
    if is_baseline(values):
        raise UserError(f"{run} is a baseline: train it again with sentiment baseline --overwrite")
    if "result" not in values:
        raise UserError(
            f"{run} is not finished, so there is nothing to compare with: resume it with python "
            f"train.py --resume {run}"
        )
    try:
        git = values["git"] or {"revision": None, "is_dirty": False}
        splits = ["train", "validation", *({"unsupervised"} & values["data"].keys())]
        receipt = Receipt(
            RunEnvironment(
                versions=dict(values["versions"]),
                revision=git["revision"],
                is_dirty=git["is_dirty"],
                device=_device_kind(values["device"]),
                precision=values["precision"],
                threads=int(values["threads"]),
                ranks=int(values["ranks"]),
            ),
            data={split: dict(values["data"][split]) for split in splits},
            vectors=values["vectors"],
            teachers=[dict(teacher) for teacher in values.get("teachers", [])],
            pretraining=dict(values["pretraining"]) if "pretraining" in values else None,
            result=dict(values["result"]),
        )
        _check_types(receipt)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(
            f"{run / 'run.json'} lacks what is needed to reproduce the run ({error!r}): train it "
            "again from its config.yaml"
        ) from error
    return receipt


def _check_types(receipt: Receipt) -> None:
    """Find out now, and not after hours of training, that something is missing."""
    result, vectors, pretraining = receipt.result, receipt.vectors, receipt.pretraining
    fingerprints = [*receipt.data.values(), *([] if vectors is None else [vectors])]
    sources = [*receipt.teachers, *([] if pretraining is None else [pretraining])]
    expected = [
        (float | int, [*receipt.interval, receipt.accuracy, receipt.loss, result["seconds"]]),
        (int, [result["best_epoch"], result["num_epochs"]]),
        (int, [reviews["rows"] for reviews in receipt.data.values()]),
        (int, [fingerprint["bytes"] for fingerprint in fingerprints]),
        (str, [fingerprint["sha256"] for fingerprint in fingerprints]),
        (str, [source[key] for source in sources for key in ("path", "identity", "sha256")]),
    ]
    for kind, values in expected:
        for value in values:
            if not isinstance(value, kind):
                raise TypeError(f"{value!r}")


def current_environment(config: Config, *, ranks: int, threads: int) -> RunEnvironment:
    """The environment of a training with these settings on this machine.

    Raises:
        UserError: the device is not available.
    """
    device = find_device(config.device)
    git = git_state() or {"revision": None, "is_dirty": False}
    return RunEnvironment(
        versions=versions(),
        revision=git["revision"],
        is_dirty=git["is_dirty"],
        device=_device_kind(describe_device(device)),
        precision=str(find_precision(config.training.precision, device)).removeprefix("torch."),
        threads=threads,
        ranks=ranks,
    )


def _device_kind(device: str) -> str:
    """Without the number of one of several equal GPUs, and without threads."""
    return re.sub(r", \d+ threads\)$", ")", re.sub(r"^cuda:\d+", "cuda", device))


def check_inputs(receipt: Receipt, config: Config, run: Path) -> None:
    """Check that reviews, vectors, teachers and pre-training are those of the run.

    Args:
        receipt: of the run.
        config: where the inputs are now.
        run: the run's folder, for messages.

    Raises:
        FileNotFoundError: an input is missing.
        UserError: an input has changed.
    """
    check_named_teachers(config)
    check_same_teachers(receipt.teachers, describe_teachers(config), run)
    if receipt.pretraining is not None:
        _check_pretraining(receipt.pretraining, run)
    data = config.data
    if data.shared_reviews == "report":  # the training reports them; it changes no review
        data = replace(data, shared_reviews="ignore")
    train, validation = load_training_splits(data)
    now = {"train": reviews_fingerprint(train), "validation": reviews_fingerprint(validation)}
    if reads_unlabelled(config):
        now["unsupervised"] = reviews_fingerprint(load_unlabelled(data, validation))
    check_reviews(receipt.data, now, run)
    if receipt.vectors is not None:
        _check_vectors(receipt.vectors, config, run)


def check_reviews(
    then: dict[str, dict[str, Any]], now: dict[str, dict[str, Any]], run: Path
) -> None:
    """Compare the fingerprints of each split's reviews.

    Raises:
        UserError: they differ.
    """
    check_fingerprints(
        then,
        {split: now[split] for split in then},
        owner=str(run),
        advice="give the original reviews with --data.path",
    )


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


def _check_pretraining(then: dict[str, str], run: Path) -> None:
    path = then["path"]
    try:
        now = describe_pretraining(Path(path).expanduser())
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"the pre-training {path} that {run} started from is gone ({error}): put it back there"
        ) from error
    for key, name in (("identity", "identity"), ("sha256", "weights with digest")):
        if now[key] != then[key]:
            raise UserError(
                f"the pre-training {path} has {name} {now[key][:12]}, but {run} started from one "
                f"with {then[key][:12]}: put the original back there"
            )
