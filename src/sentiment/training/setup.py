"""What a training starts from: settings, data, model, a checkpoint or a pre-training."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from sentiment.config.config import Config, deciding_settings, first_difference
from sentiment.config.parser import TrainingRequest
from sentiment.data.pipeline import TrainingData, prepare_training
from sentiment.data.sources import has_validation
from sentiment.data.vocabulary import token_counts
from sentiment.model import SentimentClassifier
from sentiment.runs.manifest import (
    collect_provenance,
    holds_baseline,
    holds_pretraining,
    read_manifest,
    versions,
)
from sentiment.runs.pretrained import (
    check_held_out,
    describe_pretraining,
    start_from,
    starting_folder,
)
from sentiment.runs.run import build_model, create_run, is_finished, load_settings, load_words
from sentiment.runtime.device import describe_device, mixed_seed, set_up
from sentiment.runtime.distributed import DistributedContext, launch_name, num_restarts
from sentiment.runtime.errors import UserError
from sentiment.runtime.files import check_links
from sentiment.training.checkpoint import CheckpointData, has_lost_state, load_state, state_path
from sentiment.training.distillation import (
    check_named_teachers,
    describe_teachers,
    plan_teachers,
    read_soft_labels,
    save_soft_labels,
    teach,
)


@dataclass(frozen=True)
class StartPlan:
    """How a training is to begin.

    Attributes:
        state: where an earlier process has put it down, None to begin anew.
        is_finished: whether there is nothing left to do.
        overwrites: whether what is in its folder may be replaced.
    """

    state: CheckpointData | None = None
    is_finished: bool = False
    overwrites: bool = False

    @property
    def resumes(self) -> bool:
        return self.state is not None


def resolve_start(
    request: TrainingRequest, path: Path, distributed: DistributedContext
) -> StartPlan:
    """Look at what there is of a run; all ranks take part, and do what the first one finds.

    Raises:
        FileNotFoundError: a run is to be resumed, and there is none, or no checkpoint of it.
        UserError: the run is damaged, or one of other settings; or a new one is to learn from
            what is no teacher.
    """
    kind = _NEW
    if distributed.is_main:
        _check_is_run(path)
        if request.resumes:
            check_links(path)
            load_settings(path)  # checked: an edited file would train on something else
            kind = _RESUMED
        elif request.resumes_if_begun or _is_of_this_launch(path):
            kind = _find_begun(request.config, path)
        if kind == _RESUMED and is_finished(path):
            state_path(path).unlink(missing_ok=True)  # where the end came just before
            kind = _FINISHED
        if kind in (_NEW, _BEGUN):  # now: pre-training may take hours
            check_named_teachers(request.config)
            plan_teachers(request, starting_folder(request.config), None)
    kind = int(distributed.broadcast(torch.tensor(kind)).item())
    if kind == _FINISHED:
        return StartPlan(is_finished=True)
    if kind == _RESUMED:
        return StartPlan(load_state(path))
    return StartPlan(overwrites=request.overwrites or kind == _BEGUN)


_NEW, _BEGUN, _RESUMED, _FINISHED = range(4)


def _check_is_run(path: Path) -> None:
    """Refuse a folder of another kind, which is neither gone on with nor replaced here."""
    if holds_pretraining(path):
        raise UserError(
            f"{path} holds a pre-training, no run to resume or replace: start from it with "
            f"--pretraining.path {path} and another output_dir; sentiment pretrain goes on with it"
        )
    if holds_baseline(path):
        raise UserError(
            f"{path} holds a baseline, no run to resume or replace: choose another output_dir"
        )


def _is_of_this_launch(path: Path) -> bool:
    """Whether a launcher has begun the run and now starts its ranks again: it is to go on."""
    if num_restarts() == 0 or not (path / "run.json").exists():
        return False
    return read_manifest(path).get("launch") == launch_name()


def _find_begun(config: Config, path: Path) -> int:
    if not (path / "run.json").exists():
        return _NEW
    own, asked = deciding_settings(load_settings(path)), deciding_settings(config)
    if (key := first_difference(own, asked)) is not None:
        raise UserError(
            f"{path} holds a run whose {key} is {own[key]!r}, not {asked[key]!r}: choose another "
            "output_dir, or begin this one with --overwrite"
        )
    if is_finished(path) or state_path(path).exists():
        return _RESUMED
    if has_lost_state(path):
        raise FileNotFoundError(
            f"{path} has weights, but its checkpoint {state_path(path).name} is gone: begin it "
            "again with --overwrite, or choose another output_dir"
        )
    return _BEGUN


logger = logging.getLogger(__name__)


def begin(
    config: Config,
    beginning: StartPlan,
    path: Path,
    device: torch.device,
    precision: torch.dtype,
    distributed: DistributedContext,
    pretrained: Path | None = None,
) -> tuple[SentimentClassifier, TrainingData]:
    """Read the reviews and build the model; make the run's folder where it is new.

    One rank of each machine fills the cache for its others; the first one's weights, with the
    vectors that only it reads, become those of all. A new model starts from a pre-training's words
    and weights, where its folder is given. Teachers are asked once: what they said is kept.

    Raises:
        UserError: a run is resumed with other reviews, or the ranks have different ones; or a
            teacher is not to be trusted.
    """
    source = path if beginning.resumes else pretrained
    vocabulary = None if source is None else load_words(source)
    with_vectors = distributed.is_main and source is None
    with distributed.local_main_first():
        data = prepare_training(config, vocabulary=vocabulary, with_vectors=with_vectors)
    # Before there is a folder, which a teacher that is refused must not leave behind.
    is_made_here = distributed.is_main and not beginning.resumes
    soft_labels = teach(config, data, device) if is_made_here else None
    model = build_fresh(config, data, device)
    if pretrained is not None:
        check_held_out(pretrained, data.fingerprints["validation"])
        start_from(model, pretrained)
    if distributed.is_distributed:
        set_up(device, mixed_seed(config.seed, distributed.rank))  # of dropout, which must differ
    if is_made_here:
        _create(
            config, data, soft_labels, beginning, path, device, precision, distributed, pretrained
        )  # fmt: skip
    distributed.barrier()
    _check_reviews(path, data, beginning, distributed)
    if config.distillation.is_wanted:  # of all ranks the same, to the bit, and when resumed
        said = read_soft_labels(path, data)
        data = replace(data, soft_labels=said, unlabelled_reviews=None)
    if beginning.state is not None:
        _tell_resumed(path, beginning.state, device, distributed)
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
    beginning: StartPlan,
    path: Path,
    device: torch.device,
    precision: torch.dtype,
    distributed: DistributedContext,
    pretrained: Path | None,
) -> None:
    """Make the run's folder, with its receipt and what its teachers said."""
    receipt = collect_provenance(
        seed=config.seed, device=describe_device(device), precision=precision,
        distributed=distributed, data=data.fingerprints, vectors=data.vectors_fingerprint,
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


def _check_reviews(
    path: Path, data: TrainingData, beginning: StartPlan, distributed: DistributedContext
) -> None:
    wanted = read_manifest(path).get("data", {})
    for split, found in data.fingerprints.items():
        if wanted.get(split) != found:
            then = wanted.get(split) or {"rows": "?", "sha256": "?"}
            who = (
                f"rank {distributed.rank} has other reviews: " if distributed.is_distributed else ""
            )
            raise UserError(
                f"{who}the {split} reviews are {found['rows']} with digest "
                f"{found['sha256'][:12]}, but those of {path} are {then['rows']} with "
                f"{then['sha256'][:12]}: give the reviews that the run began with by --data.path"
            )


def _tell_resumed(
    path: Path, state: CheckpointData, device: torch.device, distributed: DistributedContext
) -> None:
    progress = state.values["progress"]
    logger.info(
        "resuming at update %d, in epoch %d", state.values["updates"]["update"], progress["epoch"]
    )
    before = read_manifest(path)
    before |= before.get("versions", {})
    now = {
        "device": describe_device(device),
        "threads": torch.get_num_threads(),
        "ranks": distributed.world_size,
        **versions(),
    }
    for name, value in now.items():
        if before.get(name) != value:
            logger.info(
                "%s: %s, where the run began on %s: its last digits may differ from those of a run "
                "that was never stopped", name, value, before.get(name),
            )  # fmt: skip
