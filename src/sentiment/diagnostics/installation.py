"""Checks of Python, libraries and the recurrence, and a trial training."""

from __future__ import annotations

import json
import math
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from sentiment.diagnostics.machine import CheckResult
from sentiment.runtime.processes import how_it_ended

if TYPE_CHECKING:
    import torch


_SHOWN = ("torch", "torchtext", "spacy", "datasets", "tensorboard", "numpy")
_TORCH_SECONDS = 60.0
_REINSTALL = "install the package anew: make setup, or pip install -e . in its checkout"


def check_python() -> CheckResult:
    """Python's version against the range that the package names."""
    from packaging.specifiers import SpecifierSet

    version = platform.python_version()
    try:
        wanted = metadata.metadata("sentiment")["Requires-Python"]
    except metadata.PackageNotFoundError:
        return CheckResult(f"{version}; the package itself is not installed", "mend", _REINSTALL)
    if not SpecifierSet(wanted).contains(version, prereleases=True):
        return CheckResult(
            f"{version}, but {wanted} is needed",
            "mend",
            f"make a virtual environment with a Python {wanted} and {_REINSTALL}",
        )
    return CheckResult(version)


def check_libraries() -> CheckResult:
    """The version of each library that the package requires, against its range."""
    try:
        problems = list(_problems())
    except metadata.PackageNotFoundError:
        return CheckResult("unknown: the package itself is not installed", "mend", _REINSTALL)
    if problems:
        wanted = " ".join(f'"{requirement}"' for requirement, _ in problems)
        found = "; ".join(f"{requirement}: {found}" for requirement, found in problems)
        return CheckResult(found, "mend", f"pip install {wanted}")
    return CheckResult(", ".join(f"{name} {metadata.version(name)}" for name in _SHOWN))


def _problems() -> Iterator[tuple[str, str]]:
    """Each requirement that is not met, and what there is instead."""
    from packaging.requirements import Requirement

    for line in metadata.requires("sentiment") or []:
        requirement = Requirement(line)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        wanted = f"{requirement.name}{requirement.specifier}"
        try:
            version = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            yield wanted, "missing"
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            yield wanted, version


def check_torch() -> CheckResult:
    """Whether torch can be loaded and multiplies, in a process that may crash without us."""
    code = "import torch; print(float((torch.ones(64, 64) @ torch.ones(64, 64)).sum()))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=_TORCH_SECONDS,
        check=False,
    )
    if done.returncode != 0 or done.stdout.split()[-1:] != ["262144.0"]:
        return CheckResult(
            f"does not compute: {how_it_ended(done)}",
            "mend",
            "install torch anew, in the build for this machine (https://pytorch.org/get-started); "
            "what needs it was not examined",
        )
    return CheckResult("loads and multiplies")


_SENTENCE = "It isn't Dr. Strange's best (8/10), but I didn't leave."
_TOKENS = ["it", "is", "n't", "dr.", "strange", "'s", "best", "(", "8/10", ")", ",", "but", "i",
           "did", "n't", "leave", "."]  # fmt: skip
_NUM_REVIEWS = {"train": 4_000, "validation": 500, "test": 1_000}


def check_tokenizer() -> CheckResult:
    """Whether spaCy's rules load and cut a sentence as they should."""
    from sentiment.data.tokenizer import tokenize

    cut = tokenize([_SENTENCE], num_processes=1)
    tokens = [cut.lexicon[token] for token in cut.tokens.tolist()]
    if tokens != _TOKENS:
        return CheckResult(
            f"cuts otherwise than it should: {' '.join(tokens)}",
            "mend",
            "words would not be those that runs were trained on: pip install --force-reinstall "
            '"spacy>=3.7,<4"',
        )
    return CheckResult(f"spaCy cuts a sentence into {len(tokens)} tokens")


def check_tensorboard() -> CheckResult:
    """Whether TensorBoard can be started, and reads back what training writes."""
    try:
        import tensorboard.main  # noqa: F401 - what the command imports
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        return CheckResult(
            f"can't be imported: {error}",
            "mend",
            'pip install --upgrade "tensorboard>=2.17" (one before 2.20 also needs '
            '"setuptools<81")',
        )
    with tempfile.TemporaryDirectory() as folder:
        with SummaryWriter(folder) as writer:
            writer.add_scalar("loss/by_epoch", 0.5, 1)
        events = EventAccumulator(folder).Reload()
        values = [event.value for event in events.Scalars("loss/by_epoch")]
    if values != [0.5]:
        return CheckResult(
            f"wrote 0.5 and read {values}", "mend", 'pip install --upgrade "tensorboard>=2.17"'
        )
    return CheckResult("starts, and reads back what is written")


def check_corpus() -> CheckResult:
    """Whether the embedded corpus is there, whole."""
    from sentiment.config.config import DataConfig
    from sentiment.data.reviews import load_split

    try:
        counts = {
            split: len(load_split(DataConfig(), split)) for split in ("train", "validation", "test")
        }
    except (OSError, ValueError) as error:
        return CheckResult("can't be read", "mend", str(error))
    found = " + ".join(f"{count:,}" for count in counts.values()) + " reviews"
    if counts != _NUM_REVIEWS:
        wanted = " + ".join(f"{count:,}" for count in _NUM_REVIEWS.values())
        return CheckResult(
            f"{found}, but {wanted} belong to it",
            "mend",
            "write it again: python data/mini/generate.py",
        )
    return CheckResult(found)


# What the tests allow: absolute of outputs and states, relative of gradients.
_OUTPUT_TOLERANCE = 1e-6
_GRADIENT_TOLERANCE = 1e-4
_BF16_TOLERANCE = 0.05  # of values up to 1, which are rounded to 8 bits over and over

_LENGTHS = (37, 5, 24, 1, 37, 12)
_INPUT_SIZE, _HIDDEN_SIZE, _NUM_LAYERS = 20, 24, 2

Tensors = list["torch.Tensor"]


def check_recurrence() -> CheckResult:
    """``PackedLSTM`` against ``nn.LSTM`` on the ``PackedSequence`` and against the equations."""
    import torch

    from sentiment.model import PackedLSTM, ReferenceLSTM
    from sentiment.model.onednn import describe_kernel
    from sentiment.runtime.device import autocast, exact_fp32, find_device, find_precision

    device = find_device("auto")
    precision = find_precision("auto", device)
    sizes = (_INPUT_SIZE, _HIDDEN_SIZE, _NUM_LAYERS)
    with torch.random.fork_rng(devices=[]), exact_fp32():
        torch.manual_seed(0)
        defined = torch.nn.LSTM(*sizes, batch_first=True, bidirectional=True)
        fast = PackedLSTM(*sizes, bidirectional=True)
        written_out = ReferenceLSTM(*sizes, bidirectional=True)
        for lstm in (fast, written_out):
            lstm.load_state_dict(defined.state_dict())
        x = torch.randn(len(_LENGTHS), max(_LENGTHS), _INPUT_SIZE)
        ours = compute(fast, x, device)
        others = {
            "nn.LSTM": compute(defined, x, device),
            "the equations": compute(written_out, x, device),
        }
        with autocast(device, precision):
            rounded, _ = compute(fast, x, device)
    worst = 0.0
    for name, (outputs, gradients) in others.items():
        by = _largest_difference(ours[0], outputs)
        in_gradients = _largest_relative_difference(ours[1], gradients)
        if not (by <= _OUTPUT_TOLERANCE and in_gradients <= _GRADIENT_TOLERANCE):  # nan is not
            return _wrong(f"is {by:.1g} off {name}, its gradients {in_gradients:.1g}")
        worst = max(worst, by)
    by = _largest_difference(rounded, ours[0])
    if not by <= _BF16_TOLERANCE:
        return _wrong(f"is {by:.1g} off its fp32 in {str(precision).removeprefix('torch.')}")
    in_bf16 = f"; bf16 is {by:.1g} off" if precision == torch.bfloat16 else ""
    return CheckResult(
        f"equals nn.LSTM and the equations within {worst:.1g} on {device}{in_bf16}; training runs "
        f"{describe_kernel(device, precision)}"
    )


def compute(lstm: torch.nn.LSTM, x: torch.Tensor, device: torch.device) -> tuple[Tensors, Tensors]:
    """Run an LSTM over reviews of several lengths, forward and backward.

    Args:
        lstm: ours, called with lengths, or ``nn.LSTM`` itself, called on a ``PackedSequence``.
        x: (batch, time, input_size), on the CPU.
        device: where to compute.

    Returns:
        Output, final h and c, and the gradients of a weighted sum of the three by the input and by
        each weight; all fp32 on the CPU.
    """
    import torch
    from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

    lengths = torch.tensor(_LENGTHS)
    x = x.to(device).requires_grad_()
    lstm = lstm.to(device)
    if type(lstm) is torch.nn.LSTM:
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        output, (h, c) = lstm(packed)
        output, _ = pad_packed_sequence(output, batch_first=True)
    else:
        output, (h, c) = lstm(x, lengths)
    outputs = [each.float() for each in (output, h, c)]
    generator = torch.Generator().manual_seed(1)
    weights = [torch.randn(each.shape, generator=generator).to(device) for each in outputs]
    weighted = [each * weight for each, weight in zip(outputs, weights, strict=True)]
    total = torch.stack([each.sum() for each in weighted]).sum()
    gradients = torch.autograd.grad(total, [x, *lstm.parameters()])
    return [each.detach().cpu() for each in outputs], [each.float().cpu() for each in gradients]


def _largest_difference(first: Tensors, second: Tensors) -> float:
    pairs = zip(first, second, strict=True)
    return max(float((one - other).abs().max()) for one, other in pairs)


def _largest_relative_difference(first: Tensors, second: Tensors) -> float:
    pairs = zip(first, second, strict=True)
    return max(float((one - other).norm() / other.norm()) for one, other in pairs)


def _wrong(found: str) -> CheckResult:
    return CheckResult(
        found,
        "mend",
        "models trained here would be wrong: install another version of torch (make test tells "
        "more), or train with --model.implementation reference",
    )


_MOST_SECONDS = 90.0
_SLOW_SECONDS = 25.0  # two cores take 7
_LEAST_ACCURACY = 0.7  # seeds reach 83 to 92 %, guessing 50 ± 4

_TRAIN = "import sys; from sentiment.cli.main import main; sys.exit(main(sys.argv[1:]))"
_SETTINGS = [
    "--training.num_epochs=1", "--training.batch_size=16", "--training.learning_rate=0.01",
    "--training.schedule=linear", "--training.pictures=false", "--model.embedding_size=50",
    "--model.hidden_size=64", "--model.embedding_dropout=0", "--model.dropout=0",
]  # fmt: skip


def check_training() -> CheckResult:
    """Train for an epoch on the embedded corpus, in a temporary folder, and see that it learns."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        places = [f"--output_dir={run}", f"--data.cache_dir={folder}/cache"]
        started = time.perf_counter()
        try:
            done = subprocess.run(
                [sys.executable, "-c", _TRAIN, "train", *places, *_SETTINGS],
                capture_output=True,
                text=True,
                timeout=_MOST_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return CheckResult(
                f"not done after {_MOST_SECONDS:.0f} s",
                "mend",
                "two cores take some 7 s: see what else computes here, and the cores above",
            )
        seconds = time.perf_counter() - started
        if done.returncode != 0:
            return CheckResult(
                f"failed: {how_it_ended(done)}",
                "mend",
                "mend what stands above first; what is left, make train tells in full",
            )
        (epoch,) = json.loads((run / "metrics.json").read_text(encoding="utf-8"))["epochs"]
    return judge(epoch["training"]["loss"], epoch["validation"]["accuracy"], seconds)


def judge(loss: float, accuracy: float, seconds: float) -> CheckResult:
    """What a training's loss, validation accuracy (0 to 1) and duration say."""
    found = f"{100 * accuracy:.1f} % of validation right, {seconds:.0f} s"
    if not (math.isfinite(loss) and accuracy >= _LEAST_ACCURACY):
        return CheckResult(
            f"learned too little: loss {loss:.3f}, {found}",
            "mend",
            f"{100 * _LEAST_ACCURACY:.0f} % at least were expected: install torch anew, and "
            "see that make test passes",
        )
    if seconds > _SLOW_SECONDS:
        return CheckResult(
            found, "note", "two cores take some 7 s: see what else computes here, and the cores"
        )
    return CheckResult(found)
