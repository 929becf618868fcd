"""Pictures: what they show is what was counted, for any classes, and they stay small."""

from __future__ import annotations

import warnings
from xml.etree import ElementTree

import numpy as np
import pytest

from sentiment.display.plots import as_svg
from sentiment.evaluation.evaluate import Predictions
from sentiment.evaluation.plots import (
    draw_confusion,
    draw_groups,
    draw_precision_recall,
    draw_predictions,
    draw_reliability,
    draw_roc,
    draw_scores,
)
from sentiment.evaluation.slices import Group


def draw(num_reviews: int, num_classes: int, seed: int = 0) -> Predictions:
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, num_classes, num_reviews)
    logits = generator.normal(size=(num_reviews, num_classes))
    logits[np.arange(num_reviews), labels] += 1.5
    logits -= np.log(np.exp(logits).sum(axis=1, keepdims=True))
    return Predictions(logits, labels)


def words(figure) -> str:
    """Every text of a figure's picture."""
    root = ElementTree.fromstring(as_svg(figure))
    return "\n".join("".join(each.itertext()) for each in root.iter() if each.tag.endswith("text"))


def test_confusion_shows_its_counts():
    shown = words(draw_confusion(np.array([[1_134, 116], [90, 1_160]]), ("neg", "pos")))
    for text in ("1,134", "116", "90", "1,160", "90.7 %", "neg", "pos", "right class"):
        assert text in shown


def test_curves_are_thinned_but_go_where_the_whole_curve_goes():
    from sklearn.metrics import roc_curve

    predictions = draw(25_000, 2)
    scores = predictions.probabilities
    figure = draw_roc(scores, predictions.labels, ("neg", "pos"))
    xs, ys = figure.axes[0].lines[1].get_data()
    whole_xs, whole_ys, _ = roc_curve(predictions.labels, scores[:, 1])
    assert len(xs) <= 200 < len(whole_xs)
    assert (xs[0], ys[0], xs[-1], ys[-1]) == (0, 0, 1, 1)
    # Seen along the diagonal, as the curve has upright pieces.
    shown = np.interp(whole_xs + whole_ys, xs + ys, ys - xs)
    assert np.abs(shown - (whole_ys - whole_xs)).max() < 0.01


def test_precision_and_recall_start_where_all_are_found():
    predictions = draw(3_000, 2)
    figure = draw_precision_recall(predictions.probabilities, predictions.labels, ("neg", "pos"))
    chance, curve = figure.axes[0].lines
    share = predictions.labels.mean()
    assert chance.get_ydata() == pytest.approx([share, share])
    assert curve.get_xdata().max() == 1 and len(curve.get_xdata()) <= 200
    assert curve.get_ydata()[0] == pytest.approx(share)


def test_reliability_shows_each_bins_accuracy_and_count():
    before = np.array([[0.9, 0.1], [0.9, 0.1], [0.35, 0.65], [0.6, 0.4]])
    figure = draw_reliability(
        before, before, np.array([0, 1, 1, 0]), temperature=1.5, fitted_here=True
    )
    upper, lower = figure.axes
    assert upper.lines[1].get_xdata() == pytest.approx([0.6, 0.65, 0.9])
    assert upper.lines[1].get_ydata() == pytest.approx([1, 1, 0.5])
    assert sum(bar.get_height() for bar in lower.patches) == 2 * 4
    assert "temperature 1.50, fitted here" in words(figure)


def test_histograms_count_every_review():
    predictions = draw(500, 2)
    figure = draw_scores(predictions.probabilities, predictions.labels, ("neg", "pos"))
    counts = [patch.get_data().values.sum() for patch in figure.axes[0].patches]
    assert counts == np.bincount(predictions.labels).tolist()


def test_groups_have_their_accuracies_and_intervals():
    groups = [Group("short", 70, 0.9, (0.8, 0.95)), Group("long", 30, 1.0, (0.89, 1.0))]
    figure = draw_groups(groups, "Accuracy by length")
    container = figure.axes[0].containers[0]
    assert container.lines[0].get_xdata() == pytest.approx([0.9, 1.0])
    spans = [segment[:, 0].tolist() for segment in container.lines[2][0].get_segments()]
    assert spans[0] == pytest.approx([0.8, 0.95]) and spans[1] == pytest.approx([0.89, 1.0])
    assert "70 reviews" in words(figure)


@pytest.mark.parametrize("num_classes", [2, 3, 9, 40])
def test_all_pictures_are_small_for_any_number_of_classes(num_classes):
    names = [f"class {each}" for each in range(num_classes)]
    pictures = draw_predictions(draw(25_000, num_classes), names, 1.3, fitted_here=False)
    assert set(pictures) == {"confusion", "roc", "precision_recall", "reliability", "scores"}
    for figure in pictures.values():
        assert len(as_svg(figure)) < 120_000
        assert all(axes.get_xlabel() or axes.get_ylabel() for axes in figure.axes)


@pytest.mark.parametrize("labels", [[1, 1, 1], [0, 0, 0]])
def test_one_class_only_says_that_curves_are_undefined(labels):
    predictions = Predictions(np.log([[0.4, 0.6], [0.2, 0.8], [0.9, 0.1]]), np.array(labels))
    pictures = draw_predictions(predictions, ("neg", "pos"), 1.0, fitted_here=False)
    for name in ("roc", "precision_recall"):
        assert "undefined" in words(pictures[name])


@pytest.mark.filterwarnings("ignore:Glyph")
def test_names_are_shown_as_they_are_and_never_run():
    names = ("$x_1$", "_hidden", "<script>alert(1)</script>", "a\x1b[31mb", r"\$\frac{")
    pictures = draw_predictions(draw(200, 5), names, 1.0, fitted_here=False)
    for name in ("confusion", "roc", "scores"):
        text = as_svg(pictures[name])
        assert "<script" not in text and "\x1b" not in text
        shown = words(pictures[name])
        assert "$x_1$" in shown and "_hidden" in shown and "<script>" in shown
        assert "a␛[31mb" in shown


def test_no_figure_is_kept_by_pyplot():
    import matplotlib.pyplot as plt

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        draw_predictions(draw(50, 2), ("neg", "pos"), 1.0, fitted_here=False)
    assert plt.get_fignums() == []
