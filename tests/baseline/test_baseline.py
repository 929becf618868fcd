"""The linear baseline against scikit-learn and formulas, its folder and its comparisons."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.review_files import read_rows, write
from helpers.trainings import arguments, refusal, train
from scipy.sparse import csr_array
from scipy.special import expit
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import normalize

from sentiment import evaluate
from sentiment.baseline.folder import check_replaceable, load_baseline
from sentiment.baseline.linear import (
    REGULARIZATION,
    find_ngrams,
    fit_linear,
    log_count_ratios,
    parse_ngrams,
)
from sentiment.cli import main as cli
from sentiment.comparison.compare import baseline_command, compare_with_baseline
from sentiment.comparison.run_groups import find_runs, load_classifier
from sentiment.comparison.significance import mcnemar
from sentiment.data.pipeline import prepare_split
from sentiment.data.reviews import load_split, load_training_splits, reviews_fingerprint
from sentiment.data.tokenizer import TokenizedTexts, tokenize
from sentiment.evaluation.evaluate import predict_corpus
from sentiment.runs.manifest import read_manifest, write_manifest
from sentiment.runs.run import load_run, load_settings
from sentiment.runs.weights import read_tensors, write_tensors
from sentiment.runtime.errors import UserError

ONE_EPOCH = "--training.num_epochs=1"
EVALUATION = Path("evaluation") / "validation"
CPU = torch.device("cpu")


def baseline(*arguments: object) -> int:
    return cli.main(["baseline", *map(str, arguments)])


@pytest.fixture(scope="module")
def run(corpus, tmp_path_factory) -> Path:
    """A tiny run without a baseline next to it."""
    return train(corpus, tmp_path_factory.mktemp("baseline") / "run", ONE_EPOCH)


@pytest.fixture(scope="module")
def made(run, tmp_path_factory) -> Path:
    """The baseline of the same reviews, in another folder."""
    path = tmp_path_factory.mktemp("made") / "run-baseline"
    assert baseline("--config", run / "config.yaml", "--output_dir", path) == 0
    return path


def random_texts(num_texts: int, *, seed: int = 0) -> TokenizedTexts:
    """Texts of few distinct words; one is empty, one is a single word."""
    generator = np.random.default_rng(seed)
    lengths = generator.integers(0, 12, num_texts)
    lengths[:3] = 0, 1, 2
    words = [" ".join(generator.choice(list("abcdefg"), length)) for length in lengths]
    return tokenize(words, num_processes=1)


def strings(tokenized: TokenizedTexts) -> list[list[str]]:
    return [tokenized.words(index) for index in range(len(tokenized))]


@pytest.mark.parametrize("min_texts", [1, 2, 5])
def test_ngrams_are_those_of_scikit_learn(min_texts):
    train, other = random_texts(60), random_texts(40, seed=1)
    ngrams = find_ngrams(train, min_texts=min_texts)
    oracle = CountVectorizer(
        analyzer="word", tokenizer=str.split, token_pattern=None, lowercase=False,
        ngram_range=(1, 3), binary=True, min_df=min_texts,
    )  # fmt: skip
    joined = [[" ".join(words) for words in strings(each)] for each in (train, other)]
    expected = oracle.fit_transform(joined[0])
    texts = ngrams.texts()
    assert sorted(texts) == sorted(oracle.vocabulary_) and len(ngrams) == len(texts)
    order = [oracle.vocabulary_[text] for text in texts]
    assert (ngrams.matrix(train).toarray() == expected.toarray()[:, order]).all()
    found = ngrams.matrix(other)  # of other texts, whose lexicon has another order
    assert (found.toarray() == oracle.transform(joined[1]).toarray()[:, order]).all()
    again = parse_ngrams(texts)
    assert again.texts() == texts and (again.matrix(other) != found).nnz == 0


def test_texts_without_words_have_no_ngrams():
    train = tokenize(["", "a"], num_processes=1)
    ngrams = find_ngrams(train, min_texts=1)
    assert ngrams.texts() == ["a"] and ngrams.matrix(train).toarray().tolist() == [[0], [1]]
    empty = tokenize([""], num_processes=1)
    assert len(find_ngrams(empty, min_texts=1)) == 0
    assert ngrams.matrix(empty).shape == (1, 1)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["a", "b", "a a", "b"], "in their order"),
        (["a", "a a a a"], "in their order"),
        (["a", "a"], "in their order"),
        (["a", "b", "b a", "a b"], "in their order"),
        (["a", "b", "a b", "b a b"], "contains 'b a'"),
    ],
)
def test_lines_out_of_order_are_not_ngrams(lines, message):
    with pytest.raises(ValueError, match=message):
        parse_ngrams(lines)


def test_ratios_are_those_of_the_formula():
    texts = tokenize(["a b", "a", "b c", "c c"], num_processes=1)
    ngrams = find_ngrams(texts, min_texts=1)
    assert ngrams.texts() == ["a", "b", "c", "a b", "b c", "c c"]
    ratios = log_count_ratios(ngrams.matrix(texts), np.array([True, True, False, False]))
    positive = np.array([3, 2, 1, 2, 1, 1]) / 10  # texts that hold it, and 1; over their sum
    negative = np.array([1, 2, 3, 1, 2, 2]) / 11
    np.testing.assert_allclose(ratios, np.log(positive / negative), rtol=1e-6)


def test_of_two_classes_it_is_logistic_regression_on_weighted_ngrams():
    texts = random_texts(200)
    labels = np.array([words.count("a") > words.count("b") for words in strings(texts)]).astype(int)
    matrix = find_ngrams(texts, min_texts=2).matrix(texts)
    found = np.exp(fit_linear(matrix, labels, 2).log_probabilities(matrix))
    weighted = normalize(matrix.toarray()) * log_count_ratios(matrix, labels == 1)
    oracle = LogisticRegression(C=REGULARIZATION, max_iter=1_000).fit(weighted, labels)
    np.testing.assert_allclose(found, oracle.predict_proba(weighted), atol=2e-3)


def test_texts_with_uncertain_labels_count_by_their_probabilities():
    texts = random_texts(200)
    labels = np.array([words.count("a") > words.count("b") for words in strings(texts)]).astype(int)
    matrix = find_ngrams(texts, min_texts=2).matrix(texts)
    positive = np.random.default_rng(0).beta(0.5, 0.5, 120)
    positive[:3] = 0.0, 1.0, 0.5
    model = fit_linear(matrix, labels[:80], 2, np.stack((1 - positive, positive), axis=1))
    shares = np.concatenate((labels[:80], positive))
    dense = matrix.toarray()
    counts = [1 + (dense * sides[:, None]).sum(axis=0) for sides in (shares, 1 - shares)]
    ratios = np.log(counts[0] / counts[0].sum() / (counts[1] / counts[1].sum()))
    twice = np.concatenate([normalize(dense) * ratios] * 2)
    oracle = LogisticRegression(C=REGULARIZATION * 80 / 200, max_iter=10_000, tol=1e-8)
    sides = np.repeat([1, 0], len(shares))
    oracle.fit(twice, sides, sample_weight=np.concatenate((shares, 1 - shares)))
    found = np.exp(model.log_probabilities(matrix))
    # As exactly as the solver's default tolerance finds weights with so little penalty.
    np.testing.assert_allclose(found, oracle.predict_proba(twice[: len(shares)]), atol=0.02)
    rounded = fit_linear(matrix, labels[:80], 2, np.eye(2)[(positive > 0.5).astype(int)])
    assert np.abs(np.exp(rounded.log_probabilities(matrix)) - found).max() > 0.2


def test_each_of_three_classes_is_separated_from_the_others():
    texts = random_texts(300)
    counts = np.array([[words.count(each) for each in "abc"] for words in strings(texts)])
    labels = counts.argmax(axis=1)
    matrix = find_ngrams(texts, min_texts=2).matrix(texts)
    model = fit_linear(matrix, labels, 3)
    probabilities = np.exp(model.log_probabilities(matrix))
    for label in range(3):
        binary = fit_linear(matrix, (labels == label).astype(int), 2)
        np.testing.assert_allclose(binary.weights[0], model.weights[label])
    odds = expit(normalize(matrix) @ model.weights.T.astype(float) + model.biases)
    np.testing.assert_allclose(probabilities, odds / odds.sum(axis=1, keepdims=True), rtol=1e-5)
    assert (probabilities.argmax(axis=1) == labels).mean() > 0.9
    labels[labels == 2] = 0  # a class without training texts is unlikely
    probabilities = np.exp(fit_linear(matrix, labels, 3).log_probabilities(matrix))
    assert np.isfinite(probabilities).all() and (probabilities[:, 2] < 0.1).all()


def test_a_class_that_others_hardly_believe_in_needs_no_review():
    matrix = csr_array(np.eye(6, dtype=np.float32))
    soft = np.array([[0.6, 5e-5, 0.4], [0.3, 5e-5, 0.7]])
    model = fit_linear(matrix, np.array([0, 2, 0, 2]), 3, soft / soft.sum(axis=1, keepdims=True))
    assert not model.weights[1].any()
    assert model.biases[1] == pytest.approx(np.log((1 + 1e-4) / (7 - 1e-4)))


def test_texts_that_are_all_copies_leave_a_model_without_evidence():
    model = fit_linear(csr_array((0, 3), dtype=np.float32), np.empty(0, dtype=np.int64), 2)
    np.testing.assert_allclose(np.exp(model.log_probabilities(csr_array((1, 3)))), [[0.5, 0.5]])


def test_a_baseline_learns_an_easy_corpus_and_reports_it(run, made, tmp_path, capsys):
    path = shutil.copytree(made, tmp_path / "run-baseline")
    (path / "evaluation" / "old").write_text("")
    assert baseline("--config", run / "config.yaml", f"--output_dir={path}", "--overwrite") == 0
    assert not (path / "evaluation" / "old").exists()
    printed = capsys.readouterr().out
    lines = [line for line in printed.splitlines() if str(tmp_path.parent) not in line]
    assert max(map(len, lines)) <= 80
    report = json.loads((path / EVALUATION / "report.json").read_text())
    assert report["accuracy"] >= 0.95 and report["split"] == "validation"
    for text in (
        f"{100 * report['accuracy']:.2f} %", f"{report['nll']:.4f}", "largest weights for pos",
        "  great", "  awful", "to train", f"next: sentiment compare {run} {path}\n",
    ):  # fmt: skip
        assert text in printed
    page = (path / EVALUATION / "report.html").read_text(encoding="utf-8")
    assert page.count("<svg") == page.count("</svg>") > 5 and "n-grams" in page
    for name in ("ngrams.txt", "weights.safetensors", "config.yaml"):
        assert (path / name).read_bytes() == (made / name).read_bytes(), "deterministic"


def test_it_reads_the_reviews_of_the_run(run, made):
    config = load_baseline(made).config
    train, validation = load_training_splits(config.data)
    own, theirs = read_manifest(made), read_manifest(run)
    assert own["kind"] == "baseline" and "kind" not in theirs
    for split, reviews in (("train", train), ("validation", validation)):
        assert own["data"][split] == theirs["data"][split] == reviews_fingerprint(reviews)
    assert own["class_names"] == theirs["class_names"]
    assert (made / "config.yaml").read_text() == (run / "config.yaml").read_text()


def test_a_loaded_baseline_predicts_what_its_files_say(made):
    loaded = load_baseline(made)
    reviews = load_split(loaded.config.data, "validation", loaded.class_names)
    predictions = loaded.predict(reviews)
    report = json.loads((made / EVALUATION / "report.json").read_text())
    assert predictions.metrics().nll == report["nll"]
    rows = read_rows(made / EVALUATION / "predictions.csv")
    names = [loaded.class_names[label] for label in predictions.predicted]
    assert [row["predicted"] for row in rows] == names
    expected = expit(np.diff(predictions.log_probabilities, axis=1)[:, 0] / loaded.temperature)
    probabilities = [float(row["probability_pos"]) for row in rows]
    np.testing.assert_allclose(probabilities, expected, atol=1e-6)
    assert rows[0].keys() == {
        "row", "label", "predicted", "probability_neg", "probability_pos", "num_tokens", "was_cut",
    }  # fmt: skip


def test_damaged_and_foreign_files_are_refused(made, tmp_path):
    path = Path(shutil.copytree(made, tmp_path / "copy"))

    def refuse(name: str, data: bytes | None, message: str, error: type[Exception] = ValueError):
        before = (path / name).read_bytes()
        (path / name).unlink()
        if data is not None:
            (path / name).write_bytes(data)
        with pytest.raises(error, match=message):
            load_classifier(path)
        (path / name).write_bytes(before)

    weights = (made / "weights.safetensors").read_bytes()
    refuse("weights.safetensors", weights[:-1] + bytes([weights[-1] ^ 1]), "damaged")
    refuse("ngrams.txt", (made / "ngrams.txt").read_bytes() + b"more\n", "is not the one")
    refuse("config.yaml", (made / "config.yaml").read_bytes() + b"\n", "is not the one")
    for name in ("weights.safetensors", "ngrams.txt", "config.yaml"):
        refuse(name, None, name, FileNotFoundError)
    identity = read_manifest(made)["identity"]
    tensors, values = read_tensors(made / "weights.safetensors", identity)
    for written, written_values, message in (
        ({**tensors, "biases": torch.zeros(2)}, values, "does not fit"),
        ({"weights": tensors["weights"]}, values, "does not fit"),
        ({**tensors, "biases": torch.tensor([torch.nan])}, values, "non-finite"),
        (tensors, {}, "no temperature"),
    ):
        write_tensors(tmp_path / "other.safetensors", written, written_values, identity)
        refuse("weights.safetensors", (tmp_path / "other.safetensors").read_bytes(), message)


def test_a_baseline_is_compared_with_a_run(run, made, tmp_path, capsys):
    assert cli.main(["compare", str(run), str(made), "--output", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    result = json.loads((tmp_path / "compare.json").read_text())
    one, other = (group["accuracy"] for group in result["sides"])
    report = json.loads((made / EVALUATION / "report.json").read_text())
    assert other == report["accuracy"]
    calibrated = report["calibration"]["after"]["nll"]
    assert result["sides"][1]["nll"] == pytest.approx(calibrated, rel=1e-6)
    assert result["pairs"][0]["difference"] == pytest.approx(other - one)
    assert result["settings"] == {}, "settings that a baseline lacks are no difference"
    assert "McNemar p" in printed and made.name in printed


def test_a_baseline_among_runs_is_not_one_of_their_seeds(run, made, tmp_path):
    for name in ("seed0", "seed1"):
        (tmp_path / name).mkdir()
        shutil.copy(run / "run.json", tmp_path / name)
    (tmp_path / "seed0-baseline").mkdir()
    shutil.copy(made / "run.json", tmp_path / "seed0-baseline")
    assert [path.name for path in find_runs(tmp_path)] == ["seed0", "seed1"]


def test_training_ends_with_the_baselines_command_or_a_comparison(run, made, tmp_path, capsys):
    path, folder = tmp_path / "run", Path(shutil.copytree(made, tmp_path / "run-baseline"))
    command = "sentiment baseline --config {}/config.yaml"
    assert (run / "train.log").read_text().rstrip().endswith(f"      {command.format(run)}")
    data_path = load_settings(run).data.path
    assert cli.train(arguments(data_path, path, ONE_EPOCH)) == 0
    last = capsys.readouterr().out.splitlines()[-2:]
    trained = load_run(path)
    data = trained.config.data
    reviews, corpus = prepare_split(data, "validation", trained.vocabulary, trained.class_names)
    ours = predict_corpus(trained.model, corpus, device=CPU).predicted == reviews.labels
    rows = read_rows(folder / EVALUATION / "predictions.csv")
    theirs = np.array([row["label"] == row["predicted"] for row in rows])
    lines = compare_with_baseline(path, corpus, CPU)
    assert lines.splitlines() == last
    line, both = last
    p_value, _ = mcnemar(int((theirs & ~ours).sum()), int((ours & ~theirs).sum()))
    assert f"baseline: {100 * theirs.mean():.2f} %, this run: {100 * ours.mean():.2f} %" in line
    assert f"{100 * (ours.mean() - theirs.mean()):+.2f} points" in line and len(line) <= 80
    together = evaluate(str(path), "validation", ensemble=[folder])
    assert f"both averaged: {100 * together.metrics['accuracy']:.2f} %" in both
    assert both.endswith(f"--ensemble {folder}")
    assert ("p < 0.001" if p_value < 0.001 else f"p = {p_value:.3g}") in line
    # With other reviews, or without predictions, there is no comparison.
    assert baseline_command(path) == f"{command.format(path)} --overwrite"
    (folder / EVALUATION / "predictions.csv").write_text("row\n0\n")
    assert compare_with_baseline(path, corpus, CPU) is None
    shutil.copytree(made / "evaluation", folder / "evaluation", dirs_exist_ok=True)
    assert compare_with_baseline(path, corpus, CPU) == lines
    data = {"validation": {"rows": 9, "bytes": 9, "sha256": "0" * 64}}
    write_manifest(folder, {**read_manifest(made), "data": data})
    assert compare_with_baseline(path, corpus, CPU) is None
    with pytest.raises(UserError, match="run-baseline held out 9 validation reviews"):
        evaluate(str(path), "validation", ensemble=[folder])


def test_a_baseline_is_no_run(made, run, corpus, tmp_path, capsys):
    for command, *more in (
        ["evaluate"], ["predict", "a text"], ["explain", "a text"], ["check"],
        ["export", "--format=torch", "--output", str(tmp_path / "model.pt")],
    ):  # fmt: skip
        error = refusal([made, *more], capsys, command)
        assert f"{made} is a baseline" in error and "sentiment compare" in error
    assert "is a baseline" in refusal([made], capsys, "reproduce")
    into = arguments(corpus, made)
    for command in (into, [*into, "--overwrite"], [*into, "--auto_resume"], ["--resume", made]):
        assert "holds a baseline" in refusal(command, capsys)
    assert load_baseline(made).class_names == ("neg", "pos"), "it was left as it was"


def test_baselines_are_overwritten_on_request_and_other_files_never(made, run, tmp_path, capsys):
    with pytest.raises(FileExistsError, match="--overwrite"):
        check_replaceable(made, overwrite=False)
    check_replaceable(made, overwrite=True)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").write_text("kept")
    for other in (tmp_path / "notes", run):
        with pytest.raises(FileExistsError, match="holds no baseline"):
            check_replaceable(other, overwrite=True)
    assert "cannot be resumed" in refusal(["--resume", run], capsys, "baseline", status=2)


USUAL = [(f"{('dull', 'great')[n % 2]} film {n}", ("neg", "pos")[n % 2]) for n in range(30)]
ODD = ("strange film", "odd")


@pytest.mark.parametrize(
    ("splits", "options", "message"),
    [
        ({"train": USUAL, "validation": [*USUAL[:10], ODD]},
         ["--data.class_names=[neg,pos,odd]"], None),
        ({"train": [("a", "neg"), ("b", "pos")], "validation": USUAL[:4]}, [], "no word occurs"),
        ({"train": [*USUAL, ODD]}, [], "class 'odd'"),
    ],
)  # fmt: skip
def test_few_reviews_and_rare_classes(tmp_path, capsys, splits, options, message):
    for split, rows in splits.items():
        texts, labels = zip(*rows, strict=True)
        write(tmp_path / "data" / f"{split}.csv", {"text": texts, "label": labels})
    output = tmp_path / "baseline"
    command = [f"--data.path={tmp_path / 'data'}", f"--output_dir={output}", *options]
    if message:
        assert message in refusal(command, capsys, "baseline")
        assert not output.exists()
    else:
        assert baseline(*command) == 0
