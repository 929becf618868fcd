"""The pretended device itself: its rules, and that it catches faults that a GPU would."""

from __future__ import annotations

import contextlib
import copy

import pytest
import torch
from helpers.pretended_device import PretendedDevice
from torch import nn

from sentiment.explain import attribution
from sentiment.model import SentimentClassifier, layers

LENGTHS = torch.tensor([5, 3])


def make_model(**more: object) -> SentimentClassifier:
    torch.manual_seed(0)
    sizes = {"vocabulary_size": 9, "num_classes": 2, "embedding_size": 4, "hidden_size": 3}
    return SentimentClassifier(**sizes, **more).cuda()


def test_devices_do_not_mix_but_for_single_numbers():
    with PretendedDevice():
        values = torch.ones(3, device="cuda")
        for operation in (torch.add, torch.dot):
            with pytest.raises(RuntimeError, match="at least two devices, cuda:0 and cpu"):
                operation(values, torch.ones(3))
        with pytest.raises(RuntimeError, match="at least two devices"):
            torch.stack((values[0], torch.ones(())))
        total = values + torch.tensor(2.0)
        assert total.device == torch.device("cuda", 0) and total.cpu().tolist() == [3, 3, 3]
        with pytest.raises(TypeError, match="numpy"):
            values.numpy()
    assert not torch.cuda.is_available()


def test_waits_are_logged():
    with PretendedDevice() as device:
        values = torch.arange(4, device="cuda")
        host = torch.arange(4)
        host.pin_memory().to("cuda", non_blocking=True)
        values.mul(2).sum()
        assert device.waits == []
        waiting = [
            lambda: float(values[0]), lambda: bool(values.any()), values.tolist, values.cpu,
            lambda: values[values > 1], values.nonzero, lambda: host.to("cuda"),
            lambda: host.to("cuda", non_blocking=True), lambda: values[host],
            lambda: torch.tensor([1, 2], device="cuda"), lambda: values.copy_(host),
        ]  # fmt: skip
        for number, wait in enumerate(waiting, 1):
            wait()
            assert len(device.waits) == number


def test_random_numbers_are_the_devices_own():
    with PretendedDevice():
        torch.manual_seed(3)
        on_host, on_device = torch.rand(4), torch.rand(4, device="cuda").cpu()
        assert torch.equal(on_host, on_device)  # equal seeds, two generators
        state = torch.cuda.get_rng_state()
        torch.rand(9)
        first = torch.rand(4, device="cuda").cpu()
        torch.cuda.set_rng_state(state)
        assert torch.equal(torch.rand(4, device="cuda").cpu(), first)


def test_cudnn_refuses_states_that_are_not_contiguous():
    with PretendedDevice():
        lstm = nn.LSTM(4, 3).cuda()
        state = torch.zeros(1, 1, 3, device="cuda").expand(1, 2, 3)
        with pytest.raises(RuntimeError, match="rnn: hx is not contiguous"):
            lstm(torch.ones(5, 2, 4, device="cuda"), (state, state))


def test_cudnn_warns_of_weights_in_pieces():
    with PretendedDevice() as device:
        lstm = nn.LSTM(4, 3).cuda()
        lstm(torch.ones(5, 2, 4, device="cuda"))
        assert device.num_compactions == 0
        with pytest.warns(UserWarning, match="not part of single contiguous chunk"):
            copy.deepcopy(lstm)(torch.ones(5, 2, 4, device="cuda"))
        assert device.num_compactions == 1


def test_lengths_left_on_the_cpu_are_found(monkeypatch):
    monkeypatch.setattr(
        layers, "_find_padding", lambda output, lengths: torch.arange(5) >= LENGTHS.unsqueeze(1)
    )
    with PretendedDevice():
        model = make_model()
        with pytest.raises(RuntimeError, match="at least two devices"):
            model(torch.ones(2, 5, dtype=torch.int64, device="cuda"), LENGTHS)


def test_cudnn_left_on_in_explaining_is_found(monkeypatch):
    @contextlib.contextmanager
    def left_on(**_: object):
        yield

    with PretendedDevice():
        model = make_model()
        attribution.integrated_gradients(model, torch.tensor([2, 3, 4]).numpy())
        monkeypatch.setattr(torch.backends.cudnn, "flags", left_on)
        with pytest.raises(RuntimeError, match="can only be called in training mode"):
            attribution.integrated_gradients(model, torch.tensor([2, 3, 4]).numpy())


def test_an_apple_gpu_has_no_fp64():
    with PretendedDevice("mps"):
        values = torch.ones(3, device="mps")
        for operation in (values.double, lambda: torch.zeros(2, dtype=torch.float64).to("mps")):
            with pytest.raises(TypeError, match="float64"):
                operation()
