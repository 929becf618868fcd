"""Steps that train by the program's own commands."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.gpu.options import ROOT, Options, Outcome
from benchmarks.measure import Row, faster

SECTION = "GPU: training on IMDB"
_GOAL_SECONDS = 3.0  # of an epoch of the default model, on an H100
_MINI = ROOT / "src" / "sentiment" / "data" / "mini"
_VECTORS = "vectors.300d.txt.gz"
_NUM_SMALL = 400  # reviews of a dry run
_SMALL = ["--model.hidden_size=8", "--data.max_length=40", "--training.log_every=5"]


def epoch(options: Options) -> Outcome:
    """The default model: the second epoch, when everything is warm."""
    run = _train(options, "epoch", "--training.num_epochs=2")
    epochs = [each["training"] for each in _read(run / "metrics.json")["epochs"]]
    seconds = epochs[-1]["seconds"]
    name = "epoch of the default model on IMDB vs 3 s"
    row = faster(SECTION, name, [_GOAL_SECONDS], [seconds], 1.0, headline=True)
    return Outcome([row], {"epochs": epochs})


def imdb(options: Options) -> Outcome:
    """``configs/imdb.yaml`` as it is, from reading the reviews to the last validation."""
    vectors = ROOT / "data" / "mini" / "vectors.50d.txt"
    sizes = ["--model.embedding_size=50", "--pretraining.num_candidates=16"]
    if not options.is_dry:
        vectors, sizes = Path(options.kit) / _VECTORS, []
    started = time.perf_counter()
    config = ROOT / "configs" / "imdb.yaml"
    run = _train(options, "imdb", f"--config={config}", f"--vectors.path={vectors}", *sizes)
    seconds = time.perf_counter() - started
    last = _read(run / "metrics.json")["epochs"][-1]
    language_model = _read(run.with_name(f"{run.name}-pretraining") / "run.json")["result"]
    training, accuracy = last["training"], last["validation"]["accuracy"]
    values = {
        "configs/imdb.yaml, everything": f"{seconds:.0f} s",
        "configs/imdb.yaml, its epoch": f"{training['seconds']:.2f} s, "
        f"{training['tokens_per_second']:,.0f} tokens/s",
        "configs/imdb.yaml, its language model": f"{language_model['seconds']:.2f} s",
        "configs/imdb.yaml, accuracy on held-out stretches": f"{100 * accuracy:.2f} %",
    }
    rows = [Row(SECTION, name, None, value=value) for name, value in values.items()]
    return Outcome(rows, {"epoch": last, "language_model": language_model})


def resume(options: Options) -> Outcome:
    """``--verify_resume`` on the mini corpus, with and without cuBLAS's fixed workspace.

    A difference is a finding, not a failure.
    """
    rows, problems = [], []
    values = {"without": ""} if options.is_dry else {"with": ":4096:8", "without": ""}
    for name, value in values.items():
        arguments = ["--output_dir", str(Path(options.work) / "unused"), "--verify_resume"]
        arguments += ["--training.num_epochs=1", f"--device={options.device}"]
        arguments += [*_reviews(options), *_SMALL] if options.is_dry else []
        output = _run("train", *arguments, variables={"CUBLAS_WORKSPACE_CONFIG": value})
        found = [line for line in output.splitlines() if "equal" in line or "differs" in line]
        if not found:
            problems.append(f"{name}: {output.strip()[-300:]}")
        title = f"a killed and resumed run, {name} CUBLAS_WORKSPACE_CONFIG"
        rows.append(Row(SECTION, title, None, value=found[-1] if found else "failed"))
    return Outcome(rows, {}, "; ".join(problems))


def virtual_adversarial(options: Options) -> Outcome:
    """One epoch of the default model, with the unlabelled reviews."""
    objective = "--objectives.virtual_adversarial=1"
    run = _train(options, "virtual", objective, "--training.num_epochs=1")
    last = _read(run / "metrics.json")["epochs"][-1]["training"]
    speed = f"{last['tokens_per_second']:,.0f} tokens/s with the unlabelled reviews"
    value = f"{last['seconds']:.2f} s, {speed}"
    row = Row(SECTION, "epoch of virtual adversarial training", None, value=value)
    return Outcome([row], {"epoch": last})


def pretraining(options: Options) -> Outcome:
    """One epoch of the default model's language model, on the labelled reviews."""
    arguments = ["--pretraining.num_epochs=1", "--pretraining.unlabelled=false"]
    run = _train(options, "language-model", *arguments, command="pretrain")
    result = _read(run / "run.json")["result"]
    value = f"{result['seconds']:.2f} s"
    row = Row(SECTION, "epoch of a language model on the labelled reviews", None, value=value)
    return Outcome([row], {"result": result})


def _train(options: Options, name: str, *arguments: str, command: str = "train") -> Path:
    """Train a new run; raises ``RuntimeError`` if that fails."""
    run = Path(options.work) / name
    places = [f"--output_dir={run}", f"--device={options.device}", *_reviews(options)]
    sizes = _SMALL if options.is_dry else []
    _run(command, *arguments, *places, *sizes, is_checked=True)
    return run


def _reviews(options: Options) -> list[str]:
    """Options that name the kit's reviews, whose tokens have spaces between them, or small ones."""
    if options.kit:
        folder = Path(options.kit) / "reviews"
        # In English, the program itself would split some of the tokens again.
        return [f"--data.path={folder}", "--data.class_names=[neg,pos]", "--data.language=xx"]
    folder = Path(options.work) / "reviews"
    if not folder.exists():
        _write_small(folder)
    return [f"--data.path={folder}"]


def _write_small(folder: Path) -> None:
    """The first reviews of the mini corpus, and others without their labels."""
    folder.mkdir()
    for source, split in (("train", "train"), ("validation", "unsupervised")):
        with (_MINI / f"{source}.csv").open(encoding="utf-8", newline="") as file:
            reviews = list(csv.reader(file))[: _NUM_SMALL + 1]
        with (folder / f"{split}.csv").open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows(row[: 1 + (split == "train")] for row in reviews)


def _run(
    command: str,
    *arguments: str,
    variables: dict[str, str] | None = None,
    is_checked: bool = False,
) -> str:
    """Run one of the program's commands; its output, which is printed too, for the log."""
    process = subprocess.run(
        [sys.executable, "-m", "sentiment", command, *arguments],
        cwd=ROOT,
        env=os.environ | (variables or {}),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    print(process.stdout, flush=True)
    if is_checked and process.returncode:
        raise RuntimeError(f"sentiment {command} failed with exit status {process.returncode}")
    return process.stdout


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
