"""``sentiment explain`` as a user meets it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from helpers import untrained_run
from helpers.review_files import write

from sentiment import load
from sentiment.cli import main as cli
from sentiment.config.config import DataConfig
from sentiment.explain.explain import explain

TEXT = "A great film, but not a moving one."


WORDS = Counter({"great": 4, "film": 3, "a": 3, ",": 2, "not": 2})


def make_run(path: Path, names=("neg", "pos"), **model) -> Path:
    data = DataConfig(max_length=50)
    return untrained_run.make_run(path, names, words=WORDS, data=data, **model).path


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    return make_run(tmp_path_factory.mktemp("explain") / "run")


def explain_by_command(*arguments) -> int:
    return cli.main(["explain", *map(str, arguments)])


def test_a_text_is_explained(run, capsys):
    assert explain_by_command(run, TEXT) == 0
    printed = capsys.readouterr().out
    prediction = load(run).predict([TEXT])[0]
    assert printed.startswith(f"{prediction.label} {prediction.probability:.1%}   (")
    assert "10 words\n4 unknown: but, moving, one, ." in printed
    assert "\x1b" not in printed  # no terminal here
    (folder,) = (run / "explanations").iterdir()
    assert folder.name.startswith("a-great-film-but-not-a-moving-one-")
    assert sorted(path.name for path in folder.iterdir()) == ["explain.html", "explain.png"]
    for name in ("explain.html", "explain.png"):
        assert str(folder / name) in printed


def test_the_library_says_what_the_predictor_says(run):
    predictor = load(run)
    explanation = explain(predictor, TEXT)
    assert explanation.probabilities == pytest.approx(
        predictor.predict([TEXT])[0].probabilities, abs=1e-6
    )
    with pytest.raises(TypeError, match="text is list, but must be a string"):
        explain(predictor, [TEXT])  # type: ignore[arg-type]


def test_texts_of_different_ends_have_folders_of_their_own(run):
    for end in ("one", "two"):
        assert explain_by_command(run, "So it goes. " * 9 + end, "--steps", 5) == 0
    assert len(list((run / "explanations").glob("so-it-goes*"))) == 2
    for text in ("fine film", "FINE film", "fine  film", "fine-film"):
        assert explain_by_command(run, text, "--steps", 5) == 0
    assert len(list((run / "explanations").glob("fine-film*"))) == 4


@pytest.mark.parametrize("text", ["", "🎬", "../../x", "a\x1b[31m\x00b", "great " * 100_000])
def test_odd_texts_are_explained(run, text, tmp_path, capsys):
    assert explain_by_command(run, text, "--steps", 5) == 0
    printed = capsys.readouterr().out
    assert "\x1b" not in printed and "\x00" not in printed
    if len(text) > 100:
        assert "50 words read of 100,000: 99,950 cut off" in printed
    assert all(path.parent.name == "explanations" for path in (run / "explanations").glob("*"))


def test_control_characters_of_texts_names_and_paths_are_seen(tmp_path, capsys):
    path = make_run(tmp_path / "run\x1b[1m", ("neg\x1b[31m", "po\x08s"))
    (tmp_path / "rows\x1b[2J.csv").write_text("text\ngreat \x1b[31m\x08 film\n")
    assert explain_by_command(path, "--file", tmp_path / "rows\x1b[2J.csv", "--row", 1) == 0
    printed = capsys.readouterr()
    page = next((path / "explanations").rglob("explain.html")).read_text(encoding="utf-8")
    assert not set("\x1b\x08") & set(printed.out + printed.err + page)
    assert "rows␛[2J-1" in printed.out and "run␛[1m" in page
    for name in ("neg␛[31m", "po␈s"):
        assert name in printed.out and name in page


@pytest.mark.parametrize(
    "settings",
    [{"cell": "gru"}, {"pooling": "attention"}, {"learned_initial_state": True}, {"num_layers": 2}],
)
def test_runs_of_other_settings_and_classes_are_explained(settings, tmp_path, capsys):
    path = make_run(tmp_path / "run", ("one", "two", "three"), **settings)
    assert explain_by_command(path, TEXT, "--output", tmp_path / "out") == 0
    printed = capsys.readouterr().out
    assert all(f"P({name})" in printed for name in ("one", "two", "three"))
    label = printed.split()[0]
    assert f"for not {label}" in printed and f"score, logit of {label}:" in printed
    assert (tmp_path / "out" / "explain.html").is_file()


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_a_row_of_a_file_is_explained(run, ending, tmp_path, capsys):
    texts = ["first film", 'second\nfilm, "great"', "third"]
    path = write(tmp_path / f"reviews.{ending}", {"text": texts})
    assert explain_by_command(run, "--file", path, "--row", 2, "--steps", 2) == 0
    assert '6 words\n3 unknown: second, "' in capsys.readouterr().out
    assert (run / "explanations" / "reviews-2" / "explain.html").is_file()
    assert explain_by_command(run, "--file", path, "--row", 4) == 1
    assert f"{path} has 3 rows, but --row asks for 4" in capsys.readouterr().err


def test_bad_files_are_told_in_one_line(run, tmp_path, capsys):
    (tmp_path / "column.csv").write_text("id,rezension\n1,a great film\n")
    for name, message in {
        "none.csv": "there is no file",
        "column.csv": "columns: 'id', 'rezension': set --text-column rezension",
    }.items():
        assert explain_by_command(run, "--file", tmp_path / name, "--row", 1) == 1
        error = capsys.readouterr().err
        assert error.startswith("error: ") and message in error and error.count("\n") == 1


def test_places_that_are_none(run, tmp_path, capsys):
    (tmp_path / "file").write_text("x")
    assert explain_by_command(run, TEXT, "--output", tmp_path / "file") == 1
    assert "is a file: choose another folder" in capsys.readouterr().err
    assert explain_by_command(run, TEXT, "--checkpoint", "last") == 1
    assert "last" in capsys.readouterr().err
