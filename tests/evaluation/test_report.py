"""What an evaluation says, against counts made by hand, and how it is shown."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch

from sentiment.data import batches, tokenizer
from sentiment.data.reviews import Reviews
from sentiment.display.console import width
from sentiment.evaluation.evaluate import Predictions
from sentiment.evaluation.outputs import ReportHead, write_evaluation_page
from sentiment.evaluation.report import Evaluation, evaluate_predictions, report_table
from sentiment.evaluation.slices import (
    by_cut,
    by_length,
    by_unknown_share,
    shorten_review,
    unknown_shares,
)

HOSTILE = '<script>alert("x")</script> & \x1b[31mred\x00\x08 良い \u202eevil'


def corpus_of(lengths, *, max_length=10, keep="head", num_words=6, seed=0):
    """Reviews of random words, of which every third type is unknown."""
    generator = np.random.default_rng(seed)
    offsets = np.concatenate(([0], np.cumsum(lengths))).astype(np.int64)
    tokens = generator.integers(0, num_words, offsets[-1]).astype(np.int32)
    ids = np.array([1 if n % 3 == 0 else n + 2 for n in range(num_words)], dtype=np.int32)
    words = [f"word{n}" for n in range(num_words)]
    tokenized = tokenizer.TokenizedTexts(tokens, offsets, words)
    labels = np.zeros(len(lengths), dtype=np.int64)
    return batches.encode(tokenized, ids, labels, max_length=max_length, keep=keep)


def evaluate(num_reviews=60, class_names=("neg", "pos"), *, fitted_here=False) -> Evaluation:
    generator = np.random.default_rng(1)
    num_classes = len(class_names)
    labels = generator.integers(0, num_classes, num_reviews)
    logits = generator.normal(size=(num_reviews, num_classes))
    logits[np.arange(num_reviews), labels] += 1
    log_probabilities = torch.from_numpy(logits).log_softmax(1).numpy()
    texts = [f"review {n} {HOSTILE}" for n in range(num_reviews)]
    reviews = Reviews(texts, labels, tuple(class_names), "nowhere")
    corpus = corpus_of(generator.integers(0, 25, num_reviews))
    predictions = Predictions(log_probabilities, labels)
    return evaluate_predictions(predictions, reviews, corpus, 1.5, fitted_here=fitted_here)


def describe(**more) -> ReportHead:
    values = {"model": "LSTM", "reads": "all", "split": "test", "origin": "here", "device": "cpu"}
    return ReportHead(**{"path": Path("run"), **values, **more})


@pytest.mark.parametrize("keep", ["head", "tail", "head+tail"])
def test_unknown_shares_are_of_what_batches_hold(keep, monkeypatch):
    monkeypatch.setattr("sentiment.evaluation.slices.TOKENS_AT_ONCE", 7)
    corpus = corpus_of([3, 0, 25, 10, 11, 1, 40, 0], keep=keep)
    batch = corpus.batch(torch.arange(len(corpus)))
    for row, length, share in zip(batch.tokens, batch.lengths, unknown_shares(corpus), strict=True):
        assert share == pytest.approx((row[:length] == 1).double().mean().item())


def test_unknown_shares_of_reviews_without_any_token():
    assert unknown_shares(corpus_of([0, 0])).tolist() == [1, 1]


def test_groups_hold_every_review_once():
    generator = np.random.default_rng(0)
    values = generator.integers(1, 400, 500)
    is_right = generator.random(500) < 0.8
    groups = by_length(values, is_right)
    assert len(groups) == 5
    assert sum(group.num_reviews for group in groups) == 500
    assert sum(group.num_reviews * group.accuracy for group in groups) == pytest.approx(
        is_right.sum()
    )
    for group in groups:
        low, high = (int(each) for each in group.name.removesuffix(" tokens").split(" to "))
        inside = (values >= low) & (values <= high)
        assert group.num_reviews == inside.sum()
        assert group.accuracy == pytest.approx(is_right[inside].mean())
        assert group.accuracy_ci95[0] <= group.accuracy <= group.accuracy_ci95[1]


def test_equal_values_are_one_group():
    assert [group.name for group in by_length(np.full(100, 7), np.ones(100, bool))] == ["7 tokens"]
    assert [group.name for group in by_length(np.array([1]), np.ones(1, bool))] == ["1 token"]
    no_unknown = by_unknown_share(np.zeros(90), np.ones(90, bool))
    assert [(group.name, group.num_reviews) for group in no_unknown] == [("none unknown", 90)]


def test_reviews_of_no_unknown_words_stand_alone():
    shares = np.concatenate((np.zeros(300), np.linspace(0.01, 0.4, 100)))
    groups = by_unknown_share(shares, np.arange(400) % 2 == 0)
    assert groups[0].name == "none unknown" and groups[0].num_reviews == 300
    assert [group.num_reviews for group in groups[1:]] == [25] * 4


def test_cut_and_whole_reviews():
    groups = by_cut(np.array([True, False, False]), np.array([False, True, False]))
    assert [(group.name, group.accuracy) for group in groups] == [("read whole", 0.5), ("cut", 0)]
    assert [each.name for each in by_cut(np.array([False]), np.array([True]))] == ["read whole"]


@pytest.mark.parametrize("num_classes", [2, 3])
def test_reviews_to_read_are_the_ends_of_the_ranking(num_classes):
    evaluation = evaluate(200, [f"c{n}" for n in range(num_classes)])
    probabilities = torch.from_numpy(evaluation.predictions.log_probabilities / 1.5).softmax(1)
    confidences, predicted = (each.tolist() for each in probabilities.max(dim=1))
    labels = evaluation.predictions.labels.tolist()
    wrong = [n for n in range(200) if predicted[n] != labels[n]]
    expected = sorted(wrong, key=lambda n: -confidences[n])[:10]
    assert [each.row for each in evaluation.mistakes] == expected
    least = sorted(range(200), key=lambda n: confidences[n])[:10]
    assert [each.row for each in evaluation.uncertain] == least
    for each in (*evaluation.mistakes, *evaluation.uncertain):
        assert each.probability == pytest.approx(confidences[each.row])
        assert each.text.startswith(f"review {each.row} ")
        assert each.label == f"c{labels[each.row]}"


@pytest.mark.parametrize(
    "class_names",
    [
        ("neg", "pos"),
        ("a" * 60, "b\x1b[2J\nc"),
        ("良い" * 20, "x"),
        tuple(f"star {n}" for n in range(5)),
        tuple(f"class of number {n}" for n in range(30)),
    ],
)
@pytest.mark.parametrize("num_reviews", [1, 300])
def test_the_table_fits_a_terminal_and_cannot_move_its_cursor(class_names, num_reviews):
    table = report_table(evaluate(num_reviews, class_names, fitted_here=True), "title")
    assert "\x1b" not in table
    for line in table.split("\n"):
        assert width(line) <= 80, line
        assert line == line.rstrip()


def test_the_table_says_what_is_undefined_and_what_flatters():
    table = report_table(evaluate(1, fitted_here=True), "title")
    assert "undefined: a class does not occur" in table
    assert "fitted on these reviews, so its column is optimistic.\n" in table
    assert "ross-fitted" not in table, "of one review there are no halves"
    assert "cross-fitted: each half" in report_table(evaluate(fitted_here=True), "title")
    assert "fitted on these reviews" not in report_table(evaluate(), "title")


def test_a_matrix_too_wide_lists_its_largest_confusions():
    evaluation = evaluate(300, [f"class of number {n}" for n in range(30)])
    confusion = np.array(evaluation.metrics.confusion)
    np.fill_diagonal(confusion, 0)
    right, predicted = np.unravel_index(confusion.argmax(), confusion.shape)
    lines = report_table(evaluation, "title").split("\n")
    start = next(number for number, line in enumerate(lines) if "right class" in line)
    row = lines[start + 1].split()
    assert [row[3], row[7], row[8]] == [str(right), str(predicted), str(confusion.max())]


class Page(HTMLParser):
    """Elements still open, those that could run or load something, and all text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.active: list[str] = []
        self.shown = ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        loads = any(
            name.startswith("on") or (name in ("src", "href") and str(value).startswith("http"))
            for name, value in attributes
        )
        if tag in ("script", "iframe", "link", "object") or loads:
            self.active.append(tag)
        if tag not in ("meta", "br", "img"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.shown += data


@pytest.mark.parametrize(
    ("num_reviews", "class_names"),
    [(60, ("neg", "pos")), (1, ("neg", HOSTILE)), (80, ("a", HOSTILE, "c")), (40, ("x",) * 30)],
)
def test_the_page_is_whole_alone_and_inert(num_reviews, class_names, tmp_path):
    evaluation = evaluate(num_reviews, class_names, fitted_here=True)
    path = tmp_path / "report.html"
    head = describe(path=Path(HOSTILE), remarks=["Mind this."])
    write_evaluation_page(path, head, evaluation, {}, date="today")
    text = path.read_text(encoding="utf-8")
    page = Page(text)
    assert page.open == [] and page.active == []
    assert not set("\x1b\x00\x08") & set(text) and "␛[31mred␀␈" in page.shown
    assert '<script>alert("x")</script> &' in page.shown and "Mind this." in page.shown
    assert "fitted on these reviews," in page.shown.replace("\n", " ")
    for example in evaluation.uncertain:
        assert f"review {example.row} " in page.shown


def shown_page(path, evaluation, **more) -> str:
    write_evaluation_page(path, describe(**more), evaluation, {}, date="today")
    return " ".join(Page(path.read_text(encoding="utf-8")).shown.split())


def test_the_page_says_what_the_temperature_was_fitted_on(tmp_path):
    path = tmp_path / "report.html"
    assert "are unbiased here" in shown_page(path, evaluate())
    trained = shown_page(path, evaluate(), is_training=True)
    assert (
        "unbiased" not in trained
        and "but the model was trained on the reviews used here" in trained
    )
    assert "quote this score" in shown_page(path, evaluate(fitted_here=True))
    alone = shown_page(path, evaluate(1, fitted_here=True))
    assert "fitted on these reviews," in alone and "ross-fitted" not in alone


def test_the_page_numbers_rows_from_one_and_says_how_intervals_were_had(tmp_path):
    evaluation = evaluate(2_000)
    shown = shown_page(tmp_path / "report.html", evaluation)
    for example in evaluation.mistakes:
        assert f" · row {example.row + 1:,} · " in shown
    assert "numbered from 1, as explain --row" in shown
    assert "if fewer than 20 reviews are right, or wrong. Of F1: percentiles of" in shown


def test_a_long_review_is_cut_with_a_sign():
    assert shorten_review("a" * 20_000) == "a" * 20_000
    assert shorten_review("a" * 20_000 + "b") == "a" * 20_000 + " …"
    reviews = Reviews(["long " * 5_000], np.array([1]), ("neg", "pos"), "nowhere")
    predictions = Predictions(np.log([[0.9, 0.1]]), reviews.labels)
    (example,) = evaluate_predictions(
        predictions, reviews, corpus_of([9]), 1.0, fitted_here=False
    ).mistakes
    assert example.text == shorten_review(reviews.texts[0]) and example.text.endswith("long  …")


def test_the_report_is_json_without_numbers_that_are_none():
    for evaluation in (evaluate(1), evaluate(50, ("a", "b", "c"), fitted_here=True)):
        values = json.loads(json.dumps(evaluation.as_dict(), allow_nan=False))
        assert values["calibration"]["temperature"] == 1.5
        assert (
            sum(group["num_reviews"] for group in values["accuracy_by"]["length"])
            == (values["num_reviews"])
        )
