"""The processes that train or predict together, each a rank: who one is, and what they agree on.

torch's launcher starts them (https://docs.pytorch.org/docs/stable/elastic/run.html) and says in
the environment who is who. CPUs talk by gloo, GPUs by NCCL. A process that was started alone is a
world of one, in which everything here answers at once.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist

# Of exchanges in which all take part at once. What takes one rank long is waited for without end.
_TIMEOUT = timedelta(minutes=5)
_LONGEST_NAP = 0.2  # seconds between two looks at whether the others are there


class World:
    """The ranks, and this one among them.

    Args:
        rank: this process among all, from 0.
        size: processes in all.
        local_rank: this process among those of its machine.
        local_size: processes of its machine.
        store: where ranks leave words for each other; a world of one needs none.
    """

    def __init__(
        self,
        rank: int = 0,
        size: int = 1,
        local_rank: int = 0,
        local_size: int = 1,
        store: dist.Store | None = None,
    ) -> None:
        assert 0 <= rank < size and (size == 1 or store is not None)
        self.rank = rank
        self.size = size
        self.local_rank = local_rank
        self.local_size = local_size
        self._store = store
        self._meetings = itertools.count()

    @property
    def is_first(self) -> bool:
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

    def of_first(self, values: torch.Tensor) -> torch.Tensor:
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

        An exchange would give up after its timeout, which no preparation of a large corpus keeps.
        """
        self._meet(self.size)

    @contextmanager
    def first_on_machine(self) -> Iterator[None]:
        """Let one rank of each machine do the body before its others do.

        What the first one leaves in the cache, the others find there.
        """
        if self.local_rank > 0:
            self.wait()
        yield
        if self.local_rank == 0:
            self.wait()
        self.wait()

    def _meet(self, number: int) -> None:
        if self._store is None:
            return
        key = f"meeting/{next(self._meetings)}"
        self._store.add(key, 1)
        nap = 0.001
        while self._store.add(key, 0) < number:
            time.sleep(nap)
            nap = min(2 * nap, _LONGEST_NAP)


@contextmanager
def join_world(*, uses_cuda: bool = False) -> Iterator[World]:
    """The world that the environment tells of, joined for as long as the body runs.

    Args:
        uses_cuda: whether tensors on GPUs are exchanged.

    Raises:
        ConnectionError: another rank was lost while the body ran.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield World()
        return
    rank = int(os.environ["RANK"])
    store, _, _ = next(dist.rendezvous("env://", rank, size, timeout=_TIMEOUT))
    backend = "cpu:gloo,cuda:nccl" if uses_cuda else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=_TIMEOUT)
    own = dist.PrefixStore("sentiment", store)
    try:
        yield World(rank, size, int(os.environ["LOCAL_RANK"]), local_size(), own)
    except RuntimeError as error:
        if _is_of_connection(error):
            raise ConnectionError(
                f"rank {rank} has lost another rank: its own message says why; resume when it is "
                "mended"
            ) from error
        raise
    # After an error the others may be gone, and parting from them would hang.
    dist.destroy_process_group()


def local_rank() -> int | None:
    """Which of several ranks on its machine a process is, also before it has joined them."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return None
    return int(os.environ["LOCAL_RANK"])


def local_size() -> int:
    """Ranks on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def num_restarts() -> int:
    """How often the launcher has started the ranks again after a failure."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))


def _is_of_connection(error: RuntimeError) -> bool:
    """gloo has no exceptions of its own."""
    if isinstance(error, dist.DistError):
        return True
    words = ("gloo", "Connection closed by peer", "Connection reset by peer", "Broken pipe")
    return any(word in str(error) for word in words)
