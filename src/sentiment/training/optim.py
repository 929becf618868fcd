"""Optimizer, learning-rate schedule, averaged weights, and guards around an update."""

from __future__ import annotations

import copy
import math
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau

from sentiment.config.config import TrainingConfig
from sentiment.data.batches import Batch
from sentiment.model import SentimentClassifier
from sentiment.model.classifier import InitialStates
from sentiment.runtime.distributed import DistributedContext
from sentiment.runtime.errors import UserError


def build_optimizer(model: nn.Module, config: TrainingConfig) -> torch.optim.Adam:
    """Adam or AdamW over the parameters that need a gradient.

    Weight decay applies to weight matrices, not to embeddings, initial states and vectors. With
    ``layer_rate_factor`` or ``unfreeze_epochs``, learning rates fall from the linear layer down
    (Howard & Ruder 2018): each parameter group has its ``depth``, 0 at the top.
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
    """How many layers below the linear layer a parameter is."""
    recurrence = next(module for module in model.modules() if isinstance(module, nn.RNNBase))
    num_layers = recurrence.num_layers
    if name.startswith("embedding."):
        return num_layers + 1
    if name.startswith("initial_states."):
        return num_layers
    if match := re.match(r"recurrence\.\w+_l(\d+)", name):
        return num_layers - int(match[1])
    return 0


class Schedule:
    """Sets the optimizer's learning rate after each update, of ``num_updates`` in all.

    ``factor`` maps the number of an update, from 0, to its share of the full learning rate, in
    place of the settings' schedule.
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
        self._by_metric: ReduceLROnPlateau | None = None
        if config.schedule == "plateau":
            # The default eps ignores reductions of small learning rates.
            self._by_metric = ReduceLROnPlateau(
                optimizer, mode="max", factor=config.plateau_factor,
                patience=config.plateau_patience, threshold=0.0, eps=0.0,
            )  # fmt: skip

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
        """Pass the monitored metric to schedule ``plateau``; more is better."""
        if self._by_metric is not None and self._update >= self._num_warmup:
            self._by_metric.step(score)

    def state(self) -> dict[str, Any]:
        by_metric = None if self._by_metric is None else self._by_metric.state_dict()
        by_update = self._by_update.state_dict()
        return {
            "update": self._update,
            "num_warmup": self._num_warmup,
            "by_update": by_update,
            "by_metric": by_metric,
        }

    def restore(self, values: dict[str, Any]) -> None:
        """Continue from :meth:`state`; the rates are restored with the optimizer."""
        self._update = values["update"]
        # More epochs, given later, do not bring the warm-up back.
        self._num_warmup = values.get("num_warmup", self._num_warmup)
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
    """The factor of a layer that is frozen before update ``start``."""
    return 0.0 if update < start else factor(update)


def take_step(optimizer: torch.optim.Optimizer, allowed: bool | torch.Tensor) -> None:
    """Update the weights, unless ``allowed`` is a tensor () on a GPU whose value is false."""
    if isinstance(allowed, torch.Tensor):
        # Fused optimizers read it in their kernels, as with torch's GradScaler; the host does not.
        optimizer.found_inf = (~allowed).float()  # type: ignore[attr-defined]
    optimizer.step()


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


_AVERAGE_WARMUP = 10  # update n keeps at most (1 + n) / (_AVERAGE_WARMUP + n) of the average


class WeightAverage:
    """Exponential moving average of a model's weights; an update keeps the share ``decay``."""

    def __init__(self, model: SentimentClassifier, decay: float) -> None:
        self._current, self._decay = model, decay
        self.model = copy.deepcopy(model)  # has the averaged weights
        self.model.recurrence.flatten_parameters()
        self._number = 0  # of updates; on the host, so that reading it waits for nothing

    @torch.no_grad()
    def update(self) -> None:
        number, self._number = self._number, self._number + 1
        kept = min(self._decay, (1 + number) / (_AVERAGE_WARMUP + number)) if number else 0.0
        averaged: list[torch.Tensor] = list(self.model.parameters())
        torch._foreach_lerp_(averaged, list(self._current.parameters()), 1 - kept)

    def state(self) -> dict[str, torch.Tensor]:
        """Tensors for a checkpoint, under the names that torch's AveragedModel gives them."""
        weights = {f"module.{name}": value for name, value in self.model.state_dict().items()}
        return weights | {"n_averaged": torch.tensor(self._number)}

    def restore(self, tensors: dict[str, torch.Tensor]) -> None:
        self._number = int(tensors["n_averaged"])
        self.model.load_state_dict(
            {
                name.removeprefix("module."): value
                for name, value in tensors.items()
                if name.startswith("module.")
            }
        )


_MAX_SKIPPED_IN_A_ROW = 50  # with more, the weights are at fault, not a batch


@dataclass(frozen=True)
class StepInfo:
    """Describes an update in messages."""

    update: int  # from 1
    epoch: int  # from 1
    learning_rate: float
    reviews: list[int]  # of its rows: positions in the training split from 0, -1 for no review
    longest: int  # tokens of the longest row

    def __str__(self) -> str:
        known = [review + 1 for review in self.reviews if review >= 0]
        first = ", ".join(map(str, known[:3])) + (" …" if len(known) > 3 else "")
        named = f"training reviews {first}" if known else "contrast texts"
        return (
            f"update {self.update} (epoch {self.epoch}, learning rate {self.learning_rate:.3g}, "
            f"batch of {len(self.reviews)} reviews of up to {self.longest} tokens: {named})"
        )


class NonFiniteGuard:
    """Checks losses and gradient norms.

    Reading a number from a GPU means waiting for it. They are therefore read later, together and
    before anything is saved; whether an update is skipped is decided on the GPU. MPS has no fused
    optimizer that could skip: there they are read at once.
    """

    def __init__(
        self,
        reaction: Literal["stop", "skip"],
        device: torch.device,
        distributed: DistributedContext,
    ) -> None:
        self._skips = reaction == "skip"
        self._distributed = distributed
        self._reads_at_once = device.type == "cpu" or (self._skips and device.type == "mps")
        self._unread: list[tuple[StepInfo, torch.Tensor]] = []
        self._num_skipped = 0
        self._num_in_a_row = 0

    def allows(self, step: StepInfo, loss: torch.Tensor, norm: torch.Tensor) -> bool | torch.Tensor:
        """Whether the optimizer may take a step; raises ``UserError`` if training is to stop.

        The loss () is this rank's; the gradient's norm () is the same on all ranks. The result is a
        bool, or () on the device where reading it would mean waiting.
        """
        if self._skips:  # all ranks or none; the sum is not finite if a summand isn't
            loss = self._distributed.all_reduce_sum(loss.detach())
        numbers = torch.stack((loss.detach(), norm))
        if self._skips and self._reads_at_once:
            return self._count_skipped(step, *numbers.tolist())
        self._unread.append((step, numbers))
        if self._reads_at_once:
            self.check()
        return numbers.isfinite().all() if self._skips else True

    def _count_skipped(self, step: StepInfo, loss: float, norm: float) -> bool:
        """Count the update if it is to be skipped; return whether the weights may be updated."""
        # A label of probability 0 has an infinite loss, but a finite gradient.
        if math.isfinite(norm) and math.isfinite(loss):
            self._num_in_a_row = 0
            return True
        self._num_skipped += 1
        self._num_in_a_row += 1
        if self._num_in_a_row > _MAX_SKIPPED_IN_A_ROW:
            raise UserError(
                f"loss or gradient were not finite {self._num_in_a_row} times in a row, last at "
                f"{step}: train again with a lower training.learning_rate"
            )
        return False

    def check(self) -> None:
        """Read the numbers not read yet; raises ``UserError`` if training is to stop."""
        if not self._unread:
            return
        numbers = torch.stack([pair for _, pair in self._unread]).tolist()
        for (step, _), (loss, norm) in zip(self._unread, numbers, strict=True):
            if self._skips:
                self._count_skipped(step, loss, norm)
            elif not (math.isfinite(norm) and math.isfinite(loss)):
                raise UserError(
                    f"the loss is {loss:.4g} and the gradient's norm {norm:.4g} at {step}: lower "
                    "training.learning_rate or training.gradient_clip, or skip such batches with "
                    "training.nonfinite skip, and train again: a resumed run keeps its settings"
                )
        self._unread.clear()

    def state(self) -> dict[str, int]:
        return {"num_skipped": self._num_skipped, "num_skipped_in_a_row": self._num_in_a_row}

    def restore(self, values: dict[str, int]) -> None:
        self._num_skipped = values["num_skipped"]
        self._num_in_a_row = values["num_skipped_in_a_row"]


# As a CPU, the CUDA driver (no longer torch's own allocator), cuBLAS and cuDNN report it.
_NO_MEMORY = re.compile(
    "memory.*alloc|alloc.*memory|CUDA.*out of memory|CU(BLAS|DNN)_STATUS_ALLOC_FAILED", re.DOTALL
)


@contextmanager
def explain_out_of_memory(
    batch: Batch, config: TrainingConfig, device: torch.device, *, is_labelled: bool
) -> Iterator[None]:
    """Turn torch's errors about memory into a ``MemoryError`` that names the settings to lower."""
    try:
        yield
    except RuntimeError as error:
        if not (isinstance(error, torch.OutOfMemoryError) or _NO_MEMORY.search(str(error))):
            raise
        reviews, time = batch.tokens.shape
        setting = (
            f"training.batch_size ({config.batch_size} {config.batch_unit}; "
            "training.accumulation_steps makes up for it)"
            if is_labelled
            else f"objectives.unlabelled_batch_size below {reviews}"
        )
        raise MemoryError(
            f"{device} has too little memory for a batch of {reviews} reviews of {time} tokens: "
            f"lower {setting} or data.max_length"
        ) from error
