"""Small files of behaviour tests, and what rules predict."""

from collections.abc import Callable, Sequence
from pathlib import Path

import yaml

from sentiment.behaviour.checks import make_cases
from sentiment.behaviour.suite import read_capability
from sentiment.inference.predictor import Prediction


def write(folder: Path, tests: list[dict], name: str = "tests.yaml", **keys) -> Path:
    values = {"capability": "x", "lexicon": LISTS, "tests": tests, **keys}
    (folder / name).write_text(yaml.safe_dump(values, allow_unicode=True), encoding="utf-8")
    return folder / name


LISTS = {
    "part": ["acting", "script", "music"],
    "praise": ["good", "superb"],
    "blame": ["bad", "awful"],
    "name": ["Ann", "Ann Lee", "Bea", "Cleo", "Dora"],
    "more": ["It is lovely.", "It is superb."],
}


def cases(tmp_path: Path, seed: int = 0, **test):
    test = {"name": "a test", "kind": "minimum", **test}
    if test["kind"] == "minimum":
        test.setdefault("expect", "positive")
    (behaviour,) = read_capability(write(tmp_path, [test])).tests
    return make_cases(behaviour, seed=seed)


def predictor(rule: Callable[[str], float]) -> Callable[[Sequence[str]], list[Prediction]]:
    """A rule for the probability of the second of the classes neg and pos."""

    def predict(texts: Sequence[str]) -> list[Prediction]:
        assert len(set(texts)) == len(texts)  # each text once
        rows = [(1 - rule(text), rule(text)) for text in texts]
        return [Prediction(("neg", "pos")[r[1] > r[0]], max(r), r, 1, False) for r in rows]

    return predict
