"""What a training has in hand when it begins or goes on: reviews, a model, the run's folder."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import torch

from sentiment.config import Config
from sentiment.description import read_description
from sentiment.distilling.soft_labels import read_soft_labels, save_soft_labels, teach
from sentiment.distilling.teachers import describe_teachers
from sentiment.model import SentimentClassifier
from sentiment.pretraining.folder import check_held_out, describe_pretraining, start_from
from sentiment.receipt import versions, write_receipt
from sentiment.runs import build_model, create_run, load_words
from sentiment.runtime import describe_device, mixed_seed, set_up
from sentiment.text.pipeline import TrainingData, prepare_training
from sentiment.text.review_sources import has_validation
from sentiment.text.vocabulary import token_counts
from sentiment.training.beginning import Beginning
from sentiment.training.checkpoint import TrainingState
from sentiment.world import World

logger = logging.getLogger(__name__)


def begin(
    config: Config,
    beginning: Beginning,
    path: Path,
    device: torch.device,
    precision: torch.dtype,
    world: World,
    pretrained: Path | None = None,
) -> tuple[SentimentClassifier, TrainingData]:
    """Read the reviews and build the model; make the run's folder where it is new.

    One rank of each machine fills the cache for its others; the first one's weights, with the
    vectors that only it reads, become those of all. A new model starts from a pre-training's words
    and weights, where its folder is given. Teachers are asked once: what they said is kept.

    Raises:
        ValueError: a run is resumed with other reviews, or the ranks have different ones; or a
            teacher is not to be trusted.
    """
    source = path if beginning.resumes else pretrained
    vocabulary = None if source is None else load_words(source)
    with_vectors = world.is_first and source is None
    with world.first_on_machine():
        data = prepare_training(config, vocabulary=vocabulary, with_vectors=with_vectors)
    # Before there is a folder, which a teacher that is refused must not leave behind.
    is_made_here = world.is_first and not beginning.resumes
    soft_labels = teach(config, data, device) if is_made_here else None
    model = build_fresh(config, data, device)
    if pretrained is not None:
        check_held_out(pretrained, data.fingerprints["validation"])
        start_from(model, pretrained)
    if not world.is_alone:
        set_up(device, mixed_seed(config.seed, world.rank))  # of dropout, which must differ
    if is_made_here:
        _create(
            config, data, soft_labels, beginning, path, device, precision, world, pretrained
        )  # fmt: skip
    world.wait()
    _check_reviews(path, data, beginning, world)
    if config.distillation.is_wanted:  # of all ranks the same, to the bit, and when resumed
        said = read_soft_labels(path, data)
        data = replace(data, soft_labels=said, unlabelled_reviews=None)
    if beginning.state is not None:
        _tell_resumed(path, beginning.state, device, world)
    return model, data


def build_fresh(config: Config, data: TrainingData, device: torch.device) -> SentimentClassifier:
    """Seed torch, and build the model that a training by these settings begins with."""
    set_up(device, config.seed)
    return build_model(
        config.model,
        vocabulary_size=len(data.vocabulary),
        num_classes=len(data.class_names),
        vectors=data.vectors,
        freeze_embedding=config.vectors.freeze,
        frequencies=token_counts(data.vocabulary),
    ).to(device)


def _create(
    config: Config,
    data: TrainingData,
    soft_labels: torch.Tensor | None,
    beginning: Beginning,
    path: Path,
    device: torch.device,
    precision: torch.dtype,
    world: World,
    pretrained: Path | None,
) -> None:
    """Make the run's folder, with its receipt and what its teachers said."""
    receipt = write_receipt(
        seed=config.seed, device=describe_device(device), precision=precision, world=world,
        data=data.fingerprints, vectors=data.vectors_fingerprint,
        coverage=data.coverage.as_dict() if data.coverage else None,
    )  # fmt: skip
    receipt["hold_out"] = None if has_validation(config.data) else config.data.describe_hold_out()
    if pretrained is not None:
        receipt["pretraining"] = describe_pretraining(pretrained)
    if soft_labels is not None:
        receipt["teachers"] = describe_teachers(config)
    create_run(
        path, config, data.class_names, data.vocabulary, receipt, overwrite=beginning.overwrites
    )
    if soft_labels is not None:
        save_soft_labels(path, soft_labels)


def _check_reviews(path: Path, data: TrainingData, beginning: Beginning, world: World) -> None:
    wanted = read_description(path).get("data", {})
    for split, found in data.fingerprints.items():
        if wanted.get(split) != found:
            then = wanted.get(split) or {"rows": "?", "sha256": "?"}
            who = "" if world.is_alone else f"rank {world.rank} has other reviews: "
            raise ValueError(
                f"{who}the {split} reviews are {found['rows']} with digest "
                f"{found['sha256'][:12]}, but those of {path} are {then['rows']} with "
                f"{then['sha256'][:12]}: give the reviews that the run began with by --data.path"
            )


def _tell_resumed(path: Path, state: TrainingState, device: torch.device, world: World) -> None:
    progress = state.values["progress"]
    logger.info(
        "resuming at update %d, in epoch %d", state.values["updates"]["update"], progress["epoch"]
    )
    before = read_description(path)
    before |= before.get("versions", {})
    now = {
        "device": describe_device(device),
        "threads": torch.get_num_threads(),
        "ranks": world.size,
        **versions(),
    }
    for name, value in now.items():
        if before.get(name) != value:
            logger.info(
                "%s: %s, where the run began on %s: its last digits may differ from those of a run "
                "that was never stopped", name, value, before.get(name),
            )  # fmt: skip
