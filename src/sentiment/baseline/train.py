"""Training a baseline, and its report."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
from scipy.sparse import vstack

from sentiment.baseline.folder import Baseline, check_replaceable, evaluation_folder, save_baseline
from sentiment.baseline.linear import (
    LONGEST,
    LinearModel,
    Ngrams,
    find_ngrams,
    fit_linear,
    regularization,
)
from sentiment.config.config import Config
from sentiment.data.batches import EncodedCorpus, encode
from sentiment.data.pipeline import check_class_names, fingerprints_of, tokenize_reviews
from sentiment.data.reviews import (
    Reviews,
    load_training_splits,
    load_unlabelled,
    log_classes,
    reviews_fingerprint,
)
from sentiment.data.tokenizer import TokenizedTexts
from sentiment.data.vocabulary import UNK_ID
from sentiment.display.console import format_table, sanitize, truncate
from sentiment.evaluation.calibration import fit_temperature
from sentiment.evaluation.evaluate import Predictions
from sentiment.evaluation.outputs import ReportHead, describe_hold_out, write_evaluation
from sentiment.evaluation.report import Evaluation, evaluate_predictions
from sentiment.runs.manifest import git_state, versions
from sentiment.runs.run import HALF_MADE
from sentiment.runtime.errors import UserError

# Rarer n-grams make the model twice as large on IMDB, and no more accurate on held-out stretches.
MIN_REVIEWS = 3

_NUM_SHOWN = 10  # n-grams per class
_HALF = 38  # columns of one of two classes side by side


@dataclass(frozen=True)
class Teachers:
    """Models that label the unlabelled reviews, so that a linear model learns from these too."""

    descriptions: Sequence[dict[str, str]]  # for run.json; each has its folder as "path"
    # From reviews and the fingerprint of the validation reviews, (num_reviews, num_classes)
    # probabilities; refuses teachers that may have learned from the validation reviews.
    label: Callable[[Reviews, dict[str, Any]], np.ndarray]


@dataclass(frozen=True)
class TrainedBaseline:
    """A baseline, its evaluation and figures of its training."""

    baseline: Baseline
    head: ReportHead
    evaluation: Evaluation  # on the validation reviews
    num_training: int  # training reviews
    lesson: str  # what it learned from besides; empty without teachers
    tokenizing_seconds: float  # or reading cached tokens


def train_baseline(
    config: Config, path: Path, *, overwrite: bool = False, teachers: Teachers | None = None
) -> TrainedBaseline:
    """Train on a run's training reviews, evaluate on its validation reviews, write the folder.

    ``config`` holds the run's settings, of which the data section and ``training.positive_class``
    count; ``overwrite`` allows an existing baseline to be replaced. With ``teachers`` it also
    learns from the source's unlabelled reviews.

    Raises:
        OSError: the folder holds something else or cannot be written, or reviews are missing.
        UserError: a file of reviews is invalid, or no word occurs in enough of them.
    """
    check_replaceable(path, overwrite=overwrite)
    started = time.perf_counter()
    date = datetime.now(timezone.utc).isoformat(timespec="seconds")
    train, validation = load_training_splits(config.data)
    check_class_names(config, train)
    log_classes(train)
    before = time.perf_counter()
    tokens = tokenize_reviews(train, config.data)
    validation_tokens = tokenize_reviews(validation, config.data)
    tokenizing_seconds = time.perf_counter() - before
    splits = {"train": train, "validation": validation}
    if teachers is not None:
        splits["unsupervised"] = load_unlabelled(config.data, train, validation)
    ngrams, model = _fit(splits, tokens, config, teachers)
    log_probabilities = model.log_probabilities(ngrams.matrix(validation_tokens))
    temperature = fit_temperature(log_probabilities, validation.labels)
    baseline = Baseline(path, config, train.class_names, ngrams, model, temperature)
    evaluation = evaluate_predictions(
        Predictions(
            log_probabilities, validation.labels, config.training.positive_index(train.class_names)
        ),
        validation,
        _encode(validation, validation_tokens, ngrams),
        temperature,
        fitted_here=True,
    )
    seconds = time.perf_counter() - started
    taught = {} if teachers is None else {"teachers": list(teachers.descriptions)}
    num_texts = len(train) + (0 if teachers is None else len(splits["unsupervised"]))
    provenance = {
        "started": date,
        "command": sys.argv[1:],
        "data": fingerprints_of(splits),
        **taught,
        "ngrams": {"longest": LONGEST, "min_reviews": MIN_REVIEWS, "number": len(ngrams)},
        "regularization": regularization(len(train), num_texts),
        "versions": versions(),
        "git": git_state(),
    }
    save_baseline(baseline, provenance)
    lesson = "" if teachers is None else _describe_lesson(teachers, len(splits["unsupervised"]))
    head = _describe(baseline, validation.origin, lesson)
    write_evaluation(head, evaluation, evaluation_folder(path), seconds=seconds)
    (path / HALF_MADE).unlink()
    return TrainedBaseline(baseline, head, evaluation, len(train), lesson, tokenizing_seconds)


def _fit(
    splits: dict[str, Reviews], tokens: TokenizedTexts, config: Config, teachers: Teachers | None
) -> tuple[Ngrams, LinearModel]:
    """Find n-grams in the training reviews, whose tokens are given, and weigh them."""
    train = splits["train"]
    ngrams = find_ngrams(tokens, min_texts=MIN_REVIEWS)
    if len(ngrams) == 0:
        raise UserError(
            f"{train.origin}: no word occurs in {MIN_REVIEWS} of its {len(train)} training "
            "reviews, so a baseline has nothing to learn from: give more reviews"
        )
    matrix, probabilities = ngrams.matrix(tokens), None
    if teachers is not None:
        unlabelled = splits["unsupervised"]
        probabilities = teachers.label(unlabelled, reviews_fingerprint(splits["validation"]))
        more = ngrams.matrix(tokenize_reviews(unlabelled, config.data))
        matrix = vstack((matrix, more), format="csr")
    return ngrams, fit_linear(matrix, train.labels, len(train.class_names), probabilities)


def _describe_lesson(teachers: Teachers, num_reviews: int) -> str:
    names = " and ".join(sanitize(teacher["path"]) for teacher in teachers.descriptions)
    return f"{num_reviews:,} reviews without labels, by the probabilities of {names}"


def _describe(baseline: Baseline, origin: str, lesson: str) -> ReportHead:
    more = (f"It also learned from {lesson}.",) if lesson else ()
    return ReportHead(
        path=baseline.path,
        kind="Student" if lesson else "Baseline",
        model=f"logistic regression on {len(baseline.ngrams):,} n-grams of one to three words, "
        "weighted by the log-count ratios of naive Bayes",
        reads="the whole review",
        split="validation",
        origin=origin,
        hold_out=describe_hold_out(baseline.config.data),
        is_validation=True,
        device="cpu",
        remarks=(
            "The temperature was chosen on these reviews, the weights and the n-grams without "
            "them.",
            *more,
        ),
    )


def _encode(reviews: Reviews, tokens: TokenizedTexts, ngrams: Ngrams) -> EncodedCorpus:
    """Untruncated reviews, in which words outside the n-grams are unknown."""
    known = set(ngrams.words)
    ids = np.fromiter((UNK_ID + (word in known) for word in tokens.lexicon), np.int32)
    longest = int(np.diff(tokens.offsets).max(initial=1))
    return encode(tokens, ids, reviews.labels, max_length=longest)


def baseline_table(trained: TrainedBaseline, seconds: float) -> str:
    """The metrics and the n-grams with the largest weights; ``seconds`` is the total time."""
    baseline, metrics = trained.baseline, trained.evaluation.metrics
    calibration = trained.evaluation.calibration
    low, high = (100 * bound for bound in metrics.accuracy_ci95)
    temperature = f"{calibration.after.nll:.4f} at temperature {baseline.temperature:.2f}"
    rows = [
        ("reviews", f"{trained.num_training:,} to train, {metrics.num_reviews:,} to validate"),
        *([("also", trained.lesson)] if trained.lesson else []),
        ("n-grams", f"{len(baseline.ngrams):,} of 1 to 3 words, in {MIN_REVIEWS} reviews or more"),
        ("accuracy", f"{100 * metrics.accuracy:.2f} %   95 %: {low:.2f} to {high:.2f}"),
        ("NLL", f"{metrics.nll:.4f}    {temperature}"),
        ("seconds", f"{seconds:.1f}, of which {trained.tokenizing_seconds:.1f} for tokenizing"),
    ]
    table = format_table(rows, align="<", min_widths=[10], flexible=1)
    return "\n\n".join([trained.head.title, table, *_ngram_tables(baseline)])


def _ngram_tables(baseline: Baseline) -> list[str]:
    """The n-grams with the largest weights, of two classes side by side, the next two below."""
    columns = []
    texts = baseline.ngrams.texts()
    for name, weights in zip(baseline.class_names, baseline.model.class_weights(), strict=True):
        order = np.argsort(-weights, kind="stable")[:_NUM_SHOWN]
        heaviest = [texts[index] for index in order.tolist() if weights[index] > 0]
        title = f"largest weights for {truncate(name, _HALF - 22)}"
        columns.append([title, *(f"  {truncate(ngram, _HALF - 4)}" for ngram in heaviest)])
    pairs = [columns[start : start + 2] for start in range(0, len(columns), 2)]
    rows = [zip_longest(*pair, fillvalue="") for pair in pairs]
    return [format_table(lines, align="<", min_widths=[_HALF - 2]) for lines in rows]
