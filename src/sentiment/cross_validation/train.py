"""The trainings of a cross-validation, one after another, by any number of processes at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from sentiment.cross_validation.folds import Fold
from sentiment.runs import is_finished
from sentiment.searching.claims import Claim, try_claim
from sentiment.searching.training import Stop, read_epochs, train_trial
from sentiment.settings import save_config


def train_folds(folder: Path, folds: Sequence[Fold], tell: Callable[[str], None]) -> int:
    """Train the folds that are not finished and that no other process works on.

    Args:
        folder: of the cross-validation.
        folds: all of them.
        tell: called with a line to be shown.

    Returns:
        the number of the signal that ended it, 0 where none did.

    Raises:
        ValueError: a training failed.
    """
    for name in ("folds", "work"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    with Stop() as stop:
        for fold in folds:
            if stop.signal:
                break
            if is_trained(fold):
                continue
            claim = try_claim(fold.work(folder, "claim"))
            if claim is None:
                tell(f"{fold.name}: another process works on it")
                continue
            try:
                if not is_trained(fold):  # as another process may have done meanwhile
                    _train(folder, fold, claim, stop, tell)
            finally:
                claim.release()
    return stop.signal


def is_trained(fold: Fold) -> bool:
    """Whether a fold's training has come to its end."""
    return (fold.run / "run.json").is_file() and is_finished(fold.run)


def _train(folder: Path, fold: Fold, claim: Claim, stop: Stop, tell: Callable[[str], None]) -> None:
    tell(f"{fold.name}: training")
    settings, log = fold.work(folder, "yaml"), fold.work(folder, "log")
    save_config(fold.config, settings)
    outcome = train_trial(
        settings, fold.run, log, descriptor=claim.descriptor, stop=stop,
        after_epoch=lambda entry: False,
    )  # fmt: skip
    if outcome.kind == "failed":
        raise ValueError(f"the training of {fold.name} failed: {outcome.message} (see {log})")
    if outcome.kind == "stopped":
        tell(f"{fold.name}: stopped")
        return
    best = max(read_epochs(fold.run), key=lambda entry: entry["validation"]["accuracy"])
    accuracy, epoch = best["validation"]["accuracy"], best["training"]["epoch"]
    tell(f"{fold.name}: {100 * accuracy:.2f} % after epoch {epoch}")
