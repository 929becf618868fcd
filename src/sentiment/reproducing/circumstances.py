"""What a run was trained by and on, as its receipt says, and what differs here and now."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from sentiment.config import Config
from sentiment.description import is_baseline, is_pretraining, read_description
from sentiment.receipt import git_state, versions
from sentiment.runtime import describe_device, find_device, find_precision


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
class Circumstances:
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

    def differences(self, now: Circumstances) -> list[Difference]:
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

    circumstances: Circumstances
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
        ValueError: run.json is damaged or has no receipt, or the run is not finished.
    """
    values = read_description(run)
    if is_pretraining(values):
        raise ValueError(f"{run} is a pre-training: only a classifier's run can be reproduced")
    if is_baseline(values):
        raise ValueError(f"{run} is a baseline: make it again with sentiment baseline --overwrite")
    if "result" not in values:
        raise ValueError(
            f"{run} is not finished, so there is nothing to compare with: resume it with python "
            f"train.py --resume {run}"
        )
    try:
        git = values["git"] or {"revision": None, "is_dirty": False}
        receipt = Receipt(
            Circumstances(
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
        raise ValueError(
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


def circumstances_here(config: Config, *, ranks: int, threads: int) -> Circumstances:
    """What a training of these settings would be done by and on, here and now.

    Raises:
        ValueError: the device is not there.
    """
    device = find_device(config.device)
    git = git_state() or {"revision": None, "is_dirty": False}
    return Circumstances(
        versions=versions(),
        revision=git["revision"],
        is_dirty=git["is_dirty"],
        device=_kind_of(describe_device(device)),
        precision=str(find_precision(config.training.precision, device)).removeprefix("torch."),
        threads=threads,
        ranks=ranks,
    )


def plain(circumstances: Circumstances) -> dict[str, Any]:
    """The same for JSON."""
    return asdict(circumstances)


def _kind_of(device: str) -> str:
    """Which of several equal GPUs it was does not matter, and threads are told apart."""
    return re.sub(r", \d+ threads\)$", ")", re.sub(r"^cuda:\d+", "cuda", device))
