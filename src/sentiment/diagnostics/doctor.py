"""Doctor's checks, of which machine.py holds those of the machine, and their report."""

from __future__ import annotations

import json
import math
import platform
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from sentiment.diagnostics import machine
from sentiment.diagnostics.machine import CheckResult
from sentiment.display.console import COLUMNS, format_table, sanitize
from sentiment.runtime.processes import describe_exit

if TYPE_CHECKING:
    import torch

    from sentiment.data.reviews import Split


_SHOWN = ("torch", "torchtext", "spacy", "datasets", "tensorboard", "numpy")
_REINSTALL = "reinstall the package: make setup, or pip install -e . in its checkout"


def check_python() -> CheckResult:
    """Python's version, compared with the range in the package's metadata."""
    from packaging.specifiers import SpecifierSet

    version = platform.python_version()
    try:
        required = metadata.metadata("sentiment")["Requires-Python"]
    except metadata.PackageNotFoundError:
        return CheckResult(f"{version}; the package itself is not installed", "fail", _REINSTALL)
    if not SpecifierSet(required).contains(version, prereleases=True):
        advice = f"make a virtual environment with Python {required}, and {_REINSTALL}"
        return CheckResult(f"{version}, but {required} is required", "fail", advice)
    return CheckResult(version)


def check_libraries() -> CheckResult:
    """The versions of the libraries, compared with the ranges in the package's metadata."""
    try:
        problems = list(_problems())
    except metadata.PackageNotFoundError:
        return CheckResult("unknown: the package itself is not installed", "fail", _REINSTALL)
    if problems:
        required = " ".join(f'"{requirement}"' for requirement, _ in problems)
        message = "; ".join(f"{requirement}: {version}" for requirement, version in problems)
        return CheckResult(message, "fail", f"pip install {required}")
    return CheckResult(", ".join(f"{name} {metadata.version(name)}" for name in _SHOWN))


def _problems() -> Iterator[tuple[str, str]]:
    """Each requirement that is not met, and the installed version or "missing"."""
    from packaging.requirements import Requirement

    for line in metadata.requires("sentiment") or []:
        requirement = Requirement(line)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        required = f"{requirement.name}{requirement.specifier}"
        try:
            version = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            yield required, "missing"
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            yield required, version


def _run_python(*arguments: str, timeout: float) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)


def _describe_failure(process: subprocess.CompletedProcess[str]) -> str:
    return describe_exit(process.returncode, process.stderr.strip() or process.stdout)


def check_torch() -> CheckResult:
    """Whether torch loads and multiplies, in another process, which may crash."""
    code = "import torch; print(float((torch.ones(64, 64) @ torch.ones(64, 64)).sum()))"
    process = _run_python("-c", code, timeout=60)
    if process.returncode != 0 or process.stdout.split()[-1:] != ["262144.0"]:
        return CheckResult(
            f"does not compute: {_describe_failure(process)}",
            "fail",
            "reinstall torch, in the build for this machine (https://pytorch.org/get-started); "
            "the checks that need it were skipped",
        )
    return CheckResult("loads and multiplies")


_SENTENCE = "It isn't Dr. Strange's best (8/10), but I didn't leave."
_TOKENS = ["it", "is", "n't", "dr.", "strange", "'s", "best", "(", "8/10", ")", ",", "but", "i",
           "did", "n't", "leave", "."]  # fmt: skip
_NUM_REVIEWS: dict[Split, int] = {"train": 4_000, "validation": 500, "test": 1_000}


def check_tokenizer() -> CheckResult:
    """Whether spaCy's rules load and split a sentence as expected."""
    from sentiment.data.tokenizer import tokenize

    tokenized = tokenize([_SENTENCE], num_processes=1)
    tokens = [tokenized.lexicon[token] for token in tokenized.tokens.tolist()]
    if tokens != _TOKENS:
        return CheckResult(
            f"splits a sentence wrongly: {' '.join(tokens)}",
            "fail",
            "tokens would differ from those that runs were trained on: pip install "
            '--force-reinstall "spacy>=3.7,<4"',
        )
    return CheckResult(f"spaCy splits a sentence into {len(tokens)} tokens")


def check_tensorboard() -> CheckResult:
    """Whether TensorBoard starts, and reads back what training writes."""
    try:
        import tensorboard.main  # noqa: F401 - the command imports it
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        return CheckResult(
            f"can't be imported: {error}",
            "fail",
            'pip install --upgrade "tensorboard>=2.17" (before 2.20 it also needs "setuptools<81")',
        )
    with tempfile.TemporaryDirectory() as folder:
        with SummaryWriter(folder) as writer:
            writer.add_scalar("loss/by_epoch", 0.5, 1)
        events = EventAccumulator(folder).Reload()
        values = [event.value for event in events.Scalars("loss/by_epoch")]
    if values != [0.5]:
        advice = 'pip install --upgrade "tensorboard>=2.17"'
        return CheckResult(f"wrote 0.5 and read {values}", "fail", advice)
    return CheckResult("starts, and reads back what was written")


def check_corpus() -> CheckResult:
    """Whether the embedded corpus is complete."""
    from sentiment.config.config import DataConfig
    from sentiment.data.reviews import load_split

    try:
        counts = {split: len(load_split(DataConfig(), split)) for split in _NUM_REVIEWS}
    except (OSError, ValueError) as error:
        return CheckResult("can't be read", "fail", str(error))
    message = f"{' + '.join(f'{count:,}' for count in counts.values())} reviews"
    if counts != _NUM_REVIEWS:
        expected = " + ".join(f"{count:,}" for count in _NUM_REVIEWS.values())
        advice = "generate it again: python data/mini/generate.py"
        return CheckResult(f"{message} instead of {expected}", "fail", advice)
    return CheckResult(message)


# Tolerances of the tests: absolute for outputs and states, relative for gradients.
_OUTPUT_TOLERANCE = 1e-6
_GRADIENT_TOLERANCE = 1e-4
_BF16_TOLERANCE = 0.05  # values up to 1, rounded to 8 bits many times

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
        reference = torch.nn.LSTM(*sizes, batch_first=True, bidirectional=True)
        packed = PackedLSTM(*sizes, bidirectional=True)
        equations = ReferenceLSTM(*sizes, bidirectional=True)
        for lstm in (packed, equations):
            lstm.load_state_dict(reference.state_dict())
        x = torch.randn(len(_LENGTHS), max(_LENGTHS), _INPUT_SIZE)
        outputs, gradients = run_lstm(packed, x, device)
        expected = {
            "nn.LSTM": run_lstm(reference, x, device),
            "the equations": run_lstm(equations, x, device),
        }
        with autocast(device, precision):
            rounded, _ = run_lstm(packed, x, device)
    largest = 0.0
    for name, (expected_outputs, expected_gradients) in expected.items():
        error = _largest_difference(outputs, expected_outputs)
        gradient_error = _largest_relative_difference(gradients, expected_gradients)
        # Written so that NaN fails.
        if not (error <= _OUTPUT_TOLERANCE and gradient_error <= _GRADIENT_TOLERANCE):
            return _wrong(f"differs from {name} by {error:.1g}, gradients by {gradient_error:.1g}")
        largest = max(largest, error)
    error = _largest_difference(rounded, outputs)
    if not error <= _BF16_TOLERANCE:
        return _wrong(f"{str(precision).removeprefix('torch.')} differs from fp32 by {error:.1g}")
    in_bf16 = f"; bf16 differs by {error:.1g}" if precision == torch.bfloat16 else ""
    return CheckResult(
        f"equals nn.LSTM and the equations within {largest:.1g} on {device}{in_bf16}; training "
        f"runs {describe_kernel(device, precision)}"
    )


def run_lstm(lstm: torch.nn.LSTM, x: torch.Tensor, device: torch.device) -> tuple[Tensors, Tensors]:
    """Run our LSTM, or ``nn.LSTM`` on a ``PackedSequence``, over x: (batch, time, input_size).

    Returns output, final h and c, and the gradients of a weighted sum of the three by the input and
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
    outputs = [tensor.float() for tensor in (output, h, c)]
    generator = torch.Generator().manual_seed(1)
    weights = [torch.randn(tensor.shape, generator=generator).to(device) for tensor in outputs]
    pairs = zip(outputs, weights, strict=True)
    total = torch.stack([(tensor * weight).sum() for tensor, weight in pairs]).sum()
    gradients = torch.autograd.grad(total, [x, *lstm.parameters()])
    return [tensor.detach().cpu() for tensor in outputs], [grad.float().cpu() for grad in gradients]


def _largest_difference(first: Tensors, second: Tensors) -> float:
    return max(float((a - b).abs().max()) for a, b in zip(first, second, strict=True))


def _largest_relative_difference(first: Tensors, second: Tensors) -> float:
    return max(float((a - b).norm() / b.norm()) for a, b in zip(first, second, strict=True))


def _wrong(message: str) -> CheckResult:
    return CheckResult(
        message,
        "fail",
        "models trained here would be wrong: install another version of torch (make test shows "
        "more), or train with --model.implementation reference",
    )


_MAX_SECONDS = 300.0  # a busy machine takes a minute or two
_SLOW_SECONDS = 25.0  # two cores take 7
_MIN_ACCURACY = 0.7  # seeds reach 83 to 92 %, guessing 50 ± 4

_SETTINGS = [
    "--training.num_epochs=1", "--training.batch_size=16", "--training.learning_rate=0.01",
    "--training.schedule=linear", "--training.pictures=false", "--model.embedding_size=50",
    "--model.hidden_size=64", "--model.embedding_dropout=0", "--model.dropout=0",
]  # fmt: skip
_CORES_HINT = "two cores take about 7 s: see what else is running, and the check of the cores"


def check_training() -> CheckResult:
    """Whether one epoch on the embedded corpus, in a temporary folder, learns."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        folders = [f"--output_dir={run}", f"--data.cache_dir={folder}/cache"]
        started = time.perf_counter()
        try:
            train = ("-m", "sentiment", "train", *folders, *_SETTINGS)
            process = _run_python(*train, timeout=_MAX_SECONDS)
        except subprocess.TimeoutExpired:
            return CheckResult(f"not finished after {_MAX_SECONDS:.0f} s", "fail", _CORES_HINT)
        seconds = time.perf_counter() - started
        if process.returncode != 0:
            advice = "solve the problems above first; make train shows the full message"
            return CheckResult(f"failed: {_describe_failure(process)}", "fail", advice)
        (epoch,) = json.loads((run / "metrics.json").read_text(encoding="utf-8"))["epochs"]
    return judge_training(epoch["training"]["loss"], epoch["validation"]["accuracy"], seconds)


def judge_training(loss: float, accuracy: float, seconds: float) -> CheckResult:
    """Judge a training by its loss, validation accuracy (0 to 1) and duration."""
    message = f"validation accuracy {100 * accuracy:.1f} %, {seconds:.0f} s"
    if not (math.isfinite(loss) and accuracy >= _MIN_ACCURACY):
        return CheckResult(
            f"learned too little: loss {loss:.3f}, {message}",
            "fail",
            f"at least {100 * _MIN_ACCURACY:.0f} % were expected: reinstall torch, and check that "
            "make test passes",
        )
    if seconds > _SLOW_SECONDS:
        return CheckResult(message, "warn", _CORES_HINT)
    return CheckResult(message)


Checks = Mapping[str, Callable[[], CheckResult]]

# They need only Python, and their results explain why later checks fail.
WITHOUT_TORCH: Checks = {
    "Python": check_python,
    "libraries": check_libraries,
    "memory": machine.check_memory,
    "cache folder": machine.check_cache_folder,
    "current folder": machine.check_current_folder,
    "environment": machine.check_environment,
}
# They load torch into this process, so they run only if it loads in another one.
WITH_TORCH: Checks = {
    "device": machine.check_device,
    "precision": machine.check_precision,
    "cores": machine.check_cores,
    "huge pages": machine.check_huge_pages,
    "tokenizer": check_tokenizer,
    "TensorBoard": check_tensorboard,
    "corpus": check_corpus,
    "recurrence": check_recurrence,
    "training": check_training,
}

_NAME_WIDTH = 14
_STATUS_WIDTH = 4


def run_checks() -> Iterator[tuple[str, CheckResult]]:
    """Yield the name and result of each check; if torch does not load, of those without it."""
    for name, check in WITHOUT_TORCH.items():
        yield name, _run(check)
    torch = _run(check_torch)
    yield "torch", torch
    if torch.status != "fail":
        for name, check in WITH_TORCH.items():
            yield name, _run(check)


def _run(check: Callable[[], CheckResult]) -> CheckResult:
    """Run a check; any exception is a failure, as an installation may be broken in any way."""
    try:
        return check()
    except Exception as error:
        return CheckResult(
            f"{type(error).__name__}: {error}",
            "fail",
            "the check itself failed: reinstall the package (make setup); if that does not help, "
            "report it with the output of sentiment doctor --json",
        )


def format_result(name: str, result: CheckResult) -> str:
    """The row of the table for one check; a long message takes several lines."""
    widths = (_NAME_WIDTH, COLUMNS - _NAME_WIDTH - _STATUS_WIDTH - 4, _STATUS_WIDTH)
    row = (name, result.message, result.status)
    return format_table([row], align="<", min_widths=widths, flexible=1, wrap=True, indent=0)


def format_advice(results: Mapping[str, CheckResult]) -> str:
    """The advice of each check that is not ok, failures first."""
    paragraphs = [
        textwrap.fill(
            f"{status}  {name}: {sanitize(result.advice)}",
            COLUMNS,
            subsequent_indent=" " * (_STATUS_WIDTH + 2),
            break_long_words=False,  # so that commands and paths can be copied
            break_on_hyphens=False,
        )
        for status in ("fail", "warn")
        for name, result in results.items()
        if result.status == status
    ]
    return "\n".join(paragraphs)


def results_json(results: Mapping[str, CheckResult]) -> str:
    checks = [{"name": name, **asdict(result)} for name, result in results.items()]
    return json.dumps({"is_sound": not count_failures(results), "checks": checks}, indent=2)


def count_failures(results: Mapping[str, CheckResult]) -> int:
    return sum(result.status == "fail" for result in results.values())
