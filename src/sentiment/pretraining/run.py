"""A pre-training in its folder: new, resumed, or already finished."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

from sentiment.data.pipeline import (
    PretrainingTexts,
    fingerprints_of,
    load_pretraining,
    preload_reviews,
    prepare_pretraining,
)
from sentiment.data.reviews import Reviews, reviews_fingerprint
from sentiment.pretraining.pretrainer import Pretrainer
from sentiment.runs.initial import (
    check_fits,
    check_kind,
    check_same,
    check_same_texts,
    starting_folder,
)
from sentiment.runs.manifest import LANGUAGE_MODEL
from sentiment.runs.run import (
    build_model,
    check_place,
    create_run,
    finish_run,
    is_finished,
    load_words,
)
from sentiment.runs.weights import WeightsInfo, save_weights
from sentiment.runtime.device import set_up
from sentiment.runtime.errors import UserError
from sentiment.runtime.files import check_links, run_lock
from sentiment.runtime.processes import Interrupted
from sentiment.training.checkpoint import load_state, state_path
from sentiment.training.context import TrainingContext, collect_provenance
from sentiment.training.distillation import check_trusted, named_teachers

logger = logging.getLogger(__name__)


def find_pretraining(context: TrainingContext) -> Path | None:
    """The folder of the finished pre-training that a training starts from, if any.

    If the settings name no folder, it is next to the run's, and the pre-training runs if needed.

    Raises:
        Interrupted: a signal came, and the pre-training is saved.
    """
    config, distributed = context.config, context.distributed
    path = starting_folder(config)
    if path is None:
        return None
    if config.pretraining.path is not None:
        if path.resolve() == Path(config.output_dir).expanduser().resolve():
            raise UserError(
                f"pretraining.path and output_dir are both {path}: choose another output_dir"
            )
    elif not distributed.is_distributed:
        _make(replace(context, path=path))
    elif not is_finished(path):
        raise UserError(
            "pre-training runs in one process only: call sentiment pretrain with these settings "
            "and --output_dir FOLDER first, then this with --pretraining.path FOLDER"
        )
    else:
        check_same(config, path)
    check_fits(config, path)
    return path


def _make(context: TrainingContext) -> None:
    config = context.config
    if not is_finished(context.path):
        # Refuse now what would only fail in the training after the pre-training.
        validation = preload_reviews(config)["validation"]
        for teacher in named_teachers(config):
            check_trusted(teacher, validation.class_names, reviews_fingerprint(validation))
    try:
        pretrain(context)
    except Interrupted as stop:
        logger.info("%s; the same command continues the pre-training", stop)
        raise


def pretrain(context: TrainingContext) -> None:
    """Pre-train in the context's folder.

    An equal pre-training in the folder is kept, or resumed if it is unfinished; another one with at
    least one checkpoint is refused, as is anything else.

    Raises:
        Interrupted: a signal came; the same call continues.
    """
    config, path = context.config, context.path
    with run_lock(path):
        if not (path / "run.json").exists():
            check_place(path, for_pretraining=True)
            _pretrain(context, load_pretraining(config))
            return
        check_links(path)
        check_kind(path, "output_dir")
        # Without result or checkpoint there is nothing to lose.
        is_kept = is_finished(path) or state_path(path).exists()
        if is_kept:
            check_same(config, path)
        reviews = load_pretraining(config)
        if is_kept:
            check_same_texts(config, path, fingerprints_of(reviews))
        if is_finished(path):
            state_path(path).unlink(missing_ok=True)  # left if the process was killed at its end
            logger.info("already pre-trained: %s", path)
        else:
            _pretrain(context, reviews)


def _pretrain(context: TrainingContext, reviews: dict[str, Reviews]) -> None:
    config, path, device = context.config, context.path, context.device
    resumes = state_path(path).exists()
    vocabulary = load_words(path) if resumes else None
    texts = prepare_pretraining(config, vocabulary=vocabulary, reviews=reviews)
    set_up(device, config.seed)
    num_classes = len(texts.class_names)
    classifier = build_model(config.model, texts.vocabulary, num_classes, vectors=texts.vectors)
    classifier.to(device)
    if resumes:
        logger.info("continuing the pre-training in %s", path)
    else:
        _create(context, texts)
    trainer = Pretrainer(classifier, texts, context, load_state(path) if resumes else None)
    trainer.fit()
    names = ("perplexity_forward", "perplexity_backward")
    metrics = dict(zip(names, trainer.perplexities, strict=False))  # a model may have one direction
    epochs = config.pretraining.num_epochs
    save_weights(path, "last", classifier, WeightsInfo(epochs, trainer.update, metrics))
    seconds = round(trainer.seconds, 2)
    finish_run(path, {"seconds": seconds, "metrics": metrics})
    state_path(path).unlink(missing_ok=True)
    logger.info("pre-trained in %.0f s: %s", seconds, path)


def _create(context: TrainingContext, texts: PretrainingTexts) -> None:
    config, path = context.config, context.path
    provenance = collect_provenance(
        context, data=texts.fingerprints, vectors=texts.vectors_fingerprint
    )
    provenance["kind"] = LANGUAGE_MODEL
    # A pre-training that was killed before its first checkpoint is replaced.
    is_begun = (path / "run.json").exists()
    create_run(path, config, texts.class_names, texts.vocabulary, provenance, overwrite=is_begun)
