"""Branches at once against the same branches one after the other."""

from __future__ import annotations

import threading

import pytest
import torch

from sentiment.model.side_by_side import run_side_by_side


def square(x, weights):
    return torch.tanh(x @ weights[0]) ** 2, x.sum() * weights[1]


def halve(x, weights):
    return (x / 2) @ weights[0], weights[1] - x.mean()


@pytest.fixture
def tensors():
    torch.manual_seed(0)
    x = torch.randn(5, 4, requires_grad=True)
    weights = [
        [torch.randn(4, 3, requires_grad=True), torch.randn(3, requires_grad=True)]
        for _ in range(2)
    ]
    return x, weights


def total(outputs):
    return sum((number + 1) * each.sum() for number, each in enumerate(outputs))


def test_outputs_and_gradients_are_those_of_one_after_the_other(tensors):
    x, weights = tensors
    leaves = [x, *weights[0], *weights[1]]
    at_once = run_side_by_side((square, halve), x, weights)
    in_turn = [square(x, weights[0]), halve(x, weights[1])]
    for ours, theirs in zip(sum(at_once, ()), sum(in_turn, ()), strict=True):
        assert torch.equal(ours, theirs)
    wanted = torch.autograd.grad(total(sum(in_turn, ())), leaves)
    for ours, theirs in zip(
        torch.autograd.grad(total(sum(at_once, ())), leaves), wanted, strict=True
    ):
        assert torch.allclose(ours, theirs)


def test_only_what_is_used_and_wanted_is_differentiated(tensors):
    x, weights = tensors
    frozen = [[each.detach() for each in weights[0]], weights[1]]
    first, second = run_side_by_side((square, halve), x.detach(), frozen)
    assert not any(each.requires_grad for each in frozen[0])
    second[0].sum().backward()
    assert torch.allclose(weights[1][0].grad, (x.detach() / 2).sum(0)[:, None].expand(4, 3))
    assert weights[1][1].grad is None
    assert first[0].grad_fn is not None  # of the same function; nothing flowed through it


def test_nothing_is_recorded_without_gradients(tensors):
    x, weights = tensors
    with torch.no_grad():
        outputs = run_side_by_side((square, halve), x, weights)
    with torch.inference_mode():
        also = run_side_by_side((square, halve), x.clone(), weights)  # an inference tensor
    for one, other in zip(sum(outputs, ()), sum(also, ()), strict=True):
        assert not one.requires_grad
        assert torch.equal(one, other)


def test_the_threads_follow_the_callers_autocast(tensors):
    x, weights = tensors
    with torch.autocast("cpu", torch.bfloat16):
        (_, _), (product, _) = run_side_by_side((square, halve), x, weights)
    assert product.dtype == torch.bfloat16


def test_branches_run_at_once_and_leave_the_callers_threads_alone(tensors):
    x, weights = tensors
    before = torch.get_num_threads()
    meeting = threading.Barrier(2, timeout=20)
    shares: list[int] = []

    def wait(x, weights):
        meeting.wait()  # would time out if one ran after the other
        shares.append(torch.get_num_threads())
        return (x * weights[0].sum(),)

    run_side_by_side((wait, wait), x, weights)
    assert torch.get_num_threads() == before
    assert shares == [max(1, before // 2)] * 2


def test_errors_of_a_branch_reach_the_caller(tensors):
    x, weights = tensors

    def fail(x, weights):
        raise ValueError("of this branch")

    with pytest.raises(ValueError, match="of this branch"):
        run_side_by_side((square, fail), x, weights)


def test_a_second_backward_is_refused(tensors):
    x, weights = tensors
    outputs = sum(run_side_by_side((square, halve), x, weights), ())
    total(outputs).backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="only once"):
        total(outputs).backward()
