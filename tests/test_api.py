"""``sentiment.train`` and ``evaluate``: the commands' results, and a program left as it was."""

import io
import json
import logging
import os
import signal
import sys
import threading
import time
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
import tqdm.auto
from helpers.corpus import write_corpus
from helpers.trainings import SMALL, train

import sentiment
from sentiment import api
from sentiment.cli import main as cli
from sentiment.config.parser import parse_training
from sentiment.diagnostics.run_diff import compare_runs
from sentiment.display import console
from sentiment.display.console import progress_bar
from sentiment.training.trainer import Trainer

TINY = dict(option.removeprefix("--").split("=") for option in SMALL)


@pytest.fixture(scope="module")
def reviews(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reviews")
    return write_corpus(folder, splits={"train": 80, "validation": 20, "test": 20})


@pytest.fixture(autouse=True)
def unconfigured(monkeypatch):
    """Logging as in a fresh interpreter, whatever commands ran in this process before."""
    loggers = {logging.getLogger("sentiment"): logging.NOTSET, logging.getLogger(): logging.WARNING}
    before = {logger: logger.level for logger in loggers}
    for logger, level in loggers.items():
        monkeypatch.setattr(logger, "handlers", [])
        logger.setLevel(level)
    yield
    for logger, level in before.items():
        logger.setLevel(level)


def state_of_the_program():
    loggers = [logging.getLogger(name) for name in (None, "sentiment")]
    return (
        [(each.level, list(each.handlers), each.propagate) for each in loggers],
        [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)],
        threading.excepthook,
        torch.get_rng_state().tolist(),
    )


@pytest.fixture(scope="module")
def by_command(reviews, tmp_path_factory):
    return train(reviews, tmp_path_factory.mktemp("command") / "run")


def test_a_training_is_the_commands_and_leaves_the_program_alone(reviews, by_command, tmp_path):
    before = state_of_the_program()
    file = tmp_path / "settings.yaml"
    file.write_text(f"data:\n  path: {reviews}\ntraining:\n  num_epochs: 9\n")
    run = sentiment.train(file, output_dir=tmp_path / "run", **{**TINY, "training.num_epochs": 2})
    assert state_of_the_program() == before
    assert compare_runs(by_command, run.path).is_equal
    assert run.metrics == json.loads((run.path / "run.json").read_text())["result"]["metrics"]
    texts = ["a great film", "awful"]
    assert run.predict(iter(texts)) == sentiment.load(by_command).predict(texts)


def test_settings_are_a_mapping_dotted_or_nested_of_python_values(reviews, tmp_path):
    settings = {
        "data": {"path": reviews, "class_names": ("neg", "pos")},
        "output_dir": str(tmp_path / "run"),
        **TINY,
        "model": {"hidden_size": np.int64(4), "bidirectional": False},
        "training.patience": None,
    }
    del settings["model.hidden_size"]
    run = sentiment.train(settings, training={"num_epochs": 1})
    config = run.predictor.run.config
    assert (config.model.hidden_size, config.model.bidirectional) == (4, False)
    assert (config.training.num_epochs, config.data.class_names) == (1, ("neg", "pos"))


def test_values_may_be_mappings_and_paths():
    settings = {
        "data": {"labels": {0: "neg", "4": "pos", 2: None}},
        "training.class_weights": {"neg": np.float32(0.5)},
        "distillation": {"teachers": [Path("a, b"), "c"]},
    }
    options = [f"--{key}={api._as_text(value)}" for key, value in api._flatten(settings).items()]
    config = parse_training(options, "test").config
    assert config.data.labels == {"0": "neg", "4": "pos", "2": None}
    assert config.training.class_weights == {"neg": 0.5}
    assert config.distillation.teachers == ("a, b", "c")


def test_an_evaluation_has_what_the_report_has(reviews, by_command, tmp_path, capsys):
    before = state_of_the_program()
    result = sentiment.evaluate(by_command, output=tmp_path, max_lengths=[5, 10])
    assert state_of_the_program() == before
    report = json.loads((tmp_path / "report.json").read_text())
    for name in ("accuracy", "accuracy_ci95", "f1_ci95", "auroc", "nll"):
        assert report[name] == pytest.approx(result.metrics[name])
    predicted = [each.label for each in result.predictions]
    assert predicted == [each.label for each in result.predict(result.texts)]
    right = sum(a == b for a, b in zip(predicted, result.labels, strict=True))
    assert right / len(predicted) == result.metrics["accuracy"]
    assert capsys.readouterr().out == "" and "by tokens kept of each review" in str(result)
    assert cli.evaluate([str(by_command), f"--output={tmp_path}", "--max_lengths", "5", "10"]) == 0
    assert capsys.readouterr().out.splitlines()[:20] == str(result).splitlines()[:20]
    other = write_corpus(tmp_path / "other", splits={"test": 10})
    assert len(sentiment.evaluate(by_command, **{"data.path": other}).texts) == 10


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: sentiment.train(**{"training.num_epoch": 3}), "did you mean training.num_epochs?"),
        (lambda: sentiment.train({"training": {"num_epochs": "x"}}), "Got value: x"),
        (lambda: sentiment.train("nowhere.yaml"), "nowhere.yaml"),
        (lambda: sentiment.train(overwrite=True, auto_resume=True), "give one of --overwrite"),
        (lambda: sentiment.evaluate("nowhere", split="tset"), "invalid choice: 'tset'"),
        (lambda: sentiment.evaluate("nowhere", splt=1), "unrecognized arguments: --splt=1"),
    ],
)
def test_mistakes_are_exceptions(call, message):
    with pytest.raises(sentiment.UserError, match=message.replace("?", r"\?")):
        call()
    with pytest.raises(FileNotFoundError, match="nowhere is not a run"):
        sentiment.evaluate("nowhere")


def test_an_interruption_comes_after_a_checkpoint(reviews, by_command, tmp_path, monkeypatch):
    train_step, run = Trainer.train_step, tmp_path / "run"

    def interrupted(trainer, *given):
        if trainer.update == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return train_step(trainer, *given)

    before = state_of_the_program()
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Trainer, "train_step", interrupted)
        sentiment.train({"data.path": reviews, "output_dir": run, **TINY})
    assert state_of_the_program() == before
    assert sentiment.train(resume=run).path == run
    assert compare_runs(by_command, run).is_equal
    assert json.loads((run / "run.json").read_text())["result"]["num_resumed"] == 1


def test_lines_are_shown_once_and_only_if_wanted(by_command, capsys):
    """Resuming a finished run logs one line."""
    line = "nothing to resume"
    sentiment.train(resume=by_command)
    assert capsys.readouterr().out.count(line) == 1, "nobody has configured logging"
    own: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: own.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger().addHandler(handler)
    sentiment.train(resume=by_command)
    assert capsys.readouterr().out.count(line) == 1 and not own, "the program shows warnings only"
    logging.getLogger().setLevel(logging.INFO)
    sentiment.train(resume=by_command)
    assert capsys.readouterr().out == "" and line in own[-1]
    logging.getLogger("sentiment").setLevel(logging.WARNING)
    own.clear()
    sentiment.train(resume=by_command)
    assert capsys.readouterr().out == "" and not own


def test_bars_are_drawn_on_terminals_and_in_notebooks_only(monkeypatch):
    monkeypatch.delitem(sys.modules, "ipykernel", raising=False)

    def shown(*, is_terminal: bool = False, **options: object) -> str:
        stream = io.StringIO()
        monkeypatch.setattr(stream, "isatty", lambda: is_terminal, raising=False)
        monkeypatch.setattr(sys, "stderr", stream)
        with progress_bar(desc="reading", **options) as bar:
            for _ in range(4):
                bar.update()
        return stream.getvalue()

    assert shown(total=4) == shown() == "", "a file gets a line only every few minutes"
    assert "reading: 100%" in shown(total=4, is_terminal=True)
    assert shown(total=4, is_terminal=True, is_hidden=True) == ""
    monkeypatch.setattr(console, "_SECONDS_PER_LINE", 0)
    lines = shown(total=4).splitlines()
    assert lines[0].startswith("reading: 0 %") and lines[3].startswith("reading: 75 %, 00:0")
    assert "reading: 3 in 00:0" in shown()
    assert shown(total=4, is_hidden=True) == ""
    monkeypatch.setattr(sys, "stderr", SimpleNamespace(write=print, flush=print))
    progress_bar(total=1).close()  # of a stream that does not say whether it is a terminal
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    monkeypatch.setitem(sys.modules, "ipykernel", ModuleType("ipykernel"))
    with progress_bar(total=1) as bar:
        assert not bar.disable


def test_lines_on_progress_are_not_repeated_by_tqdms_monitor(monkeypatch):
    monkeypatch.setattr(tqdm.auto.tqdm, "monitor", None)  # for one of a shorter interval
    monkeypatch.setattr(tqdm.auto.tqdm, "monitor_interval", 0.01)
    monkeypatch.setattr(console, "_SECONDS_PER_LINE", 0.2)
    monkeypatch.setattr(sys, "stderr", stream := io.StringIO())
    started = time.monotonic()
    with progress_bar(total=400) as bar:
        for _ in range(40):  # several updates at once, as the monitor looks only after such bars
            time.sleep(0.03)
            bar.update(10)
    bar.monitor.exit()
    assert 1 <= len(stream.getvalue().splitlines()) <= (time.monotonic() - started) / 0.2
