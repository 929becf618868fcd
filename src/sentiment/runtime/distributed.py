"""Several processes that train or predict together: ranks, and what they exchange."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import nn

from sentiment.runtime.errors import UserError

_TIMEOUT = timedelta(minutes=5)  # of exchanges in which all take part at once
# Of waiting for what takes one rank long, as tokenizing a large corpus does. A rank that is lost
# closes its connections, which the others notice at once, however long they would wait.
_PATIENCE = timedelta(days=30)


class DistributedContext:
    """The ranks, and this one among them.

    Args:
        rank: this process among all, from 0.
        size: processes in all.
        local_rank: this process among those of its machine.
        patient: the ranks again, as a group whose members wait for each other without end; a world
            of one needs none.
    """

    def __init__(
        self,
        rank: int = 0,
        size: int = 1,
        local_rank: int = 0,
        patient: dist.ProcessGroup | None = None,
    ) -> None:
        assert 0 <= rank < size
        self.rank = rank
        self.size = size
        self.local_rank = local_rank
        self._patient = patient

    @property
    def is_main(self) -> bool:
        """Whether this is the rank that writes and speaks."""
        return self.rank == 0

    @property
    def is_alone(self) -> bool:
        return self.size == 1

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """The sums of equally shaped tensors over all ranks."""
        if self.is_alone:
            return values
        values = values.clone()
        dist.all_reduce(values)
        return values

    def most(self, numbers: Sequence[int]) -> list[int]:
        """The largest of each number over all ranks; on the host, so no device is waited for."""
        if self.is_alone:
            return list(numbers)
        values = torch.tensor(numbers, dtype=torch.int64)
        dist.all_reduce(values, dist.ReduceOp.MAX)
        return values.tolist()

    def broadcast(self, values: torch.Tensor) -> torch.Tensor:
        """What the first rank has, for tensors on the CPU that are equally shaped on all."""
        if not self.is_alone:
            values = values.clone()
            dist.broadcast(values, src=0)
        return values

    def gather(self, values: torch.Tensor) -> list[torch.Tensor]:
        """What every rank has, in their order, for tensors on the CPU that are equally shaped."""
        if self.is_alone:
            return [values]
        found = [torch.empty_like(values) for _ in range(self.size)]
        dist.all_gather(found, values)
        return found

    def wait(self) -> None:
        """Go on when all ranks have come here, however long that takes them.

        Raises:
            RuntimeError: one is lost.
        """
        if not self.is_alone:
            dist.barrier(self._patient)

    @contextmanager
    def local_main_first(self) -> Iterator[None]:
        """Let one rank of each machine do the body before its others do.

        What the first one leaves in the cache, the others find there.
        """
        if self.local_rank > 0:
            self.wait()
        yield
        if self.local_rank == 0:
            self.wait()
        self.wait()


@contextmanager
def init_distributed(*, uses_cuda: bool = False) -> Iterator[DistributedContext]:
    """The world that the environment tells of, joined for as long as the body runs.

    Args:
        uses_cuda: whether tensors on GPUs are exchanged.

    Raises:
        ConnectionError: another rank was lost while the body ran.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield DistributedContext()
        return
    rank = int(os.environ["RANK"])
    try:
        yield _join(rank, size, uses_cuda)
    except RuntimeError as error:
        if _is_of_connection(error):
            raise ConnectionError(
                f"rank {rank} has lost another rank: its own message says why; resume when it is "
                "mended"
            ) from error
        raise
    # After an error the others may be gone, and parting from them would hang.
    dist.destroy_process_group()


def _join(rank: int, size: int, uses_cuda: bool) -> DistributedContext:
    store, _, _ = next(dist.rendezvous("env://", rank, size, timeout=_TIMEOUT))
    # The launcher keeps one store, in which the addresses of ranks that are gone still stand.
    store = dist.PrefixStore(f"attempt/{num_restarts()}", store)
    backend = "cpu:gloo,cuda:nccl" if uses_cuda else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=_TIMEOUT)
    patient = dist.new_group(backend="gloo", timeout=_PATIENCE)
    return DistributedContext(rank, size, local_rank() or 0, patient)


def local_rank() -> int | None:
    """Which of several ranks on its machine a process is, also before it has joined them.

    Raises:
        UserError: the environment speaks of several ranks, but no launcher of torch's has set it.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return None
    missing = [name for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR") if name not in os.environ]
    if missing:
        raise UserError(
            f"WORLD_SIZE is {os.environ['WORLD_SIZE']}, but {missing[0]} is not set: start several "
            "ranks by torchrun, or unset WORLD_SIZE"
        )
    return int(os.environ["LOCAL_RANK"])


def local_size() -> int:
    """Ranks on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def num_restarts() -> int:
    """How often the launcher has started the ranks again after a failure."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))


def launch_name() -> str | None:
    """What the starts of one launcher have in common and no other's; None without a launcher."""
    name = os.environ.get("TORCHELASTIC_RUN_ID")
    if name is None or name != "none":
        return name
    return f"launcher {os.getppid()}"  # one that was not told to meet others has no name


def _is_of_connection(error: RuntimeError) -> bool:
    """gloo has no exceptions of its own."""
    if isinstance(error, dist.DistError):
        return True
    words = (
        "gloo",
        "Connection closed by peer",
        "Connection reset by peer",
        "Broken pipe",
        "connectFullMesh",
    )
    return any(word in str(error) for word in words)


@torch.no_grad()
def share_weights(model: nn.Module, distributed: DistributedContext) -> None:
    """Give all ranks the first one's weights."""
    if distributed.is_alone:
        return
    for values in model.state_dict().values():
        values.copy_(distributed.broadcast(values.cpu()))


def sum_gradients(model: nn.Module, distributed: DistributedContext) -> None:
    """Give all ranks the sum of their gradients; a rank that has none adds zeros."""
    if distributed.is_alone:
        return
    trained = [each for each in model.parameters() if each.requires_grad]
    own = [torch.zeros_like(each) if each.grad is None else each.grad for each in trained]
    total = distributed.sum(torch.cat([each.flatten() for each in own]))
    for each, gradient in zip(trained, total.split([part.numel() for part in own]), strict=True):
        each.grad = gradient.view_as(each)
