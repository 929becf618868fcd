"""The sweep: what it searches, how processes share it, what becomes of interrupted trials."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from filelock import FileLock
from helpers.trainings import arguments
from optuna.trial import TrialState

from sentiment.cli import main as cli
from sentiment.config.config import Config
from sentiment.config.parser import load_config
from sentiment.runs.manifest import read_manifest
from sentiment.runtime.errors import UserError
from sentiment.tuning import sweep, trainings
from sentiment.tuning.search_space import read_search
from sentiment.tuning.sweep import (
    Study,
    read_trials,
    run_trials,
    settings_text,
    summary_text,
    trials_table,
)
from sentiment.tuning.trainings import SignalForwarder, TrainingOutcome, run_training

SPACE = {
    "training.learning_rate": {"low": 1e-4, "high": 1e-1, "log": True},
    "model.hidden_size": {"low": 8, "high": 24, "step": 8},
    "model.pooling": {"choices": ["max", "mean"]},
}


def write_search(folder: Path, **changes) -> Path:
    path = folder / "search.yaml"
    values = {"trials": 3, "space": SPACE, **changes}
    path.write_text(yaml.safe_dump(values))
    return path


def begin_study(folder: Path, config: Config | None = None, **changes) -> Study:
    folder.mkdir(exist_ok=True, parents=True)
    search = read_search(write_search(folder.parent, **changes))
    return Study(folder, search, config or Config())


class FakeTraining:
    """In place of a process: writes metrics.json with the scores that ``scores_of`` returns."""

    def __init__(self, monkeypatch, scores_of) -> None:
        self.scores_of = scores_of
        self.settings: list[Config] = []
        monkeypatch.setattr(sweep, "run_training", self)

    def __call__(self, config, files, *, forwarder, after_epoch) -> TrainingOutcome:
        run = Path(config.output_dir)
        self.settings.append(config)
        scores = self.scores_of(len(self.settings), config)
        if isinstance(scores, str):
            return TrainingOutcome("failed", scores)
        entries = []
        run.mkdir(parents=True, exist_ok=True)
        for epoch, score in enumerate(scores, 1):
            validation = dict.fromkeys(("accuracy", "f1", "auroc", "nll"), score)
            entries.append({"training": {"epoch": epoch}, "validation": validation})
            (run / "metrics.json").write_text(json.dumps({"epochs": entries}))
            if after_epoch(entries[-1]):
                return TrainingOutcome("pruned")
        return TrainingOutcome("complete")


def work(study: Study, num_trials: int, metric: str = "accuracy") -> list[str]:
    messages: list[str] = []
    run_trials(study, num_trials, metric, lambda trial, text: messages.append(text))
    return messages


def test_trials_are_trained_until_there_are_enough_and_the_best_is_written(tmp_path, monkeypatch):
    fake = FakeTraining(monkeypatch, lambda number, config: [0.5, 0.5 + number / 10, 0.5])
    config = replace(Config(), output_dir="runs/base/", training=Config().training)
    study = begin_study(tmp_path / "s", config)
    first, second = work(study, 2)[1::2]
    assert (first, second) == ("accuracy 60.00 %, 3 epochs", "accuracy 70.00 %, 3 epochs")
    assert work(study, 2) == [], "there are two, and two are wanted"
    assert work(begin_study(tmp_path / "s", config), 3)[1:] == ["accuracy 80.00 %, 3 epochs"]
    best = replace(fake.settings[2], output_dir="runs/base-best")
    assert load_config(tmp_path / "s" / "best.yaml") == best, "the last one was the best"
    trials, metric = read_trials(tmp_path / "s")
    assert metric == "accuracy"
    assert [trial.value for trial in trials] == pytest.approx([0.6, 0.7, 0.8])


def test_a_resumed_search_draws_what_it_would_have_drawn(tmp_path, monkeypatch):
    fake = FakeTraining(monkeypatch, lambda number, config: [config.training.learning_rate])
    work(begin_study(tmp_path / "a"), 4)
    for num_trials in (1, 4):
        work(begin_study(tmp_path / "b"), num_trials)
    drawn = [replace(config, output_dir="x") for config in fake.settings]
    assert drawn[:4] == drawn[4:]
    assert len({config.training.learning_rate for config in drawn}) == 4, "and none twice"


def test_nll_is_better_when_lower(tmp_path, monkeypatch):
    FakeTraining(monkeypatch, lambda number, config: [0.9, number / 10, 0.8])
    config = replace(Config(), training=replace(Config().training, monitor="nll"))
    work(begin_study(tmp_path / "s", config), 3, "nll")
    trials, metric = read_trials(tmp_path / "s")
    assert [trial.value for trial in trials] == pytest.approx([0.1, 0.2, 0.3]) and metric == "nll"
    table = trials_table(tmp_path / "s", trials, metric)
    assert table.index("0.1000") < table.index("0.2000") < table.index("0.3000")
    assert "best: nll 0.1000" in summary_text(tmp_path / "s", trials, metric)


@pytest.mark.parametrize("pruning", [True, False])
def test_trials_below_the_median_are_pruned(pruning, tmp_path, monkeypatch):
    """After five complete trials, as MedianPruner has it; not in the last epoch, which is over."""
    scores = {6: [0.5, 0.5, 0.5], 7: [0.9, 0.9, 0.9]}
    FakeTraining(monkeypatch, lambda number, config: scores.get(number, [0.6, 0.7, 0.8]))
    config = replace(Config(), training=replace(Config().training, num_epochs=3))
    messages = work(begin_study(tmp_path / "s", config, pruning=pruning), 7)
    sixth = read_trials(tmp_path / "s")[0][5]
    if pruning:
        assert messages[11] == "pruned after epoch 1: accuracy 50.00 %"
        assert sixth.state == TrialState.PRUNED and sixth.intermediate_values == {1: 0.5}
    else:
        assert messages[11] == "accuracy 50.00 %, 3 epochs"
    assert messages[13] == "accuracy 90.00 %, 3 epochs"


def test_failing_trials_do_not_end_the_sweep(tmp_path, monkeypatch):
    results = {1: "it diverged", 2: [0.7], 3: "it diverged", 4: [None]}
    FakeTraining(monkeypatch, lambda number, config: results[number])
    messages = work(begin_study(tmp_path / "s"), 4)
    assert messages[1] == messages[5] == "failed: it diverged"
    assert messages[3].startswith("accuracy 70.00 %")
    assert "accuracy is undefined" in messages[7]
    trials, metric = read_trials(tmp_path / "s")
    table = trials_table(tmp_path / "s", trials, metric)
    assert all(f"{number} failed: it diverged" in table for number in ("000", "002"))
    assert "best: accuracy 70.00 %" in summary_text(tmp_path / "s", trials, metric)


def test_values_that_contradict_each_other_fail_by_themselves(tmp_path, monkeypatch):
    fake = FakeTraining(monkeypatch, lambda number, config: [0.7])
    space = {
        "training.optimizer": {"choices": ["adam", "adamw"]},
        "training.weight_decay": {"choices": [0.0, 0.1]},
    }
    work(begin_study(tmp_path / "s", space=space), 8)
    trials, _ = read_trials(tmp_path / "s")
    for trial in trials:
        is_wrong = trial.params == {"training.optimizer": "adam", "training.weight_decay": 0.1}
        assert (trial.state == TrialState.FAIL) == is_wrong
        assert ("does not decay weights" in trial.user_attrs.get("message", "")) == is_wrong
    assert len(fake.settings) <= 3, "what is complete is not trained twice"
    assert any("same_as" in trial.user_attrs for trial in trials)


def test_an_interrupted_trial_is_resumed_and_a_claimed_one_is_not(tmp_path):
    study, other = begin_study(tmp_path / "s"), begin_study(tmp_path / "s")
    interrupted, claimed = study.next_trial(2), study.next_trial(2)
    assert (interrupted.number, claimed.number) == (0, 1)
    assert other.next_trial(2) is None, "both are claimed, and two are wanted"
    study.report(interrupted, 1, 0.6)
    interrupted.claim.release()
    resumed = other.next_trial(2)
    assert resumed.is_resumed and resumed.number == 0 and resumed.values == interrupted.values
    assert not other.report(resumed, 1, 0.1), "reported already"
    other.complete(resumed, 0.6)
    assert read_trials(tmp_path / "s")[0][0].intermediate_values == {1: 0.6}
    assert study.next_trial(2) is None, "one is complete, the other one still claimed"


def test_a_line_cut_short_by_a_full_disk_is_removed(tmp_path, monkeypatch):
    FakeTraining(monkeypatch, lambda number, config: [0.7])
    work(begin_study(tmp_path / "s"), 1)
    with (tmp_path / "s" / "study.log").open("a") as file:
        file.write('{"op_code":5,"wor')
    work(begin_study(tmp_path / "s"), 2)
    assert [trial.value for trial in read_trials(tmp_path / "s")[0]] == [0.7, 0.7]


@pytest.mark.parametrize("name", ["study.log", "sweep.json"])
def test_damaged_files_are_reported(name, tmp_path):
    begin_study(tmp_path / "s")
    (tmp_path / "s" / name).write_text("{}\nnonsense\n")
    with pytest.raises(UserError, match=f"{name} is damaged"):
        begin_study(tmp_path / "s")


def test_a_sweep_started_before_a_setting_existed_goes_on(tmp_path):
    config = Config()
    begin_study(tmp_path / "sweep", config)
    path = tmp_path / "sweep" / "sweep.json"
    values = json.loads(path.read_text())
    del values["settings"]["distillation.num_teachers"]
    path.write_text(json.dumps(values))
    begin_study(tmp_path / "sweep", config)
    distillation = replace(config.distillation, num_teachers=2)
    with pytest.raises(UserError, match="was started with distillation.num_teachers 0, not 2"):
        begin_study(tmp_path / "sweep", replace(config, distillation=distillation))


@pytest.mark.parametrize(
    ("changes", "config", "message"),
    [
        ({"space": {"seed": {"low": 0, "high": 9}}}, None, "was started with"),
        ({"space": {**SPACE, "seed": {"low": 0, "high": 9}}}, None, "was started with seed 0, not"),
        ({}, replace(Config(), seed=1), "was started with seed 0, not 1: use the same value, or"),
    ],
)
def test_another_search_in_the_same_folder_is_refused(changes, config, message, tmp_path):
    begin_study(tmp_path / "s")
    begin_study(tmp_path / "s", replace(Config(), device="cpu"))  # it does not affect the result
    with pytest.raises(UserError, match=message):
        begin_study(tmp_path / "s", config, **changes)


def test_a_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "thesis.txt").write_text("")
    with pytest.raises(FileExistsError, match="is not empty and holds no sweep"):
        begin_study(tmp_path / "s")


def test_the_table_keeps_to_80_columns(tmp_path, monkeypatch):
    FakeTraining(monkeypatch, lambda number, config: [0.7] if number < 3 else "word " * 60)
    keys = ("model.dropout", "model.embedding_dropout", "model.word_dropout")
    space = {**SPACE, **{key: {"low": 0.0, "high": 0.5} for key in keys}}
    folder = tmp_path / ("long" * 20) / "s"
    work(begin_study(folder, space=space), 3)
    trials, metric = read_trials(folder)
    table = trials_table(folder, trials, metric)
    assert max(map(len, table.splitlines())) <= 80
    for name, value in trials[0].params.items():
        shown = value if isinstance(value, int | str) else f"{value:.3g}"
        assert f"{name.rpartition('.')[2]}={shown}" in table


def test_settings_whose_names_are_ambiguous_keep_their_sections():
    text = settings_text({"vectors.name": None, "other.name": True, "seed": 3})
    assert text == "vectors.name=null, other.name=true, seed=3"


TRAINING = """
import json, pathlib, signal, sys, time, yaml
from filelock import FileLock
settings = yaml.safe_load(open(sys.argv[1].partition("=")[2]))
assert sys.argv[2:] == ["--auto_resume"]
run = pathlib.Path(settings["output_dir"])
run.mkdir(parents=True, exist_ok=True)
lock = FileLock(run / ".lock")
lock.acquire()
stop = lambda number, frame: ((run / "stopped").touch(), sys.exit(143))
signal.signal(signal.SIGTERM, stop)
path, num_epochs = run / "metrics.json", settings["training"]["num_epochs"]
score = settings["training"]["learning_rate"]
done = len(json.loads(path.read_text())["epochs"]) if path.exists() else 0
for number in range(done + 1, num_epochs + 1):
    time.sleep(0.05)
    validation = {"validation": {"accuracy": score}}
    entries = [{"training": {"epoch": n + 1}, **validation} for n in range(number)]
    path.with_suffix(".new").write_text(json.dumps({"epochs": entries}))
    path.with_suffix(".new").rename(path)
END
"""


@pytest.fixture
def sweep_command(tmp_path, monkeypatch, capsys):
    """Runs ``sentiment sweep`` whose trainings sleep a twentieth of a second an epoch."""
    monkeypatch.setattr(trainings, "_POLL_SECONDS", 0.02)

    def run(num_epochs: int, *, trials: int, end: str = "") -> tuple[int, str, str]:
        write_program(tmp_path, monkeypatch, end)
        file = write_search(tmp_path, trials=trials)
        options = [f"--output_dir={tmp_path / 's'}", f"--training.num_epochs={num_epochs}"]
        try:
            status = cli.main(["sweep", str(file), *options])
        except SystemExit as end_:
            status = end_.code
        return status, *capsys.readouterr()

    return run


def write_program(folder: Path, monkeypatch, end: str = "") -> None:
    program = folder / "training.py"
    program.write_text(TRAINING.replace("END", end))
    monkeypatch.setattr(trainings, "_TRAIN", [sys.executable, str(program)])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_a_signal_stops_the_training_and_the_sweep_goes_on_later(number, sweep_command, tmp_path):
    path = tmp_path / "s" / "trials" / "000" / "metrics.json"

    def send() -> None:
        deadline = time.monotonic() + 60
        while not path.exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        os.kill(os.getpid(), number)

    thread = threading.Thread(target=send)
    thread.start()
    status, output, errors = sweep_command(600, trials=1)
    thread.join()
    assert status == 128 + number, errors
    assert path.with_name("stopped").exists(), "it could write a checkpoint"
    assert "trial 000 stopped" in output and "the same command continues" in output
    assert "not finished: 1" in output and "no trial is complete yet" in output
    entries = json.loads(path.read_text())["epochs"]
    path.write_text(json.dumps({"epochs": entries[:1] * 599}))  # so that little is left to do
    _, output, _ = sweep_command(600, trials=1)
    assert "trial 000 resumed: " in output and "best: accuracy" in output


def test_a_training_that_outlives_its_sweep_is_not_doubled(sweep_command, tmp_path):
    """Neither where it is seen before a trial is chosen, nor where it is seen too late."""
    config = replace(Config(), training=replace(Config().training, num_epochs=2))
    trial = begin_study(tmp_path / "s", config).next_trial(1)
    trial.claim.release()  # as when the sweep is killed
    run = tmp_path / "s" / "trials" / "000"
    run.mkdir()
    with FileLock(run / ".lock"):
        status, output, _ = sweep_command(2, trials=1)
        assert status == 0 and "resumed" not in output and "not finished: 1" in output
        program = tmp_path / "training.py"
        program.write_text("raise SystemExit('error: another training writes to this folder')")
        with SignalForwarder() as forwarder:
            config = replace(config, output_dir=str(run))
            outcome = run_training(config, tmp_path / "files", forwarder=forwarder)
        assert outcome == TrainingOutcome("stopped")
    assert "trial 000 resumed: " in sweep_command(2, trials=1)[1]


def test_a_second_signal_stops_what_is_no_training(capfd):
    with pytest.raises(KeyboardInterrupt), SignalForwarder() as forwarder:
        os.kill(os.getpid(), signal.SIGTERM)
        assert forwarder.signal == signal.SIGTERM
        os.kill(os.getpid(), signal.SIGTERM)
    assert capfd.readouterr().err.count("a second signal stops at once") == 1


SWEEP = """
import sys
from sentiment.cli import main as cli
from sentiment.tuning import trainings
trainings._TRAIN = [sys.executable, sys.argv.pop(1)]
sys.exit(cli.main(sys.argv[1:]))
"""


def test_processes_share_the_trials(tmp_path, monkeypatch):
    write_program(tmp_path, monkeypatch)
    file = write_search(tmp_path, trials=6)
    command = [
        sys.executable, "-c", SWEEP, str(tmp_path / "training.py"), "sweep", str(file),
        f"--output_dir={tmp_path / 's'}", "--training.num_epochs=2",
    ]  # fmt: skip
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = [process.communicate()[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    lines = [line for output in outputs for line in output.splitlines() if " started: " in line]
    started = sorted(line.split()[1] for line in lines)
    assert started == [f"{number:03d}" for number in range(6)], "each by one of them"
    trials, _ = read_trials(tmp_path / "s")
    assert all(trial.state.is_finished() for trial in trials)


def test_a_pruned_training_can_write_a_checkpoint(sweep_command, tmp_path):
    config = replace(Config(), training=replace(Config().training, num_epochs=20))
    study = begin_study(tmp_path / "s", config, trials=6)
    for _ in range(5):  # complete, with scores that no training reaches
        trial = study.next_trial(6)
        study.report(trial, 1, 2.0)
        study.complete(trial, 2.0)
        trial.claim.release()
    _, output, _ = sweep_command(20, trials=6)
    assert "trial 005 pruned after epoch " in output
    run = tmp_path / "s" / "trials" / "005"
    assert (run / "stopped").exists()
    assert len(json.loads((run / "metrics.json").read_text())["epochs"]) < 20


@pytest.mark.parametrize(
    ("end", "message"),
    [
        ("sys.exit('error: device is full')", "device is full"),
        ("import os; os.kill(os.getpid(), 9)", "SIGKILL: killed, as the system does when"),
        ("raise KeyError('a bug')", "KeyError: 'a bug'"),
        ("print('\\x1b[31mred', flush=True); sys.exit(3)", "␛[31mred"),
        ("sys.exit(3)", "exit status 3"),
    ],
)
def test_a_training_that_fails_is_quoted(end, message, sweep_command, tmp_path):
    status, output, errors = sweep_command(1, trials=1, end=end)
    assert status == 1, errors
    assert " ".join(output.split()).count(f"failed: {message}") == 2, "once under the table"
    assert errors.startswith(f"error: all 1 trials failed, the last one with: {message}")
    assert not (tmp_path / "s" / "best.yaml").exists()


def test_a_sweep_trains_runs_that_are_like_others(corpus, tmp_path, capsys):
    space = {"model.dropout": {"low": 0.1, "high": 0.5}}
    search = str(write_search(tmp_path, trials=1, metric="nll", space=space))
    command = ["sweep", search, *arguments(corpus, tmp_path / "s", "--data.num_processes=1")]
    assert cli.main(command) == 0
    output = capsys.readouterr().out
    (trial,), _ = read_trials(tmp_path / "s")
    run = tmp_path / "s" / "trials" / "000"
    assert read_manifest(run)["result"]["metrics"]["nll"] == pytest.approx(trial.value)
    trained, best = load_config(run / "config.yaml"), load_config(tmp_path / "s" / "best.yaml")
    assert trained.model.dropout == trial.params["model.dropout"]
    assert best == replace(trained, output_dir="runs/quickstart-best")
    assert best.data.path == str(corpus)
    assert "best: nll" in output
    assert cli.main([*command, "--show"]) == 0
    assert output.endswith(capsys.readouterr().out), "the same table, and no training"
