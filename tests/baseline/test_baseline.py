"""The linear baseline: its n-grams and weights against definitions, its folder, its comparisons."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.corpus import write_corpus
from scipy.special import expit
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import normalize

from sentiment.baseline.folder import Baseline, load_baseline
from sentiment.baseline.linear import (
    REGULARIZATION,
    LinearModel,
    find_ngrams,
    fit_linear,
    log_count_ratios,
    parse_ngrams,
)
from sentiment.cli import main as cli
from sentiment.comparison.run_groups import load_classifier
from sentiment.comparison.significance import mcnemar
from sentiment.data.reviews import load_split, load_training_splits, reviews_fingerprint
from sentiment.data.tokenizer import TokenizedTexts, tokenize
from sentiment.runs.manifest import read_manifest
from sentiment.runs.weights import read_tensors, write_tensors

TINY = [
    "--model.embedding_size=8", "--model.hidden_size=8", "--training.num_epochs=1",
    "--training.precision=fp32", "--training.pictures=false",
]  # fmt: skip
EVALUATION = Path("evaluation") / "validation"


def baseline(*arguments: object) -> int:
    return cli.main(["baseline", *map(str, arguments)])


def error_line(capsys) -> str:
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    return error


@pytest.fixture(scope="module")
def run(corpus, tmp_path_factory) -> Path:
    """A tiny run, without a baseline beside it."""
    path = tmp_path_factory.mktemp("baseline") / "run"
    assert cli.train([f"--data.path={corpus}", f"--output_dir={path}", *TINY]) == 0
    return path


@pytest.fixture(scope="module")
def made(corpus, run, tmp_path_factory) -> Path:
    """The baseline of the same reviews, in a folder elsewhere."""
    path = tmp_path_factory.mktemp("made") / "run-baseline"
    settings = ["--config", run / "config.yaml"]
    assert baseline(*settings, "--output_dir", path) == 0
    return path


def random_texts(num_texts: int, *, seed: int = 0) -> TokenizedTexts:
    """Texts of few different words, an empty one and one of a single word among them."""
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
    nothing = tokenize([""], num_processes=1)
    assert len(find_ngrams(nothing, min_texts=1)) == 0
    assert ngrams.matrix(nothing).shape == (1, 1)


def test_lines_out_of_order_are_no_ngrams():
    for lines, message in (
        (["a", "b", "a a", "b"], "not sorted by"),
        (["a", "a a a a"], "not sorted by"),
        (["a", "a"], "occurs twice"),
        (["a", "b", "b a", "a b"], "not in order"),
        (["a", "b", "a b", "b a b"], "contains 'b a'"),
        (["a", "a c"], "contains 'c'"),
    ):
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


def test_of_three_classes_each_is_told_from_the_others():
    texts = random_texts(300)
    counts = np.array([[words.count(each) for each in "abc"] for words in strings(texts)])
    labels = counts.argmax(axis=1)
    matrix = find_ngrams(texts, min_texts=2).matrix(texts)
    model = fit_linear(matrix, labels, 3)
    probabilities = np.exp(model.log_probabilities(matrix))
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    for each in range(3):
        alone = fit_linear(matrix, (labels == each).astype(int), 2)
        np.testing.assert_allclose(alone.weights[0], model.weights[each])
    odds = expit(normalize(matrix) @ model.weights.T.astype(float) + model.biases)
    np.testing.assert_allclose(probabilities, odds / odds.sum(axis=1, keepdims=True), rtol=1e-5)
    assert (probabilities.argmax(axis=1) == labels).mean() > 0.9


def test_a_class_that_training_lacks_is_unlikely_and_no_crash():
    texts = random_texts(40)
    labels = np.arange(40) % 2
    matrix = find_ngrams(texts, min_texts=2).matrix(texts)
    probabilities = np.exp(fit_linear(matrix, labels, 3).log_probabilities(matrix))
    assert np.isfinite(probabilities).all() and (probabilities[:, 2] < 0.1).all()


def test_an_easy_corpus_is_learned_and_told(corpus, run, made, tmp_path, capsys):
    path = tmp_path / "run-baseline"
    assert baseline("--config", run / "config.yaml", f"--output_dir={path}") == 0
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines()[:-2])) <= 80
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
        assert (path / name).read_bytes() == (made / name).read_bytes(), "equal runs, equal files"


def test_it_reads_the_reviews_of_the_run(run, made):
    config = load_baseline(made).config
    train, validation = load_training_splits(config.data)
    own, theirs = read_manifest(made), read_manifest(run)
    assert own["kind"] == "baseline" and "kind" not in theirs
    for split, reviews in (("train", train), ("validation", validation)):
        assert own["data"][split] == theirs["data"][split] == reviews_fingerprint(reviews)
    assert own["class_names"] == theirs["class_names"]
    assert (made / "config.yaml").read_text() == (run / "config.yaml").read_text()


def test_the_loaded_baseline_predicts_what_the_saved_one_did(run, made):
    found = load_baseline(made)
    predictions = found.predict(load_split(found.config.data, "validation", found.class_names))
    report = json.loads((made / EVALUATION / "report.json").read_text())
    assert predictions.metrics().nll == report["nll"]
    with (made / EVALUATION / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["predicted"] for row in rows] == [
        found.class_names[each] for each in predictions.predicted
    ]
    calibrated = expit(np.diff(predictions.log_probabilities, axis=1)[:, 0] / found.temperature)
    np.testing.assert_allclose(
        [float(row["probability_pos"]) for row in rows], calibrated, atol=1e-6
    )
    assert rows[0].keys() == {
        "row", "label", "predicted", "probability_neg", "probability_pos", "num_tokens", "was_cut",
    }  # fmt: skip


def test_damaged_and_foreign_files_are_refused(made, tmp_path):
    def changed(name: str, data: bytes | None) -> Path:
        shutil.rmtree(tmp_path / "copy", ignore_errors=True)
        path = shutil.copytree(made, tmp_path / "copy")
        if data is None:
            (path / name).unlink()
        else:
            (path / name).write_bytes(data)
        return path

    weights = (made / "weights.safetensors").read_bytes()
    cases = [
        ("weights.safetensors", weights[:-1] + bytes([weights[-1] ^ 1]), "damaged"),
        ("weights.safetensors", weights[:100], "damaged"),
        ("weights.safetensors", b"cos\nsystem\n(S'true'\ntR.", "damaged"),
        ("ngrams.txt", (made / "ngrams.txt").read_bytes() + b"more\n", "is not the one"),
        ("ngrams.txt", b"\xff\n", "is not the one"),
        ("config.yaml", (made / "config.yaml").read_bytes() + b"\n", "is not the one"),
        ("run.json", b"{", "damaged"),
    ]
    for name, data, message in cases:
        with pytest.raises(ValueError, match=message):
            load_classifier(changed(name, data))
    for name in ("weights.safetensors", "ngrams.txt", "config.yaml"):
        with pytest.raises(FileNotFoundError, match=name):
            load_classifier(changed(name, None))
    identity = read_manifest(made)["identity"]
    tensors, values = read_tensors(made / "weights.safetensors", identity)
    foreign = [
        (tensors, values, "another", "belongs to another run"),
        ({**tensors, "biases": torch.zeros(2)}, values, identity, "does not fit"),
        ({"weights": tensors["weights"]}, values, identity, "does not fit"),
        ({**tensors, "biases": torch.tensor([torch.nan])}, values, identity, "non-finite"),
        (tensors, {}, identity, "no temperature"),
    ]
    for written, found, owner, message in foreign:
        path = changed("weights.safetensors", None)
        write_tensors(path / "weights.safetensors", written, found, owner)
        with pytest.raises(ValueError, match=message):
            load_classifier(path)


def test_a_baseline_is_compared_with_a_run(run, made, tmp_path, capsys):
    assert cli.main(["compare", str(run), str(made), "--output", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    found = json.loads((tmp_path / "compare.json").read_text())
    one, other = (each["accuracy"] for each in found["sides"])
    report = json.loads((made / EVALUATION / "report.json").read_text())
    assert other == report["accuracy"] and found["sides"][1]["nll"] == report["nll"]
    assert found["pairs"][0]["difference"] == pytest.approx(other - one)
    assert found["settings"] == {}, "what a baseline does not have is no difference"
    assert [each["epoch"] for each in found["runs"]] == [1, None]
    assert "McNemar p" in printed and str(made.name) in printed
    arguments = [str(made), str(run), "--split=test", "--output", str(tmp_path)]
    assert cli.main(["compare", *arguments]) == 0


def test_a_baseline_among_runs_is_no_seed(run, made, tmp_path, capsys):
    shutil.copytree(run, tmp_path / "runs" / "seed0")
    shutil.copytree(run, tmp_path / "runs" / "seed1")
    beside = shutil.copytree(made, tmp_path / "runs" / "seed0-baseline")
    assert cli.main(["compare", str(tmp_path / "runs"), str(beside)]) == 0
    assert "(2 runs)" in capsys.readouterr().out


def test_other_data_settings_are_differences(corpus, made, tmp_path):
    cased = tmp_path / "cased"
    assert (
        baseline(f"--data.path={corpus}", "--data.lower_case=false", f"--output_dir={cased}") == 0
    )
    output = tmp_path / "out"
    assert cli.main(["compare", str(made), str(cased), "--output", str(output)]) == 0
    found = json.loads((output / "compare.json").read_text())
    assert found["settings"] == {"data.lower_case": ["true", "false"]}


def test_training_ends_with_how_to_make_the_baseline(corpus, tmp_path, capsys):
    path = tmp_path / "run"
    arguments = [f"--data.path={corpus}", f"--output_dir={path}", *TINY]
    assert cli.train(arguments) == 0
    command = f"sentiment baseline --config {path}/config.yaml"
    assert capsys.readouterr().out.endswith(f"      {command}\n")
    assert cli.main(command.split()[1:]) == 0
    assert cli.train([*arguments, "--overwrite"]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert cli.evaluate([str(path), "--split", "validation"]) == 0
    hits = []
    for folder in (tmp_path / "run-baseline", path):
        with (folder / EVALUATION / "predictions.csv").open(newline="") as file:
            hits.append([row["label"] == row["predicted"] for row in csv.DictReader(file)])
    theirs, own = np.array(hits)
    p_value, _ = mcnemar(int((theirs & ~own).sum()), int((own & ~theirs).sum()))
    assert f"baseline: {100 * theirs.mean():.2f} %, this run: {100 * own.mean():.2f} %" in last
    assert f"{100 * (own.mean() - theirs.mean()):+.2f} points" in last and len(last) <= 80
    assert ("p < 0.001" if p_value < 0.001 else f"p = {p_value:.3g}") in last
    # Of other reviews it is no measure, nor where its predictions are gone.
    other = write_corpus(tmp_path / "other", splits={"train": 240, "validation": 60}, seed=1)
    assert cli.train([*arguments, "--overwrite", f"--data.path={other}"]) == 0
    assert capsys.readouterr().out.endswith(f"      {command} --overwrite\n")
    (tmp_path / "run-baseline" / EVALUATION / "predictions.csv").write_text("row\n0\n")
    assert cli.train([*arguments, "--overwrite"]) == 0
    assert capsys.readouterr().out.endswith(f"      {command} --overwrite\n")


def test_a_baseline_is_no_run(made, run, corpus, tmp_path, capsys):
    capsys.readouterr()
    for command in (
        ["evaluate"], ["predict", "a text"], ["explain", "a text"], ["check"],
        ["export", "--format=torch", "--output", str(tmp_path / "model.pt")],
    ):  # fmt: skip
        assert cli.main([command[0], str(made), *command[1:]]) == 1
        error = error_line(capsys)
        assert f"{made} is a baseline" in error and "sentiment compare" in error
    assert cli.main(["reproduce", str(made)]) == 1
    assert "is a baseline" in error_line(capsys)
    into = [f"--data.path={corpus}", f"--output_dir={made}", *TINY]
    for more in ([], ["--overwrite"], ["--auto_resume"]):
        assert cli.train([*into, *more]) == 1
        assert "holds a baseline" in error_line(capsys)
    assert cli.train(["--resume", str(made)]) == 1
    assert "holds a baseline" in error_line(capsys)
    teacher = [f"--data.path={corpus}", f"--output_dir={tmp_path / 'student'}", *TINY]
    assert cli.train([*teacher, f"--distillation.teachers=[{made}]"]) == 1
    assert "is a baseline" in error_line(capsys)
    assert load_baseline(made).class_names == ("neg", "pos"), "it was left as it was"


def test_what_is_in_the_folder_is_not_overwritten_unasked(corpus, run, made, tmp_path, capsys):
    path = shutil.copytree(made, tmp_path / "copy")
    arguments = [f"--data.path={corpus}", f"--output_dir={path}"]
    capsys.readouterr()
    assert baseline(*arguments) == 1
    assert "--overwrite" in error_line(capsys)
    (path / "evaluation" / "old").write_text("")
    assert baseline(*arguments, "--overwrite") == 0
    assert not (path / "evaluation" / "old").exists()
    capsys.readouterr()
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").write_text("kept")
    for other in (tmp_path / "notes", shutil.copytree(run, tmp_path / "run")):
        before = sorted(each.name for each in other.rglob("*") if each.name != ".lock")
        assert baseline(arguments[0], f"--output_dir={other}", "--overwrite") == 1
        assert "holds no baseline" in error_line(capsys)
        assert before == sorted(each.name for each in other.rglob("*") if each.name != ".lock")
    with pytest.raises(SystemExit) as stopped:
        baseline("--resume", run)
    assert stopped.value.code == 2


def test_three_classes_end_to_end(tmp_path, capsys):
    folder = tmp_path / "data"
    folder.mkdir()
    words = {"bad": "awful", "fair": "usual", "good": "great"}
    for split, count in (("train", 90), ("validation", 30)):
        rows = [
            (f"it was {words[label]} {split} number{number}", label)
            for number in range(count)
            for label in words
        ]
        with (folder / f"{split}.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("text", "label"), *rows])
    path = tmp_path / "three"
    assert baseline(f"--data.path={folder}", f"--output_dir={path}") == 0
    printed = capsys.readouterr().out
    assert all(f"largest weights for {name}" in printed for name in words)
    assert json.loads((path / EVALUATION / "report.json").read_text())["accuracy"] == 1
    found = load_baseline(path)
    assert isinstance(found, Baseline) and found.model.weights.shape == (3, len(found.ngrams))
    assert isinstance(found.model, LinearModel)


def test_few_reviews_and_rare_classes_end_in_a_line_or_a_baseline(tmp_path, capsys):
    def write(folder: Path, **splits: list[tuple[str, str]]) -> Path:
        folder.mkdir()
        for split, rows in splits.items():
            with (folder / f"{split}.csv").open("w", newline="") as file:
                csv.writer(file).writerows([("text", "label"), *rows])
        return folder

    usual = [(f"{('dull', 'great')[n % 2]} film {n}", ("neg", "pos")[n % 2]) for n in range(30)]
    once = write(tmp_path / "once", train=[*usual, ("strange film", "odd")], validation=usual[:10])
    assert baseline(f"--data.path={once}", f"--output_dir={tmp_path / 'a'}") == 0
    two = write(tmp_path / "two", train=usual, validation=[*usual[:10], ("strange film", "odd")])
    names = "--data.class_names=[neg,pos,odd]"
    assert baseline(f"--data.path={two}", names, f"--output_dir={tmp_path / 'b'}") == 0
    alone = write(tmp_path / "alone", train=usual, validation=usual[:1])
    assert baseline(f"--data.path={alone}", f"--output_dir={tmp_path / 'c'}") == 0
    capsys.readouterr()
    few = write(tmp_path / "few", train=[("a", "neg"), ("b", "pos")], validation=usual[:4])
    assert baseline(f"--data.path={few}", f"--output_dir={tmp_path / 'd'}") == 1
    assert "no word occurs in 3" in error_line(capsys)
    assert not (tmp_path / "d").exists()
    held = write(tmp_path / "held", train=[*usual, ("strange film", "odd")])
    assert baseline(f"--data.path={held}", f"--output_dir={tmp_path / 'd'}") == 1
    assert "class 'odd'" in error_line(capsys)
    assert baseline("--data.path=nowhere", f"--output_dir={tmp_path / 'd'}") == 1
    error_line(capsys)
