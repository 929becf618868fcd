"""The sweep: what it searches, how processes share it, what becomes of trials that end early."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import optuna
import pytest
import yaml
from optuna.trial import TrialState

from sentiment.cli import main as cli
from sentiment.cli.sweep import parse
from sentiment.config.config import Config
from sentiment.config.parser import load_config, setting_keys
from sentiment.runs.manifest import read_manifest
from sentiment.runtime.claims import try_claim
from sentiment.tuning import sweep
from sentiment.tuning.search_space import (
    Choices,
    Range,
    check_space,
    read_search,
    read_space,
    with_values,
)
from sentiment.tuning.study import Study, read_trials
from sentiment.tuning.sweep import Outcome, summary_text, trials_table, values_text

SPACE = {
    "training.learning_rate": {"low": 1e-4, "high": 1e-1, "log": True},
    "model.hidden_size": {"low": 8, "high": 24, "step": 8},
    "model.pooling": {"choices": ["max", "mean"]},
}
TINY = [
    "--model.embedding_size=8", "--training.num_epochs=1", "--training.precision=fp32",
    "--training.pictures=false", "--data.num_processes=1",
]  # fmt: skip


def write_search(folder: Path, **changes) -> Path:
    path = folder / "search.yaml"
    values = {"trials": 3, "space": SPACE, **changes}
    path.write_text(yaml.safe_dump({key: each for key, each in values.items() if each is not None}))
    return path


def begin_study(folder: Path, config: Config | None = None, **changes) -> Study:
    folder.mkdir(exist_ok=True, parents=True)
    search = read_search(write_search(folder.parent, **changes))
    return Study(folder, search, config or Config())


class FakeTraining:
    """In place of a process: tells of epochs as a course says, and writes metrics.json."""

    def __init__(self, monkeypatch, course) -> None:
        self.course = course
        self.settings: list[Config] = []
        monkeypatch.setattr(sweep, "train_trial", self)

    def __call__(self, settings, run, log, *, descriptor, stop, after_epoch) -> Outcome:
        os.fstat(descriptor)
        config = load_config(settings)
        assert config.output_dir == str(run)
        self.settings.append(config)
        scores = self.course(len(self.settings), config)
        if isinstance(scores, str):
            return Outcome("failed", scores)
        entries = []
        run.mkdir(parents=True, exist_ok=True)
        for epoch, score in enumerate(scores, 1):
            validation = dict.fromkeys(("accuracy", "f1", "auroc", "nll"), score)
            entries.append({"training": {"epoch": epoch}, "validation": validation})
            (run / "metrics.json").write_text(json.dumps({"epochs": entries}))
            if after_epoch(entries[-1]):
                return Outcome("pruned")
        return Outcome("complete")


def work(study: Study, num_trials: int, metric: str = "accuracy") -> list[str]:
    said: list[str] = []
    sweep.work(study, num_trials, metric, lambda trial, text: said.append(text))
    return said


# --- the space


def test_values_are_of_the_settings_kinds_and_within_the_bounds():
    space = read_space({**SPACE, "model.dropout": {"low": 0, "high": 0.5, "step": 0.25}})
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    seen: dict[str, set] = {key: set() for key in space}
    for _ in range(100):
        trial = study.ask()
        for key, dimension in space.items():
            seen[key].add(dimension.suggest(trial, key))
    assert seen["model.hidden_size"] == {8, 16, 24}
    assert seen["model.pooling"] == {"max", "mean"}
    assert seen["model.dropout"] == {0.0, 0.25, 0.5}
    rates = sorted(seen["training.learning_rate"])
    assert rates[0] >= 1e-4 and rates[-1] <= 1e-1
    assert 1e-3 < rates[50] < 1e-2, "half of them below the middle of the logarithms"


def test_every_setting_that_can_be_searched_takes_its_own_default():
    from sentiment.config.config import flat_settings
    from sentiment.tuning.search_space import _fits

    defaults = flat_settings(Config())
    for key, hint in setting_keys().items():
        assert _fits(defaults[key], hint), key


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("model.hiden_size", {"low": 1, "high": 2}, "did you mean model.hidden_size?"),
        ("training.learning_rat", {"low": 1, "high": 2}, "did you mean training.learning_rate?"),
        ("device", {"choices": ["cpu", "auto"]}, "does not change what is learned"),
        ("training.monitor", {"choices": ["f1", "nll"]}, "must be the same for all trials"),
        ("data.validation_share", {"low": 0.1, "high": 0.2}, "must be the same for all trials"),
        ("model.hidden_size", 64, "is 64, but must be {low"),
        ("model.hidden_size", {"low": 8}, "needs both low and high"),
        ("model.hidden_size", {"low": 8, "hihg": 9}, "has hihg, which is none of low, high"),
        ("model.hidden_size", {"low": 8.5, "high": 9}, "low 8.5, but it must be an integer"),
        ("model.hidden_size", {"low": 9, "high": 8}, "low 9, which must be below high 8"),
        ("model.hidden_size", {"low": 8, "high": 20, "step": 8}, "lead from 8 to 20"),
        ("model.hidden_size", {"low": 8, "high": 16, "step": 0}, "has step 0"),
        ("model.hidden_size", {"choices": [8, "many"]}, "choice 'many', which is not an integer"),
        ("model.hidden_size", {"choices": [8]}, "a list of two or more"),
        ("model.hidden_size", {"choices": [8, 8]}, "one choice twice"),
        ("model.hidden_size", {"choices": [8, 9], "low": 1}, "which stand alone"),
        ("model.dropout", {"low": 0, "high": 0.5, "log": True}, "must begin above 0"),
        ("model.dropout", {"low": 0.1, "high": 0.5, "log": "yes"}, "log 'yes'"),
        ("model.cell", {"low": 1, "high": 2}, "is no number but one of lstm, gru"),
        ("model.cell", {"choices": ["lstm", "lsmt"]}, "choice 'lsmt', which is not one of lstm"),
        ("model.bidirectional", {"choices": [True, 1]}, "choice 1, which is not true or false"),
        ("vocabulary.max_size", {"choices": [None, "all"]}, "'all', which is not an integer or"),
    ],
)
def test_mistakes_in_the_space_are_named(key, value, message):
    with pytest.raises(ValueError) as raised:
        read_space({key: value})
    assert message in str(raised.value) and str(raised.value).startswith("space: ")


@pytest.mark.parametrize("values", [None, {}, [], "model.hidden_size"])
def test_a_space_of_nothing_is_refused(values):
    with pytest.raises(ValueError, match="space must name settings"):
        read_space(values)


def test_values_out_of_range_are_refused_by_the_settings_own_checks():
    with pytest.raises(ValueError, match="model.dropout is 1.0, but must be from 0 to below 1"):
        check_space({"model.dropout": Range(0.0, 1.0, False, None, False)}, Config())
    decay = {"training.weight_decay": Choices((0.0, 0.1))}
    with pytest.raises(ValueError, match="training.optimizer is 'adam'"):
        check_space(decay, Config())
    # Searched together, some trials bring together what fits.
    check_space({**decay, "training.optimizer": Choices(("adam", "adamw"))}, Config())


def test_values_are_set_in_their_sections():
    config = with_values(Config(), {"model.hidden_size": 7, "model.dropout": 0.1, "seed": 3})
    model = replace(Config().model, hidden_size=7, dropout=0.1)
    assert config == replace(Config(), seed=3, model=model)


# --- the search file


def test_numbers_may_be_written_as_in_settings_files(tmp_path):
    path = tmp_path / "search.yaml"
    path.write_text("space: {training.learning_rate: {low: 1e-4, high: 1E-1, log: true}}\n")
    search = read_search(path)
    assert search.space == {"training.learning_rate": Range(1e-4, 0.1, True, None, False)}
    assert (search.trials, search.metric, search.pruning, search.config) == (20, None, True, None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must hold config, trials and space"),
        ("seed: 1\n", "seed is a setting, for train.py: a search holds config"),
        ("trials: 3\n", "space must name settings"),
        ("trails: 3\n", "unknown key 'trails' (did you mean trials?)"),
        ("trials: 0\n", "trials is 0, but must be an integer of at least 1"),
        ("trials: true\n", "trials is True, but"),
        ("metric: loss\n", "metric is 'loss', but must be one of accuracy, f1, auroc, nll"),
        ("pruning: 3\n", "pruning is 3, but must be true or false"),
        ("config: [a]\n", "config is ['a'], but must be a settings file"),
        ("space: {a: 1, a: 2}\n", "key 'a' a second time in line 1"),
        ("space: !!python/object/apply:os.system [true]\n", "not YAML"),
        ("space: [\n", "not YAML"),
    ],
)
def test_mistakes_in_the_file_are_named(text, message, tmp_path):
    path = tmp_path / "search.yaml"
    path.write_text(text)
    with pytest.raises(ValueError) as raised:
        read_search(path)
    assert str(raised.value).startswith(f"{path}: ") and message in str(raised.value)


def test_the_example_in_configs_is_valid():
    from helpers.corpus import ROOT

    search = read_search(ROOT / "configs" / "sweep.yaml")
    check_space(search.space, load_config(ROOT / search.config))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--trials=3"], "give the search file first"),
        (["nowhere.yaml"], "there is no search file nowhere.yaml"),
        (["FILE", "--trials", "0"], "an integer of at least 1"),
        (["FILE", "--model.hidden_size", "8"], "model.hidden_size is searched"),
        (["FILE", "--config=x.yaml"], "--config does not go with a sweep"),
        (["FILE", "--auto_resume"], "a sweep resumes by itself"),
        (["FILE", "--training.num_epoch=3"], "did you mean training.num_epochs?"),
        (["FILE", "--model.implementation=reference", "--model.cell=gru"], "model.cell is 'gru'"),
    ],
)
def test_mistakes_on_the_command_line_are_one_line(arguments, message, tmp_path, capsys):
    file = str(write_search(tmp_path))
    with pytest.raises(SystemExit) as stopped:
        cli.main(["sweep", *(file if each == "FILE" else each for each in arguments)])
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_help_and_mistakes_wait_for_nothing_heavy(tmp_path):
    for command in ("sweep", "find-lr"):
        code = (
            "import sys, sentiment.cli.main\n"
            f"try: sentiment.cli.main.main([{command!r}, '--help'])\n"
            "finally: print([name for name in ('torch', 'numpy', 'optuna') if name in sys.modules])"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert done.stdout.endswith("[]\n") and f"usage: sentiment {command}" in done.stdout


# --- the trials


def test_trials_are_trained_until_there_are_enough_and_the_best_is_written(tmp_path, monkeypatch):
    fake = FakeTraining(monkeypatch, lambda number, config: [0.5, 0.5 + number / 10, 0.5])
    config = replace(Config(), output_dir="runs/base/", training=Config().training)
    study = begin_study(tmp_path / "s", config)
    first, second = work(study, 2)[1::2]
    assert (first, second) == ("accuracy 60.00 %, 3 epochs", "accuracy 70.00 %, 3 epochs")
    assert work(study, 2) == [], "there are two, and two are wanted"
    assert work(begin_study(tmp_path / "s", config), 3)[1:] == ["accuracy 80.00 %, 3 epochs"]
    assert load_config(tmp_path / "s" / "best.yaml") == replace(
        fake.settings[2], output_dir="runs/base-best"
    ), "the last one was the best"
    trials, metric = read_trials(tmp_path / "s")
    assert metric == "accuracy" and [each.value for each in trials] == pytest.approx(
        [0.6, 0.7, 0.8]
    )


def test_a_search_taken_up_again_draws_what_it_would_have_drawn(tmp_path, monkeypatch):
    fake = FakeTraining(monkeypatch, lambda number, config: [config.training.learning_rate])
    work(begin_study(tmp_path / "a"), 6)
    for num_trials in (1, 3, 6):
        work(begin_study(tmp_path / "b"), num_trials)
    drawn = [replace(each, output_dir="x") for each in fake.settings]
    assert drawn[:6] == drawn[6:]
    assert len({each.training.learning_rate for each in drawn}) == 6, "and none twice"


def test_nll_is_better_when_lower(tmp_path, monkeypatch):
    FakeTraining(monkeypatch, lambda number, config: [0.9, number / 10, 0.8])
    config = replace(Config(), training=replace(Config().training, monitor="nll"))
    study = begin_study(tmp_path / "s", config)
    work(study, 3, "nll")
    trials, metric = read_trials(tmp_path / "s")
    assert [each.value for each in trials] == pytest.approx([0.1, 0.2, 0.3]) and metric == "nll"
    table = trials_table(tmp_path / "s", trials, metric)
    assert table.index("0.1000") < table.index("0.2000") < table.index("0.3000")
    assert "best: nll 0.1000" in summary_text(tmp_path / "s", trials, metric)


def test_trials_below_the_median_are_pruned(tmp_path, monkeypatch):
    """After five complete trials, as MedianPruner has it; not in the last epoch, which is over."""
    scores = {6: [0.5, 0.5, 0.5], 7: [0.9, 0.9, 0.9]}
    FakeTraining(monkeypatch, lambda number, config: scores.get(number, [0.6, 0.7, 0.8]))
    config = replace(Config(), training=replace(Config().training, num_epochs=3))
    said = work(begin_study(tmp_path / "s", config), 7)
    assert said[11] == "pruned after epoch 1: accuracy 50.00 %"
    assert said[13] == "accuracy 90.00 %, 3 epochs"
    (pruned,) = (each for each in read_trials(tmp_path / "s")[0] if each.state.name == "PRUNED")
    assert pruned.intermediate_values == {1: 0.5}
    without = begin_study(tmp_path / "t", config, pruning=False)
    FakeTraining(monkeypatch, lambda number, config: scores.get(number, [0.6, 0.7, 0.8]))
    assert work(without, 6)[11] == "accuracy 50.00 %, 3 epochs"


def test_failing_trials_do_not_end_the_sweep(tmp_path, monkeypatch):
    FakeTraining(monkeypatch, lambda number, config: "it diverged" if number % 2 else [0.7])
    said = work(begin_study(tmp_path / "s"), 4)
    assert said[1] == said[5] == "failed: it diverged" and said[3].startswith("accuracy 70.00 %")
    trials, metric = read_trials(tmp_path / "s")
    table = trials_table(tmp_path / "s", trials, metric)
    assert "000, 002 failed: it diverged" in table
    assert "best: accuracy 70.00 %" in summary_text(tmp_path / "s", trials, metric)


def test_all_failing_is_said(tmp_path, monkeypatch):
    FakeTraining(monkeypatch, lambda number, config: "no memory")
    work(begin_study(tmp_path / "s"), 2)
    with pytest.raises(ValueError, match="all 2 trials failed, the last one by: no memory"):
        summary_text(tmp_path / "s", *read_trials(tmp_path / "s"))
    assert not (tmp_path / "s" / "best.yaml").exists()


def test_a_score_that_is_nowhere_defined_fails(tmp_path, monkeypatch):
    FakeTraining(monkeypatch, lambda number, config: [None, None])
    assert "accuracy is undefined" in work(begin_study(tmp_path / "s"), 1)[1]


def test_values_that_contradict_each_other_fail_by_themselves(tmp_path, monkeypatch):
    fake = FakeTraining(monkeypatch, lambda number, config: [0.7])
    space = {
        "training.optimizer": {"choices": ["adam", "adamw"]},
        "training.weight_decay": {"choices": [0.0, 0.1]},
    }
    work(begin_study(tmp_path / "s", space=space), 12)
    trials, _ = read_trials(tmp_path / "s")
    for each in trials:
        is_wrong = each.params == {"training.optimizer": "adam", "training.weight_decay": 0.1}
        assert (each.state == TrialState.FAIL) == is_wrong
        assert ("does not decay weights" in each.user_attrs.get("message", "")) == is_wrong
    assert len(fake.settings) <= 3, "what is complete is not trained twice"
    assert any("same_as" in each.user_attrs for each in trials)


def test_a_trial_that_was_left_is_taken_up_and_one_at_work_is_not(tmp_path, monkeypatch):
    study = begin_study(tmp_path / "s")
    other = begin_study(tmp_path / "s")
    left, at_work = study.next_trial(2), study.next_trial(2)
    assert (left.number, at_work.number) == (0, 1)
    assert other.next_trial(2) is None, "both are at work, and two are wanted"
    study.report(left, 1, 0.6)
    left.claim.release()
    taken = other.next_trial(2)
    assert taken.is_taken_up and taken.number == 0 and taken.values == left.values
    assert taken.told == {1}
    assert not other.report(taken, 1, 0.1), "told once"
    other.complete(taken, 0.6)
    assert study.trials()[0].intermediate_values == {1: 0.6}
    assert study.next_trial(2) is None, "complete, and the other one still at work"


def test_a_claim_lasts_as_long_as_the_training_that_was_given_it(tmp_path):
    claim = try_claim(tmp_path / "claim")
    child = subprocess.Popen(["sleep", "60"], pass_fds=(claim.descriptor,))
    claim.release()
    assert try_claim(tmp_path / "claim") is None
    child.kill()
    child.wait()
    assert try_claim(tmp_path / "claim") is not None


def test_a_line_that_a_full_disk_cut_off_is_no_end(tmp_path, monkeypatch):
    FakeTraining(monkeypatch, lambda number, config: [0.7])
    work(begin_study(tmp_path / "s"), 1)
    with (tmp_path / "s" / "study.log").open("a") as file:
        file.write('{"op_code":5,"wor')
    work(begin_study(tmp_path / "s"), 2)
    assert [each.value for each in read_trials(tmp_path / "s")[0]] == [0.7, 0.7]


def test_a_damaged_journal_is_said_to_be(tmp_path):
    begin_study(tmp_path / "s")
    (tmp_path / "s" / "study.log").write_text("{}\nnonsense\n")
    with pytest.raises(ValueError, match="study.log is damaged"):
        begin_study(tmp_path / "s")


def test_a_sweep_of_a_time_with_fewer_settings_goes_on(tmp_path):
    config = Config()
    begin_study(tmp_path / "sweep", config)
    path = tmp_path / "sweep" / "sweep.json"
    values = json.loads(path.read_text())
    del values["settings"]["distillation.num_teachers"]
    path.write_text(json.dumps(values))
    begin_study(tmp_path / "sweep", config)
    with pytest.raises(ValueError, match="was begun with distillation.num_teachers 0, not 2"):
        begin_study(
            tmp_path / "sweep",
            replace(config, distillation=replace(config.distillation, num_teachers=2)),
        )


@pytest.mark.parametrize(
    ("changes", "config", "message"),
    [
        ({"space": {"seed": {"low": 0, "high": 9}}}, None, "was begun with"),
        ({}, replace(Config(), seed=1), "was begun with seed 0, not 1: go on as it was begun, or"),
    ],
)
def test_another_search_in_the_same_folder_is_refused(changes, config, message, tmp_path):
    begin_study(tmp_path / "s")
    begin_study(tmp_path / "s", replace(Config(), device="cpu"))  # which decides nothing
    with pytest.raises(ValueError) as raised:
        begin_study(tmp_path / "s", config, **changes)
    assert message in str(raised.value)


def test_a_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "thesis.txt").write_text("")
    with pytest.raises(FileExistsError, match="is not empty and holds no sweep"):
        begin_study(tmp_path / "s")


def test_the_table_keeps_to_80_columns(tmp_path, monkeypatch):
    FakeTraining(monkeypatch, lambda number, config: [0.7] if number < 4 else "word " * 60)
    keys = ("model.dropout", "model.embedding_dropout", "model.word_dropout")
    space = {**SPACE, **{key: {"low": 0.0, "high": 0.5} for key in keys}}
    folder = tmp_path / ("long" * 20) / "s"
    work(begin_study(folder, space=space), 5)
    trials, metric = read_trials(folder)
    table = trials_table(folder, trials, metric)
    assert max(map(len, table.splitlines())) <= 80
    flat = table.replace("\N{NO-BREAK SPACE}", " ")
    for name, value in trials[0].params.items():
        shown = value if isinstance(value, int | str) else f"{value:.3g}"
        assert f"{name.rpartition('.')[2]} {shown}" in flat


def test_names_that_only_their_sections_tell_apart_are_whole():
    text = values_text({"vectors.name": None, "other.name": True, "seed": 3})
    expected = "vectors.name null, other.name true, seed 3"
    assert text.replace("\N{NO-BREAK SPACE}", " ") == expected


# --- processes, with a training that is none

TRAINING = """
import json, pathlib, signal, sys, time, yaml
settings = yaml.safe_load(open(sys.argv[1].partition("=")[2]))
assert sys.argv[2:] == ["--auto_resume"]
run = pathlib.Path(settings["output_dir"])
run.mkdir(parents=True, exist_ok=True)
stop = lambda number, frame: ((run / "stopped").touch(), sys.exit(143))
signal.signal(signal.SIGTERM, stop)
path, last = run / "metrics.json", settings["training"]["num_epochs"]
score = settings["training"]["learning_rate"]
done = len(json.loads(path.read_text())["epochs"]) if path.exists() else 0
for number in range(done + 1, last + 1):
    time.sleep(0.1)
    validation = {"validation": {"accuracy": score}}
    entries = [{"training": {"epoch": n + 1}, **validation} for n in range(number)]
    path.with_suffix(".new").write_text(json.dumps({"epochs": entries}))
    path.with_suffix(".new").rename(path)
END
"""
SWEEP = """
import sys
from sentiment.cli import main as cli
from sentiment.cli.sweep import parse
from sentiment.tuning import sweep as training
training._TRAIN = [sys.executable, {program!r}]
sys.exit(cli.main(sys.argv[1:]))
"""


@pytest.fixture
def sweep_command(tmp_path):
    """Starts ``sentiment sweep`` whose trainings sleep a tenth of a second an epoch."""
    processes = []

    def start(*options: str, end: str = "", **changes) -> subprocess.Popen[str]:
        program = tmp_path / "training.py"
        program.write_text(TRAINING.replace("END", end))
        file = write_search(tmp_path, **changes)
        given = ["sweep", str(file), f"--output_dir={tmp_path / 's'}", *options]
        command = [sys.executable, "-c", SWEEP.format(program=str(program)), *given]
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        processes.append(process)
        return process

    yield start
    for each in processes:
        each.kill()
        each.wait()


def wait_for(place: Path, process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + 120
    while not place.exists():
        assert process.poll() is None and time.monotonic() < end, process.communicate()
        time.sleep(0.02)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_the_training_too_and_the_sweep_goes_on_later(
    number, sweep_command, tmp_path
):
    run = tmp_path / "s" / "trials" / "000"
    first = sweep_command("--training.num_epochs=600", trials=1)
    wait_for(run / "metrics.json", first)
    first.send_signal(number)
    said, errors = first.communicate()
    assert first.returncode == 128 + number, errors
    assert (run / "stopped").exists(), "it could make a checkpoint"
    assert "trial 000 stopped, to be taken up" in said and "the same command goes on" in said
    assert "not ended: 1" in said and "no trial is complete yet" in said
    path = run / "metrics.json"
    entries = json.loads(path.read_text())["epochs"]
    path.write_text(json.dumps({"epochs": entries[:1] * 599}))  # so that little is left to do
    said, _ = sweep_command("--training.num_epochs=600", trials=1).communicate()
    assert "trial 000 taken up: " in said and "best: accuracy" in said


def test_a_training_that_outlives_a_killed_sweep_is_left_alone(sweep_command, tmp_path):
    run = tmp_path / "s" / "trials" / "000"
    options = ("--training.num_epochs=30",)
    first = sweep_command(*options, trials=1)
    wait_for(run / "metrics.json", first)
    first.kill()
    first.wait()
    said, _ = sweep_command(*options, trials=1).communicate()
    assert "taken up" not in said.partition("\n\n")[0] and "not ended: 1" in said
    end = time.monotonic() + 60
    while (claim := try_claim(tmp_path / "s" / "work" / "000.claim")) is None:
        assert time.monotonic() < end
        time.sleep(0.05)
    claim.release()
    said, _ = sweep_command(*options, trials=1).communicate()
    assert "trial 000 taken up: " in said and "30 epochs" in said
    assert not (run / "stopped").exists()


def test_processes_share_the_trials(sweep_command, tmp_path):
    several = [sweep_command("--training.num_epochs=3", trials=8) for _ in range(3)]
    said = [each.communicate() for each in several]
    assert [each.returncode for each in several] == [0] * 3, said
    begun = [
        line.split()[1] for text, _ in said for line in text.splitlines() if " begun: " in line
    ]
    assert sorted(begun) == [f"{number:03d}" for number in range(8)], "each by one of them"
    trials, _ = read_trials(tmp_path / "s")
    assert all(each.state.is_finished() for each in trials)
    assert len({each.params["training.learning_rate"] for each in trials}) == 8
    for each in trials:
        config = load_config(tmp_path / "s" / "work" / f"{each.number:03d}.yaml")
        assert config.training.learning_rate == each.params["training.learning_rate"]


def test_what_falls_behind_is_ended_by_a_signal_that_leaves_a_checkpoint(sweep_command, tmp_path):
    options = ["--training.num_epochs=20", f"--output_dir={tmp_path / 't'}"]
    request = parse([str(write_search(tmp_path, trials=6)), *options], "test")
    study = Study(request.folder, request.search, request.config)
    for _ in range(5):  # complete, and beyond what any training reaches
        trial = study.next_trial(6)
        for epoch in range(1, 21):
            study.report(trial, epoch, 2.0)
        study.complete(trial, 2.0)
        trial.claim.release()
    said, _ = sweep_command(*options, trials=6).communicate()
    assert "trial 005 pruned after epoch " in said
    run = request.folder / "trials" / "005"
    assert (run / "stopped").exists()
    assert len(json.loads((run / "metrics.json").read_text())["epochs"]) < 20


@pytest.mark.parametrize(
    ("end", "message"),
    [
        ("sys.exit('error: device is full')", "device is full"),
        ("import os; os.kill(os.getpid(), 9)", "ended by SIGKILL, as a system does that has no"),
        ("raise KeyError('a bug')", "KeyError: 'a bug'"),
        ("print('\\x1b[31mred', flush=True); sys.exit(3)", "␛[31mred"),
        ("sys.exit(3)", "nothing"),
    ],
)
def test_a_training_that_fails_is_quoted(end, message, sweep_command):
    process = sweep_command("--training.num_epochs=1", trials=2, end=end)
    said, errors = process.communicate()
    assert process.returncode == 1, errors
    assert said.count(f"failed: {message}") == 3, "two lines and one under the table"
    assert errors.startswith(f"error: all 2 trials failed, the last one by: {message}")


# --- real trainings


def arguments(corpus: Path, folder: Path, **changes) -> list[str]:
    folder.mkdir(exist_ok=True)
    file = write_search(folder, **changes)
    return ["sweep", str(file), f"--output_dir={folder / 's'}", f"--data.path={corpus}", *TINY]


def test_a_sweep_trains_runs_that_are_like_others(corpus, tmp_path, capsys):
    given = arguments(corpus, tmp_path, trials=2, metric="nll")
    assert cli.main(given) == 0
    printed = capsys.readouterr().out
    trials, _ = read_trials(tmp_path / "s")
    for number in (0, 1):
        run = tmp_path / "s" / "trials" / f"{number:03d}"
        result = read_manifest(run)["result"]
        assert result["metrics"]["nll"] == pytest.approx(trials[number].value)
        config = load_config(run / "config.yaml")
        assert config.training.learning_rate == trials[number].params["training.learning_rate"]
    best = load_config(tmp_path / "s" / "best.yaml")
    assert (
        best.model.hidden_size
        == min(trials, key=lambda each: each.value).params["model.hidden_size"]
    )
    assert best.data.path == str(corpus) and best.output_dir == "runs/quickstart-best"
    assert "best: nll" in printed
    assert cli.main([*given, "--show"]) == 0
    shown = capsys.readouterr().out
    assert printed.endswith(shown), "the same table, and no training"


def test_a_training_that_fails_says_why(corpus, tmp_path, capsys):
    wrong = ["--vectors.path=nowhere.txt"]
    assert cli.main([*arguments(corpus, tmp_path, trials=1), *wrong]) == 1
    said = capsys.readouterr()
    assert "trial 000 failed: " in said.out and "nowhere.txt" in said.out
    assert said.err.startswith("error: all 1 trials failed, the last one by: ")


@pytest.mark.long
def test_a_stopped_training_goes_on_from_its_checkpoint(corpus, tmp_path):
    command = [sys.executable, "-m", "sentiment", *arguments(corpus, tmp_path, trials=1)]
    command.append("--training.num_epochs=60")
    run = tmp_path / "s" / "trials" / "000"
    first = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    wait_for(run / "metrics.json", first)
    first.send_signal(signal.SIGINT)
    first.communicate()
    assert first.returncode == 130
    assert (run / "checkpoints" / "resume.safetensors").exists()
    done = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "trial 000 taken up: " in done and "60 epochs" in done
    assert read_manifest(run)["result"]["num_resumed"] == 1
