"""Comparison of a run with the baseline in the folder next to it."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from sentiment.baseline.folder import baseline_folder, evaluation_folder
from sentiment.comparison.report import format_p, format_points
from sentiment.comparison.significance import mcnemar
from sentiment.config.parser import parse_training
from sentiment.data.batches import EncodedCorpus
from sentiment.display.console import sanitize
from sentiment.evaluation.calibration import average_models
from sentiment.evaluation.evaluate import predict_corpus
from sentiment.runs.manifest import holds_baseline, read_manifest
from sentiment.runs.run import load_run, load_settings
from sentiment.runtime.errors import UserError


def baseline_command(run: Path) -> str:
    """The command that trains a run's baseline, replacing an existing one."""
    file = run / "config.yaml"
    command = f"sentiment baseline --config {sanitize(str(file))}"
    hold_out = load_settings(run).data.hold_out
    if parse_training([f"--config={file}"], "baseline").config.data.hold_out != hold_out:
        command += f" --data.validation {hold_out}"  # which earlier versions did not write
    exists = (baseline_folder(run) / "run.json").exists()
    return f"{command}{' --overwrite' if exists else ''}"


def compare_with_baseline(run: Path, corpus: EncodedCorpus, device: torch.device) -> str | None:
    """Two lines that compare a run's best weights with the baseline of the same reviews, and with
    the ensemble of both.

    ``corpus`` holds the run's validation reviews, predicted on ``device``. None if no baseline of
    these reviews lies next to the run, or it cannot be read.
    """
    folder = baseline_folder(run)
    try:
        if not holds_baseline(folder) or not _has_same_reviews(run, folder):
            return None
        table = evaluation_folder(folder) / "predictions.csv"
        loaded = load_run(run)
        theirs, baseline = _read_predictions(table, len(corpus), loaded.class_names)
        predictions = predict_corpus(loaded.model.to(device), corpus, device=device)
    except (OSError, ValueError):
        return None
    labels, ours = predictions.labels, predictions.is_right
    calibrated = predictions.calibrated(loaded.checkpoint.temperature).log_probabilities
    together = average_models([calibrated, baseline]).argmax(axis=1) == labels
    p_value, _ = mcnemar(int((theirs & ~ours).sum()), int((ours & ~theirs).sum()))
    return (
        f"baseline: {100 * theirs.mean():.2f} %, this run: {100 * ours.mean():.2f} %, "
        f"{format_points(ours.mean() - theirs.mean())} points (McNemar p {format_p(p_value)})\n"
        f"both averaged: {100 * together.mean():.2f} %, by evaluate and predict with "
        f"--ensemble {sanitize(str(folder))}"
    )


def _has_same_reviews(run: Path, folder: Path) -> bool:
    """Whether both were validated on the same reviews with the same classes."""
    ours, theirs = read_manifest(run), read_manifest(folder)
    validation = ours.get("data", {}).get("validation")
    return (
        validation is not None
        and validation == theirs.get("data", {}).get("validation")
        and ours["class_names"] == theirs["class_names"]
    )


def _read_predictions(
    path: Path, num_reviews: int, class_names: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    """From a predictions.csv, whether each prediction is right (num_reviews,), and the
    log-probabilities (num_reviews, num_classes).
    """
    names = [f"probability_{name}" for name in class_names]
    with path.open(encoding="utf-8", newline="") as file:
        try:
            lines = list(csv.DictReader(file))
            is_right = [line["label"] == line["predicted"] for line in lines]
            rows = [[float(line[name]) for name in names] for line in lines]
        except (KeyError, TypeError, ValueError, csv.Error) as error:
            raise UserError(f"{path} is damaged: {error}") from error
    if len(rows) != num_reviews:
        raise UserError(f"{path} has {len(rows)} reviews, not {num_reviews}")
    # The file has rounded the probabilities.
    return np.array(is_right, dtype=bool), np.log(np.maximum(rows, 1e-12))
