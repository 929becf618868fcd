"""A resumed training equals one that was never stopped, to the bit."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.corpus import write_corpus
from helpers.trainings import PowerCutError, arguments, read_epochs, refusal, stop_after, train

from sentiment.cli import main as cli
from sentiment.cli.train import execute, parse
from sentiment.config.config import TrainingConfig
from sentiment.diagnostics.run_diff import compare_runs
from sentiment.runs import run as runs
from sentiment.runs.manifest import read_manifest
from sentiment.runs.run import is_finished, load_run
from sentiment.runtime.processes import Interrupted
from sentiment.training.checkpoint import CheckpointSchedule, load_state, state_path
from sentiment.training.logger import Validator

VARIANTS = {
    "plain": [],
    "accumulation": ["--training.accumulation_steps=3", "--training.schedule=cosine",
                     "--training.monitor=nll"],
    "plateau": ["--training.schedule=plateau", "--training.plateau_patience=0",
                "--training.num_epochs=9", "--training.warmup_share=0.1", "--training.patience=1"],
    "tokens": ["--training.batch_unit=tokens", "--training.batch_size=400",
               "--training.optimizer=adamw", "--training.weight_decay=0.01", "--model.cell=gru",
               "--model.pooling=attention", "--model.num_layers=2",
               "--model.learned_initial_state=true"],
    "averaged": ["--training.average_decay=0.9", "--model.word_dropout=0.1",
                 "--model.locked_dropout=true", "--model.weight_dropout=0.3",
                 "--model.normalize_embedding=true", "--model.pooling=last+max+mean",
                 "--training.precision=bf16"],
    "objectives": ["--objectives.adversarial=1", "--objectives.virtual_adversarial=1",
                   "--objectives.entropy=1", "--objectives.power_iterations=1",
                   "--training.accumulation_steps=2"],
}  # fmt: skip


@pytest.fixture(scope="module")
def whole(reviews, tmp_path_factory) -> Path:
    """A run that was never stopped."""
    return train(reviews, tmp_path_factory.mktemp("whole") / "run")


@pytest.mark.parametrize("variant", VARIANTS)
def test_resumed_equals_never_stopped(variant, reviews, tmp_path):
    whole, broken = (
        arguments(reviews, tmp_path / name, *VARIANTS[variant]) for name in ("whole", "broken")
    )
    assert cli.train(whole) == 0
    # Before the first checkpoint, at the last update of an epoch, after it, and at the last one.
    num_updates = read_epochs(tmp_path / "whole")[-1]["training"]["update"]
    per_epoch = read_epochs(tmp_path / "whole")[0]["training"]["update"]
    resume = [f"--resume={tmp_path / 'broken'}"]
    stop_after(broken, 2)
    stop_after(resume, per_epoch)
    stop_after(resume, per_epoch + 2)
    stop_after(resume, num_updates)
    assert cli.train(resume) == 0
    difference = compare_runs(tmp_path / "whole", tmp_path / "broken")
    assert difference.is_equal, difference
    assert difference.num_points > 20
    result = read_manifest(tmp_path / "broken")["result"]
    assert result["num_resumed"] >= 2  # of those whose work was kept
    assert result["seconds"] > 0


def test_other_runs_are_found_to_differ(reviews, whole, tmp_path):
    """So that the comparisons of the other tests prove something."""
    for name, changes in {"two": ["--seed=1"], "three": ["--training.log_every=3"],
                          "four": ["--training.num_epochs=1"]}.items():  # fmt: skip
        assert cli.train(arguments(reviews, tmp_path / name, *changes)) == 0
    other = compare_runs(whole, tmp_path / "two")
    assert not other.is_equal and other.weights > 0 and other.metrics > 0 and other.curves > 0
    finer = compare_runs(whole, tmp_path / "three")
    assert finer.weights == 0 and any("entries" in problem for problem in finer.problems)
    shorter = compare_runs(whole, tmp_path / "four")
    assert any("metrics.json" in problem for problem in shorter.problems)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_training_with_a_checkpoint(number, reviews, whole, tmp_path, caplog):
    run = tmp_path / "run"
    command = parse(arguments(reviews, run), "train")
    caplog.set_level("INFO", logger="sentiment")
    with pytest.raises(Interrupted) as stopped:
        execute(command, lambda update: update == 3 and os.kill(os.getpid(), number))
    assert stopped.value.status == 128 + number
    message = f"stopped by {number.name}; resume: python train.py --resume {tmp_path}"
    assert message in caplog.text
    assert load_state(run).values["updates"]["update"] == 3
    assert signal.getsignal(number) in (signal.default_int_handler, signal.SIG_DFL)
    assert cli.train([f"--resume={run}"]) == 0
    assert compare_runs(whole, run).is_equal


def test_a_signal_ends_validation_too(reviews, whole, tmp_path, monkeypatch):
    run, predict = tmp_path / "run", Validator.predict

    def interrupted(self, report):
        os.kill(os.getpid(), signal.SIGTERM)
        return predict(self, report)

    monkeypatch.setattr(Validator, "predict", interrupted)
    with pytest.raises(Interrupted) as stopped:
        execute(parse(arguments(reviews, run), "train"))
    assert stopped.value.status == 143
    assert not read_manifest(run).get("result")
    monkeypatch.setattr(Validator, "predict", predict)
    assert cli.train([f"--resume={run}"]) == 0
    assert compare_runs(whole, run).is_equal


def test_a_second_signal_ends_at_once():
    code = (
        "import os, signal, time\n"
        "from sentiment.runtime.processes import StopRequests\n"
        "with StopRequests() as stop:\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    print(stop.signal, flush=True)\n"
        "    try: os.kill(os.getpid(), signal.SIGINT)\n"
        "    except KeyboardInterrupt: print('interrupted', flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    time.sleep(60)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
    assert done.returncode == 143
    assert done.stdout == "2\ninterrupted\n"
    assert "a second signal stops at once" in done.stderr


def test_a_failing_rank_says_why_before_its_launcher_ends_it():
    code = (
        "import os, signal\n"
        "from sentiment.runtime.processes import StopRequests\n"
        "try:\n"
        "    with StopRequests(ends_at_second=False):\n"
        "        raise ConnectionError('rank 1 is gone')\n"
        "except ConnectionError as error:\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    raise SystemExit(str(error))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stderr) == (1, "rank 1 is gone\n")


def test_checkpoints_are_due_by_updates_and_by_time(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    schedule = CheckpointSchedule(TrainingConfig(checkpoint_updates=4, checkpoint_minutes=2))
    assert [schedule.is_due(update) for update in (3, 4, 5, 8)] == [False, True, False, True]
    now[0] += 121
    assert schedule.is_due(5)
    schedule.restart_clock()
    assert not schedule.is_due(5)
    never = CheckpointSchedule(TrainingConfig(checkpoint_minutes=None))
    now[0] += 1e6
    assert not never.is_due(10**6)


@pytest.fixture(scope="module")
def begun(reviews, tmp_path_factory) -> Path:
    """A run that was stopped."""
    run = tmp_path_factory.mktemp("begun") / "run"
    stop_after(arguments(reviews, run), 3)
    return run


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["--seed=1"], "seed is 1, but the run to resume has 0"),
        (["--training.num_epochs=1"], "training.num_epochs is 1, but"),
        (["--config=configs/imdb.yaml"], "leave --config out"),
        (["--overwrite"], "give one of --overwrite, --resume"),
        (["--output_dir=elsewhere"], "output_dir is 'elsewhere', but"),
    ],
)
def test_a_resumed_run_keeps_its_settings(changes, message, begun, capsys):
    assert message in refusal([f"--resume={begun}", *changes], capsys, status=2)


def test_other_reviews_cannot_be_resumed_with(begun, tmp_path, capsys):
    other = write_corpus(tmp_path / "other", splits={"train": 121, "validation": 30})
    message = refusal([f"--resume={begun}", f"--data.path={other}"], capsys)
    assert "the train reviews are 121 with digest" in message and "--data.path" in message
    assert load_state(begun).values["updates"]["update"] == 0, "nothing was changed"


def test_reviews_may_have_moved(reviews, tmp_path):
    run = tmp_path / "run"
    stop_after(arguments(reviews, run), 3)
    moved = write_corpus(tmp_path / "moved", splits={"train": 120, "validation": 30})
    assert cli.train([f"--resume={run}", f"--data.path={moved}"]) == 0
    assert read_manifest(run)["result"]["num_resumed"] == 1


@pytest.mark.parametrize(
    "variant",
    [["--training.average_decay=0.9"], ["--training.schedule=plateau", "--model.dropout=0.2"]],
)
def test_more_epochs_are_as_if_begun_with_them(variant, reviews, tmp_path):
    """Also after a kill while settings are replaced, and one in an added epoch."""
    run, whole = tmp_path / "run", tmp_path / "whole"
    assert cli.train(arguments(reviews, whole, *variant, "--training.num_epochs=4")) == 0
    assert cli.train(arguments(reviews, run, *variant)) == 0
    more = [f"--resume={run}", "--training.num_epochs=4"]
    with pytest.MonkeyPatch.context() as patch, pytest.raises(PowerCutError):
        patch.setattr(runs, "save_config", cut)
        cli.train(more)
    assert load_run(run).config.training.num_epochs == 2, "the former settings are valid"
    stop_after(more, read_epochs(whole)[2]["training"]["update"] - 1)
    assert load_run(run).config.training.num_epochs == 4
    assert cli.train([f"--resume={run}"]) == 0
    difference = compare_runs(whole, run)
    assert difference.is_equal, difference


def cut(*_: object) -> None:
    raise PowerCutError


def test_more_epochs_keep_the_first_ones_warm_up(reviews, tmp_path, capsys):
    run = tmp_path / "run"
    half = "--training.warmup_share=0.5"
    assert cli.train(arguments(reviews, run, half, "--training.num_epochs=1")) == 0
    again = [*arguments(reviews, run, half, "--training.num_epochs=2"), "--auto_resume"]
    advice = f"--resume {run} --training.num_epochs 2"
    assert f"go on with {advice}, choose another" in refusal(again, capsys)
    assert cli.train(advice.split()) == 0
    assert [epoch["training"]["learning_rate"] for epoch in read_epochs(run)] == [0.01, 0.01]


@pytest.mark.parametrize(
    ("change", "status", "message"),
    [
        ("--training.schedule=linear", 2, "falls to 0 within its 2"),
        ("--training.schedule=constant", 1, "that more epochs need is gone"),
        ("--training.patience=1", 1, "because of training.patience 1, and would end there"),
    ],
)
def test_more_epochs_that_cannot_follow(change, status, message, reviews, tmp_path, capsys):
    run, epochs = tmp_path / "run", "--training.num_epochs=2"
    still = ["--training.learning_rate=1e-9", "--training.num_epochs=9"]  # so that patience ends it
    changes = [change, *(still if "patience" in change else [epochs])]
    assert cli.train(arguments(reviews, run, *changes)) == 0
    if "constant" in change:
        state_path(run).unlink()
    error = refusal([f"--resume={run}", "--training.num_epochs=20"], capsys, status=status)
    assert message in error
    options = error.strip().partition("from its weights with ")[2].replace("FOLDER", f"{run}-new")
    assert cli.train([*options.split(), epochs]) == 0, "the advice can be followed"
    assert is_finished(run), "and the run is left alone"


def test_a_finished_run_has_nothing_to_resume(reviews, whole, capsys):
    assert state_path(whole).exists(), "for more epochs"
    before = (whole / "run.json").read_bytes()
    capsys.readouterr()
    for again in ([f"--resume={whole}"], [*arguments(reviews, whole), "--auto_resume"]):
        assert cli.train(again) == 0
        assert "is finished: there is nothing to resume" in capsys.readouterr().out
    assert (whole / "run.json").read_bytes() == before


def test_auto_resume_begins_goes_on_and_minds_its_settings(reviews, tmp_path, capsys):
    command = [*arguments(reviews, tmp_path / "run"), "--auto_resume"]
    stop_after(command, 7)
    assert "holds a run whose seed is 0, not 3" in refusal([*command, "--seed=3"], capsys)
    assert cli.train(command) == 0
    assert read_manifest(tmp_path / "run")["result"]["num_resumed"] == 1


def test_weights_without_their_checkpoint_are_not_thrown_away(reviews, tmp_path, capsys):
    run = tmp_path / "run"
    command = [*arguments(reviews, run), "--auto_resume"]
    stop_after(command, 12)
    state_path(run).unlink()
    message = "has weights, but its checkpoint resume.safetensors is gone"
    assert message in refusal(command, capsys)
    assert (run / "checkpoints" / "best" / "model.safetensors").is_file()


def test_resuming_is_verified_on_given_settings(reviews, tmp_path, capsys):
    """By a training in another process, which is killed."""
    command = arguments(reviews, tmp_path / "unused", "--training.num_epochs=1")
    assert cli.train([*command, "--verify_resume"]) == 0
    assert "equal to the bit: best and last weights" in capsys.readouterr().out
    assert not (tmp_path / "unused").exists()
