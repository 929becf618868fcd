"""Training a baseline by settings, and its report."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np

from sentiment.baseline.folder import (
    Baseline,
    check_place,
    finish_baseline,
    save_baseline,
    write_evaluation,
)
from sentiment.baseline.linear import LONGEST, REGULARIZATION, Ngrams, find_ngrams, fit_linear
from sentiment.config.config import Config
from sentiment.data.batches import EncodedCorpus, encode
from sentiment.data.pipeline import tokenize_reviews
from sentiment.data.reviews import Reviews, load_training_splits, reviews_fingerprint
from sentiment.data.tokenizer import TokenizedTexts
from sentiment.data.vocabulary import UNK_ID
from sentiment.display.console import pad, sanitize, truncate
from sentiment.evaluation.calibration import fit_temperature
from sentiment.evaluation.evaluate import Predictions
from sentiment.evaluation.report import Evaluation, measure
from sentiment.runs.manifest import git_state, versions
from sentiment.runtime.errors import UserError

# Rarer n-grams make the model twice as large on IMDB, and no more accurate on held-out stretches.
MIN_REVIEWS = 3


@dataclass(frozen=True)
class TrainedBaseline:
    """A baseline and how it came about.

    Attributes:
        num_training: reviews it was trained on.
        origin: where the validation reviews came from.
        evaluation: on these.
        seconds: all in all, from reading the reviews to the evaluation's figures.
        tokenizing_seconds: of these, spent on tokens, be it cutting or reading them.
    """

    baseline: Baseline
    num_training: int
    origin: str
    evaluation: Evaluation
    seconds: float
    tokenizing_seconds: float


def train_baseline(config: Config, path: Path, *, overwrite: bool = False) -> TrainedBaseline:
    """Train on a run's training reviews, evaluate on its validation reviews, write the folder.

    Args:
        config: the settings of the run, of which those of the data are used.
        path: the folder to write.
        overwrite: whether a baseline that is there may be replaced.

    Raises:
        OSError: the folder holds something else, or cannot be written; or reviews are not there.
        UserError: a file of reviews is not as it must be, or no n-gram is in enough of them.
    """
    check_place(path, overwrite=overwrite)
    started = time.perf_counter()
    began = datetime.now(timezone.utc).isoformat(timespec="seconds")
    train, validation = load_training_splits(config.data)
    before = time.perf_counter()
    tokens = tokenize_reviews(train, config.data)
    validation_tokens = tokenize_reviews(validation, config.data)
    tokenizing_seconds = time.perf_counter() - before
    ngrams = find_ngrams(tokens, min_texts=MIN_REVIEWS)
    if len(ngrams) == 0:
        raise UserError(
            f"{train.origin}: no word is in {MIN_REVIEWS} of its {len(train)} training reviews, "
            "and a baseline learns from no others: give more reviews"
        )
    model = fit_linear(ngrams.matrix(tokens), train.labels, len(train.class_names))
    log_probabilities = model.log_probabilities(ngrams.matrix(validation_tokens))
    temperature = fit_temperature(log_probabilities, validation.labels)
    baseline = Baseline(path, config, train.class_names, ngrams, model, temperature)
    evaluation = measure(
        Predictions(log_probabilities, validation.labels),
        validation,
        _encode(validation, validation_tokens, ngrams),
        temperature,
        fitted_here=True,
    )
    trained = TrainedBaseline(
        baseline,
        num_training=len(train),
        origin=validation.origin,
        evaluation=evaluation,
        seconds=time.perf_counter() - started,
        tokenizing_seconds=tokenizing_seconds,
    )
    data = {"train": reviews_fingerprint(train), "validation": reviews_fingerprint(validation)}
    save_baseline(baseline, _receipt(began, data, len(ngrams)))
    write_evaluation(trained.evaluation, baseline, trained.origin, trained.seconds)
    finish_baseline(path)
    return trained


def _receipt(began: str, data: dict[str, Any], num_ngrams: int) -> dict[str, Any]:
    """What run.json says of where a baseline comes from; data are fingerprints by split."""
    return {
        "started": began,
        "command": sys.argv[1:],
        "data": data,
        "ngrams": {"longest": LONGEST, "min_reviews": MIN_REVIEWS, "number": num_ngrams},
        "regularization": REGULARIZATION,
        "versions": versions(),
        "git": git_state(),
    }


def _encode(reviews: Reviews, tokens: TokenizedTexts, ngrams: Ngrams) -> EncodedCorpus:
    """The reviews as an evaluation counts them: read whole, words of no n-gram unknown."""
    known = set(ngrams.words)
    ids = np.fromiter((UNK_ID + (word in known) for word in tokens.lexicon), np.int32)
    longest = int(np.diff(tokens.offsets).max(initial=1))
    return encode(tokens, ids, reviews.labels, max_length=longest)


_NUM_SHOWN = 10  # n-grams for each class
_FIRST, _HALF = 12, 38  # columns of a figure's name, and of a class


def baseline_table(trained: TrainedBaseline, seconds: float) -> str:
    """The figures, and the n-grams that weigh most for each class.

    Args:
        trained: what was trained.
        seconds: what it took.
    """
    baseline, metrics = trained.baseline, trained.evaluation.metrics
    calibration = trained.evaluation.calibration
    low, high = (100 * bound for bound in metrics.accuracy_ci95)
    temperature = f"{calibration.after.nll:.4f} at temperature {baseline.temperature:.2f}"
    rows = [
        ("reviews", f"{trained.num_training:,} to train, {metrics.num_reviews:,} to validate"),
        ("n-grams", f"{len(baseline.ngrams):,} of 1 to 3 words, in {MIN_REVIEWS} reviews or more"),
        ("accuracy", f"{100 * metrics.accuracy:.2f} %   95 %: {low:.2f} to {high:.2f}"),
        ("NLL", f"{metrics.nll:.4f}    {temperature}"),
        ("seconds", f"{seconds:.1f}, of which {trained.tokenizing_seconds:.1f} for tokens"),
    ]
    title = [sanitize(str(baseline.path)), f"on validation: {sanitize(trained.origin)}"]
    figures = [f"  {name:<{_FIRST}}{value}" for name, value in rows]
    lines = [*title, "", *figures, "", *_ngram_lines(baseline)]
    return "\n".join(line.rstrip() for line in lines)


def heaviest_ngrams(baseline: Baseline, label: int) -> list[str]:
    """The n-grams that speak most for a class, heaviest first."""
    weights = baseline.model.class_weights()[label]
    chosen = np.argsort(-weights, kind="stable")[:_NUM_SHOWN]
    texts = baseline.ngrams.texts()
    return [texts[each] for each in chosen.tolist() if weights[each] > 0]


def _ngram_lines(baseline: Baseline) -> list[str]:
    """The heaviest n-grams of two classes side by side, then those of the next two."""
    columns = []
    for label, name in enumerate(baseline.class_names):
        ngrams = [f"  {truncate(each, _HALF - 4)}" for each in heaviest_ngrams(baseline, label)]
        columns.append([f"weigh most for {truncate(name, _HALF - 17)}", *ngrams])
    blocks = [_side_by_side(columns[start : start + 2]) for start in range(0, len(columns), 2)]
    return [line for block in blocks for line in ["", *block]][1:]


def _side_by_side(columns: Sequence[Sequence[str]]) -> list[str]:
    return [
        "  " + "".join(pad(cell, _HALF) for cell in row)
        for row in zip_longest(*columns, fillvalue="")
    ]
