"""The accuracy of the recipes and of their variants: trains them and writes docs/accuracy.md.

    python -m studies.ablation --data FOLDER --vectors FOLDER [--only NAME ...] [--seeds 0 1 2]

``--vectors`` is a folder with ``imdb.glove.100d.txt`` and ``imdb.glove.300d.txt``. Each training is
a run under ``--runs``; finished runs are not trained again, stopped ones are resumed. All results
are written to studies/accuracy.json and to the table and picture of docs/accuracy.md.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from sentiment.baseline.folder import baseline_folder
from sentiment.config.config import deciding_settings, first_difference
from sentiment.config.parser import load_config, parse_training
from sentiment.display.plots import COLORS, new_figure, save_figure
from sentiment.runs.manifest import holds_baseline
from studies import fill, markdown_table

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "accuracy.md"
PICTURE = PAGE.with_suffix(".svg")
RESULTS = Path(__file__).with_name("accuracy.json")
CHECK = Path("evaluation", "check", "check.json")  # in a run's folder
ALONE_REPORT = Path("evaluation", "validation", "report.json")
ENSEMBLE_REPORT = Path("evaluation", "validation-ensemble", "report.json")
CAPABILITIES = ("negation", "turns")  # of the behaviour tests, whose failures are shown


@dataclass(frozen=True)
class Variant:
    """A row of the table.

    Attributes:
        title: of the row.
        config: name of the settings file.
        options: changes to its settings.
        dimension: of the vectors.
        words: name of a language model to pre-train and start from; None leaves it to the settings.
    """

    title: str
    config: str = "imdb"
    options: tuple[str, ...] = ()
    dimension: int = 100
    words: str | None = None


_RUN_SETTINGS = (  # in which the runs of a variant differ
    "seed", "data.path", "vectors.path", "pretraining.path", "distillation.num_teachers",
)  # fmt: skip
ALONE = (  # the recipe without its teacher and its language model, which needs more epochs
    "--distillation.baseline=false", "--pretraining.num_epochs=0", "--training.num_epochs=3",
)  # fmt: skip
SHORT = (  # cut reviews and small vectors: the recipe of earlier versions
    *ALONE, "--data.max_length=400", "--model.embedding_size=100", "--vectors.name=glove.6B.100d",
    "--training.warmup_share=0", "--pretraining.window=100", "--pretraining.unlabelled=true",
    "--training.pieces=0", "--training.contrasts=0",
)  # fmt: skip
VARIANTS = {
    "tutorial": Variant("`configs/tutorial.yaml`", config="tutorial"),
    "imdb": Variant("`configs/imdb.yaml`", dimension=300, words="imdb"),
    "imdb-names": Variant(
        "… with the names that `vocabulary.min_spread` leaves out",
        options=("--vocabulary.min_spread=0",), dimension=300, words="imdb-names",
    ),
    "imdb-no-contrasts": Variant(
        "… with a third excerpt of each review instead of contrast texts",
        options=("--training.pieces=3", "--training.contrasts=0"), dimension=300, words="imdb",
    ),
    "imdb-no-words": Variant(
        "… without its language model", options=("--pretraining.num_epochs=0",), dimension=300
    ),
    "imdb-no-teacher": Variant(
        "… without the linear model's labels", options=("--distillation.baseline=false",),
        dimension=300, words="imdb",
    ),
    "imdb-alone": Variant("… without both, three epochs", options=ALONE, dimension=300),
    "imdb-whole": Variant(
        "… without excerpts and contrast texts, 112 unlabelled reviews a batch",
        options=(
            "--training.pieces=0", "--training.contrasts=0",
            "--objectives.unlabelled_batch_size=112",
        ),
        dimension=300, words="imdb",
    ),
    "imdb-short": Variant(
        "the recipe of earlier versions: labels alone, three epochs, 400 tokens, 100 dimensions",
        options=SHORT,
    ),
    "labelled": Variant(
        "`configs/imdb_labelled.yaml`", config="imdb_labelled", dimension=300, words="labelled"
    ),
    "labelled-contrasts": Variant(
        "… with contrast texts", options=("--training.contrasts=1",),
        config="imdb_labelled", dimension=300, words="labelled",
    ),
    "labelled-plain": Variant(
        "… without the linear model's second opinion", options=("--distillation.labelled=0",),
        config="imdb_labelled", dimension=300, words="labelled",
    ),
    "labelled-once": Variant(
        "… and one epoch", options=("--distillation.labelled=0", "--training.num_epochs=1"),
        config="imdb_labelled", dimension=300, words="labelled",
    ),
    "labelled-no-words": Variant(
        "… without its language model", options=("--pretraining.num_epochs=0",),
        config="imdb_labelled", dimension=300,
    ),
    "semi": Variant("`configs/imdb_semi.yaml`", config="imdb_semi", dimension=300, words="semi"),
    "semi-no-teachers": Variant(
        "… without its teachers",
        options=("--distillation.baseline=false", "--distillation.num_teachers=0"),
        config="imdb_semi", dimension=300, words="semi",
    ),
}  # fmt: skip


def main() -> None:
    """Train the chosen variants, then write the results of all runs."""
    parser = argparse.ArgumentParser(prog="python -m studies.ablation")
    parser.add_argument("--data", type=Path, required=True, help="folder with the reviews")
    parser.add_argument("--vectors", type=Path, required=True, help="folder with the vectors")
    parser.add_argument("--runs", type=Path, default=Path("runs/ablation"), help="of the runs")
    parser.add_argument("--only", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument(
        "--seeds", nargs="*", type=int, default=[0], help="none: only write the results"
    )
    options = parser.parse_args()
    for name in options.only:
        for seed in options.seeds:
            _train(name, seed, options)
    results = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    for path in sorted(options.runs.glob("*/run.json")):
        name, _, seed = path.parent.name.rpartition("-seed-")
        if "-teacher-" in seed:  # teachers are trained with the same recipe without teachers
            name, seed = f"{name}-no-teachers", str(_manifest(path.parent)["seed"])
        if name not in VARIANTS or (result := _result(path.parent)) is None:
            continue
        if (key := _difference(VARIANTS[name], path.parent)) is not None:
            print(f"{path.parent} is left out: its {key} differs from that of {name}")
        else:
            results.setdefault(name, {})[seed] = result
    RESULTS.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    draw({name: results[name] for name in VARIANTS if name in results})
    PAGE.write_text(fill(PAGE.read_text(encoding="utf-8"), table(results)), encoding="utf-8")


def _train(name: str, seed: int, options: argparse.Namespace) -> None:
    variant = VARIANTS[name]
    vectors = options.vectors / f"imdb.glove.{variant.dimension}d.txt"
    run = options.runs / f"{name}-seed-{seed}"
    command = [
        sys.executable, "train.py", f"--config=configs/{variant.config}.yaml",
        f"--data.path={options.data}", f"--vectors.path={vectors}", f"--seed={seed}",
        f"--output_dir={run}", *variant.options,
    ]  # fmt: skip
    if variant.words is not None:  # one language model for all seeds
        words = options.runs / f"words-{variant.words}"
        pretrain = [
            sys.executable, "-m", "sentiment", "pretrain", *command[2:5],
            f"--output_dir={words}", *variant.options,
        ]  # fmt: skip
        _run(pretrain)
        command.append(f"--pretraining.path={words}")
    _run([*command, "--auto_resume"])
    sentiment = [sys.executable, "-m", "sentiment"]
    if not (run / CHECK).exists():
        _run([*sentiment, "check", str(run)])
    if not (baseline := baseline_folder(run)).exists():
        _run([*sentiment, "baseline", f"--config={run}/config.yaml"])
    evaluate = [*sentiment, "evaluate", str(run), "--split=validation"]
    if not (run / ALONE_REPORT).exists():
        _run(evaluate)
    if not (run / ENSEMBLE_REPORT).exists():
        _run([*evaluate, f"--ensemble={baseline}"])


def _run(command: list[str]) -> None:
    print(" ".join(command), flush=True)
    subprocess.run(command, cwd=ROOT, check=True)


def _result(run: Path) -> dict[str, Any] | None:
    """The result of a finished run, None for an unfinished one."""
    manifest = _manifest(run)
    result = manifest.get("result")
    if result is None or "metrics" not in result or "kind" in manifest:
        return None
    git = manifest.get("git") or {}
    epochs = json.loads((run / "metrics.json").read_text(encoding="utf-8"))["epochs"]
    return {
        "accuracy": result["metrics"]["accuracy"],
        "nll": _calibrated_nll(run / ALONE_REPORT),
        "curve": [epoch["validation"]["accuracy"] for epoch in epochs],
        "seconds_before": _seconds_before(manifest),
        "best_epoch": result["best_epoch"],
        "num_epochs": result["num_epochs"],
        "seconds": result["seconds"],
        "device": manifest["device"],
        "revision": str(git.get("revision"))[:7] + ("+" if git.get("is_dirty") else ""),
        "torch": manifest["versions"]["torch"],
        "failures": _failures(run / CHECK),
        "ensemble": _ensemble(run / ENSEMBLE_REPORT),
    }


def _failures(path: Path) -> dict[str, float] | None:
    """The share of behaviour tests that a run fails, by capability; None if it was not checked."""
    if not path.exists():
        return None
    found = json.loads(path.read_text(encoding="utf-8"))["behaviours"]["capabilities"]
    return {entry["capability"]: entry["failure_rate"] for entry in found}


def _calibrated_nll(path: Path) -> float | None:
    """The NLL of a run at its temperature, None if it was not evaluated."""
    if not path.exists():
        return None
    return json.loads(path.read_text(encoding="utf-8"))["calibration"]["after"]["nll"]


def _ensemble(path: Path) -> dict[str, float] | None:
    """Accuracy and NLL of a run averaged with its linear model, None if they were not measured."""
    if not path.exists():
        return None
    report = json.loads(path.read_text(encoding="utf-8"))
    return {"accuracy": report["accuracy"], "nll": report["nll"]}


def _seconds_before(manifest: dict[str, Any]) -> float:
    """Training time of the language model and the teachers that a run used."""
    total = 0.0
    if "pretraining" in manifest:
        total += _manifest(Path(manifest["pretraining"]["path"]))["result"]["seconds"]
    for teacher in manifest.get("teachers", []):
        folder = Path(teacher["path"])
        report = folder / ALONE_REPORT  # of a baseline
        times = json.loads(report.read_text(encoding="utf-8")) if holds_baseline(folder) else None
        total += (times or _manifest(folder)["result"])["seconds"]
    return total


def _difference(variant: Variant, run: Path) -> str | None:
    """The first setting in which a run differs from a variant, or None."""
    arguments = [f"--config={ROOT}/configs/{variant.config}.yaml", *variant.options]
    expected = deciding_settings(parse_training(arguments, "ablation").config)
    for key in _RUN_SETTINGS:
        del expected[key]
    return first_difference(deciding_settings(load_config(run / "config.yaml")), expected)


def _manifest(run: Path) -> dict[str, Any]:
    return json.loads((run / "run.json").read_text(encoding="utf-8"))


def table(results: Mapping[str, Any]) -> str:
    """A row for each variant in ``results``, which are by variant and seed."""
    columns = (
        "recipe", "accuracy by seed", "mean ± standard deviation", "NLL",
        "averaged with its linear model: accuracy", "NLL", "failed: negation, turns",
        "best epoch", "minutes: preparation + training", "revision", "`--only`",
    )  # fmt: skip
    rows = []
    for name, variant in VARIANTS.items():
        if name not in results:
            continue
        seeds = sorted(results[name], key=int)
        runs = [results[name][seed] for seed in seeds]
        shares = [100 * run["accuracy"] for run in runs]
        by_seed = ", ".join(
            f"{seed}: {share:.2f}" for seed, share in zip(seeds, shares, strict=True)
        )
        spread = f" ± {stdev(shares):.2f}" if len(shares) > 1 else ""
        epochs = ", ".join(f"{run['best_epoch']} of {run['num_epochs']}" for run in runs)
        minutes = ", ".join(_minutes(run) for run in runs)
        revisions = ", ".join(sorted({run["revision"] for run in runs}))
        cells = (
            variant.title, f"{by_seed} %", f"{mean(shares):.2f}{spread} %",
            _mean_nll([run["nll"] for run in runs]), *_shown_ensembles(seeds, runs),
            _shown_failures(runs), epochs, minutes, revisions, name,
        )  # fmt: skip
        rows.append(cells)
    return markdown_table(columns, rows)


def _mean_nll(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{mean(known):.4f}" if known else "–"


def _shown_ensembles(seeds: Sequence[str], runs: Sequence[Mapping[str, Any]]) -> tuple[str, str]:
    """Accuracy by seed and mean NLL of the runs averaged with their linear models."""
    pairs = zip(seeds, runs, strict=True)
    found = {seed: run["ensemble"] for seed, run in pairs if run.get("ensemble")}
    by_seed = ", ".join(f"{seed}: {100 * each['accuracy']:.2f}" for seed, each in found.items())
    return f"{by_seed} %" if found else "–", _mean_nll([each["nll"] for each in found.values()])


def _shown_failures(runs: Sequence[Mapping[str, Any]]) -> str:
    """Mean shares of failed behaviour tests of the runs that were checked."""
    checked = [run["failures"] for run in runs if run.get("failures")]
    if not checked:
        return "–"
    means = (mean(failures[name] for failures in checked) for name in CAPABILITIES)
    return ", ".join(f"{100 * share:.0f} %" for share in means)


def _minutes(run: Mapping[str, Any]) -> str:
    """Time of the language model and the teachers, if any, and of the training itself."""
    before = f"{run['seconds_before'] / 60:.0f} + " if run["seconds_before"] else ""
    return f"{before}{run['seconds'] / 60:.0f}"


def draw(results: Mapping[str, Any], path: Path = PICTURE) -> None:
    """Validation accuracy by epoch: the mean over the seeds, and each seed as a thin line."""
    figure, axes = new_figure(7.0, 4.2)
    for number, (name, by_seed) in enumerate(results.items()):
        color = COLORS[number % len(COLORS)]
        style = ("o-", "s--", "^:")[number // len(COLORS) % 3]
        curves = [[100 * share for share in run["curve"]] for run in by_seed.values()]
        for curve in curves:
            axes.plot(range(1, len(curve) + 1), curve, color=color, alpha=0.3, linewidth=0.7)
        means = [mean(shares) for shares in zip(*curves, strict=False)]
        axes.plot(range(1, len(means) + 1), means, style, color=color, markersize=4, label=name)
    axes.set_xlabel("epoch over the labelled reviews")
    axes.set_ylabel("validation accuracy, %")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    save_figure(figure, path)


if __name__ == "__main__":
    main()
