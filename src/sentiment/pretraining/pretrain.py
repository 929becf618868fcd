"""Pre-training from settings to a folder, once: a stopped one goes on, a finished one stays."""

from __future__ import annotations

import logging
from datetime import datetime, timezone
from pathlib import Path

import torch

from sentiment.config import Config
from sentiment.description import LANGUAGE_MODEL
from sentiment.places import check_links, written_alone
from sentiment.pretraining.folder import check_kind, check_same, check_same_texts
from sentiment.pretraining.pretrainer import Pretrainer
from sentiment.receipt import write_receipt
from sentiment.runs import (
    build_model,
    check_place,
    create_run,
    finish_run,
    is_finished,
    load_words,
)
from sentiment.runtime import describe_device, set_up
from sentiment.text.pretraining_texts import (
    fingerprints_of,
    load_pretraining,
    prepare_pretraining,
)
from sentiment.text.reviews import Reviews
from sentiment.text.vocabulary import token_counts
from sentiment.training.checkpoint import load_state, state_path
from sentiment.weights import Checkpoint, save_weights
from sentiment.world import World

logger = logging.getLogger(__name__)


def pretrain(config: Config, path: Path, device: torch.device, precision: torch.dtype) -> None:
    """Leave a finished pre-training in a folder.

    Args:
        config: the settings.
        path: the folder; what an equal pre-training has left there is used.
        device: where to compute.
        precision: arithmetic of matrix products.

    Raises:
        FileExistsError, ValueError: the folder holds something else, or a pre-training of other
            settings, reviews or vectors, unless it came to nothing yet and is begun again.
        Interrupted: a signal came; the same call goes on from there.
    """
    with written_alone(path):
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
        receipt = write_receipt(
            seed=config.seed, device=describe_device(device), precision=precision, world=World(),
            data=texts.fingerprints, vectors=texts.vectors_fingerprint, coverage=None,
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
    save_weights(path, "last", classifier, Checkpoint(epochs, trainer.num_updates, metrics))
    seconds = round(trainer.seconds, 2)
    finished = datetime.now(timezone.utc).isoformat(timespec="seconds")
    finish_run(path, {"finished": finished, "seconds": seconds, "metrics": metrics})
    state_path(path).unlink(missing_ok=True)
    logger.info("pre-trained in %.0f s: %s", seconds, path)
