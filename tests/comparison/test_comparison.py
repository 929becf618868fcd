"""Tests and intervals of a comparison against closed forms, textbooks and plain loops."""

from fractions import Fraction
from math import comb

import numpy as np
import pytest
from scipy.stats import t

from sentiment.comparison.compare import average, compare, find_disagreements
from sentiment.comparison.report import caveats, explain_terms, verdicts
from sentiment.comparison.significance import (
    bootstrap_difference,
    compare_pair,
    compare_seeds,
    mcnemar,
)
from sentiment.evaluation.calibration import apply_temperature
from sentiment.evaluation.evaluate import Predictions


def predictions_of(probabilities: object, labels: object) -> Predictions:
    return Predictions(np.log(np.asarray(probabilities, dtype=np.float64)), np.asarray(labels))


def predictions_with(hits: list[bool]) -> Predictions:
    """Two classes, label 0 throughout; right where ``hits`` says."""
    rows = [[0.9, 0.1] if hit else [0.2, 0.8] for hit in hits]
    return predictions_of(rows, np.zeros(len(hits), dtype=np.int64))


def counted(both: int, first: int, second: int, neither: int) -> tuple[Predictions, Predictions]:
    one = [True] * both + [True] * first + [False] * second + [False] * neither
    other = [True] * both + [False] * first + [True] * second + [False] * neither
    return predictions_with(one), predictions_with(other)


def exact_p(only_first: int, only_second: int) -> float:
    total, fewest = only_first + only_second, min(only_first, only_second)
    tail = sum(Fraction(comb(total, count), 2**total) for count in range(fewest + 1))
    return float(min(Fraction(1), 2 * tail))


@pytest.mark.parametrize(
    ("first", "second"), [(0, 1), (0, 6), (3, 10), (10, 3), (5, 5), (12, 12), (1, 23)]
)
def test_mcnemar_of_few_is_the_binomial_sum(first, second):
    p_value, test = mcnemar(first, second)
    assert test == "exact"
    assert p_value == pytest.approx(exact_p(first, second), rel=1e-12)


def test_mcnemar_of_many_is_that_of_the_textbook():
    """Approval of a prime minister, Agresti 1990, page 350, as in R's ``?mcnemar.test``."""
    p_value, test = mcnemar(150, 86)
    assert test == "chi-square"
    assert p_value == pytest.approx(4.115e-05, rel=1e-3)
    assert mcnemar(86, 150)[0] == p_value
    assert mcnemar(12, 13)[1] == "chi-square", "from 25 on"
    assert mcnemar(40, 40)[0] == mcnemar(0, 0)[0] == 1


def test_the_bootstrap_is_that_of_resampling_reviews_in_a_loop():
    differences = np.array([-1] * 20 + [1] * 35 + [0] * 245)
    generator = np.random.default_rng(7)
    drawn = [generator.choice(differences, 300).mean() for _ in range(4_000)]
    expected = np.quantile(drawn, [0.025, 0.975])
    interval = bootstrap_difference(20, 35, 300)
    assert interval == pytest.approx(expected, abs=2 / 300)  # a step of the difference is 1 / 300
    assert interval == bootstrap_difference(20, 35, 300), "seeded"


def test_a_pair_counts_reviews_by_who_is_right():
    first, second = counted(50, 4, 9, 7)
    pair = compare_pair("A", first, "B", second)
    assert (pair.both_right, pair.only_first, pair.only_second, pair.neither) == (50, 4, 9, 7)
    assert pair.difference == pytest.approx(59 / 70 - 54 / 70)
    assert pair.agreement == pytest.approx(57 / 70)
    by_chance = (54 * 59 + 16 * 11) / 70**2
    assert pair.kappa == pytest.approx((57 / 70 - by_chance) / (1 - by_chance))
    turned = compare_pair("B", second, "A", first)
    assert turned.difference == -pair.difference and turned.mcnemar_p == pair.mcnemar_p
    assert pair.difference_ci95 is not None
    low, high = pair.difference_ci95
    assert turned.difference_ci95 == pytest.approx((-high, -low), abs=1 / 70)


def test_agreement_counts_equal_mistakes_only():
    """On the first review, both are wrong, but with different classes."""
    labels, others = [0, 0, 0, 1], [[0.2, 0.3, 0.5], [0.8, 0.1, 0.1], [0.1, 0.8, 0.1]]
    first = predictions_of([[0.2, 0.5, 0.3], *others], labels)
    second = predictions_of([[0.2, 0.3, 0.5], *others], labels)
    pair = compare_pair("A", first, "B", second)
    assert (pair.neither, pair.agreement) == (2, 0.75)


def test_a_run_does_not_differ_from_itself():
    run = predictions_with([True, False, True, True])
    comparison = compare({"A": [run], "B": [run]})
    (pair,) = comparison.pairs
    assert (pair.difference, pair.mcnemar_p, pair.agreement, pair.kappa) == (0, 1, 1, 1)
    assert pair.difference_ci95 is None and not pair.is_significant
    expected = "A and B are right on the same reviews: no difference here."
    assert verdicts(comparison) == [expected]
    run = predictions_with([True, True])
    assert compare_pair("A", run, "B", run).kappa is None, "only one class"


def test_a_run_always_right_against_one_always_wrong_has_no_interval():
    groups = {name: [predictions_with([hit] * 12)] for name, hit in (("A", False), ("B", True))}
    comparison = compare(groups)
    (pair,) = comparison.pairs
    assert pair.difference == 1 and pair.difference_ci95 is None and not pair.is_significant
    expected = "B minus A: +100.00 points, without an interval (McNemar p < 0.001)."
    assert verdicts(comparison) == [expected]


def test_welch_is_that_of_the_formulas():
    one, other = [0.90, 0.91, 0.92, 0.91], [0.93, 0.95, 0.94]
    seeds = compare_seeds("A", "B", one, other)
    errors = [np.var(each, ddof=1) / len(each) for each in (one, other)]
    freedom = sum(errors) ** 2 / (errors[0] ** 2 / 3 + errors[1] ** 2 / 2)
    half = t.ppf(0.975, freedom) * np.sqrt(sum(errors))
    assert seeds.difference == pytest.approx(0.03)
    assert seeds.difference_ci95 == pytest.approx((0.03 - half, 0.03 + half))
    assert seeds.p_value == pytest.approx(2 * t.sf(0.03 / np.sqrt(sum(errors)), freedom))
    assert seeds.is_significant


@pytest.mark.filterwarnings("error")
def test_one_group_without_variance_has_an_interval_but_two_have_none():
    seeds = compare_seeds("A", "B", [0.9148, 0.9148, 0.9148], [0.92, 0.93, 0.925])
    half = t.ppf(0.975, 2) * 0.005 / np.sqrt(3)
    assert seeds.difference_ci95 == pytest.approx((0.0102 - half, 0.0102 + half), rel=1e-6)
    seeds = compare_seeds("A", "B", [0.5, 0.5], [0.75, 0.75])
    assert seeds.difference_ci95 is None and seeds.p_value is None and not seeds.is_significant
    group = [predictions_with([True, False])] * 2
    (verdict,) = verdicts(compare({"A": group, "B": group}))
    assert "their variance is unknown" in verdict


def test_a_group_has_mean_deviation_and_ensemble():
    labels = [0, 0, 0, 0]
    runs = [
        predictions_of([[0.9, 0.1], [0.4, 0.6], [0.6, 0.4], [0.3, 0.7]], labels),
        predictions_of([[0.8, 0.2], [0.9, 0.1], [0.3, 0.7], [0.4, 0.6]], labels),
        predictions_of([[0.7, 0.3], [0.8, 0.2], [0.9, 0.1], [0.9, 0.1]], labels),
    ]
    (side,) = compare({"A": runs}).groups
    accuracies = [run.accuracy for run in side.runs]
    assert accuracies == [0.5, 0.5, 1.0]
    assert side.accuracy == pytest.approx(2 / 3)
    assert side.accuracy_deviation == pytest.approx(np.sqrt(((1 / 6) ** 2 * 2 + (1 / 3) ** 2) / 2))
    assert side.nll_deviation == pytest.approx(np.std([run.nll for run in side.runs], ddof=1))
    assert side.runs[0].nll == pytest.approx(-np.log([0.9, 0.4, 0.6, 0.3]).mean())
    assert side.ensemble_accuracy == 1.0, "the mean of probabilities, not of votes"
    geometric = np.cbrt([0.3 * 0.4 * 0.9, 0.7 * 0.6 * 0.1])
    together = np.exp(average(runs).log_probabilities[3])
    assert together == pytest.approx(geometric / geometric.sum())


def test_probabilities_are_averaged_at_their_temperatures():
    labels = [0, 1]
    raw = [
        predictions_of([[0.99, 0.01], [0.99, 0.01]], labels),  # overconfident
        predictions_of([[0.70, 0.30], [0.20, 0.80]], labels),
    ]
    calibrated = [
        Predictions(apply_temperature(run.log_probabilities, temperature), run.labels)
        for run, temperature in zip(raw, (5.0, 1.0), strict=True)
    ]
    assert compare({"A": calibrated}).groups[0].ensemble_accuracy == 1.0
    assert compare({"A": raw}).groups[0].ensemble_accuracy == 0.5


def test_losses_are_compared_by_the_paired_t_of_the_formulas():
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 2, 200)
    right = generator.uniform(0.3, 0.95, 200)
    better = np.clip(right + generator.normal(0.02, 0.05, 200), 0.01, 0.99)
    runs = [
        predictions_of(
            np.where(labels[:, None] == [0, 1], each[:, None], 1 - each[:, None]), labels
        )
        for each in (right, better)
    ]
    (pair,) = compare({"A": runs[:1], "B": runs[1:]}).pairs
    differences = np.log(right) - np.log(better)
    half = t.ppf(0.975, 199) * differences.std(ddof=1) / np.sqrt(200)
    assert pair.nll_difference == pytest.approx(differences.mean())
    expected = differences.mean() - half, differences.mean() + half
    assert pair.nll_difference_ci95 == pytest.approx(expected)
    statistic = abs(differences.mean()) / (differences.std(ddof=1) / np.sqrt(200))
    assert pair.nll_p == pytest.approx(2 * t.sf(statistic, 199))


@pytest.mark.parametrize("turned", [False, True])
def test_better_probabilities_are_told_where_accuracies_are_equal(turned):
    """As sure and right as often on the same reviews, but less sure where it is wrong."""
    labels = [0] * 300
    mistakes = np.tile([True, False, False, False, False], 60)
    one = np.where(mistakes, 0.05, 0.9)
    other = np.where(mistakes, 0.3, 0.9)
    runs = [predictions_of(np.stack([each, 1 - each], axis=1), labels) for each in (one, other)]
    names = ("B", "A") if turned else ("A", "B")
    comparison = compare(dict(zip(names, ([run] for run in runs), strict=True)))
    gain = 0.2 * (np.log(0.3) - np.log(0.05))
    equal, told = verdicts(comparison)
    assert "right on the same reviews" in equal
    better, worse = names[1], names[0]
    start = f"The probabilities of {better} are better than those of {worse}: an NLL lower by "
    assert told.startswith(f"{start}{gain:.4f} (95 %: 0.")
    assert told.endswith("; paired t p < 0.001).")
    assert "paired t p" in explain_terms(comparison)


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([1, 1, 1], ["AB", "AC", "BC"]),
        ([1, 1, 1, 1], ["AB", "AC", "AD", "BC", "BD", "CD"]),
        ([1, 1, 1, 1, 1], ["AB", "AC", "AD", "AE"]),
        ([3], ["A1A2", "A1A3", "A2A3"]),
        ([2, 2], ["A~B"]),
        ([2, 1], ["A1B", "A2B"]),
        ([2, 2, 1], ["A1C", "A2C", "B1C", "B2C", "A~B"]),
    ],
)
def test_which_groups_are_compared(sizes, expected):
    run = predictions_with([True, False, True])
    comparison = compare({"ABCDE"[index]: [run] * size for index, size in enumerate(sizes)})
    names = [f"{each.first}{each.second}" for each in comparison.pairs]
    assert names + [f"{each.first}~{each.second}" for each in comparison.seeds] == expected


@pytest.mark.parametrize(
    ("counts", "start"),
    [
        ((900, 10, 40, 50), "B is better than A by 3.00 points (95 %: "),
        ((900, 40, 10, 50), "A is better than B by 3.00 points (95 %: "),
        ((900, 20, 24, 56), "No difference shown between A and B: B is 0.40 points ahead (95 %: "),
        ((900, 24, 20, 56), "No difference shown between A and B: A is 0.40 points ahead (95 %: "),
        ((900, 20, 20, 60), "No difference shown between A and B: 0 points (95 %: "),
    ],
)
def test_verdicts_say_what_the_figures_say(counts, start):
    one, other = counted(*counts)
    comparison = compare({"A": [one], "B": [other]})
    (verdict,) = verdicts(comparison)
    assert verdict.startswith(start)
    low, high = comparison.pairs[0].difference_ci95 or (0, 0)
    if counts[1] > counts[2]:
        low, high = -high, -low
    assert f"(95 %: {100 * low:.2f} to {100 * high:.2f}; McNemar p " in verdict


def test_a_verdict_needs_interval_and_test():
    """Six reviews against none: the bootstrap leaves out 0, McNemar's p is 0.031; five: 0.0625."""
    one, other = counted(60, 0, 6, 4)
    assert compare_pair("A", one, "B", other).is_significant
    one, other = counted(60, 0, 5, 5)
    comparison = compare({"A": [one], "B": [other]})
    (pair,) = comparison.pairs
    assert (
        pair.difference_ci95 is not None and pair.difference_ci95[0] > 0 and not pair.is_significant
    )
    assert verdicts(comparison)[0].endswith("p = 0.0625). Interval and test disagree.")


def test_many_comparisons_and_few_seeds_are_said():
    runs = [predictions_with(hits) for hits in ([True, False], [True, True], [False, False])]
    many = " ".join(caveats(compare({"A": runs})))
    assert "3 comparisons" in many and "multiply p by 3" in many
    few = " ".join(caveats(compare({"A": runs[:2], "B": runs})))
    assert "2 seeds are few" in few and "Bonferroni" not in few
    assert "Welch" in explain_terms(compare({"A": runs, "B": runs}))["mean difference"]


def test_disagreements_are_those_farthest_apart():
    labels = [0, 0, 0, 0]
    one = predictions_of([[0.9, 0.1], [0.6, 0.4], [0.99, 0.01], [0.55, 0.45]], labels)
    other = predictions_of([[0.2, 0.8], [0.4, 0.6], [0.51, 0.49], [0.1, 0.9]], labels)
    assert find_disagreements(one, other, most=10).tolist() == [0, 3, 1]
    assert find_disagreements(one, other, most=1).tolist() == [0]
    assert find_disagreements(one, one, most=10).tolist() == []
