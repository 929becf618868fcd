"""Several processes (ranks) that train or predict together, and what they exchange."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import nn

from sentiment.runtime.errors import UserError

_TIMEOUT = timedelta(minutes=5)  # of collectives that all ranks enter at about the same time
# Of barriers before which one rank works for long, as when it tokenizes a large corpus. A rank that
# dies closes its connections, which the others notice at once.
_BARRIER_TIMEOUT = timedelta(days=30)


@dataclass(frozen=True, eq=False)
class DistributedContext:
    """This process among all ranks."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0  # number of this process on its machine
    barrier_group: dist.ProcessGroup | None = None  # all ranks, with the timeout of barriers

    @property
    def is_main(self) -> bool:
        """Whether this is the rank that writes files and prints."""
        return self.rank == 0

    @property
    def is_distributed(self) -> bool:
        return self.world_size > 1

    def all_reduce_sum(self, values: torch.Tensor) -> torch.Tensor:
        """The sum over all ranks; of tensors of the same shape."""
        if not self.is_distributed:
            return values
        values = values.clone()
        dist.all_reduce(values)
        return values

    def all_reduce_max(self, numbers: Sequence[int]) -> list[int]:
        """The largest of each number over all ranks; on the host, so no device is synchronized."""
        if not self.is_distributed:
            return list(numbers)
        values = torch.tensor(numbers, dtype=torch.int64)
        dist.all_reduce(values, dist.ReduceOp.MAX)
        return values.tolist()

    def broadcast(self, values: torch.Tensor) -> torch.Tensor:
        """The main rank's tensor, on the CPU and of the same shape on all ranks."""
        if self.is_distributed:
            values = values.clone()
            dist.broadcast(values, src=0)
        return values

    def all_gather(self, values: torch.Tensor) -> list[torch.Tensor]:
        """The tensors of all ranks in their order, on the CPU and of the same shape."""
        if not self.is_distributed:
            return [values]
        gathered = [torch.empty_like(values) for _ in range(self.world_size)]
        dist.all_gather(gathered, values)
        return gathered

    def barrier(self) -> None:
        """Wait for all ranks; a lost one raises ``RuntimeError``."""
        if self.is_distributed:
            dist.barrier(self.barrier_group)

    @contextmanager
    def local_main_first(self) -> Iterator[None]:
        """Run the body on one rank of each machine before the others, which then use its cache."""
        if self.local_rank > 0:
            self.barrier()
        yield
        if self.local_rank == 0:
            self.barrier()
        self.barrier()


@contextmanager
def init_distributed(*, uses_cuda: bool = False) -> Iterator[DistributedContext]:
    """Join the ranks that the environment names, for as long as the body runs.

    ``uses_cuda`` says whether tensors on GPUs are exchanged. If another rank is lost while the body
    runs, ``ConnectionError`` is raised.
    """
    if _world_size() == 1:
        yield DistributedContext()
        return
    rank = int(os.environ["RANK"])
    try:
        yield _join(rank, _world_size(), uses_cuda)
    except RuntimeError as error:
        if _is_connection_error(error):
            raise ConnectionError(
                f"rank {rank} has lost another rank, whose own message says why: resume once the "
                "cause is fixed"
            ) from error
        raise
    # Not after an error: the others may be gone, and this would hang.
    dist.destroy_process_group()


def _join(rank: int, world_size: int, uses_cuda: bool) -> DistributedContext:
    store, _, _ = next(dist.rendezvous("env://", rank, world_size, timeout=_TIMEOUT))
    # The launcher keeps its store over restarts, with the addresses of ranks that are gone.
    store = dist.PrefixStore(f"attempt/{num_restarts()}", store)
    backend = "cpu:gloo,cuda:nccl" if uses_cuda else "gloo"
    dist.init_process_group(
        backend, store=store, rank=rank, world_size=world_size, timeout=_TIMEOUT
    )
    barrier_group = dist.new_group(backend="gloo", timeout=_BARRIER_TIMEOUT)
    return DistributedContext(rank, world_size, local_rank() or 0, barrier_group)


def refuse_ranks(command: str) -> None:
    """Refuse several ranks, for a command that runs in one process."""
    if _world_size() > 1:
        raise UserError(f"{command} runs in one process: call it without torchrun")


def local_rank() -> int | None:
    """This process's number among the ranks of its machine; None if it is the only rank."""
    if _world_size() == 1:
        return None
    missing = [name for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR") if name not in os.environ]
    if missing:
        raise UserError(
            f"WORLD_SIZE is {_world_size()}, but {missing[0]} is not set: start several ranks with "
            "torchrun, or unset WORLD_SIZE"
        )
    return int(os.environ["LOCAL_RANK"])


def _world_size() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))


def local_size() -> int:
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def num_restarts() -> int:
    """How often the launcher has restarted the ranks after a failure."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))


def launch_name() -> str | None:
    """A name that all starts by one launcher share; None without a launcher."""
    name = os.environ.get("TORCHELASTIC_RUN_ID")
    if name is None or name != "none":
        return name
    return f"launcher {os.getppid()}"  # torchrun's default name is "none" for all


def _is_connection_error(error: RuntimeError) -> bool:
    # gloo raises plain RuntimeErrors.
    phrases = (
        "gloo", "connectFullMesh", "Broken pipe", "Connection closed by peer",
        "Connection reset by peer",
    )  # fmt: skip
    return isinstance(error, dist.DistError) or any(phrase in str(error) for phrase in phrases)


@torch.no_grad()
def share_weights(model: nn.Module, distributed: DistributedContext) -> None:
    """Give all ranks the main rank's weights."""
    if not distributed.is_distributed:
        return
    for values in model.state_dict().values():
        values.copy_(distributed.broadcast(values.cpu()))


def sum_gradients(model: nn.Module, distributed: DistributedContext) -> None:
    """Give all ranks the sum of their gradients; a rank without a gradient adds zeros."""
    if not distributed.is_distributed:
        return
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    gradients = [
        torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        for parameter in parameters
    ]
    total = distributed.all_reduce_sum(torch.cat([grad.flatten() for grad in gradients]))
    parts = total.split([grad.numel() for grad in gradients])
    for parameter, part in zip(parameters, parts, strict=True):
        parameter.grad = part.view_as(parameter)
