"""Set-up of a training: new, resumed or finished; data, model and folder."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from sentiment.config.config import Config, deciding_settings, first_difference
from sentiment.config.parser import TrainingRequest, start_anew
from sentiment.data.pipeline import SoftLabels, TrainingData, prepare_training
from sentiment.data.reviews import file_fingerprint
from sentiment.evaluation.outputs import describe_hold_out
from sentiment.model import SentimentClassifier
from sentiment.readers.sources import is_same_source
from sentiment.runs.initial import (
    INITIAL,
    check_held_out,
    find_initial_run,
    start_from,
    start_from_run,
    starting_folder,
)
from sentiment.runs.manifest import (
    check_fingerprints,
    holds_baseline,
    holds_pretraining,
    read_manifest,
    versions,
)
from sentiment.runs.run import (
    build_model,
    create_run,
    extend_run,
    is_finished,
    load_settings,
    load_words,
)
from sentiment.runs.weights import describe_weights
from sentiment.runtime.device import describe_device, mixed_seed, set_up
from sentiment.runtime.distributed import DistributedContext, launch_name, num_restarts
from sentiment.runtime.errors import UserError
from sentiment.runtime.files import check_links
from sentiment.training.checkpoint import CheckpointData, has_lost_state, load_state, state_path
from sentiment.training.context import TrainingContext, collect_provenance
from sentiment.training.distillation import (
    check_named_teachers,
    describe_teachers,
    plan_teachers,
    read_soft_labels,
    save_soft_labels,
    teach,
)

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class StartPlan:
    """How a training is to start."""

    checkpoint: CheckpointData | None = None  # to resume from
    is_finished: bool = False
    overwrites: bool = False  # whether the content of its folder may be replaced

    @property
    def resumes(self) -> bool:
        return self.checkpoint is not None


def resolve_start(
    request: TrainingRequest, path: Path, distributed: DistributedContext
) -> StartPlan:
    """Decide from a run's folder how to start; the main rank decides for all."""
    kind, extends = _NEW, False
    if distributed.is_main:
        _check_is_run(path)
        if request.resumes:
            check_links(path)
            saved = load_settings(path)  # refuses an edited file, whose settings would be others
            kind = _RESUMED
            extends = request.config.training.num_epochs > saved.training.num_epochs
            if extends and is_finished(path):
                _check_extension(path, saved)
        elif request.resumes_if_begun or _is_of_this_launch(path):
            kind = _compare_with_folder(request.config, path)
        if kind == _RESUMED and is_finished(path) and not extends:
            if not request.config.training.is_open_ended:
                state_path(path).unlink(missing_ok=True)  # left by a kill at the run's end
            kind = _FINISHED
        if kind in (_NEW, _BEGUN):  # before a pre-training, which may take hours
            find_initial_run(request.config)
            check_named_teachers(request.config)
            plan_teachers(request, starting_folder(request.config), None)
    kind = int(distributed.broadcast(torch.tensor(kind)).item())
    if kind == _FINISHED:
        return StartPlan(is_finished=True)
    if kind == _RESUMED:
        return StartPlan(load_state(path))
    return StartPlan(overwrites=request.overwrites or kind == _BEGUN)


_NEW, _BEGUN, _RESUMED, _FINISHED = range(4)


def _check_extension(path: Path, saved: Config) -> None:
    """Refuse more epochs for a finished run that cannot go on as if it had been begun with them."""
    num_epochs, training = read_manifest(path)["result"]["num_epochs"], saved.training
    if num_epochs < training.num_epochs:
        raise UserError(
            f"{path} ended after epoch {num_epochs} of {training.num_epochs} because of "
            f"training.patience {training.patience}, and would end there again: "
            f"{start_anew(saved, path)}"
        )
    if not state_path(path).exists():
        raise UserError(
            f"{path} is finished, and the checkpoint that more epochs need is gone "
            f"({state_path(path).name}): {start_anew(saved, path)}"
        )


def _check_is_run(path: Path) -> None:
    """Refuse a folder that holds anything but a classifier's run."""
    if holds_pretraining(path):
        raise UserError(
            f"{path} holds a pre-training, not a run to resume or replace: start from it with "
            f"--pretraining.path {path} and another output_dir; sentiment pretrain continues it"
        )
    if holds_baseline(path):
        raise UserError(
            f"{path} holds a baseline, not a run to resume or replace: choose another output_dir"
        )


def _is_of_this_launch(path: Path) -> bool:
    """Whether the same launcher began the run, and now restarts its ranks: then it is resumed."""
    if num_restarts() == 0 or not (path / "run.json").exists():
        return False
    return read_manifest(path).get("launch") == launch_name()


def _compare_with_folder(config: Config, path: Path) -> int:
    if not (path / "run.json").exists():
        return _NEW
    saved, asked = deciding_settings(load_settings(path)), deciding_settings(config)
    if (key := first_difference(saved, asked)) is not None:
        more = ""
        if key == "training.num_epochs" and asked[key] > saved[key]:
            more = f"go on with --resume {path} --{key} {asked[key]}, "
        raise UserError(
            f"{path} holds a run whose {key} is {saved[key]!r}, not {asked[key]!r}: {more}choose "
            "another output_dir, or begin this one with --overwrite"
        )
    if is_finished(path) or state_path(path).exists():
        return _RESUMED
    if has_lost_state(path):
        raise FileNotFoundError(
            f"{path} has weights, but its checkpoint {state_path(path).name} is gone: begin it "
            "again with --overwrite, or choose another output_dir"
        )
    return _BEGUN


def prepare(
    context: TrainingContext, start: StartPlan, pretrained: Path | None
) -> tuple[SentimentClassifier, TrainingData]:
    """Read the data and build the model; create the folder of a new run.

    A new run takes vocabulary and weights from the folder ``pretrained``. One rank per machine
    fills the token cache for the others. Only the main rank reads vectors; its weights are
    broadcast later. Teachers label reviews once: their soft labels are saved.
    """
    config, path, distributed = context.config, context.path, context.distributed
    with distributed.local_main_first():
        if start.resumes:
            names = tuple(read_manifest(path)["class_names"])
            data = prepare_training(
                config, vocabulary=load_words(path), class_names=names, with_vectors=False
            )
        else:
            data = read_data(config, pretrained, with_vectors=distributed.is_main)
    # Before the folder is created, because a refused teacher must not leave one behind.
    creates_run = distributed.is_main and not start.resumes
    soft_labels = teach(config, data, context.device) if creates_run else SoftLabels()
    if start.resumes:
        model = build_fresh(config, data, context.device)
    else:
        model = build_start(config, data, context.device, pretrained)
    if distributed.is_distributed:  # dropout must differ between ranks
        set_up(context.device, mixed_seed(config.seed, distributed.rank))
    if creates_run:
        _create(context, data, soft_labels, pretrained, overwrite=start.overwrites)
    distributed.barrier()
    _check_reviews(path, data, distributed)
    # Soft labels are read back, so that ranks and resumed runs have the same.
    soft_labels = read_soft_labels(path, config, data)
    data = replace(data, soft_labels=soft_labels, unlabelled_reviews=None, train_reviews=None)
    if start.checkpoint is not None:
        if distributed.is_main:
            _extend(path, config.training.num_epochs)
        _log_resumed(context, start.checkpoint)
    return model, data


def _extend(path: Path, num_epochs: int) -> None:
    """Note in a resumed run's folder if it is to have more epochs than before."""
    saved = load_settings(path)
    before = saved.training.num_epochs
    if num_epochs > before:
        extend_run(path, replace(saved, training=replace(saved.training, num_epochs=num_epochs)))
        warmup = "; the warm-up stays as it was" if saved.training.warmup_share > 0 else ""
        logger.info("%s: %d epochs instead of %d%s", path, num_epochs, before, warmup)


def read_data(
    config: Config, pretrained: Path | None, *, with_vectors: bool = True
) -> TrainingData:
    """The data of a new training; its vocabulary is, or begins with, that of the pre-training in
    the folder ``pretrained`` or of the run in ``training.init_from``, if there is one.
    """
    initial = find_initial_run(config)
    source = pretrained or initial
    extends = initial is not None and config.training.init_vocabulary == "extend"
    return prepare_training(
        config,
        vocabulary=None if source is None else load_words(source),
        extends_vocabulary=extends,
        with_vectors=with_vectors and (source is None or extends),
    )


def build_start(
    config: Config, data: TrainingData, device: torch.device, pretrained: Path | None
) -> SentimentClassifier:
    """The model with the weights that a new training starts from; ``pretrained`` as for
    :func:`read_data`.
    """
    model = build_fresh(config, data, device)
    if pretrained is not None:
        name = f"the pre-training in {pretrained}"
        check_held_out(pretrained, data.fingerprints["validation"], name=name)
        start_from(model, pretrained)
    if (initial := find_initial_run(config)) is not None:
        logger.info("%s", start_from_run(model, initial, data.vocabulary, data.class_names))
        _warn_of_leak(config, data, initial)
    return model


def _warn_of_leak(config: Config, data: TrainingData, initial: Path) -> None:
    """Warn if a run may have been trained on the validation reviews."""
    held_out = read_manifest(initial).get("data", {}).get("validation")
    is_same = is_same_source(config.data, load_settings(initial).data)
    if is_same and held_out != data.fingerprints["validation"]:
        logger.warning(
            "%s was trained on the same source with other reviews held out, perhaps on some that "
            "are held out now: metrics are then optimistic; %s has the settings of its hold-out",
            initial, initial / "config.yaml",
        )  # fmt: skip


def build_fresh(config: Config, data: TrainingData, device: torch.device) -> SentimentClassifier:
    """Seed torch, and build the untrained model."""
    set_up(device, config.seed)
    classes, freezes = len(data.class_names), config.vectors.freeze
    return build_model(
        config.model, data.vocabulary, classes, vectors=data.vectors, freeze_embedding=freezes
    ).to(device)


def _create(
    context: TrainingContext,
    data: TrainingData,
    soft_labels: SoftLabels,
    pretrained: Path | None,
    *,
    overwrite: bool,
) -> None:
    config, path = context.config, context.path
    coverage = asdict(data.coverage) if data.coverage else None
    provenance = collect_provenance(
        context, data=data.fingerprints, vectors=data.vectors_fingerprint, coverage=coverage
    )
    provenance["hold_out"] = describe_hold_out(config.data)
    if config.data.exclude is not None:
        provenance["exclude"] = file_fingerprint(Path(config.data.exclude).expanduser())
    if pretrained is not None:
        provenance["pretraining"] = describe_weights(pretrained, "last")
    if (initial := find_initial_run(config)) is not None:
        provenance["initial_run"] = describe_weights(initial, INITIAL)
    if config.distillation.has_teachers:
        provenance["teachers"] = describe_teachers(config)
    create_run(path, config, data.class_names, data.vocabulary, provenance, overwrite=overwrite)
    save_soft_labels(path, soft_labels)


def _check_reviews(path: Path, data: TrainingData, distributed: DistributedContext) -> None:
    before = read_manifest(path).get("data", {})
    where = f" on rank {distributed.rank}" if distributed.is_distributed else ""
    check_fingerprints(
        {split: before[split] for split in data.fingerprints if split in before},
        data.fingerprints,
        owner=str(path),
        advice=f"give the run's original reviews with --data.path{where}",
    )


def _log_resumed(context: TrainingContext, checkpoint: CheckpointData) -> None:
    values = checkpoint.values
    update, epoch = values["updates"]["update"], values["progress"]["epoch"]
    logger.info("resuming at update %d, in epoch %d", update, epoch)
    before = read_manifest(context.path)
    before |= before.get("versions", {})
    now = {
        "device": describe_device(context.device),
        "threads": torch.get_num_threads(),
        "ranks": context.distributed.world_size,
        **versions(),
    }
    for name, value in now.items():
        if before.get(name) != value:
            logger.info(
                "%s: %s, but the run began with %s: the last digits of its results may differ from "
                "those of a run that was never stopped", name, value, before.get(name),
            )  # fmt: skip
