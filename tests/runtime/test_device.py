"""Which device a name in the settings means."""

import pytest
import torch

from sentiment.runtime.device import find_device
from sentiment.runtime.errors import UserError


@pytest.fixture
def num_gpus(monkeypatch):
    """Sets the number of GPUs of the machine."""

    def set_number(number: int) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: number > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: number)
        monkeypatch.setattr(torch.cuda, "set_device", lambda index: None)

    return set_number


def test_each_rank_of_a_machine_has_a_gpu_of_its_own(num_gpus):
    num_gpus(2)
    assert [find_device("auto", rank).index for rank in range(2)] == [0, 1]
    assert find_device("cpu", 1) == torch.device("cpu")
    num_gpus(0)
    assert find_device("auto", 1) == torch.device("cpu")


@pytest.mark.parametrize(
    ("number", "name", "rank", "message"),
    [
        (2, "cuda:2", None, "'cuda:2', but 2 CUDA devices can be found: use auto or cpu"),
        (1, "cuda:1", None, "'cuda:1', but 1 CUDA device can be found"),
        (0, "cuda", None, "'cuda', but no CUDA device can be found: use auto or cpu"),
        (0, "cuda", 0, "'cuda', but no CUDA device can be found: use auto or cpu"),
        (2, "auto", 2, "rank 2 of this machine has no GPU, as there are 2: .* or give --device"),
        (2, "cuda:1", 0, "'cuda:1', but several ranks need auto, cpu or cuda"),
    ],
)
def test_a_device_that_is_not_there_is_told(num_gpus, number, name, rank, message):
    num_gpus(number)
    with pytest.raises(UserError, match=message):
        find_device(name, rank)
