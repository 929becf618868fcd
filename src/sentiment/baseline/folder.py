"""Writing, checking and reading a baseline's folder."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sentiment.baseline.linear import LinearModel, Ngrams, parse_ngrams
from sentiment.config.config import WITHOUT_EFFECT, Config, flat_settings
from sentiment.config.parser import save_config
from sentiment.data.pipeline import tokenize_reviews
from sentiment.data.reviews import Reviews
from sentiment.data.tokenizer import TokenizedTexts, tokenize
from sentiment.evaluation.calibration import apply_temperature
from sentiment.evaluation.evaluate import Predictions
from sentiment.runs.manifest import (
    BASELINE,
    holds_baseline,
    is_baseline,
    read_manifest,
    write_manifest,
)
from sentiment.runs.run import HALF_MADE, begin_folder, describe_model, load_settings, occupant
from sentiment.runs.weights import BASELINE_WEIGHTS, read_tensors, write_tensors
from sentiment.runtime.errors import UserError
from sentiment.runtime.files import atomic_write, beside, check_links

_CONTENTS = ("run.json", "config.yaml", "ngrams.txt", BASELINE_WEIGHTS, "evaluation")
# A baseline reads whole reviews.
_UNUSED = {"data.max_length", "data.keep"} | WITHOUT_EFFECT


@dataclass(frozen=True)
class Baseline:
    """A trained baseline."""

    path: Path
    config: Config  # only the data section is used
    class_names: tuple[str, ...]  # in the order of their labels
    ngrams: Ngrams
    model: LinearModel
    temperature: float  # divisor that calibrates the logits

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that decide what it learns, by their dotted keys."""
        return baseline_settings(self.config)

    def predict(self, reviews: Reviews) -> Predictions:
        """Predictions at temperature 1, computed on the CPU."""
        tokenized = tokenize_reviews(reviews, self.config.data)
        return Predictions(self._log_probabilities(tokenized), reviews.labels)

    def predict_texts(self, texts: Sequence[str]) -> np.ndarray:
        """(num_texts, num_classes) float64 calibrated log-probabilities, without the cache."""
        data = self.config.data
        tokenized = tokenize(texts, lower_case=data.lower_case, language=data.language)
        return apply_temperature(self._log_probabilities(tokenized), self.temperature)

    def _log_probabilities(self, tokenized: TokenizedTexts) -> np.ndarray:
        return self.model.log_probabilities(self.ngrams.matrix(tokenized))


def baseline_settings(config: Config) -> dict[str, Any]:
    """The settings that decide what a baseline learns, by their dotted keys."""
    values = flat_settings(config)
    return {key: values[key] for key in values if key.startswith("data.") and key not in _UNUSED}


def baseline_folder(run: Path) -> Path:
    """The folder next to a run that its baseline belongs in."""
    return Path(beside(str(run), "-baseline"))


def check_replaceable(path: Path, *, overwrite: bool) -> None:
    """Check, without writing, that a baseline may be written to a folder.

    Raises:
        OSError: nothing can be written there, or the folder holds something other than a baseline,
            or a baseline and ``overwrite`` is false.
    """
    manifest = occupant(path)
    if manifest is None:
        return
    if not is_baseline(manifest):
        raise FileExistsError(
            f"{path} is not empty and holds no baseline, so nothing in it will be overwritten: "
            "choose another folder with --output_dir"
        )
    if not overwrite:
        raise FileExistsError(
            f"{path} holds a baseline: replace it with --overwrite, or choose another folder with "
            "--output_dir"
        )


def save_baseline(baseline: Baseline, provenance: dict[str, Any]) -> None:
    """Write a baseline, without its evaluation, replacing an earlier one.

    The folder counts as unfinished while it is marked as half-made. ``provenance`` is what run.json
    says about how the baseline was made.
    """
    path, model = baseline.path, baseline.model
    begin_folder(path, _CONTENTS)
    lines = "".join(f"{ngram}\n" for ngram in baseline.ngrams.texts()).encode("utf-8")
    atomic_write(path / "ngrams.txt", lines)
    save_config(baseline.config, path / "config.yaml")
    sha256 = hashlib.sha256(lines).hexdigest()
    description = describe_model(path, baseline.settings, baseline.class_names, sha256)
    write_manifest(path, description | {"kind": BASELINE} | provenance)
    tensors = {"weights": torch.from_numpy(model.weights), "biases": torch.from_numpy(model.biases)}
    values = {"temperature": baseline.temperature}
    write_tensors(path / BASELINE_WEIGHTS, tensors, values, description["identity"])


def is_finished_baseline(path: Path) -> bool:
    """Whether a folder holds a baseline that was written to its end."""
    return holds_baseline(path) and not (path / HALF_MADE).exists()


def load_baseline(path: Path) -> Baseline:
    """Load the baseline of a folder.

    Raises:
        FileNotFoundError: run.json or another file is missing.
        UserError: the folder holds a run, or a file is damaged, of a newer format, or of another
            baseline.
    """
    check_links(path)
    manifest = read_manifest(path)
    if not is_baseline(manifest):
        raise UserError(f"{path} is not a baseline: make one with sentiment baseline")
    config, class_names = load_settings(path), tuple(manifest["class_names"])
    ngrams_file, file = path / "ngrams.txt", path / BASELINE_WEIGHTS
    for needed in (ngrams_file, file):
        if not needed.is_file():
            raise FileNotFoundError(f"the baseline has no {needed}: make it again")
    ngrams = _load_ngrams(ngrams_file, manifest["vocabulary_sha256"])
    tensors, values = read_tensors(file, manifest["identity"])
    num_outputs = 1 if len(class_names) == 2 else len(class_names)
    expected = {"weights": (num_outputs, len(ngrams)), "biases": (num_outputs,)}
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if shapes != expected or any(tensor.dtype != torch.float32 for tensor in tensors.values()):
        raise UserError(f"{file} does not fit the baseline's n-grams and classes: make it again")
    temperature = values.get("temperature")
    arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
    is_finite = all(np.isfinite(array).all() for array in arrays.values())
    if not is_finite or not isinstance(temperature, float) or not 0 < temperature < float("inf"):
        raise UserError(f"{file} is damaged: it holds non-finite weights, or no temperature")
    return Baseline(path, config, class_names, ngrams, LinearModel(**arrays), temperature)


def _load_ngrams(path: Path, sha256: str) -> Ngrams:
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != sha256:
        raise UserError(f"{path} is not the one this baseline was made with: make it again")
    try:
        return parse_ngrams(data.decode("utf-8").split("\n")[:-1])
    except ValueError as error:
        raise UserError(f"{path} is damaged: {error}") from error


def evaluation_folder(path: Path) -> Path:
    """The folder of a baseline's evaluation on its validation reviews."""
    return path / "evaluation" / "validation"
