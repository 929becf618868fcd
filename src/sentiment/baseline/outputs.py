"""A baseline's evaluation as files, by the code that writes a run's."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path

from sentiment.baseline.folder import Baseline
from sentiment.evaluation.board import draw_pictures
from sentiment.evaluation.measure import Evaluation
from sentiment.evaluation.page import write_evaluation_page
from sentiment.evaluation.report import write_predictions, write_report

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
