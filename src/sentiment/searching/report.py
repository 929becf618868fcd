"""A sweep's trials as a table of at most 80 columns."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from sentiment.searching.scores import score_of, score_text, sort_trials
from sentiment.searching.study import run_of
from sentiment.shown import pad, printable, shorten

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
    lines = [f"validation, best epoch; runs in {shorten(str(folder), 47, keep_end=True)}", ""]
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
        ValueError: every trial has failed.
    """
    ordered = sort_trials(trials, metric)
    open_ones = sum(each.state == TrialState.RUNNING for each in trials)
    if trials and all(each.state == TrialState.FAIL for each in trials):
        message = trials[-1].user_attrs.get("message", "")
        raise ValueError(f"all {len(trials)} trials failed, the last one by: {message}")
    if not ordered or ordered[0].state != TrialState.COMPLETE:
        return "\n".join(["no trial is complete yet", *_open_text(open_ones)])
    best = ordered[0]
    own = best.user_attrs.get("same_as", best.number)
    place = printable(str(folder))
    score = score_text(best.values[0], metric)
    lines = [
        *_open_text(open_ones),
        f"best: {metric} {score}, {printable(str(run_of(folder, own)))}",
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
        text = f"{', '.join(numbers)} failed: {printable(reason)}"
        lines += ["", *textwrap.wrap(text, _WIDTH, subsequent_indent="  ")]
    return lines


def _value_text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3g}"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return printable(str(value))
