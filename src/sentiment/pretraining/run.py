"""Pre-training as a run: its folder, and the start of a classifier from it."""

from __future__ import annotations

import logging
from datetime import datetime, timezone
from pathlib import Path

import torch

from sentiment.config.config import Config
from sentiment.data.pipeline import (
    fingerprints_of,
    load_pretraining,
    look_ahead,
    prepare_pretraining,
)
from sentiment.data.reviews import Reviews, reviews_fingerprint
from sentiment.data.vocabulary import token_counts
from sentiment.pretraining.pretrainer import Pretrainer
from sentiment.runs.manifest import LANGUAGE_MODEL, collect_provenance
from sentiment.runs.pretrained import (
    check_fits,
    check_kind,
    check_same,
    check_same_texts,
    starting_folder,
)
from sentiment.runs.run import (
    build_model,
    check_place,
    create_run,
    finish_run,
    is_finished,
    load_words,
)
from sentiment.runs.weights import WeightsInfo, save_weights
from sentiment.runtime.device import describe_device, set_up
from sentiment.runtime.distributed import DistributedContext
from sentiment.runtime.errors import UserError
from sentiment.runtime.files import check_links, run_lock
from sentiment.runtime.processes import Interrupted
from sentiment.training.checkpoint import load_state, state_path
from sentiment.training.distillation import check_trusted, named_teachers

logger = logging.getLogger(__name__)


def find_pretraining(
    config: Config, device: torch.device, precision: torch.dtype, distributed: DistributedContext
) -> Path | None:
    """The folder of the finished pre-training that the settings ask for, None if they ask for none.

    Where they name no folder, it lies beside the run's and is made now, unless it is there.

    Raises:
        FileNotFoundError, UserError: it is not there, not finished, or does not fit; or one is
            to be made, and the training after it could not be.
        SystemExit: a signal came, and the pre-training is saved.
    """
    path = starting_folder(config)
    if path is None:
        return None
    if config.pretraining.path is not None:
        if path.resolve() == Path(config.output_dir).expanduser().resolve():
            raise UserError(
                f"pretraining.path and output_dir are both {path}: choose another output_dir"
            )
    else:
        if distributed.is_distributed and not ((path / "run.json").exists() and is_finished(path)):
            raise UserError(
                "pre-training knows one process alone: call sentiment pretrain with these settings "
                "and --output_dir FOLDER first, then this with --pretraining.path FOLDER"
            )
        if distributed.is_distributed:
            check_same(config, path)
        else:
            _make(config, path, device, precision)
    check_fits(config, path)
    return path


def _make(config: Config, path: Path, device: torch.device, precision: torch.dtype) -> None:
    if not ((path / "run.json").exists() and is_finished(path)):
        _check_training(config)
    try:
        pretrain(config, path, device, precision)
    except Interrupted as stop:
        logger.info("%s; the same command goes on with the pre-training", stop)
        raise SystemExit(stop.status) from None


def _check_training(config: Config) -> None:
    validation = look_ahead(config)["validation"]
    for teacher in named_teachers(config):
        check_trusted(teacher, validation.class_names, reviews_fingerprint(validation))


def pretrain(config: Config, path: Path, device: torch.device, precision: torch.dtype) -> None:
    """Leave a finished pre-training in a folder.

    Args:
        config: the settings.
        path: the folder; what an equal pre-training has left there is used.
        device: where to compute.
        precision: arithmetic of matrix products.

    Raises:
        FileExistsError, UserError: the folder holds something else, or a pre-training of other
            settings, reviews or vectors, unless it came to nothing yet and is begun again.
        Interrupted: a signal came; the same call goes on from there.
    """
    with run_lock(path):
        if (path / "run.json").exists():
            check_links(path)
            check_kind(path, "output_dir")
            is_over = is_finished(path)
            # Where there is neither result nor checkpoint, there is nothing to be lost.
            if is_over or state_path(path).exists():
                check_same(config, path)
                reviews = load_pretraining(config)
                check_same_texts(config, path, fingerprints_of(reviews))
            else:
                reviews = load_pretraining(config)
            if is_over:
                state_path(path).unlink(missing_ok=True)  # where the end came just before
                logger.info("pre-trained before: %s", path)
                return
        else:
            check_place(path, for_pretraining=True)
            reviews = load_pretraining(config)
        _go_on(config, reviews, path, device, precision)


def _go_on(
    config: Config,
    reviews: dict[str, Reviews],
    path: Path,
    device: torch.device,
    precision: torch.dtype,
) -> None:
    resumes = state_path(path).exists()
    words = load_words(path) if resumes else None
    texts = prepare_pretraining(config, vocabulary=words, reviews=reviews)
    set_up(device, config.seed)
    classifier = build_model(
        config.model,
        vocabulary_size=len(texts.vocabulary),
        num_classes=len(texts.class_names),
        vectors=texts.vectors,
        frequencies=token_counts(texts.vocabulary),
    ).to(device)
    if not resumes:
        receipt = collect_provenance(
            seed=config.seed, device=describe_device(device), precision=precision,
            distributed=DistributedContext(), data=texts.fingerprints,
            vectors=texts.vectors_fingerprint, coverage=None,
        )  # fmt: skip
        receipt["kind"] = LANGUAGE_MODEL
        # Over one that was killed before its first checkpoint.
        is_begun = (path / "run.json").exists()
        create_run(path, config, texts.class_names, texts.vocabulary, receipt, overwrite=is_begun)
    state = load_state(path) if resumes else None
    if state is not None:
        logger.info("going on with the pre-training in %s", path)
    trainer = Pretrainer(
        classifier, texts, config, device=device, precision=precision, path=path, state=state
    )
    trainer.fit()
    names = ("perplexity_forward", "perplexity_backward")
    metrics = dict(zip(names, trainer.perplexities, strict=False))  # one of one direction
    epochs = config.pretraining.num_epochs
    save_weights(path, "last", classifier, WeightsInfo(epochs, trainer.num_updates, metrics))
    seconds = round(trainer.seconds, 2)
    finished = datetime.now(timezone.utc).isoformat(timespec="seconds")
    finish_run(path, {"finished": finished, "seconds": seconds, "metrics": metrics})
    state_path(path).unlink(missing_ok=True)
    logger.info("pre-trained in %.0f s: %s", seconds, path)
