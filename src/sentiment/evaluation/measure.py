"""All that an evaluation says: figures with their intervals, calibration, kinds of reviews."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from sentiment.evaluation.breakdown import (
    Example,
    Group,
    by_cut,
    by_length,
    by_unknown_share,
    confident_mistakes,
    uncertain_reviews,
    unknown_shares,
)
from sentiment.evaluation.calibration import Calibration, apply_temperature, measure_calibration
from sentiment.evaluation.evaluate import Predictions
from sentiment.evaluation.intervals import Interval, auroc_interval, f1_interval
from sentiment.evaluation.metrics import Metrics, ranking_scores
from sentiment.text.batches import EncodedCorpus
from sentiment.text.reviews import Reviews


@dataclass(frozen=True)
class Evaluation:
    """A model measured on reviews.

    Attributes:
        class_names: the classes, in the order of their labels.
        predictions: at temperature 1, as all of ``metrics`` is.
        calibrated: at the run's temperature, as the examples are.
        metrics: the figures.
        f1_ci95, auroc_ci95: 95 % intervals of two of them; None where they are not defined. For
            F1 by bootstrap, up to ten classes; for the AUROC of two classes by DeLong's method.
        calibration: scores of the probabilities before and after the temperature.
        groups: accuracy by kind of review: ``length``, ``unknown`` and ``cut``.
        mistakes, uncertain: reviews to read.
        num_tokens: (num_reviews,) before cutting.
        was_cut: (num_reviews,) whether a review is longer than the model reads.
        unknown_token_share: of all tokens, cut-off ones included.
    """

    class_names: tuple[str, ...]
    predictions: Predictions
    calibrated: Predictions
    metrics: Metrics
    f1_ci95: Interval | None
    auroc_ci95: Interval | None
    calibration: Calibration
    groups: dict[str, list[Group]]
    mistakes: list[Example]
    uncertain: list[Example]
    num_tokens: np.ndarray
    was_cut: np.ndarray
    unknown_token_share: float

    def as_dict(self) -> dict[str, Any]:
        """The figures as JSON-able values."""
        return {
            **self.metrics.as_dict(),
            "f1_ci95": self.f1_ci95,
            "auroc_ci95": self.auroc_ci95,
            "calibration": self.calibration.as_dict(),
            "accuracy_by": {
                name: [asdict(group) for group in groups] for name, groups in self.groups.items()
            },
            "unknown_token_share": self.unknown_token_share,
            "cut_review_share": float(self.was_cut.mean()),
            "class_names": list(self.class_names),
        }


def measure(
    predictions: Predictions,
    reviews: Reviews,
    corpus: EncodedCorpus,
    temperature: float,
    *,
    fitted_here: bool,
) -> Evaluation:
    """Measure what a model says of reviews.

    Args:
        predictions: what it says, at temperature 1.
        reviews: of which reviews, with the model's classes.
        corpus: the same, as the model read them.
        temperature: the run's.
        fitted_here: whether it was fitted on these reviews.
    """
    log_probabilities, labels = predictions.log_probabilities, predictions.labels
    metrics = predictions.metrics()
    is_binary = log_probabilities.shape[1] == 2
    calibrated = Predictions(apply_temperature(log_probabilities, temperature), labels)
    is_right = predictions.predicted == labels
    num_tokens, was_cut = corpus.full_lengths.numpy(), corpus.was_cut().numpy()
    return Evaluation(
        class_names=reviews.class_names,
        predictions=predictions,
        calibrated=calibrated,
        metrics=metrics,
        f1_ci95=f1_interval(np.array(metrics.confusion)),
        auroc_ci95=auroc_interval(ranking_scores(log_probabilities)[:, 1], labels == 1)
        if is_binary
        else None,
        calibration=measure_calibration(
            log_probabilities, labels, temperature, fitted_here=fitted_here
        ),
        groups={
            "length": by_length(num_tokens, is_right),
            "unknown": by_unknown_share(unknown_shares(corpus), is_right),
            "cut": by_cut(was_cut, is_right),
        },
        mistakes=confident_mistakes(calibrated, reviews, num_tokens),
        uncertain=uncertain_reviews(calibrated, reviews, num_tokens),
        num_tokens=num_tokens,
        was_cut=was_cut,
        unknown_token_share=corpus.unknown_share(),
    )
