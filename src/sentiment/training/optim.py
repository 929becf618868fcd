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
    """Adam or AdamW over what is trained; weight decay on matrices that multiply, so neither on
    embeddings nor on initial states.

    Layers learn at rates that fall from the linear layer down (Howard & Ruder 2018): each group has
    its ``depth``, 0 at the top.
    """
    not_factors = {
        id(parameter)
        for module in model.modules()
        if isinstance(module, nn.Embedding | InitialStates)
        for parameter in module.parameters()
    }
    is_layered = config.layer_rate_factor < 1 or config.unfreeze_epochs is not None
    members: dict[tuple[int, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            is_matrix = parameter.dim() >= 2 and id(parameter) not in not_factors
            depth = _depth(name, model) if is_layered else 0
            members.setdefault((depth, not is_matrix), []).append(parameter)
    groups = [
        {
            "params": parameters,
            "weight_decay": 0.0 if is_not_decayed else config.weight_decay,
            "lr": config.learning_rate * config.layer_rate_factor**depth,
            "depth": depth,
        }
        for (depth, is_not_decayed), parameters in sorted(members.items(), key=lambda each: each[0])
    ]
    kind = torch.optim.AdamW if config.optimizer == "adamw" else torch.optim.Adam
    # Fused is one pass over memory instead of a dozen, on CPUs and GPUs alike.
    fused = all(each.device.type in ("cpu", "cuda") for own in members.values() for each in own)
    return kind(groups, config.learning_rate, fused=fused)


def _depth(name: str, model: nn.Module) -> int:
    """How far below the linear layer a parameter of the classifier lies."""
    num_layers = next(each.num_layers for each in model.modules() if isinstance(each, nn.RNNBase))
    if name.startswith("embedding."):
        return num_layers + 1
    if name.startswith("initial_states."):
        return num_layers
    if found := re.match(r"recurrence\.\w+_l(\d+)", name):
        return num_layers - int(found[1])
    return 0


class Schedule:
    """The learning rate from update to update.

    Args:
        optimizer: whose learning rate is set.
        config: kind of schedule, warm-up, what plateau does.
        num_updates: updates of the whole training.
        factor: share of the learning rate at each update, from 0, in place of the config's.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        config: TrainingConfig,
        num_updates: int,
        factor: Callable[[int], float] | None = None,
    ) -> None:
        self._kind = config.schedule
        self._custom_factor = factor
        self._num_updates = max(1, num_updates)
        self._num_warmup = round(config.warmup_share * num_updates)
        wait = (config.unfreeze_epochs or 0) / config.num_epochs * num_updates
        depths = [group.get("depth", 0) for group in optimizer.param_groups]
        self._by_update = LambdaLR(
            optimizer, [partial(self._factor_of_layer, round(depth * wait)) for depth in depths]
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
        # After warm-up the rate is the plateau's alone, which LambdaLR would set back.
        if self._by_metric is None or self._update <= self._num_warmup:
            with warnings.catch_warnings():
                # torch warns where the first update was skipped, as one with no finite gradient.
                warnings.filterwarnings("ignore", message="Detected call of `lr_scheduler.step")
                self._by_update.step()

    def after_epoch(self, score: float) -> None:
        """Tell schedule plateau what the monitored metric was; more is better."""
        if self._by_metric is not None and self._update >= self._num_warmup:
            self._by_metric.step(score)

    def state(self) -> dict[str, Any]:
        """Values that :meth:`restore` takes."""
        by_metric = None if self._by_metric is None else self._by_metric.state_dict()
        by_update = self._by_update.state_dict()
        return {"update": self._update, "by_update": by_update, "by_metric": by_metric}

    def restore(self, values: dict[str, Any]) -> None:
        """Take up the state of the same training; the rates are restored with the optimizer."""
        self._update = values["update"]
        self._by_update.load_state_dict(values["by_update"])
        if self._by_metric is not None:
            self._by_metric.load_state_dict(values["by_metric"])

    def _factor_of_layer(self, start: int, update: int) -> float:
        """As :meth:`_factor`, of a layer that begins to learn at update number ``start``."""
        return 0.0 if update < start else self._factor(update)

    def _factor(self, update: int) -> float:
        """Share of the full learning rate that update number ``update`` (from 0) has."""
        if self._custom_factor is not None:
            return self._custom_factor(update)
        if update < self._num_warmup:
            return (update + 1) / (self._num_warmup + 1)
        remaining = self._num_updates - self._num_warmup
        progress = min(1.0, (update - self._num_warmup) / max(1, remaining))
        if self._kind == "linear":
            return 1 - progress
        if self._kind == "cosine":
            return (1 + math.cos(math.pi * progress)) / 2
        return 1.0


_FULL_AFTER = 10  # after n updates no more is kept than (1 + n) / (_FULL_AFTER + n)


class WeightAverage:
    """Follows a model from update to update.

    Args:
        model: the classifier that is trained.
        decay: how much of the average an update keeps.
    """

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
        """The model's weights have changed."""
        self._averaged.update_parameters(self._model)

    def state(self) -> dict[str, torch.Tensor]:
        """Tensors that :meth:`restore` takes."""
        return dict(self._averaged.state_dict())

    def restore(self, tensors: dict[str, torch.Tensor]) -> None:
        """Take up the state of the same training."""
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
