"""An evaluation against counts made by hand, how it is shown, what truncation and bf16 cost."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.predictions import Page, random_predictions
from helpers.untrained_run import make_run
from torch import nn

from sentiment import load
from sentiment.cli import main as cli
from sentiment.data import batches, tokenizer
from sentiment.data.pipeline import prepare_split
from sentiment.data.reviews import Reviews
from sentiment.display.console import width
from sentiment.evaluation.evaluate import Predictions, predict_corpus
from sentiment.evaluation.outputs import ReportHead, write_evaluation_page
from sentiment.evaluation.plots import draw_truncation
from sentiment.evaluation.report import (
    Evaluation,
    evaluate_predictions,
    report_table,
    truncation_table,
)
from sentiment.evaluation.slices import (
    KEEPS,
    by_cut,
    by_length,
    by_unknown_share,
    measure_truncation,
    shorten_review,
    unknown_shares,
)
from sentiment.runs.run import load_run
from sentiment.runtime import device as runtime

HOSTILE = '<script>alert("x")</script> & \x1b[31mred\x00\x08 良い \u202eevil'


def make_corpus(lengths, *, max_length=10, keep="head", num_words=6):
    """Reviews of random words, every third of which is unknown."""
    offsets = np.concatenate(([0], np.cumsum(lengths))).astype(np.int64)
    tokens = np.random.default_rng(0).integers(0, num_words, offsets[-1]).astype(np.int32)
    ids = np.array([1 if n % 3 == 0 else n + 2 for n in range(num_words)], dtype=np.int32)
    tokenized = tokenizer.TokenizedTexts(tokens, offsets, [f"word{n}" for n in range(num_words)])
    labels = np.zeros(len(lengths), dtype=np.int64)
    return batches.encode(tokenized, ids, labels, max_length=max_length, keep=keep)


def evaluate(
    num_reviews=60, class_names=("neg", "pos"), *, fitted_here=False, threshold=None
) -> Evaluation:
    run = random_predictions(num_reviews, len(class_names), seed=1)
    texts = [f"review {n} {HOSTILE}" for n in range(num_reviews)]
    reviews = Reviews(texts, run.labels, tuple(class_names), "nowhere")
    corpus = make_corpus(np.random.default_rng(1).integers(0, 25, num_reviews))
    return evaluate_predictions(
        run, reviews, corpus, 1.5, fitted_here=fitted_here, threshold=threshold
    )


def read_page(page: Path, evaluation: Evaluation, **changes) -> Page:
    head = {"model": "LSTM", "reads": "all", "split": "test", "origin": "here", "device": "cpu"}
    described = ReportHead(**{"path": Path("run"), **head, **changes})
    write_evaluation_page(page, described, evaluation, {}, date="today")
    return Page(page.read_text(encoding="utf-8"))


@pytest.mark.parametrize("keep", ["head", "tail", "head+tail"])
def test_unknown_shares_are_those_of_the_batches(keep):
    corpus = make_corpus([3, 0, 25, 10, 11, 1, 40, 0], keep=keep)
    batch = corpus.batch(torch.arange(len(corpus)))
    for row, length, share in zip(batch.tokens, batch.lengths, unknown_shares(corpus), strict=True):
        assert share == pytest.approx((row[:length] == 1).double().mean().item())
    assert unknown_shares(make_corpus([0, 0])).tolist() == [1, 1]


def test_groups_hold_every_review_once():
    generator = np.random.default_rng(0)
    values = generator.integers(1, 400, 500)
    is_right = generator.random(500) < 0.8
    groups = by_length(values, is_right)
    assert len(groups) == 5
    assert sum(group.num_reviews for group in groups) == 500
    for group in groups:
        low, high = (int(each) for each in group.name.removesuffix(" tokens").split(" to "))
        inside = (values >= low) & (values <= high)
        assert group.num_reviews == inside.sum()
        assert group.accuracy == pytest.approx(is_right[inside].mean())
        assert group.accuracy_ci95[0] <= group.accuracy <= group.accuracy_ci95[1]


def test_groups_by_name():
    def names(groups):
        return [(group.name, group.num_reviews) for group in groups]

    assert names(by_length(np.full(100, 7), np.ones(100, bool))) == [("7 tokens", 100)]
    assert names(by_length(np.array([1]), np.ones(1, bool))) == [("1 token", 1)]
    assert names(by_unknown_share(np.zeros(90), np.ones(90, bool))) == [("none unknown", 90)]
    shares = np.concatenate((np.zeros(300), np.linspace(0.01, 0.4, 100)))
    groups = by_unknown_share(shares, np.arange(400) % 2 == 0)
    assert names(groups)[0] == ("none unknown", 300)
    assert [group.num_reviews for group in groups[1:]] == [25] * 4
    groups = by_cut(np.array([True, False, False]), np.array([False, True, False]))
    assert names(groups) == [("read whole", 2), ("cut", 1)]
    assert [group.accuracy for group in groups] == [0.5, 0]
    assert names(by_cut(np.array([False]), np.array([True]))) == [("read whole", 1)]


@pytest.mark.parametrize("num_classes", [2, 3])
def test_examples_are_the_ends_of_the_ranking(num_classes):
    evaluation = evaluate(200, [f"c{n}" for n in range(num_classes)])
    probabilities = torch.from_numpy(evaluation.predictions.log_probabilities / 1.5).softmax(1)
    confidences, predicted = (each.tolist() for each in probabilities.max(dim=1))
    labels = evaluation.predictions.labels.tolist()
    wrong = [n for n in range(200) if predicted[n] != labels[n]]
    expected = sorted(wrong, key=lambda n: -confidences[n])[:10]
    assert [example.row - 1 for example in evaluation.mistakes] == expected
    least = sorted(range(200), key=lambda n: confidences[n])[:10]
    assert [example.row - 1 for example in evaluation.uncertain] == least
    for example in (*evaluation.mistakes, *evaluation.uncertain):
        assert example.probability == pytest.approx(confidences[example.row - 1])
        assert example.text.startswith(f"review {example.row - 1} ")
        assert example.label == f"c{labels[example.row - 1]}"


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
def test_the_table_fits_a_terminal_and_cannot_control_it(class_names, num_reviews):
    threshold = 0.123456789 if len(class_names) == 2 else None
    evaluation = evaluate(num_reviews, class_names, fitted_here=True, threshold=threshold)
    table = report_table(evaluation, "title")
    assert "\x1b" not in table
    for line in table.split("\n"):
        assert width(line) <= 80 and line == line.rstrip()


def test_the_table_says_what_is_undefined_and_what_is_optimistic():
    table = report_table(evaluate(1, fitted_here=True), "title")
    assert "undefined: a class does not occur" in table
    assert "fitted on these reviews, so its column is optimistic.\n" in table
    assert "ross-fitted" not in table, "a single review has no halves"
    assert "cross-fitted: each half" in report_table(evaluate(fitted_here=True), "title")
    assert "fitted on these reviews" not in report_table(evaluate(), "title")


def test_each_class_has_its_scores_and_the_threshold_a_row(tmp_path):
    evaluation = evaluate(threshold=0.3)
    rows = [line.split() for line in report_table(evaluation, "title").split("\n")]
    for name, scores in zip(("neg", "pos"), evaluation.metrics.by_class, strict=True):
        expected = [f"{scores.num_reviews}", f"{scores.num_predicted}", f"{scores.precision:.4f}"]
        assert [name, *expected, f"{scores.recall:.4f}", f"{scores.f1:.4f}"] in rows
    fitted = evaluation.threshold.scores
    assert fitted.num_predicted == sum(evaluation.calibrated.probabilities[:, 1] >= 0.3)
    assert any(row[:5] == ["pos", "from", "0.3", f"{fitted.num_reviews}", f"{fitted.num_predicted}"]
               for row in rows)  # fmt: skip
    words = read_page(tmp_path / "report.html", evaluation).words
    counts = f"{fitted.num_reviews}{fitted.num_predicted}"
    assert f"pos from 0.3{counts}{fitted.precision:.4f}" in words
    assert "To use it: sentiment predict --threshold 0.3" in words
    assert (
        "it is optimistic"
        in read_page(tmp_path / "here.html", evaluate(threshold=0.3, fitted_here=True)).words
    )


def test_of_many_classes_the_worst_are_listed():
    evaluation = evaluate(900, [f"c{n:02}" for n in range(30)])
    table = report_table(evaluation, "title")
    f1 = {f"c{n:02}": scores.f1 for n, scores in enumerate(evaluation.metrics.by_class)}
    listed = [line.split()[0] for line in table.split("\n") if line.count(".") == 3]
    assert set(listed) & set(f1) == set(sorted(f1, key=f1.get)[:20])
    assert "lowest F1 of 30 classes" in table


def test_rare_and_unpredicted_classes_are_remarked(tmp_path):
    labels = np.array([0, 0, 0] + [1] * 30)
    run = Predictions(np.log(np.tile([0.1, 0.9], (33, 1))), labels)
    reviews = Reviews(["a text"] * 33, labels, ("spam", "ham"), "nowhere")
    evaluation = evaluate_predictions(run, reviews, make_corpus([9] * 33), 1.0, fitted_here=False)
    collapse, few = evaluation.remarks
    assert "Every review is predicted ham." in collapse and "more reviews of spam" in collapse
    assert "fewer than ten reviews of spam (3)" in few
    assert collapse in read_page(tmp_path / "report.html", evaluation).words
    assert evaluate(200).remarks == []


def test_too_wide_a_matrix_lists_its_largest_confusions():
    evaluation = evaluate(300, [f"class of number {n}" for n in range(30)])
    confusion = np.array(evaluation.metrics.confusion)
    np.fill_diagonal(confusion, 0)
    right, predicted = np.unravel_index(confusion.argmax(), confusion.shape)
    lines = report_table(evaluation, "title").split("\n")
    header = next(number for number, line in enumerate(lines) if "right class" in line)
    row = lines[header + 1].split()
    assert [row[3], row[7], row[8]] == [str(right), str(predicted), str(confusion.max())]


@pytest.mark.parametrize(
    ("num_reviews", "class_names"),
    [(60, ("neg", "pos")), (1, ("neg", HOSTILE)), (80, ("a", HOSTILE, "c")), (40, ("x",) * 30)],
)
def test_the_page_is_complete_self_contained_and_inert(num_reviews, class_names, tmp_path):
    evaluation = evaluate(num_reviews, class_names, fitted_here=True)
    path = tmp_path / "report.html"
    page = read_page(path, evaluation, path=Path(HOSTILE), remarks=["Mind this."])
    assert page.unclosed == [] and page.active == []
    assert not set("\x1b\x00\x08") & set(path.read_text(encoding="utf-8"))
    for text in ('<script>alert("x")</script> &', "␛[31mred␀␈", "Mind this."):
        assert text in page.text
    for example in evaluation.uncertain:
        assert f"review {example.row - 1} " in page.text


def test_the_page_says_what_the_temperature_was_fitted_on(tmp_path):
    path = tmp_path / "report.html"
    assert "are unbiased here" in read_page(path, evaluate()).words
    trained = read_page(path, evaluate(), is_training=True).words
    assert "unbiased" not in trained and "was trained on the reviews used here" in trained
    assert "quote this score" in read_page(path, evaluate(fitted_here=True)).words
    single = read_page(path, evaluate(1, fitted_here=True)).words
    assert "fitted on these reviews," in single and "ross-fitted" not in single


def test_the_page_numbers_rows_from_one_and_explains_intervals(tmp_path):
    evaluation = evaluate(2_000)
    words = read_page(tmp_path / "report.html", evaluation).words
    for example in evaluation.mistakes:
        assert f" · row {example.row:,} · " in words
    assert "numbered from 1, as in predictions.csv and by explain --row" in words
    assert "if fewer than 20 reviews are right, or wrong. Of F1: percentiles of" in words


def test_long_reviews_are_shortened():
    assert shorten_review("a" * 20_000) == "a" * 20_000
    assert shorten_review("a" * 20_000 + "b") == "a" * 20_000 + " …"
    reviews = Reviews(["long " * 5_000], np.array([1]), ("neg", "pos"), "nowhere")
    run = Predictions(np.log([[0.9, 0.1]]), reviews.labels)
    evaluation = evaluate_predictions(run, reviews, make_corpus([9]), 1.0, fitted_here=False)
    assert evaluation.mistakes[0].text == shorten_review(reviews.texts[0])


@pytest.mark.parametrize(("num_reviews", "names"), [(1, ("a", "b")), (50, ("a", "b", "c"))])
def test_the_report_is_json_without_non_finite_numbers(num_reviews, names):
    evaluation = evaluate(num_reviews, names, fitted_here=True)
    values = json.loads(json.dumps(evaluation.as_dict(), allow_nan=False))
    assert values["calibration"]["temperature"] == 1.5
    groups = values["accuracy_by"]["length"]
    assert sum(group["num_reviews"] for group in groups) == values["num_reviews"] == num_reviews


DECISIVE = 2
CPU = torch.device("cpu")


class Finder(nn.Module):
    """Predicts class 1 if it sees the decisive word."""

    calls = 0

    def forward(self, tokens: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        is_found = (tokens == DECISIVE).any(dim=1)
        return torch.stack((~is_found, is_found), dim=1).float()


@pytest.fixture
def corpus():
    """Three reviews of ten words of class 1, with the decisive word first, last and fifth."""
    reviews = np.full((3, 10), 3, dtype=np.int32)
    reviews[0, 0] = reviews[1, 9] = reviews[2, 4] = DECISIVE
    tokenized = tokenizer.TokenizedTexts(reviews.flatten(), np.array([0, 10, 20, 30]), list("abcd"))
    return batches.encode(tokenized, np.arange(4, dtype=np.int32), np.ones(3), max_length=10)


def test_each_way_keeps_its_tokens(corpus):
    results = measure_truncation(Finder(), corpus, [8, 4, 2], device=CPU)
    assert {(each.max_length, each.keep): round(3 * each.accuracy) for each in results} == {
        (2, "head"): 1, (2, "tail"): 1, (2, "head+tail"): 2,
        (4, "head"): 1, (4, "tail"): 1, (4, "head+tail"): 2,
        (8, "head"): 2, (8, "tail"): 2, (8, "head+tail"): 2,
    }  # fmt: skip
    assert all(result.cut_share == 1 for result in results)


def test_whole_reviews_are_read_once(corpus):
    model = Finder()
    results = measure_truncation(model, corpus, [10, 20, 4], device=CPU)
    assert model.calls == 3 + 1
    assert [result.accuracy for result in results if result.max_length >= 10] == [1.0] * 6


def test_the_table_fits_a_terminal_and_the_figure_has_every_way(corpus):
    results = measure_truncation(Finder(), corpus, [100, 12_000, 4], device=CPU)
    lines = truncation_table(results).splitlines()
    assert max(map(len, lines)) <= 80
    assert [line.split()[0] for line in lines[2:]] == ["4", "100", "12,000"]
    assert lines[-1].count(" 100.0 (43.9-100.0)") == 3
    axes = draw_truncation(results).axes[0]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == list(KEEPS)


has_bf16 = pytest.mark.skipif(
    runtime.find_precision("auto", CPU) != torch.bfloat16, reason="needs a processor with bf16"
)


@pytest.fixture(scope="module")
def run_path(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("bf16") / "run").path


@pytest.fixture
def data(tmp_path):
    rows = [f"word{n} word{n + 1},{('bad', 'good', 'so; so')[n % 3]}" for n in range(30)]
    text = "\n".join(["text,label", *rows]).replace("so; so", '"so, so"')
    (tmp_path / "test.csv").write_text(text, encoding="utf-8")
    return tmp_path


@has_bf16
def test_evaluation_in_bf16_reports_what_it_changed(run_path, data, capsys):
    arguments = ["--run", run_path, "--data.path", data, "--output", data, "--precision", "bf16"]
    assert cli.evaluate(list(map(str, arguments))) == 0
    assert "Computed in bf16. Reviews also computed in fp32: 30;" in " ".join(
        capsys.readouterr().out.split()
    )
    report = json.loads((data / "report.json").read_text())
    assert report["precision"] == "bf16"
    assert 0 < report["rounding"]["mean"] <= report["rounding"]["largest"] < 0.05
    run = load_run(run_path)
    settings = replace(run.config.data, path=str(data))
    _, corpus = prepare_split(settings, "test", run.vocabulary, run.class_names)
    exact = predict_corpus(run.model, corpus, device=CPU).metrics().nll
    assert report["nll"] != exact == pytest.approx(report["nll"], abs=0.02)


@has_bf16
def test_prediction_in_bf16_is_close_and_says_so(run_path, tmp_path, capsys):
    predictor = load(run_path, precision="bf16")
    assert predictor.rounding is None, "nothing is computed yet"
    (rounded,), (exact,) = (each.predict(["word1 word2"]) for each in (predictor, load(run_path)))
    assert rounded.probability == pytest.approx(exact.probability, abs=0.02)
    assert predictor.rounding is not None and predictor.rounding.num_reviews == 1
    (tmp_path / "texts.txt").write_text("word1\nword2\n")
    arguments = [run_path, "--file", tmp_path / "texts.txt", "--output", tmp_path / "out.csv"]
    assert cli.main(["predict", *map(str, arguments), "--precision", "bf16"]) == 0
    assert "Reviews also computed in fp32: 2;" in " ".join(capsys.readouterr().err.split())


def test_a_processor_without_bf16_refuses_it(run_path, data, monkeypatch, capsys):
    monkeypatch.setattr(runtime, "_cpu_has_bf16", lambda: False)
    arguments = ["--run", str(run_path), "--data.path", str(data), "--device", "cpu"]
    assert cli.evaluate([*arguments, "--precision", "bf16"]) == 1
    assert "--precision is bf16, which cpu does not support" in capsys.readouterr().err
