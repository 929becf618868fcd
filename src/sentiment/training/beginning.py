"""Whether a training begins or goes on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from sentiment.config import Config, deciding_settings, first_difference
from sentiment.description import holds_baseline, holds_pretraining, read_description
from sentiment.distilling.teachers import check_named_teachers
from sentiment.places import check_links
from sentiment.pretraining.folder import starting_folder
from sentiment.runs import is_finished, load_settings
from sentiment.settings import TrainingRequest
from sentiment.training.checkpoint import TrainingState, has_lost_state, load_state, state_path
from sentiment.training.own_teachers import plan_teachers
from sentiment.world import World, launch_name, num_restarts


@dataclass(frozen=True)
class Beginning:
    """How a training is to begin.

    Attributes:
        state: where an earlier process has put it down, None to begin anew.
        is_finished: whether there is nothing left to do.
        overwrites: whether what is in its folder may be replaced.
    """

    state: TrainingState | None = None
    is_finished: bool = False
    overwrites: bool = False

    @property
    def resumes(self) -> bool:
        return self.state is not None


def find_beginning(request: TrainingRequest, path: Path, world: World) -> Beginning:
    """Look at what there is of a run; all ranks take part, and do what the first one finds.

    Raises:
        FileNotFoundError: a run is to be resumed, and there is none, or no checkpoint of it.
        ValueError: the run is damaged, or one of other settings; or a new one is to learn from
            what is no teacher.
    """
    kind = _NEW
    if world.is_first:
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
    kind = int(world.of_first(torch.tensor(kind)).item())
    if kind == _FINISHED:
        return Beginning(is_finished=True)
    if kind == _RESUMED:
        return Beginning(load_state(path))
    return Beginning(overwrites=request.overwrites or kind == _BEGUN)


_NEW, _BEGUN, _RESUMED, _FINISHED = range(4)


def _check_is_run(path: Path) -> None:
    """Refuse a folder of another kind, which is neither gone on with nor replaced here."""
    if holds_pretraining(path):
        raise ValueError(
            f"{path} holds a pre-training, no run to resume or replace: start from it with "
            f"--pretraining.path {path} and another output_dir; sentiment pretrain goes on with it"
        )
    if holds_baseline(path):
        raise ValueError(
            f"{path} holds a baseline, no run to resume or replace: choose another output_dir"
        )


def _is_of_this_launch(path: Path) -> bool:
    """Whether a launcher has begun the run and now starts its ranks again: it is to go on."""
    if num_restarts() == 0 or not (path / "run.json").exists():
        return False
    return read_description(path).get("launch") == launch_name()


def _find_begun(config: Config, path: Path) -> int:
    if not (path / "run.json").exists():
        return _NEW
    own, asked = deciding_settings(load_settings(path)), deciding_settings(config)
    if (key := first_difference(own, asked)) is not None:
        raise ValueError(
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
