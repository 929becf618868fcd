"""What each part of the recipes brings: trainings, one after another, and their table.

    python -m studies.ablation --data FOLDER --vectors FOLDER [--only NAME ...] [--seeds 0 1 2]

``--vectors`` holds ``imdb.glove.100d.txt`` and ``imdb.glove.300d.txt`` or others of these names.
Each training is a run of its own under ``--runs``; one that is finished is not trained again, one
that was stopped goes on. What has come of all of them is written to studies/accuracy.json,
into the table of docs/accuracy.md and its picture.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sentiment.config.config import deciding_settings, first_difference
from sentiment.config.parser import load_config, parse_training
from studies.accuracy import PAGE, RESULTS, draw, filled

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Variant:
    """A training of the table.

    Attributes:
        what: in words.
        config: the settings file.
        options: what is changed of it.
        dimension: of the vectors.
        words: which pre-training it starts from, None where the settings decide.
    """

    what: str
    config: str = "imdb"
    options: tuple[str, ...] = ()
    dimension: int = 100
    words: str | None = None


PLAIN = (
    "--training.average_decay=null", "--model.word_dropout=0", "--model.pooling=max",
    "--training.num_epochs=4",
)  # fmt: skip
SLOW = ("--training.learning_rate=1e-3", "--model.word_dropout=0")
ONE_POOL = (*SLOW, "--model.pooling=max")
CUT = (*ONE_POOL, "--data.max_length=400")
_OF_A_RUN = (  # what the runs of a variant differ in
    "seed", "data.path", "vectors.path", "pretraining.path", "distillation.num_teachers",
)  # fmt: skip
VARIANTS = {
    "imdb": Variant("`configs/imdb.yaml`"),
    "imdb-plain": Variant(
        "… without averaging and word dropout, max pooling alone, four epochs", options=PLAIN
    ),
    "labelled": Variant(
        "`configs/imdb_labelled.yaml`", config="imdb_labelled", dimension=300, words="labelled"
    ),
    "labelled-no-words": Variant(
        "… without its language model", options=("--pretraining.num_epochs=0",),
        config="imdb_labelled", dimension=300,
    ),
    "semi": Variant("`configs/imdb_semi.yaml`", config="imdb_semi", dimension=300, words="semi"),
    "semi-large": Variant(
        "… with 512 units", options=("--model.hidden_size=512",),
        config="imdb_semi", dimension=300, words="large",
    ),
    "semi-taught": Variant(
        "`configs/imdb_semi.yaml` with two teachers", options=("--distillation.num_teachers=2",),
        config="imdb_semi", dimension=300, words="semi",
    ),
    "semi-slow": Variant(
        "`configs/imdb_semi.yaml` with learning rate 1e-3, no word dropout", options=SLOW,
        config="imdb_semi", dimension=300, words="semi",
    ),
    "semi-max": Variant(
        "… and max pooling alone", options=ONE_POOL, config="imdb_semi", dimension=300, words="semi"
    ),
    "semi-cut": Variant(
        "… and reviews cut to 400 tokens", options=CUT,
        config="imdb_semi", dimension=300, words="semi",
    ),
    "semi-adversarial": Variant(
        "… and the adversarial objective, perturbations of norm 1",
        options=(*CUT, "--objectives.adversarial=1", "--objectives.perturbation_norm=1"),
        config="imdb_semi", dimension=300, words="semi",
    ),
}  # fmt: skip


def main() -> None:
    """Train what is asked for, then write down what has come of everything."""
    parser = argparse.ArgumentParser(prog="python -m studies.ablation")
    parser.add_argument("--data", type=Path, required=True, help="the reviews")
    parser.add_argument("--vectors", type=Path, required=True, help="the vectors, by dimension")
    parser.add_argument("--runs", type=Path, default=Path("runs/ablation"), help="where to train")
    parser.add_argument("--only", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--seeds", nargs="*", type=int, default=[0], help="none trains nothing")
    options = parser.parse_args()
    for name in options.only:
        for seed in options.seeds:
            _train(name, seed, options)
    results = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    for path in sorted(options.runs.glob("*/run.json")):
        name, _, seed = path.parent.name.rpartition("-seed-")
        if "-teacher-" in seed:  # which is trained as the same recipe without teachers
            name, seed = name.removesuffix("-taught"), str(_described(path.parent)["seed"])
        if name not in VARIANTS or (found := _result(path.parent)) is None:
            continue
        if (key := _difference(VARIANTS[name], path.parent)) is not None:
            print(f"{path.parent} is left out: its {key} is not that of {name}")
        else:
            results.setdefault(name, {})[seed] = found
    RESULTS.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    whats = {name: each.what for name, each in VARIANTS.items()}
    draw({name: results[name] for name in VARIANTS if name in results})
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8"), results, whats), encoding="utf-8")


def _train(name: str, seed: int, options: argparse.Namespace) -> None:
    variant = VARIANTS[name]
    vectors = options.vectors / f"imdb.glove.{variant.dimension}d.txt"
    command = [
        sys.executable, "train.py", f"--config=configs/{variant.config}.yaml",
        f"--data.path={options.data}", f"--vectors.path={vectors}", f"--seed={seed}",
        f"--output_dir={options.runs}/{name}-seed-{seed}", *variant.options,
    ]  # fmt: skip
    if variant.words is not None:  # one language model for all seeds
        words = options.runs / f"words-{variant.words}"
        making = [
            sys.executable, "-m", "sentiment", "pretrain", *command[2:5],
            f"--output_dir={words}", *variant.options,
        ]  # fmt: skip
        _run(making)
        command.append(f"--pretraining.path={words}")
    _run([*command, "--auto_resume"])


def _run(command: list[str]) -> None:
    print(" ".join(command), flush=True)
    subprocess.run(command, cwd=ROOT, check=True)


def _result(run: Path) -> dict[str, Any] | None:
    """What a finished run came to, None of an unfinished one."""
    description = _described(run)
    result = description.get("result")
    if result is None or "metrics" not in result or "kind" in description:
        return None
    git = description.get("git") or {}
    epochs = json.loads((run / "metrics.json").read_text(encoding="utf-8"))["epochs"]
    return {
        "accuracy": result["metrics"]["accuracy"],
        "nll": result["metrics"]["nll"],
        "curve": [each["validation"]["accuracy"] for each in epochs],
        "seconds_before": _seconds_before(description),
        "best_epoch": result["best_epoch"],
        "num_epochs": result["num_epochs"],
        "seconds": result["seconds"],
        "device": description["device"],
        "revision": str(git.get("revision"))[:7] + ("+" if git.get("is_dirty") else ""),
        "torch": description["versions"]["torch"],
    }


def _seconds_before(description: dict[str, Any]) -> float:
    """What the language model and the teachers took that a run began with."""
    total = 0.0
    if "pretraining" in description:
        total += _described(Path(description["pretraining"]["path"]))["result"]["seconds"]
    for teacher in description.get("teachers", []):
        total += _described(Path(teacher["path"]))["result"]["seconds"]
    return total


def _difference(variant: Variant, run: Path) -> str | None:
    """The first setting by which a run is none of a variant, None if it is one."""
    arguments = [f"--config={ROOT}/configs/{variant.config}.yaml", *variant.options]
    wanted = deciding_settings(parse_training(arguments, "ablation").config)
    for key in _OF_A_RUN:
        del wanted[key]
    return first_difference(deciding_settings(load_config(run / "config.yaml")), wanted)


def _described(run: Path) -> dict[str, Any]:
    return json.loads((run / "run.json").read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
