"""A run trained again from its receipt, and compared with what it was."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from sentiment.config import Config
from sentiment.places import check_writable
from sentiment.reproducing.children import Output, check_end, run_module
from sentiment.reproducing.circumstances import (
    Circumstances,
    Difference,
    Receipt,
    circumstances_here,
    read_receipt,
)
from sentiment.reproducing.equality import Likeness, compare_runs
from sentiment.reproducing.same_data import (
    check_pretraining_here,
    check_reviews,
    check_reviews_here,
    check_teachers_here,
    check_vectors,
)
from sentiment.runs import load_run, load_settings
from sentiment.settings import save_config

Verdict = Literal["equal", "within", "differs"]

# What a training came to, but for the clock.
_DECIDED = ("num_epochs", "best_epoch", "metrics")
_COMPARED = ("metrics.json", "tensorboard/train", "tensorboard/validation")


@dataclass(frozen=True)
class Places:
    """Where things are now; None where they were then.

    Attributes:
        device: where to compute; None takes the kind of device that the run was trained on.
        data: the folder of the reviews.
        cache: the folder for tokens and downloads.
        vectors: the file of vectors.
    """

    device: str | None = None
    data: str | None = None
    cache: str | None = None
    vectors: str | None = None


@dataclass(frozen=True)
class Plan:
    """A training that is to be done again.

    Attributes:
        run: the run's folder.
        config: its settings, for here.
        then: its receipt.
        here: what it will be done by and on now.
    """

    run: Path
    config: Config
    then: Receipt
    here: Circumstances

    @property
    def differences(self) -> list[Difference]:
        return self.then.circumstances.differences(self.here)


@dataclass(frozen=True)
class Outcome:
    """A run and its reproduction.

    Attributes:
        likeness: how far they are from each other.
        then, now: their receipts.
    """

    likeness: Likeness
    then: Receipt
    now: Receipt

    @property
    def differences(self) -> list[Difference]:
        """What was otherwise."""
        return self.then.circumstances.differences(self.now.circumstances)

    @property
    def problems(self) -> list[str]:
        """What differs and is no number."""
        found = list(self.likeness.problems)
        for name in _DECIDED:
            if self.then.result.get(name) != self.now.result.get(name):
                found.append(f"run.json: {name} of the result")
        return found

    @property
    def may_differ(self) -> bool:
        """Whether equality to the bit was not to be expected: GPUs may add up in any order."""
        return bool(self.differences) or self.now.circumstances.device_type != "cpu"

    @property
    def verdict(self) -> Verdict:
        """Equal to the bit; or near enough where that was not to be expected; or neither."""
        if self.likeness.is_equal and not self.problems:
            return "equal"
        low, high = self.then.interval
        return "within" if self.may_differ and low <= self.now.accuracy <= high else "differs"


def plan_training(run: Path, output: Path, places: Places) -> Plan:
    """Look at everything that could go wrong, before anything is trained.

    Args:
        run: the run's folder.
        output: where it is to be trained again.
        places: what lies elsewhere now.

    Raises:
        FileNotFoundError: the folder is not a run, or a file of it is missing.
        FileExistsError: ``output`` is not empty.
        ValueError: the run is damaged or not finished; its reviews, vectors, teachers or
            pre-training are others now; its device is not there.
    """
    check_writable(output)
    if output.is_dir() and any(output.iterdir()):
        raise FileExistsError(f"{output} is not empty: give --output a new folder")
    then = read_receipt(run)
    config = _config_here(load_settings(run), then, output, places)
    _check_comparable(run)
    here = circumstances_here(
        config, ranks=then.circumstances.ranks, threads=_threads_here(then.circumstances)
    )
    _check_ranks(here)
    check_teachers_here(then.teachers, config, run)
    check_pretraining_here(then.pretraining, run)
    check_reviews_here(then.data, config, run)
    check_vectors(then.vectors, config, run)
    return Plan(run, config, then, here)


def _config_here(own: Config, receipt: Receipt, output: Path, places: Places) -> Config:
    then = receipt.circumstances
    kind = then.device_type if own.device == "auto" or then.ranks > 1 else own.device
    pretraining = own.pretraining
    if receipt.pretraining is not None:  # that of then, also one that the run has made itself
        pretraining = replace(pretraining, path=receipt.pretraining["path"])
    distillation = own.distillation
    if distillation.trains_teachers:
        named = tuple(each["path"] for each in receipt.teachers)
        distillation = replace(distillation, teachers=named, num_teachers=0)
    return replace(
        own,
        output_dir=str(output),
        device=places.device or kind,
        pretraining=pretraining,
        distillation=distillation,
        data=replace(
            own.data,
            path=own.data.path if places.data is None else places.data,
            cache_dir=own.data.cache_dir if places.cache is None else places.cache,
        ),
        vectors=replace(
            own.vectors, path=own.vectors.path if places.vectors is None else places.vectors
        ),
    )


def _check_comparable(run: Path) -> None:
    """Meet now what comparing would miss after the training."""
    for name in ("best", "last"):
        load_run(run, checkpoint=name)
    for name in _COMPARED:
        if not (run / name).exists():
            raise FileNotFoundError(
                f"the run has no {run / name}: copy it from where it was trained"
            )


def _threads_here(then: Circumstances) -> int:
    """As many as then, where there are cores for them."""
    import joblib  # as sentiment.runtime does

    share = max(1, joblib.cpu_count() // then.ranks)
    # Of several ranks, one thread each cannot be told from the launcher's default.
    return share if then.ranks > 1 and then.threads == 1 else min(then.threads, share)


def _check_ranks(here: Circumstances) -> None:
    """All ranks are started on this machine, and on GPUs each needs one of its own."""
    if here.ranks == 1 or here.device_type == "cpu":
        return
    import torch

    count = torch.cuda.device_count()
    if count < here.ranks:
        raise ValueError(
            f"the run was trained by {here.ranks} ranks with a GPU each, and this machine has "
            f"{count}: reproduce it on one with as many, or give --device cpu"
        )


def train_again(plan: Plan, output: Output = "shown") -> None:
    """Train as planned, in processes of their own.

    Raises:
        ValueError: it failed.
    """
    with tempfile.TemporaryDirectory(prefix="reproduce-") as folder:
        file = Path(folder) / "config.yaml"
        save_config(plan.config, file)
        done = run_module(
            ["sentiment", "train", f"--config={file}"],
            num_ranks=plan.here.ranks,
            num_threads=plan.here.threads,
            output=output,
        )
    check_end(done)


def reproduce(plan: Plan, train: Callable[[Plan], None] = train_again) -> Outcome:
    """Train as planned, and compare.

    Raises:
        ValueError: the training failed, or it found other reviews than were there before.
    """
    train(plan)
    again = Path(plan.config.output_dir)
    now = read_receipt(again)
    check_reviews(plan.then.data, now.data, plan.run)
    return Outcome(compare_runs(plan.run, again), plan.then, now)
