"""A run against the baseline that lies beside it, from what is stored: nothing is trained again."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import torch

from sentiment.baseline.folder import evaluation_folder
from sentiment.comparison.report import shown_p, shown_points
from sentiment.comparison.significance import find_hits, mcnemar
from sentiment.config.parser import parse_training
from sentiment.data.batches import EncodedCorpus
from sentiment.display.console import sanitize
from sentiment.evaluation.evaluate import predict_corpus
from sentiment.runs.manifest import holds_baseline, read_manifest
from sentiment.runs.run import load_run, load_settings
from sentiment.runtime.errors import UserError
from sentiment.runtime.files import beside

ENDING = "-baseline"


def baseline_folder(run: Path) -> Path:
    """Where the baseline of a run's reviews lies, if there is one."""
    return Path(beside(str(run), ENDING))


def make_baseline(run: Path) -> str:
    """The command that makes the baseline of a run, in place of one of other reviews."""
    there = (baseline_folder(run) / "run.json").exists()
    file = run / "config.yaml"
    command = f"sentiment baseline --config {sanitize(str(file))}"
    own = load_settings(run).data.hold_out
    if parse_training([f"--config={file}"], "baseline").config.data.hold_out != own:
        command += f" --data.validation {own}"  # which the file of an earlier version leaves out
    return f"{command}{' --overwrite' if there else ''}"


def compare_with_baseline(run: Path, corpus: EncodedCorpus, device: torch.device) -> str | None:
    """One line on a run's accuracy and that of the baseline of the same reviews.

    Args:
        run: the run's folder, its best weights in it.
        corpus: its validation reviews.
        device: where to predict these.

    Returns:
        The line; None where no baseline of these reviews lies beside the run, or it cannot be read.
    """
    folder = baseline_folder(run)
    try:
        if not holds_baseline(folder) or not _are_of_same_reviews(run, folder):
            return None
        hits = _read_hits(evaluation_folder(folder) / "predictions.csv", len(corpus))
        own = find_hits(predict_corpus(load_run(run).model.to(device), corpus, device=device))
    except (OSError, ValueError):
        return None
    p_value, _ = mcnemar(int((hits & ~own).sum()), int((own & ~hits).sum()))
    return (
        f"baseline: {100 * hits.mean():.2f} %, this run: {100 * own.mean():.2f} %, "
        f"{shown_points(own.mean() - hits.mean())} points (McNemar p {shown_p(p_value)})"
    )


def _are_of_same_reviews(run: Path, folder: Path) -> bool:
    """Whether both were validated on the same reviews, which have the same classes."""
    one, other = read_manifest(run), read_manifest(folder)
    splits = [each.get("data", {}).get("validation") for each in (one, other)]
    return None not in splits and (splits[0], one["class_names"]) == (
        splits[1],
        other["class_names"],
    )


def _read_hits(path: Path, num_reviews: int) -> np.ndarray:
    """(num_reviews,) bool, which reviews a predictions.csv has right.

    Raises:
        OSError, UserError: it is not there, or not of so many reviews.
    """
    with path.open(encoding="utf-8", newline="") as file:
        try:
            hits = [row["label"] == row["predicted"] for row in csv.DictReader(file)]
        except (KeyError, csv.Error) as error:
            raise UserError(f"{path} is damaged: {error}") from error
    if len(hits) != num_reviews:
        raise UserError(f"{path} has {len(hits)} reviews, not {num_reviews}")
    return np.array(hits, dtype=bool)
