"""One trial after another in processes of their own, and their report."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Literal

from optuna.trial import FrozenTrial, TrialState

from sentiment.config.parser import save_config
from sentiment.display.console import pad, sanitize, truncate
from sentiment.runtime.errors import UserError
from sentiment.runtime.files import truncate_text
from sentiment.tuning.study import (
    ClaimedTrial,
    Study,
    best_score,
    run_of,
    score_of,
    score_text,
    sort_trials,
)

_TRAIN = [sys.executable, "-m", "sentiment", "train"]
_LOOK_SECONDS = 0.2  # between two looks at what a training has come to
_LONGEST_MESSAGE = 300


@dataclass(frozen=True)
class Outcome:
    """How a training ended.

    Attributes:
        kind: complete; pruned, as asked for; stopped, by a signal to this process; or failed.
        message: why it failed.
    """

    kind: Literal["complete", "pruned", "stopped", "failed"]
    message: str = ""


class SignalForwarder:
    """Hands signals on to the training that is under way while its body runs.

    A training makes a checkpoint at the first one and ends at once at the second.

    Attributes:
        signal: the number of the first one that came, 0 before.
    """

    def __init__(self) -> None:
        self.signal = 0
        self.process: subprocess.Popen[bytes] | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> SignalForwarder:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup has it
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if not self.signal:
            os.write(2, b"\nstopping after a checkpoint; once more stops at once\n")
            self.signal = number
        if self.process is not None:
            self.process.terminate()


def train_trial(
    settings: Path,
    run: Path,
    log: Path,
    *,
    descriptor: int,
    stop: SignalForwarder,
    after_epoch: Callable[[dict[str, Any]], bool],
) -> Outcome:
    """Train, or go on training, until the end or until there is a reason to stop.

    Args:
        settings: a settings file.
        run: the run's folder, as it says.
        log: where to add what the training prints.
        descriptor: of a locked file that the training is to hold as well.
        stop: the signals to this process.
        after_epoch: called with each entry of the run's metrics.json; true ends the training.
    """
    command = [*_TRAIN, f"--config={settings}", "--auto_resume"]
    with log.open("ab") as output:
        start = output.tell()
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
            pass_fds=(descriptor,),
            start_new_session=True,  # Ctrl-C reaches it through this process alone, and once
        )  # fmt: skip
    stop.process = process
    try:
        if stop.signal:  # which came before there was anything to hand it on to
            process.terminate()
        is_pruned = _watch(process, run, stop, after_epoch)
    except BaseException:
        process.terminate()
        process.wait()
        raise
    finally:
        stop.process = None
    if process.returncode == 0:
        return Outcome("complete")
    if stop.signal:
        return Outcome("stopped")
    return Outcome("pruned") if is_pruned else Outcome("failed", _message(process, log, start))


def read_epochs(run: Path) -> list[dict[str, Any]]:
    """The entries of a run's metrics.json, none where there is none yet."""
    try:
        return json.loads((run / "metrics.json").read_text(encoding="utf-8"))["epochs"]
    except FileNotFoundError:
        return []


def _watch(
    process: subprocess.Popen[bytes],
    run: Path,
    stop: SignalForwarder,
    after_epoch: Callable[[dict[str, Any]], bool],
) -> bool:
    """Wait for the end; returns whether it was asked for."""
    num_seen, is_pruned = 0, False
    while True:
        try:
            process.wait(_LOOK_SECONDS)
            is_over = True
        except subprocess.TimeoutExpired:
            is_over = False
        for entry in (epochs := read_epochs(run))[num_seen:]:
            is_behind = after_epoch(entry)
            if is_behind and not (is_over or is_pruned or stop.signal):
                process.terminate()
                is_pruned = True
        num_seen = len(epochs)
        if is_over:
            return is_pruned


def _message(process: subprocess.Popen[bytes], log: Path, start: int) -> str:
    """Why a training failed, by what it said last."""
    if process.returncode < 0:
        name = signal.Signals(-process.returncode).name
        hint = ", as a system does that has no memory left" if name == "SIGKILL" else ""
        return f"ended by {name}{hint}"
    text = log.read_bytes()[start:].decode("utf-8", errors="replace")
    lines = [line for line in text.splitlines() if line.strip()]
    errors = [line.partition("error: ")[2] for line in lines if "error: " in line]
    said = (errors or lines or ["nothing"])[-1]
    return truncate_text(sanitize(said.strip()), _LONGEST_MESSAGE)


def work(
    study: Study, num_trials: int, metric: str, tell: Callable[[ClaimedTrial, str], None]
) -> int:
    """Carry out trials as long as there are any to begin or to take up.

    Args:
        study: the trials, which other processes may work on too.
        num_trials: of all processes together.
        metric: what trials are compared by.
        tell: called with a trial and what is to be said of it.

    Returns:
        the number of the signal that ended it, 0 where none did.
    """
    with SignalForwarder() as stop:
        while not stop.signal and (trial := study.next_trial(num_trials)) is not None:
            try:
                tell(trial, "taken up" if trial.is_taken_up else "begun")
                outcome = _train(study, trial, metric, stop)
                tell(trial, _settle(study, trial, metric, outcome))
            finally:
                trial.claim.release()
    return stop.signal


def _train(study: Study, trial: ClaimedTrial, metric: str, stop: SignalForwarder) -> Outcome:
    try:
        config = study.config_of(trial)
    except ValueError as error:  # of values that contradict each other
        return Outcome("failed", str(error))
    settings = study.work(trial.number, "yaml")
    save_config(config, settings)

    def after_epoch(entry: dict[str, Any]) -> bool:
        epoch, score = entry["training"]["epoch"], entry["validation"][metric]
        is_behind = score is not None and study.report(trial, epoch, score)
        return is_behind and epoch < config.training.num_epochs

    return train_trial(
        settings, study.run(trial.number), study.work(trial.number, "log"),
        descriptor=trial.claim.descriptor, stop=stop, after_epoch=after_epoch,
    )  # fmt: skip


def _settle(study: Study, trial: ClaimedTrial, metric: str, outcome: Outcome) -> str:
    """Write what a trial came to; returns it in words."""
    if outcome.kind == "stopped":
        return "stopped, to be taken up"
    epochs = read_epochs(study.run(trial.number))
    if outcome.kind == "pruned":
        study.prune(trial)
        return f"pruned after epoch {len(epochs)}: {_best_text(epochs, metric)}"
    if outcome.kind == "complete":
        if scores := _scores(epochs, metric):
            study.complete(trial, best_score(scores, metric))
            return f"{_best_text(epochs, metric)}, {len(epochs)} epochs"
        outcome = Outcome("failed", f"{metric} is undefined: validation has reviews of one class")
    study.fail(trial, outcome.message)
    return f"failed: {outcome.message}"


def _scores(epochs: list[dict[str, Any]], metric: str) -> list[float]:
    values = [entry["validation"][metric] for entry in epochs]
    return [value for value in values if value is not None]


def _best_text(epochs: list[dict[str, Any]], metric: str) -> str:
    scores = _scores(epochs, metric)
    return f"{metric} {score_text(best_score(scores, metric), metric)}" if scores else "no score"


_WIDTH = 80
_STATES = {
    TrialState.COMPLETE: "complete",
    TrialState.RUNNING: "not ended",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
}


def trials_table(folder: Path, trials: Sequence[FrozenTrial], metric: str) -> str:
    """The trials from the best to the worst, with their settings and runs' folders."""
    rows = [
        (_score(each, metric), _state(each), _run(each), values_text(each.params))
        for each in sort_trials(trials, metric)
    ]
    head = (metric, "state", "run", "settings")
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(3)]
    room = _WIDTH - sum(widths) - 6
    lines = [f"validation, best epoch; runs in {truncate(str(folder), 47, keep_end=True)}", ""]
    for row in [head, *rows]:
        first, *others = textwrap.wrap(row[3], room, break_long_words=True) or [""]
        cells = [pad(row[0], widths[0], right=True), pad(row[1], widths[1]), pad(row[2], widths[2])]
        lines.append("  ".join([*cells, first]).rstrip())
        lines += [" " * (_WIDTH - room) + other for other in others]
    lines += _messages(trials)
    return "\n".join(lines)


def values_text(values: dict[str, Any]) -> str:
    """Settings in one line, by the last part of their keys where that tells them apart."""
    last = [key.rpartition(".")[2] for key in values]
    names = last if len(set(last)) == len(last) else list(values)
    pairs = zip(names, values.values(), strict=True)
    # No break between a name and its value.
    return ", ".join(f"{name}\N{NO-BREAK SPACE}{_value_text(value)}" for name, value in pairs)


def summary_text(folder: Path, trials: Sequence[FrozenTrial], metric: str) -> str:
    """What came of the sweep, and what to do next.

    Raises:
        UserError: every trial has failed.
    """
    ordered = sort_trials(trials, metric)
    open_ones = sum(each.state == TrialState.RUNNING for each in trials)
    if trials and all(each.state == TrialState.FAIL for each in trials):
        message = trials[-1].user_attrs.get("message", "")
        raise UserError(f"all {len(trials)} trials failed, the last one by: {message}")
    if not ordered or ordered[0].state != TrialState.COMPLETE:
        return "\n".join(["no trial is complete yet", *_open_text(open_ones)])
    best = ordered[0]
    own = best.user_attrs.get("same_as", best.number)
    place = sanitize(str(folder))
    score = score_text(best.values[0], metric)
    lines = [
        *_open_text(open_ones),
        f"best: {metric} {score}, {sanitize(str(run_of(folder, own)))}",
        f"next: python train.py --config {place}/best.yaml",
        f"      tensorboard --logdir {place}/trials",
    ]
    return "\n".join(lines)


def _open_text(number: int) -> list[str]:
    if not number:
        return []
    return [f"not ended: {number}; another process is at it, or the same command takes it up"]


def _score(trial: FrozenTrial, metric: str) -> str:
    score = score_of(trial, metric)
    return "–" if score is None else score_text(score, metric)


def _state(trial: FrozenTrial) -> str:
    epochs = len(trial.intermediate_values)
    state = _STATES[trial.state]
    return f"{state} at {epochs}" if trial.state == TrialState.PRUNED else state


def _run(trial: FrozenTrial) -> str:
    same = trial.user_attrs.get("same_as")
    return f"{trial.number:03d}" if same is None else f"{trial.number:03d} = {same:03d}"


def _messages(trials: Sequence[FrozenTrial]) -> list[str]:
    """Why trials failed, each reason once."""
    reasons: dict[str, list[str]] = {}
    for each in trials:
        if each.state == TrialState.FAIL:
            reason = each.user_attrs.get("message", "it was ended from outside")
            reasons.setdefault(reason, []).append(f"{each.number:03d}")
    lines: list[str] = []
    for reason, numbers in reasons.items():
        text = f"{', '.join(numbers)} failed: {sanitize(reason)}"
        lines += ["", *textwrap.wrap(text, _WIDTH, subsequent_indent="  ")]
    return lines


def _value_text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3g}"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return sanitize(str(value))
