"""Optimizer, learning-rate schedule and averaged weights."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau
from torch.optim.swa_utils import AveragedModel

from sentiment.config.config import TrainingConfig
from sentiment.model import SentimentClassifier
from sentiment.model.recurrence import InitialStates


def build_optimizer(model: nn.Module, config: TrainingConfig) -> torch.optim.Adam:
    """Adam or AdamW over the parameters that need a gradient.

    Weight decay applies to weight matrices, not to embeddings, initial states and vectors. With
    ``layer_rate_factor`` or ``unfreeze_epochs``, layers learn at rates that fall from the linear
    layer down (Howard & Ruder 2018): each parameter group has its ``depth``, 0 at the top.
    """
    never_decayed = {
        id(parameter)
        for module in model.modules()
        if isinstance(module, nn.Embedding | InitialStates)
        for parameter in module.parameters()
    }
    is_layered = config.layer_rate_factor < 1 or config.unfreeze_epochs is not None
    members: dict[tuple[int, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            is_decayed = parameter.dim() >= 2 and id(parameter) not in never_decayed
            depth = _depth(name, model) if is_layered else 0
            members.setdefault((depth, not is_decayed), []).append(parameter)
    groups = [
        {
            "params": parameters,
            "weight_decay": 0.0 if is_not_decayed else config.weight_decay,
            "lr": config.learning_rate * config.layer_rate_factor**depth,
            "depth": depth,
        }
        for (depth, is_not_decayed), parameters in sorted(members.items(), key=lambda item: item[0])
    ]
    kind = torch.optim.AdamW if config.optimizer == "adamw" else torch.optim.Adam
    # Fused is one pass over memory instead of a dozen, on CPUs and GPUs alike.
    devices = {parameter.device.type for group in members.values() for parameter in group}
    return kind(groups, config.learning_rate, fused=devices <= {"cpu", "cuda"})


def _depth(name: str, model: nn.Module) -> int:
    """How many layers a parameter of the classifier is below the linear layer."""
    num_layers = next(
        module.num_layers for module in model.modules() if isinstance(module, nn.RNNBase)
    )
    if name.startswith("embedding."):
        return num_layers + 1
    if name.startswith("initial_states."):
        return num_layers
    if match := re.match(r"recurrence\.\w+_l(\d+)", name):
        return num_layers - int(match[1])
    return 0


class Schedule:
    """Sets the optimizer's learning rate after each update.

    Args:
        optimizer: as :func:`build_optimizer` makes it.
        config: kind of schedule, warm-up, plateau.
        num_updates: updates of the whole training.
        factor: share of the full learning rate by number of the update, from 0; None takes that of
            the settings.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        config: TrainingConfig,
        num_updates: int,
        factor: Callable[[int], float] | None = None,
    ) -> None:
        self._kind = config.schedule
        self._num_updates = max(1, num_updates)
        self._num_warmup = round(config.warmup_share * num_updates)
        wait = (config.unfreeze_epochs or 0) / config.num_epochs * num_updates
        starts = [round(group.get("depth", 0) * wait) for group in optimizer.param_groups]
        factor = factor or self._factor
        self._by_update = LambdaLR(
            optimizer, [partial(_delayed, factor, start) for start in starts]
        )
        self._update = 0
        self._by_metric = (
            ReduceLROnPlateau(
                optimizer,
                mode="max",
                factor=config.plateau_factor,
                patience=config.plateau_patience,
                threshold=0.0,
                eps=0.0,  # the default ignores reductions of small learning rates
            )
            if config.schedule == "plateau"
            else None
        )

    def after_update(self) -> None:
        """Set the learning rate of the next update."""
        self._update += 1
        # After warm-up only the plateau changes the rate, which LambdaLR would set back.
        if self._by_metric is None or self._update <= self._num_warmup:
            with warnings.catch_warnings():
                # torch warns if the first update was skipped because of a non-finite gradient.
                warnings.filterwarnings("ignore", message="Detected call of `lr_scheduler.step")
                self._by_update.step()

    def after_epoch(self, score: float) -> None:
        """Give schedule ``plateau`` the monitored metric; more is better."""
        if self._by_metric is not None and self._update >= self._num_warmup:
            self._by_metric.step(score)

    def state(self) -> dict[str, Any]:
        by_metric = None if self._by_metric is None else self._by_metric.state_dict()
        by_update = self._by_update.state_dict()
        return {"update": self._update, "by_update": by_update, "by_metric": by_metric}

    def restore(self, values: dict[str, Any]) -> None:
        """Continue from :meth:`state`; the rates are restored with the optimizer."""
        self._update = values["update"]
        self._by_update.load_state_dict(values["by_update"])
        if self._by_metric is not None:
            self._by_metric.load_state_dict(values["by_metric"])

    def _factor(self, update: int) -> float:
        if update < self._num_warmup:
            return (update + 1) / (self._num_warmup + 1)
        remaining = self._num_updates - self._num_warmup
        progress = min(1.0, (update - self._num_warmup) / max(1, remaining))
        if self._kind == "linear":
            return 1 - progress
        if self._kind == "cosine":
            return (1 + math.cos(math.pi * progress)) / 2
        return 1.0


def _delayed(factor: Callable[[int], float], start: int, update: int) -> float:
    """The factor of a layer that starts to learn at update ``start``."""
    return 0.0 if update < start else factor(update)


def optimizer_state(
    optimizer: torch.optim.Optimizer, schedule: Schedule
) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Values and tensors of a checkpoint, for :func:`restore_optimizer`."""
    state = optimizer.state_dict()
    tensors = {
        f"{number}.{name}": tensor
        for number, moments in state["state"].items()
        for name, tensor in moments.items()
    }
    rates = [group["lr"] for group in state["param_groups"]]
    return {"rates": rates, "schedule": schedule.state()}, tensors


def restore_optimizer(
    optimizer: torch.optim.Optimizer,
    schedule: Schedule,
    values: dict[str, Any],
    tensors: dict[str, torch.Tensor],
) -> None:
    """Continue from :func:`optimizer_state`."""
    schedule.restore(values["schedule"])
    state = optimizer.state_dict()
    for key, tensor in tensors.items():
        number, name = key.split(".")
        state["state"].setdefault(int(number), {})[name] = tensor
    for group, rate in zip(state["param_groups"], values["rates"], strict=True):
        group["lr"] = rate
    optimizer.load_state_dict(state)


_FULL_AFTER = 10  # update n keeps at most (1 + n) / (_FULL_AFTER + n) of the average


class WeightAverage:
    """Exponential moving average of a model's weights; ``decay`` is the share an update keeps."""

    def __init__(self, model: SentimentClassifier, decay: float) -> None:
        self._model = model
        self._averaged = AveragedModel(model, multi_avg_fn=_moving_average(decay))

    @property
    def model(self) -> SentimentClassifier:
        """The classifier with the averaged weights."""
        module = self._averaged.module
        assert isinstance(module, SentimentClassifier)
        return module

    def update(self) -> None:
        """Take in the model's weights after an update."""
        self._averaged.update_parameters(self._model)

    def state(self) -> dict[str, torch.Tensor]:
        return dict(self._averaged.state_dict())

    def restore(self, tensors: dict[str, torch.Tensor]) -> None:
        """Continue from :meth:`state`."""
        self._averaged.load_state_dict(tensors)


def _moving_average(decay: float) -> Callable[..., None]:
    @torch.no_grad()
    def average(
        averaged: list[torch.Tensor], current: list[torch.Tensor], num_averaged: torch.Tensor
    ) -> None:
        number = int(num_averaged)
        kept = min(decay, (1 + number) / (_FULL_AFTER + number))
        torch._foreach_lerp_(averaged, current, 1 - kept)

    return average
