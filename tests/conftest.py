"""Fixtures that several packages' tests share, and the environment of all tests."""

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from helpers.corpus import write_corpus
from hypothesis import settings

from sentiment.environment import keep_tensorflow_out

# Set before torch is imported: one thread is fastest for tensors this small, and every worker of
# pytest-xdist and every process that a test starts keeps to one core.
os.environ.setdefault("OMP_NUM_THREADS", "1")
keep_tensorflow_out()  # before a helper imports TensorBoard

settings.register_profile("tests", deadline=None)  # a busy machine is no fault
settings.load_profile("tests")


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("cuda") is not None:
        import torch

        if not torch.cuda.is_available():
            pytest.skip("needs an NVIDIA GPU")


@pytest.fixture
def set_threads() -> Iterator[Callable[[int], None]]:
    """Sets torch's number of threads, until the test ends."""
    import torch

    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with 240 training, 60 validation and 60 test reviews."""
    folder = tmp_path_factory.mktemp("corpus")
    return write_corpus(folder, splits={"train": 240, "validation": 60, "test": 60})


@pytest.fixture(scope="session")
def trained_run(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny run, trained for two epochs on ``corpus``; tests must not change it."""
    from helpers.trainings import train

    return train(corpus, tmp_path_factory.mktemp("trained") / "run", "--data.max_length=20")


@pytest.fixture(scope="session", autouse=True)
def separate_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Each worker has a cache of its own; no test reads or fills the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))
        yield


@pytest.fixture(autouse=True)
def denormals() -> Iterator[None]:
    """Undo the flushing of denormal numbers that a command called by a test switches on."""
    yield
    if "torch" in sys.modules:
        sys.modules["torch"].set_flush_denormal(False)
