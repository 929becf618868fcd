"""``sentiment.load``: predictions do not depend on company, and are those of the evaluation."""

from __future__ import annotations

import itertools
import re
import subprocess
import sys

import datasets
import numpy as np
import pandas as pd
import pytest
import torch
from helpers.untrained_run import make_run

from sentiment import load
from sentiment.runtime.errors import UserError

TEXTS = ["a great film", "", "dull " * 50, "🎬🎬", "zzzz", "awful plot <br /> and lovely music"]


def test_a_batch_is_its_texts_one_by_one(trained_run):
    predictor = load(trained_run)
    together = predictor.predict(TEXTS)
    alone = [predictor.predict([text])[0] for text in TEXTS]
    assert [each.label for each in together] == [each.label for each in alone]
    for one, other in zip(together, alone, strict=True):
        assert one.probability == pytest.approx(other.probability, abs=1e-6)
        assert one.probability == max(one.probabilities)
        assert sum(one.probabilities) == pytest.approx(1)


def test_an_ensemble_averages_logarithms(trained_run, tmp_path):
    other = make_run(tmp_path / "other", load(trained_run).class_names).path
    parts = [load(run).predict(TEXTS) for run in (trained_run, other, other)]
    together = load(trained_run, ensemble=[other, str(other)]).predict(TEXTS)
    for prediction, *alone in zip(together, *parts, strict=True):
        mean = np.mean([np.log(each.probabilities) for each in alone], axis=0)
        expected = np.exp(mean) / np.exp(mean).sum()
        assert prediction.probabilities == pytest.approx(expected, abs=1e-6)
        assert prediction.num_tokens == alone[0].num_tokens


def test_an_ensemble_has_one_set_of_classes(trained_run, tmp_path):
    make_run(tmp_path / "other", ("bad", "good"))
    with pytest.raises(UserError, match="has the classes bad, good, but .* has neg, pos"):
        load(trained_run, ensemble=[tmp_path / "other"])


def test_lengths_and_cutting_are_told(trained_run):
    predictions = load(trained_run).predict(TEXTS)
    assert [each.num_tokens for each in predictions][:3] == [3, 0, 50]
    assert [each.was_cut for each in predictions] == [False, False, True, False, False, False]


def test_probabilities_are_at_the_temperature_of_the_run(trained_run):
    predictor = load(trained_run)
    temperature = predictor.run.checkpoint.temperature
    assert temperature != 1
    logits = predictor.model(*_ids(predictor, "a great film")).double()
    expected = (logits / temperature).softmax(1)[0].tolist()
    assert predictor.predict(["a great film"])[0].probabilities == pytest.approx(expected, abs=1e-6)


def _ids(predictor, text):
    batch = predictor.encode([text]).batch(torch.tensor([0]))
    return batch.tokens, batch.lengths


def test_any_iterable_of_strings_gives_the_predictions_of_a_list(trained_run):
    predictor = load(trained_run)
    expected = predictor.predict(TEXTS)
    shuffled = pd.Series(TEXTS, index=range(len(TEXTS), 0, -1))
    column = datasets.Dataset.from_dict({"text": TEXTS})["text"]
    for texts in (tuple(TEXTS), shuffled, np.array(TEXTS), np.array(TEXTS, object), column,
                  (text for text in TEXTS), dict.fromkeys(TEXTS).keys()):  # fmt: skip
        assert predictor.predict(texts) == expected, type(texts)
    assert predictor.predict([]) == predictor.predict(iter(())) == []


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ("a great film", "several are expected: predict([text])"),
        (b"a great film", "several are expected: predict([text])"),
        (["a", "b", None], "item 2 (counted from 0) is None (NoneType), not a string: leave"),
        (pd.Series(["a", float("nan")], index=[7, 8]), "item 1 (counted from 0) is nan (float)"),
        (pd.Series(["a", pd.NA], dtype=object), "item 1 (counted from 0) is <NA> (NAType), not"),
        (np.array([["a", "b"]]), "item 0 (counted from 0) is array(['a', 'b']"),
        (("a", 5), "item 1 (counted from 0) is 5 (int), not a string"),
        (pd.DataFrame({"text": ["a"]}), 'one of them, as predict(table["text"])'),
        (datasets.Dataset.from_dict({"text": ["a"]}), "a Dataset has several columns"),
        ({"text": ["a"]}, "a dict has several columns"),
        (5, "an object of type int was given"),
    ],
)  # fmt: skip
def test_what_is_no_iterable_of_strings_is_refused(texts, message, trained_run):
    predictor = load(trained_run)
    with pytest.raises(TypeError, match=re.escape(message)):
        predictor.predict(texts)
    with pytest.raises(TypeError, match=re.escape(message)):
        list(predictor.predict_stream(texts))


def test_the_package_alone_does_not_load_torch():
    code = "import sys, sentiment; assert 'torch' not in sys.modules; sentiment.load"
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(ImportError):
        from sentiment import nothing_there  # noqa: F401


def test_a_stream_is_answered_in_order_window_by_window(trained_run):
    predictor = load(trained_run)
    taken = []

    def endless():
        for number in itertools.count():
            taken.append(number)
            yield TEXTS[number % len(TEXTS)]

    answers = predictor.predict_stream(endless(), window=4)
    first = list(itertools.islice(answers, 9))
    assert len(taken) == 12, "no more is read than the windows of what is asked for"
    expected = predictor.predict([TEXTS[number % len(TEXTS)] for number in range(9)])
    assert [each.label for each in first] == [each.label for each in expected]
    for one, other in zip(first, expected, strict=True):
        assert one.probability == pytest.approx(other.probability, abs=1e-6)
    with pytest.raises(ValueError, match="window is 0"):
        predictor.predict_stream(TEXTS, window=0)


def test_raw_probabilities_and_small_batches(trained_run):
    raw = load(trained_run, calibrated=False, batch_tokens=1)
    logits = raw.model(*_ids(raw, "a great film")).double()
    expected = logits.softmax(1)[0].tolist()
    counts = []
    found = raw.predict(TEXTS, report=counts.append)
    assert found[0].probabilities == pytest.approx(expected, abs=1e-6)
    assert counts == [1] * len(TEXTS), "a text longer than a batch stands alone"


def test_a_threshold_decides_for_the_positive_class(trained_run, tmp_path):
    texts = [*TEXTS, "a dull film", "lovely"]
    plain = load(trained_run).predict(texts)
    shares = [each.probabilities[1] for each in plain]
    for threshold in (0, sorted(shares)[3], 1):
        predictions = load(trained_run, threshold=threshold).predict(texts)
        for share, before, after in zip(shares, plain, predictions, strict=True):
            assert after.label == ("pos" if share >= threshold else "neg")
            assert after.probability == (share if after.label == "pos" else before.probabilities[0])
            assert after.probabilities == before.probabilities
    with pytest.raises(UserError, match=r"the threshold is 1\.5, but must be from 0 to 1"):
        load(trained_run, threshold=1.5)
    make_run(tmp_path / "three")
    with pytest.raises(UserError, match="decides between two classes, but .* has 3: leave it out"):
        load(tmp_path / "three", threshold=0.5)
