"""A baseline's folder and its evaluation: written, checked, read."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sentiment.baseline.linear import LinearModel, Ngrams, parse_ngrams
from sentiment.config.config import WITHOUT_EFFECT, Config, flat_settings
from sentiment.config.parser import save_config
from sentiment.data.pipeline import tokenize_reviews
from sentiment.data.reviews import Reviews
from sentiment.evaluation.evaluate import Predictions
from sentiment.evaluation.outputs import draw_pictures
from sentiment.evaluation.report import (
    Evaluation,
    write_evaluation_page,
    write_predictions,
    write_report,
)
from sentiment.runs.manifest import (
    BASELINE,
    FORMAT_VERSION,
    is_baseline,
    read_manifest,
    write_manifest,
)
from sentiment.runs.run import HALF_MADE, load_settings
from sentiment.runs.weights import read_tensors, write_tensors
from sentiment.runtime.errors import UserError
from sentiment.runtime.files import LOCK, atomic_write, check_links, check_writable

_CONTENTS = ("run.json", "config.yaml", "ngrams.txt", "weights.safetensors", "evaluation")
# Settings of the data that a baseline does without: it reads reviews whole.
_UNUSED = {"data.max_length", "data.keep"} | WITHOUT_EFFECT


@dataclass(frozen=True)
class Baseline:
    """A trained baseline, ready to be used; a :class:`sentiment.comparison.run_groups.Classifier`.

    Attributes:
        path: its folder.
        config: the settings it was made by, of which it uses those of the data.
        class_names: the classes, in the order of their labels.
        temperature: what its log-probabilities are divided by to be calibrated.
    """

    path: Path
    config: Config
    class_names: tuple[str, ...]
    ngrams: Ngrams
    model: LinearModel
    temperature: float

    @property
    def seed(self) -> None:
        """None: nothing in it is drawn."""

    @property
    def epoch(self) -> None:
        """None: it is not trained by epochs."""

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that decide what it learns, by their dotted keys."""
        return used_settings(self.config)

    def predict(self, reviews: Reviews, *, device: torch.device | None = None) -> Predictions:
        """What it says of reviews, at temperature 1; always computed on the CPU."""
        matrix = self.ngrams.matrix(tokenize_reviews(reviews, self.config.data))
        return Predictions(self.model.log_probabilities(matrix), reviews.labels)


def used_settings(config: Config) -> dict[str, Any]:
    """The settings that decide what a baseline learns, by their dotted keys."""
    return {
        key: value
        for key, value in flat_settings(config).items()
        if key.startswith("data.") and key not in _UNUSED
    }


def check_place(path: Path, *, overwrite: bool) -> None:
    """Check that a baseline may be written to a folder, and write nothing.

    Raises:
        FileExistsError: the folder holds something else than a baseline, or a baseline that is
            not to be replaced.
        NotADirectoryError, PermissionError: nothing can be written there.
    """
    check_writable(path)
    if not path.is_dir() or (path / HALF_MADE).exists():
        return
    if all(each.name == LOCK for each in path.iterdir()):
        return
    try:
        holds_one = is_baseline(read_manifest(path))
    except (OSError, ValueError):
        holds_one = False
    if not holds_one:
        raise FileExistsError(
            f"{path} is not empty and holds no baseline, so nothing in it will be overwritten: "
            "choose another folder with --output_dir"
        )
    if not overwrite:
        raise FileExistsError(
            f"{path} holds a baseline: replace it with --overwrite, or choose another folder with "
            "--output_dir"
        )


def save_baseline(baseline: Baseline, receipt: dict[str, Any]) -> None:
    """Write a baseline in place of one that is there, all but its evaluation.

    The folder counts as unfinished until :func:`finish_baseline`.

    Args:
        baseline: what to write, and where.
        receipt: what else run.json is to say of where it comes from.

    Raises:
        OSError: it cannot be written.
    """
    path, model = baseline.path, baseline.model
    path.mkdir(parents=True, exist_ok=True)
    (path / HALF_MADE).touch()
    for old in (path / name for name in _CONTENTS):
        if old.is_dir():
            shutil.rmtree(old)
        else:
            old.unlink(missing_ok=True)
    lines = "".join(f"{ngram}\n" for ngram in baseline.ngrams.texts()).encode("utf-8")
    atomic_write(path / "ngrams.txt", lines)
    save_config(baseline.config, path / "config.yaml")
    ngrams_sha256 = hashlib.sha256(lines).hexdigest()
    learned = [used_settings(baseline.config), list(baseline.class_names), ngrams_sha256]
    identity = hashlib.sha256(json.dumps(learned, sort_keys=True).encode()).hexdigest()[:32]
    config_sha256 = hashlib.sha256((path / "config.yaml").read_bytes()).hexdigest()
    write_manifest(
        path,
        {
            "format_version": FORMAT_VERSION,
            "kind": BASELINE,
            "class_names": list(baseline.class_names),
            "config_sha256": config_sha256,
            "vocabulary_sha256": ngrams_sha256,
            "identity": identity,
            **receipt,
        },
    )
    tensors = {
        "weights": torch.from_numpy(model.weights),
        "biases": torch.from_numpy(model.biases),
    }
    values = {"temperature": baseline.temperature}
    write_tensors(path / "weights.safetensors", tensors, values, identity)


def finish_baseline(path: Path) -> None:
    """Mark the baseline in a folder as whole."""
    (path / HALF_MADE).unlink()


def load_baseline(path: Path) -> Baseline:
    """Rebuild the baseline of a folder.

    Raises:
        FileNotFoundError: the folder is not a baseline, or a file of it is missing.
        UserError: a file is damaged, of a newer format, or does not fit the others.
    """
    check_links(path)
    description = read_manifest(path)
    if not is_baseline(description):
        raise UserError(f"{path} is no baseline: make one with sentiment baseline")
    config, class_names = load_settings(path), tuple(description["class_names"])
    ngrams = _load_ngrams(path / "ngrams.txt", description["vocabulary_sha256"])
    file = path / "weights.safetensors"
    if not file.is_file():
        raise FileNotFoundError(f"the baseline has no {file}: make it again")
    tensors, values = read_tensors(file, description["identity"])
    num_outputs = 1 if len(class_names) == 2 else len(class_names)
    shapes = {"weights": (num_outputs, len(ngrams)), "biases": (num_outputs,)}
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if found != shapes or any(tensor.dtype != torch.float32 for tensor in tensors.values()):
        raise UserError(f"{file} does not fit the baseline's n-grams and classes")
    temperature = values.get("temperature")
    arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
    is_finite = all(np.isfinite(array).all() for array in arrays.values())
    if not is_finite or not isinstance(temperature, float) or not 0 < temperature < float("inf"):
        raise UserError(f"{file} is damaged: it holds non-finite weights, or no temperature")
    return Baseline(path, config, class_names, ngrams, LinearModel(**arrays), temperature)


def _load_ngrams(path: Path, sha256: str) -> Ngrams:
    if not path.is_file():
        raise FileNotFoundError(f"the baseline has no {path}: make it again")
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != sha256:
        raise UserError(f"{path} is not the one this baseline was made with")
    try:
        return parse_ngrams(data.decode("utf-8").split("\n")[:-1])
    except ValueError as error:
        raise UserError(f"{path} is damaged: {error}") from error


_NOTE = (
    "The temperature was chosen by these reviews, the weights and the n-grams by the training "
    "reviews alone."
)


def evaluation_folder(path: Path) -> Path:
    """Where a baseline keeps its evaluation on the validation reviews."""
    return path / "evaluation" / "validation"


def write_evaluation(
    evaluation: Evaluation, baseline: Baseline, origin: str, seconds: float
) -> None:
    """Write report.json, predictions.csv and report.html.

    Args:
        evaluation: on the validation reviews.
        baseline: what was evaluated.
        origin: where the reviews came from.
        seconds: what training and evaluating took.
    """
    output = evaluation_folder(baseline.path)
    output.mkdir(parents=True, exist_ok=True)
    date = datetime.now(timezone.utc).isoformat(timespec="seconds")
    write_report(
        output / "report.json",
        evaluation,
        run=str(baseline.path),
        checkpoint=None,
        epoch=None,
        split="validation",
        data=origin,
        notes=[_NOTE],
        device="cpu",
        precision="fp32",
        rounding=None,
        date=date,
        cutting=[],
        seconds=round(seconds, 2),
    )
    names = baseline.class_names
    write_predictions(
        output / "predictions.csv",
        evaluation.calibrated,
        names,
        evaluation.num_tokens,
        evaluation.was_cut,
    )
    write_evaluation_page(
        output / "report.html",
        evaluation,
        draw_pictures(evaluation.predictions, names, baseline.temperature, fitted_here=True),
        title=f"{baseline.path.absolute().name} on validation",
        facts={
            "Baseline": f"{baseline.path}",
            "Model": f"logistic regression on {len(baseline.ngrams):,} n-grams of one to three "
            "words, weighted by the log-count ratios of naive Bayes",
            "Read of a review": "all of it",
            "Split": "validation",
            "Reviews": origin,
            "Date": date,
        },
        notes=[_NOTE],
    )
