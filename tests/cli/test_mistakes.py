"""Mistakes in the options of every command: one line, before anything is read or written."""

from __future__ import annotations

import pytest

from sentiment.cli import main as cli

SEARCH = "space: {model.hidden_size: {choices: [8, 16]}, model.cell: {choices: [lstm, gru]}}\n"


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("train --modl.hidden_size=3", "sentiment train: error"),
        ("sweep --trials=3", "give the search file first"),
        ("sweep nowhere.yaml", "there is no file nowhere.yaml"),
        ("sweep search.yaml --trials 0", "an integer, at least 1"),
        ("sweep search.yaml --model.hidden_size 8", "model.hidden_size is searched"),
        ("sweep search.yaml --config=x.yaml", "--config cannot be given to a sweep"),
        ("sweep search.yaml --auto_resume", "a sweep resumes by itself"),
        ("sweep search.yaml --training.num_epoch=3", "did you mean training.num_epochs?"),
        ("sweep search.yaml --model.implementation=reference", "model.cell is 'gru'"),
        ("find-lr --lowest 0", "'0': give a number, above 0"),
        ("find-lr --highest inf", "'inf': give a number, above 0"),
        ("find-lr --lowest 2", "--lowest is 2, but must be below --highest"),
        ("find-lr --num_update 20", "(did you mean num_updates?)"),
        ("find-lr --num_updates 0", "give an integer, at least 1"),
        ("find-lr --training.batch_sise 3", "did you mean training.batch_size?"),
        ("find-lr --overwrite", "give settings only"),
        ("find-lr --config nowhere.yaml", "nowhere.yaml"),
        ("cross-validate --folds=1", "give an integer, at least 2"),
        ("cross-validate --data.num_folds=3", "data.num_folds is set by --folds"),
        ("cross-validate --overwrite", "resumes by itself"),
        ("evaluate", "RUN or --run RUN"),
        ("evaluate run --run run", "RUN or --run RUN"),
        ("compare", "required"),
        ("compare run --split=tset", "tset"),
        ("check run --roles positive=a positive=b", "argument --roles: positive is given twice"),
        ("check run --roles good=a bad=b", "'good=a': give negative=NAME positive=NAME"),
        ("check run --max-failure-rate 50", "'50': give a number, from 0 to 1"),
        ("check run --max-failure-rate nan", "'nan': give a number, from 0 to 1"),
        ("check run --seed -1", "'-1': give an integer, from 0"),
        ("check run --pairs a.tsv", "--pairs: expected 2 arguments"),
        ("check run --pairs a b --max-failure-rate 0", "--max-failure-rate is for behaviour"),
        ("predict run text --file=x.csv", "texts or --file"),
        ("predict run text --resume", "--resume needs"),
        ("predict run text --overwrite", "--overwrite needs --output"),
        ("predict run --file=x.csv --window=0", "at least 1"),
        ("explain run", "give either the text"),
        ("explain run great --file x.csv --row 1", "give either the text"),
        ("explain run --file x.csv", "--file and --row belong together"),
        ("explain run great --row 1", "--file and --row belong together"),
        ("explain run great --steps 0", "at least 1"),
        ("explain run great --device tpu", "tpu"),
        ("export run", "--format"),
        ("export run --format=tflite", "invalid choice"),
        ("export run --format=onnx --output=model.pt", "must end in .onnx"),
        ("reproduce run --device gpu", "gpu"),
    ],
)
def test_options(command, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "search.yaml").write_text(SEARCH)
    with pytest.raises(SystemExit) as stopped:
        cli.main(command.split())
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["search.yaml"]


@pytest.mark.parametrize(
    "command",
    [
        "evaluate FOLDER", "check FOLDER", "predict FOLDER text", "explain FOLDER text",
        "export FOLDER --format=torch", "reproduce FOLDER",
    ],
)  # fmt: skip
def test_what_is_not_a_run(command, tmp_path, capsys):
    folder = tmp_path / "a\x1b[2J\x08b"
    folder.mkdir()
    assert cli.main([str(folder) if each == "FOLDER" else each for each in command.split()]) == 1
    error = capsys.readouterr().err
    assert "is not a run" in error and error.count("\n") == 1
    assert "a␛[2J␈b" in error and not set("\x1b\x08") & set(error)
    assert list(folder.iterdir()) == []
