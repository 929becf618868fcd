"""Figures show what was counted, for any classes, and stay small."""

import warnings
from xml.etree import ElementTree

import numpy as np
import pytest
from helpers.predictions import random_predictions

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

NAMES = ("neg", "pos")


def texts(figure) -> str:
    """All text in a figure's SVG."""
    root = ElementTree.fromstring(as_svg(figure))
    elements = (each for each in root.iter() if each.tag.endswith("text"))
    return "\n".join("".join(each.itertext()) for each in elements)


def test_confusion_shows_its_counts():
    shown = texts(draw_confusion(np.array([[1_134, 116], [90, 1_160]]), NAMES))
    for text in ("1,134", "116", "90", "1,160", "90.7 %", "neg", "pos", "right class"):
        assert text in shown


def test_precision_and_recall_start_where_all_are_found():
    run = random_predictions(3_000, 2)
    chance, curve = draw_precision_recall(run.probabilities, run.labels, NAMES, [1]).axes[0].lines
    share = run.labels.mean()
    assert chance.get_ydata() == pytest.approx([share, share])
    assert curve.get_xdata().max() == 1
    assert curve.get_ydata()[0] == pytest.approx(share)


def test_reliability_shows_the_accuracy_and_count_of_each_bin():
    before = np.array([[0.9, 0.1], [0.9, 0.1], [0.35, 0.65], [0.6, 0.4]])
    labels = np.array([0, 1, 1, 0])
    figure = draw_reliability(before, before, labels, temperature=1.5, fitted_here=True)
    upper, lower = figure.axes
    assert upper.lines[1].get_xdata() == pytest.approx([0.6, 0.65, 0.9])
    assert upper.lines[1].get_ydata() == pytest.approx([1, 1, 0.5])
    assert sum(bar.get_height() for bar in lower.patches) == 2 * 4
    assert "temperature 1.50, fitted here" in texts(figure)


def test_histograms_count_every_review():
    run = random_predictions(500, 2)
    patches = draw_scores(run.probabilities, run.labels, NAMES, [1]).axes[0].patches
    counts = [patch.get_data().values.sum() for patch in patches]
    assert counts == np.bincount(run.labels).tolist()


def test_groups_have_their_accuracies_and_intervals():
    groups = [Group("short", 70, 0.9, (0.8, 0.95)), Group("long", 30, 1.0, (0.89, 1.0))]
    figure = draw_groups(groups, "Accuracy by length")
    container = figure.axes[0].containers[0]
    assert container.lines[0].get_xdata() == pytest.approx([0.9, 1.0])
    spans = [segment[:, 0].tolist() for segment in container.lines[2][0].get_segments()]
    assert spans[0] == pytest.approx([0.8, 0.95]) and spans[1] == pytest.approx([0.89, 1.0])
    assert "70 reviews" in texts(figure)


@pytest.mark.parametrize("num_classes", [2, 40])
def test_all_figures_are_small_for_any_number_of_classes(num_classes):
    names = [f"class {label}" for label in range(num_classes)]
    run = random_predictions(5_000, num_classes)
    figures = draw_predictions(run, names, 1.3, fitted_here=False)
    assert set(figures) == {"confusion", "roc", "precision_recall", "reliability", "scores"}
    for figure in figures.values():
        assert len(as_svg(figure)) < 120_000
        assert all(axes.get_xlabel() or axes.get_ylabel() for axes in figure.axes)


@pytest.mark.parametrize("label", [0, 1])
def test_curves_of_a_single_class_are_said_to_be_undefined(label):
    run = Predictions(np.log([[0.4, 0.6], [0.2, 0.8], [0.9, 0.1]]), np.full(3, label))
    for draw in (draw_roc, draw_precision_recall):
        assert "undefined" in texts(draw(run.probabilities, run.labels, NAMES, [1]))


def test_names_are_shown_literally_and_leave_no_warnings_or_open_figures():
    import matplotlib.pyplot as plt

    names = ("$x_1$", "_hidden", "<script>alert(1)</script>", "a\x1b[31mb", r"\$\frac{")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figures = draw_predictions(random_predictions(200, 5), names, 1.0, fitted_here=False)
        for name in ("confusion", "roc", "scores"):
            svg = as_svg(figures[name])
            assert "<script" not in svg and "\x1b" not in svg
            shown = texts(figures[name])
            for text in ("$x_1$", "_hidden", "<script>", "a␛[31mb"):
                assert text in shown
    assert plt.get_fignums() == []
