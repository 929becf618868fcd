"""From settings to a baseline in its folder: reviews, tokens, n-grams, weights, evaluation."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from sentiment.baseline.folder import Baseline, check_place, finish_baseline, save_baseline
from sentiment.baseline.linear import REGULARIZATION, fit_linear
from sentiment.baseline.ngrams import LONGEST, Ngrams, find_ngrams
from sentiment.baseline.outputs import write_evaluation
from sentiment.config import Config
from sentiment.evaluation.calibration import fit_temperature
from sentiment.evaluation.evaluate import Predictions
from sentiment.evaluation.measure import Evaluation, measure
from sentiment.receipt import git_state, versions
from sentiment.text.batches import EncodedCorpus, encode
from sentiment.text.fingerprints import reviews_fingerprint
from sentiment.text.pipeline import tokenize_reviews
from sentiment.text.reviews import Reviews, load_training_splits
from sentiment.text.tokenizer import TokenizedTexts
from sentiment.text.vocabulary import UNK_ID

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
        ValueError: a file of reviews is not as it must be, or no n-gram is in enough of them.
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
        raise ValueError(
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
