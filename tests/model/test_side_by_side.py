"""Jobs at once: their results, their modes, their share of the threads."""

from __future__ import annotations

import threading

import pytest
import torch

from sentiment.model.onednn import run_side_by_side


def test_results_come_in_the_order_of_the_jobs():
    assert run_side_by_side(lambda number: 10 * number, 3) == [0, 10, 20]
    assert run_side_by_side(lambda number: number, 1) == [0]


def test_jobs_run_in_the_callers_modes():
    def modes(number):
        return torch.is_grad_enabled(), torch.is_inference_mode_enabled()

    assert run_side_by_side(modes, 2) == [(True, False)] * 2
    with torch.no_grad():
        assert run_side_by_side(modes, 2) == [(False, False)] * 2
    with torch.inference_mode():
        assert run_side_by_side(modes, 2) == [(False, True)] * 2


def test_jobs_run_at_once_and_leave_the_callers_threads_alone():
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        meeting = threading.Barrier(2, timeout=20)

        def wait(number):
            meeting.wait()  # would time out if one ran after the other
            return torch.get_num_threads()

        assert run_side_by_side(wait, 2) == [2, 2]
        assert torch.get_num_threads() == 4
    finally:
        torch.set_num_threads(before)


def test_one_thread_is_not_shared():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        names = run_side_by_side(lambda number: threading.current_thread().name, 2)
        assert names == [threading.current_thread().name] * 2
    finally:
        torch.set_num_threads(before)


def test_errors_of_a_job_reach_the_caller():
    def fail(number):
        raise ValueError(f"of job {number}")

    with pytest.raises(ValueError, match="of job 0"):
        run_side_by_side(fail, 2)
