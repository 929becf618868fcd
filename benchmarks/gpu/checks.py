"""Steps that check: versions, tests, model kinds against the CPU, waits for the device."""

from __future__ import annotations

import copy
import functools
import itertools
import subprocess
import sys
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.corpus import synthetic_corpus
from benchmarks.gpu.options import ROOT, Options, Outcome
from benchmarks.machine import describe_machine
from benchmarks.measure import Row
from benchmarks.training import CONFIG, make_parts
from sentiment.config.config import Config, ObjectivesConfig
from sentiment.model import SentimentClassifier
from sentiment.runtime.device import exact_fp32, find_device, set_up
from sentiment.training.meters import MeanMeter

SECTION = "GPU: checks"
_MAX_DIFFERENCE = 1e-3  # relative, of fp32 sums in another order
_NUM_UPDATES = 10


def versions(options: Options) -> Outcome:
    """The machine, and the versions that decide which kernels run."""
    device = find_device(options.device)
    details = describe_machine() | {
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
    }
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        details["capability"] = list(torch.cuda.get_device_capability(device))
        details["memory_gb"] = round(properties.total_memory / 1e9, 1)
        details["multiprocessors"] = properties.multi_processor_count
    return Outcome([], details)


def tests(options: Options) -> Outcome:
    """The tests marked cuda; without a GPU they are skipped."""
    marked = [
        str(path)
        for path in sorted((ROOT / "tests").rglob("test_*.py"))
        if "mark.cuda" in path.read_text(encoding="utf-8")
    ]
    # Without the cache's plugin, so that a checkout that cannot be written does for it.
    command = ["pytest", "-m", "cuda", "-rfE", "-p", "no:cacheprovider", *marked]
    run = subprocess.run(
        [sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, check=False
    )
    print(run.stdout, run.stderr)
    lines = run.stdout.strip().splitlines() or [run.stderr.strip()]
    summary = lines[-1].strip("= ")
    problem = f"pytest: {summary}" if run.returncode else ""
    row = Row(SECTION, "tests that need a GPU", None, value=summary)
    return Outcome([row], {"output": lines[-40:]}, problem)


def kinds(options: Options) -> Outcome:
    """Logits and gradients of every kind of model, against those of the same model on the CPU."""
    device = find_device(options.device)
    differences: dict[str, float] = {}
    errors: dict[str, str] = {}
    variants: list[dict[str, Any]] = [
        {"pooling": "last+max+mean"},
        {"pooling": "attention", "bidirectional": False},
        {"pooling": "max", "num_layers": 2},
        {"pooling": "mean", "learned_initial_state": True},
        {"pooling": "last", "normalize_embedding": True, "frequencies": range(1, 51)},
    ]
    cells = [{"cell": cell} for cell in ("lstm", "gru", "rnn")]
    cells += [{"cell": "lstm", "implementation": "reference"}]
    for cell, variant in itertools.product(cells, variants):
        chosen = {**cell, **variant}
        name = ", ".join(
            str(value) if key in ("cell", "implementation", "pooling") else f"{key} {value}"
            for key, value in chosen.items()
            if key != "frequencies"
        )
        try:
            differences[name] = _difference(device, chosen)
        except RuntimeError as error:  # recorded, so that the other kinds are compared too
            errors[name] = str(error)
    largest = max(differences.values(), default=float("nan"))
    value = f"{len(differences)} kinds, largest relative difference {largest:.1e}"
    wrong = [name for name, found in differences.items() if not found <= _MAX_DIFFERENCE]
    problem = "; ".join([*wrong, *(f"{name}: {text}" for name, text in errors.items())])
    row = Row(SECTION, "logits and gradients of model kinds vs the CPU", None, value=value)
    return Outcome([row], {"differences": differences, "errors": errors}, problem)


def _difference(device: torch.device, chosen: dict[str, Any]) -> float:
    """The largest difference of logits and gradients, relative to the largest value of each."""
    torch.manual_seed(0)
    here = SentimentClassifier(
        vocabulary_size=50, num_classes=3, embedding_size=20, hidden_size=32, **chosen
    )
    there = copy.deepcopy(here).to(device)
    lengths = torch.tensor([30, 29, 12, 5, 1])
    tokens = torch.randint(2, 50, (len(lengths), 30))
    tokens[torch.arange(30) >= lengths.unsqueeze(1)] = 0
    labels = torch.tensor([0, 1, 2, 1, 0])
    found = []
    for model in (here, there):
        place = model.output.weight.device
        with exact_fp32():
            logits = model(tokens.to(place), lengths)
            nn.functional.cross_entropy(logits, labels.to(place)).backward()
        gradients = [each.grad for each in model.parameters() if each.grad is not None]
        found.append([each.detach().cpu() for each in (logits, *gradients)])
    pairs = zip(*found, strict=True)
    return max(float((a - b).abs().max() / a.abs().max().clamp(min=1e-6)) for a, b in pairs)


def waits(options: Options) -> Outcome:
    """How often an update waits for the device, by the line that does, between two log points."""
    device = find_device(options.device)
    set_up(device, 0)
    training = replace(CONFIG.training, average_decay=0.998, nonfinite="skip")
    virtual = ObjectivesConfig(virtual_adversarial=1.0, unlabelled=False)
    configs = {
        "an update": CONFIG,
        "an update that averages weights and skips non-finite losses": replace(
            CONFIG, training=training
        ),
        "an update of virtual adversarial training": replace(CONFIG, objectives=virtual),
    }
    rows, details = [], {}
    for name, config in configs.items():
        lines = _count_waits(device, _small(config) if options.is_dry else config)
        details[name] = dict(lines)
        value = f"{sum(lines.values()) / _NUM_UPDATES:g} an update (goal 0)"
        if device.type != "cuda":
            value = "only CUDA tells"
        rows.append(Row(SECTION, f"waits for the device in {name}", None, value=value))
    return Outcome(rows, details)


def _small(config: Config) -> Config:
    return replace(config, model=replace(config.model, embedding_size=8, hidden_size=8))


def _count_waits(device: torch.device, config: Config) -> Counter[str]:
    """Waits in some updates by source line; none are seen on a CPU."""
    batch_size = config.training.batch_size
    corpus = synthetic_corpus(2 * _NUM_UPDATES * batch_size, max_length=100)
    parts, sums = make_parts(corpus, device, config=config), MeanMeter(device)
    groups = parts.groups()
    update: Callable[..., object] = functools.partial(_update_all, parts.step, sums)
    update(groups[_NUM_UPDATES:])  # memory and kernels are ready after these
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if device.type == "cuda":
            torch.cuda.set_sync_debug_mode("warn")
        try:
            update(groups[:_NUM_UPDATES])
        finally:
            if device.type == "cuda":
                torch.cuda.set_sync_debug_mode("default")
    return Counter(
        f"{_relative(warning.filename)}:{warning.lineno}"
        for warning in caught
        if "synchronizing CUDA operation" in str(warning.message)
    )


def _update_all(
    step: Callable[..., object], sums: MeanMeter, groups: list[list[torch.Tensor]]
) -> None:
    for group in groups:
        step(group, sums)


def _relative(filename: str) -> str:
    path = Path(filename)
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else "/".join(path.parts[-3:])
