"""Two recurrences at once, each on its share of the threads.

The products of one time step are too small for many threads, and a barrier ends each of them. The
two directions of a bidirectional LSTM do not depend on each other, so each may have its share of
the threads to itself. Autograd would run their backward passes one after the other all the same:
it works through a graph on the CPU in the calling thread. So each direction gets a graph of its
own, and one autograd function runs the two in two threads, forward and backward.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch.autograd.function import once_differentiable

Tensors = Sequence[torch.Tensor]
# From the shared input and its own weights to its outputs, by differentiable operations.
Branch = Callable[[torch.Tensor, Tensors], tuple[torch.Tensor, ...]]


def run_side_by_side(
    branches: Sequence[Branch], x: torch.Tensor, weights: Sequence[Tensors]
) -> list[tuple[torch.Tensor, ...]]:
    """``[branch(x, its weights) for each branch]``, all at once; differentiable once.

    Args:
        branches: what to compute on the CPU, each in a thread of its own.
        x: the input they share.
        weights: of each branch, as many for one as for another.
    """
    flat = [weight for each in weights for weight in each]
    if torch.is_grad_enabled() and any(each.requires_grad for each in (x, *flat)):
        return _split(_SideBySide.apply(tuple(branches), x, *flat), len(branches))
    return [outputs for _, outputs in _run(branches, x, weights, is_recorded=False)]


def _run(
    branches: Sequence[Branch], x: torch.Tensor, weights: Sequence[Tensors], *, is_recorded: bool
) -> list[tuple[Tensors, tuple[torch.Tensor, ...]]]:
    """Leaves and outputs of each branch, with a graph of its own between them if recorded."""
    # Modes are a thread's own, so the threads are told the caller's.
    precision, has_autocast = torch.get_autocast_dtype("cpu"), torch.is_autocast_enabled("cpu")
    is_inference = torch.is_inference_mode_enabled()

    def run(branch: Branch, weights: Tensors) -> tuple[Tensors, tuple[torch.Tensor, ...]]:
        leaves: Tensors = (x, *weights)
        if is_recorded:
            leaves = [each.detach().requires_grad_(each.requires_grad) for each in leaves]
        autocast = torch.autocast("cpu", precision, enabled=has_autocast)
        with torch.inference_mode(is_inference), torch.set_grad_enabled(is_recorded), autocast:
            return leaves, branch(leaves[0], leaves[1:])

    return list(_threads(len(branches)).map(run, branches, weights))


class _SideBySide(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, branches: tuple[Branch, ...], x: torch.Tensor, *flat: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        ctx.set_materialize_grads(False)
        ctx.graphs = _run(branches, x, _split(flat, len(branches)), is_recorded=True)
        return tuple(output.detach() for _, outputs in ctx.graphs for output in outputs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: torch.Tensor | None) -> tuple[torch.Tensor | None, ...]:
        graphs, ctx.graphs = ctx.graphs, None  # freed once used, as autograd frees its own
        if graphs is None:
            raise RuntimeError("side by side runs backward only once through one graph")
        shares = _split(gradients, len(graphs))
        found = list(_threads(len(graphs)).map(_backward, graphs, shares))
        of_x = [each[0] for each in found if each[0] is not None]
        total = functools.reduce(torch.add, of_x) if of_x else None
        return None, total, *(gradient for each in found for gradient in each[1:])


def _backward(
    graph: tuple[Tensors, Tensors], gradients: Sequence[torch.Tensor | None]
) -> list[torch.Tensor | None]:
    """Gradients of one branch's leaves; None for those that need none."""
    leaves, outputs = graph
    used = [index for index, gradient in enumerate(gradients) if gradient is not None]
    wanted = [leaf for leaf in leaves if leaf.requires_grad]
    if not used or not wanted:
        return [None] * len(leaves)
    found = torch.autograd.grad(
        [outputs[index] for index in used],
        wanted,
        [gradients[index] for index in used],
        allow_unused=True,
    )
    remaining = iter(found)
    return [next(remaining) if leaf.requires_grad else None for leaf in leaves]


def _split(values: Sequence[Any], count: int) -> list[tuple[Any, ...]]:
    size = len(values) // count
    return [tuple(values[start : start + size]) for start in range(0, len(values), size)]


def _threads(count: int) -> ThreadPoolExecutor:
    return _make_threads(count, torch.get_num_threads())


@functools.cache
def _make_threads(count: int, total: int) -> ThreadPoolExecutor:
    """A thread for each branch, with its share of the ``total`` threads of the caller."""
    share = max(1, total // count)

    def start() -> None:
        torch.get_num_threads()  # a thread takes the common number when it first asks: not later
        torch.set_num_threads(share)

    pool = ThreadPoolExecutor(count, "recurrence", start)
    # The number is a thread's own, but what was set last is the common one, with which any other
    # thread starts: once all of ours are up, it is the caller's again.
    everybody = threading.Barrier(count)
    list(pool.map(lambda _: everybody.wait(), range(count)))
    torch.set_num_threads(total)
    return pool
