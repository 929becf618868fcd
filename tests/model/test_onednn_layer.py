"""oneDNN's kernel: its precision, odd sizes, parts of a batch, jobs side by side, denormals."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from helpers.corpus import ROOT
from helpers.recurrences import run_with_gradients
from torch import nn

from sentiment.model import PackedLSTM, onednn
from sentiment.model.onednn import choose_dtype, count_parts, describe_kernel, run_side_by_side
from sentiment.runtime import device as runtime

CPU = torch.device("cpu")
has_bf16 = pytest.mark.skipif(
    choose_dtype(CPU, torch.bfloat16) != torch.bfloat16, reason="needs oneDNN's kernel in bf16"
)


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("with_states", [False, True])
def test_parts_of_a_batch_equal_the_packed_sequence(bidirectional, with_states, set_threads):
    """70 reviews are two parts of 35; 20 are one."""
    set_threads(2)
    torch.manual_seed(0)
    oracle = nn.LSTM(6, 5, bidirectional=bidirectional, batch_first=True)
    lstm = PackedLSTM(6, 5, bidirectional=bidirectional)
    lstm.load_state_dict(oracle.state_dict())
    for batch, parts in ((70, 2), (20, 1)):
        assert count_parts(batch, lstm.directions) == parts
        lengths = torch.randint(1, 13, (batch,))
        lengths[-1] = 12
        x = torch.randn(batch, 12, 6, requires_grad=True)
        shape = lstm.directions, batch, 5
        initial = [torch.randn(shape, requires_grad=True) for _ in range(2 * with_states)]
        outputs, gradients = run_with_gradients(lstm, x, lengths, initial)
        wanted, wanted_gradients = run_with_gradients(oracle, x, lengths, initial)
        for one, other in zip(outputs, wanted, strict=True):
            assert (one - other).abs().max() <= 1e-6
        for one, other in zip(gradients, wanted_gradients, strict=True):
            assert (one - other).norm() <= 1e-5 * other.norm()


@has_bf16
@pytest.mark.parametrize("input_size", [6, 7])
@pytest.mark.parametrize("hidden_size", [8, 9])
@pytest.mark.parametrize("are_padded", [False, True])
def test_odd_sizes_are_as_near_in_bf16_as_even_ones(input_size, hidden_size, are_padded):
    torch.manual_seed(0)
    lstm = PackedLSTM(input_size, hidden_size, num_layers=2, bidirectional=True)
    lengths = torch.randint(1, 15, (9,)) if are_padded else torch.full((9,), 14)
    lengths[0] = 14
    x = torch.randn(9, 14, input_size, requires_grad=True)
    exact, exact_gradients = run_with_gradients(lstm, x, lengths)
    with torch.autocast("cpu", torch.bfloat16):
        rounded, gradients = run_with_gradients(lstm, x, lengths)
    for one, other in zip(rounded, exact, strict=True):
        assert (one - other).abs().max() <= 0.02
    for one, other in zip(gradients, exact_gradients, strict=True):
        assert one.shape == other.shape
        assert (one - other).norm() <= 0.03 * other.norm()


@has_bf16
def test_the_kernel_sees_even_sizes_alone_in_bf16(monkeypatch):
    """With odd ones oneDNN would leave AMX unused (ONEDNN_VERBOSE=1 on such a processor)."""
    seen = set()
    kernel = onednn.run_kernel

    def watch(x, weights, start, **options):
        seen.update((x.shape[-1], *weights[0].shape, weights[1].shape[1], start[0].shape[-1]))
        return kernel(x, weights, start, **options)

    monkeypatch.setattr(onednn, "run_kernel", watch)
    for lengths in ([4, 4], [4, 2]):
        for input_size, hidden_size in ((100, 16), (7, 16), (7, 9)):
            lstm = PackedLSTM(input_size, hidden_size, num_layers=2, bidirectional=True)
            with torch.autocast("cpu", torch.bfloat16):
                lstm(torch.randn(2, 4, input_size), torch.tensor(lengths))
    assert seen
    assert all(size % 2 == 0 for size in seen)


def test_a_precision_without_a_kernel_falls_back_to_fp32(monkeypatch):
    """As on processors for which oneDNN says "could not create a primitive descriptor"."""
    kernel = onednn._kernel

    def refuse_bf16(x, *rest):
        if x.dtype == torch.bfloat16:
            raise RuntimeError("could not create a primitive descriptor")
        return kernel(x, *rest)

    onednn._is_supported.cache_clear()
    monkeypatch.setattr(onednn, "_kernel", refuse_bf16)
    try:
        assert choose_dtype(CPU, torch.bfloat16) == torch.float32
        assert describe_kernel(CPU, torch.bfloat16) == (
            "oneDNN's kernel in fp32, as this processor lacks one in bf16"
        )
        lstm, x, lengths = PackedLSTM(3, 4), torch.randn(2, 5, 3), torch.tensor([5, 2])
        with torch.autocast("cpu", torch.bfloat16):
            output, (h, c) = lstm(x, lengths)
        assert (output.dtype, h.dtype, c.dtype) == (torch.bfloat16, torch.bfloat16, torch.float32)
        assert (output.float() - lstm(x, lengths)[0]).abs().max() <= 0.004  # rounded once
    finally:
        onednn._is_supported.cache_clear()


def test_without_any_kernel_it_is_torchs_own(monkeypatch):
    monkeypatch.setattr(onednn, "_is_supported", lambda dtype: False)
    assert choose_dtype(CPU, torch.float32) is None
    assert describe_kernel(CPU, torch.float32) == "torch's padded kernel in fp32"
    assert describe_kernel(torch.device("cuda"), torch.float32) == "cuDNN's kernel"
    assert choose_dtype(CPU, torch.float64) is None


@pytest.mark.parametrize(
    ("most", "native"),
    [
        ("", True),
        ("ALL", True),
        ("AVX512_CORE_BF16", True),
        ("AVX512_CORE", False),
        ("AVX2", False),
    ],
)
def test_auto_takes_no_precision_that_onednn_would_emulate(monkeypatch, most, native):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", most)
    found = runtime.find_precision("auto", CPU)
    assert found == (torch.bfloat16 if native else torch.float32)


@pytest.mark.parametrize("instructions", ["AVX512_CORE", "SSE41"])
def test_equals_the_packed_sequence_on_older_processors(instructions):
    """In new processes, since oneDNN asks only once what the processor supports."""
    environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": instructions}
    if instructions == "SSE41":
        environment["ATEN_CPU_CAPABILITY"] = "default"
    tests = Path(__file__).with_name("test_recurrences.py")
    chosen = "lstm and (packed_sequence or autocast)"
    command = [sys.executable, "-m", "pytest", "-k", chosen, tests]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def is_denormal_zero() -> bool:
    return bool((torch.tensor([1e-39]) * 1).item() == 0)


def test_threads_of_the_recurrence_flush_denormal_numbers(set_threads):
    set_threads(2)
    assert run_side_by_side(lambda number: is_denormal_zero(), 2) == [True, True]


@pytest.mark.parametrize(
    "preparation",
    [
        "from sentiment.environment import prepare_environment as prepare",
        "from sentiment.runtime.device import prepare_threads as prepare",
    ],
)
def test_a_prepared_process_and_its_threads_flush_denormal_numbers(preparation):
    """Several threads compute the sum of a million numbers."""
    program = (
        f"{preparation}\nprepare()\n"
        "import torch\nfrom concurrent.futures import ThreadPoolExecutor\n"
        "torch.set_num_threads(2)\n"
        "def total(): return float((torch.full((1_000_000,), 1e-39) * 1).sum())\n"
        "print(total(), ThreadPoolExecutor(1).submit(total).result())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["0.0", "0.0"]


def test_jobs_run_in_the_callers_modes(set_threads):
    set_threads(2)

    def modes(number):
        return torch.is_grad_enabled(), torch.is_inference_mode_enabled()

    assert run_side_by_side(modes, 2) == [(True, False)] * 2
    with torch.no_grad():
        assert run_side_by_side(modes, 2) == [(False, False)] * 2
    with torch.inference_mode():
        assert run_side_by_side(modes, 2) == [(False, True)] * 2


def test_jobs_run_at_once_and_leave_the_callers_threads_alone(set_threads):
    set_threads(4)
    barrier = threading.Barrier(2, timeout=20)  # breaks if one runs after the other

    def wait(number):
        barrier.wait()
        return torch.get_num_threads()

    assert run_side_by_side(wait, 2) == [2, 2]
    assert torch.get_num_threads() == 4


def test_a_single_thread_runs_all_jobs_itself(set_threads):
    set_threads(1)
    names = run_side_by_side(lambda number: threading.current_thread().name, 2)
    assert names == [threading.current_thread().name] * 2


def test_errors_of_a_job_reach_the_caller():
    def fail(number):
        raise ValueError(f"in job {number}")

    with pytest.raises(ValueError, match="in job 0"):
        run_side_by_side(fail, 2)
