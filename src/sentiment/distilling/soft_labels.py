"""What teachers say of unlabelled reviews: asked for once, then kept in the run's folder.

Probabilities of several teachers are averaged, so that a student of ordinary size learns what they
say together (Hinton, Vinyals & Dean, *Distilling the Knowledge in a Neural Network*, 2015).
"""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from sentiment.config import Config
from sentiment.description import read_description
from sentiment.distilling.teachers import CHECKPOINT, check_trusted, teacher_folders
from sentiment.evaluation.calibration import apply_temperature
from sentiment.evaluation.evaluate import predict_corpus
from sentiment.runs import load_run
from sentiment.shown import shorten
from sentiment.tensor_files import read_tensors, write_tensors
from sentiment.text.pipeline import TrainingData, encode_reviews
from sentiment.text.reviews import Reviews

logger = logging.getLogger(__name__)

_SURE = 0.9
_NAME = "soft_labels"


def teach(config: Config, data: TrainingData, device: torch.device) -> torch.Tensor | None:
    """Have the teachers that the settings name label the unlabelled reviews.

    Each reads them by its own words and lengths, in fp32 as when it is evaluated.

    Args:
        config: the student's settings.
        data: its reviews.
        device: where to compute.

    Returns:
        (num_unlabelled, num_classes) probabilities in fp32, on the CPU; None without teachers.

    Raises:
        FileNotFoundError: a teacher, or a file of it, is not there.
        ValueError: one is damaged, or not to be trusted
            (:func:`sentiment.distilling.teachers.check_trusted`).
    """
    if not config.distillation.is_wanted:
        return None
    reviews = data.unlabelled_reviews
    assert reviews is not None
    folders = teacher_folders(config)
    for path in folders:
        check_trusted(path, data.class_names, data.fingerprints["validation"])
    total = np.zeros((len(reviews), len(data.class_names)))
    for path in folders:
        total += _ask(path, reviews, config, device)
    probabilities = total / len(folders)
    _tell(probabilities, data.class_names, config.distillation.temperature, len(folders))
    return torch.from_numpy(probabilities).float()


def _ask(path: Path, reviews: Reviews, config: Config, device: torch.device) -> np.ndarray:
    """(num_reviews, num_classes) probabilities by one teacher."""
    run = load_run(path, checkpoint=CHECKPOINT)
    # Its own in what it reads, ours in where tokens are kept and who makes them.
    ours = config.data
    own = replace(run.config.data, cache_dir=ours.cache_dir, num_processes=ours.num_processes)
    corpus = encode_reviews(reviews, run.vocabulary, own)
    title = f"labelling by {shorten(path.name, 30)}"
    try:
        said = predict_corpus(run.model.to(device), corpus, device=device, description=title)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return np.exp(apply_temperature(said.log_probabilities, config.distillation.temperature))


def _tell(
    probabilities: np.ndarray, class_names: tuple[str, ...], temperature: float, num_teachers: int
) -> None:
    """How many labels there are, how sure, and of which classes."""
    counts = np.bincount(probabilities.argmax(axis=1), minlength=len(class_names))
    shares = 100 * counts / len(probabilities)
    classes = ", ".join(
        f"{name} {share:.1f} %" for name, share in zip(class_names, shares, strict=True)
    )
    logger.info(
        "soft labels: %s reviews by %d teacher%s; %.1f %% of them at over %.0f %%%s; %s",
        f"{len(probabilities):,}",
        num_teachers,
        "s" * (num_teachers > 1),
        100 * float((probabilities.max(axis=1) > _SURE).mean()),
        100 * _SURE,
        "" if temperature == 1 else f", at temperature {temperature:g}",
        shorten(classes, 200),
    )


def soft_labels_path(run: Path) -> Path:
    """Where a run keeps what its teachers said."""
    return run / "checkpoints" / f"{_NAME}.safetensors"


def save_soft_labels(run: Path, soft_labels: torch.Tensor) -> None:
    """Keep what :func:`teach` gave, for all ranks and for resuming.

    Raises:
        OSError: it cannot be written.
    """
    path = soft_labels_path(run)
    path.parent.mkdir(exist_ok=True)
    write_tensors(path, {_NAME: soft_labels}, {}, read_description(run)["identity"])


def read_soft_labels(run: Path, data: TrainingData) -> torch.Tensor:
    """What a run's teachers said, (num_unlabelled, num_classes) on the CPU.

    Raises:
        FileNotFoundError: it is gone.
        ValueError: the file is damaged, or not of this run and its reviews.
    """
    path = soft_labels_path(run)
    try:
        tensors, _ = read_tensors(path, read_description(run)["identity"])
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{run} has no {path.name}, what its teachers said: copy it from where the run was "
            "begun, or begin it again with --overwrite"
        ) from error
    assert data.unlabelled is not None
    expected = (len(data.unlabelled), len(data.class_names))
    found = tensors.get(_NAME)
    if found is None or tuple(found.shape) != expected:
        raise ValueError(f"{path} is not of this run's reviews: its files were mixed up")
    return found
