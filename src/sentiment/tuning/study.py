"""Trials on disk, for any number of processes: definition, scores, order."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, Trial, TrialState

from sentiment.config.config import Config, deciding_settings
from sentiment.config.parser import save_config
from sentiment.runtime.claims import Claim, held, try_claim
from sentiment.runtime.errors import UserError
from sentiment.runtime.files import write_json
from sentiment.tuning.search_space import Search, Value, with_values

LOWER_IS_BETTER = {"nll"}


def best_score(scores: Sequence[float], metric: str) -> float:
    """The best of the scores by a metric."""
    return min(scores) if metric in LOWER_IS_BETTER else max(scores)


def sort_trials(trials: Sequence[FrozenTrial], metric: str) -> list[FrozenTrial]:
    """Complete trials from the best to the worst, then those running, pruned and failed."""
    states = (TrialState.COMPLETE, TrialState.RUNNING, TrialState.PRUNED, TrialState.FAIL)
    sign = 1 if metric in LOWER_IS_BETTER else -1

    def rank(trial: FrozenTrial) -> tuple[Any, ...]:
        score = score_of(trial, metric)
        return states.index(trial.state), score is None, sign * (score or 0.0), trial.number

    return sorted((each for each in trials if each.state in states), key=rank)


def score_of(trial: FrozenTrial, metric: str) -> float | None:
    """A trial's score, or the best one it had so far."""
    if trial.state == TrialState.COMPLETE:
        return trial.value
    scores = list(trial.intermediate_values.values())
    return best_score(scores, metric) if scores else None


def score_text(score: float, metric: str) -> str:
    """A score as people read it."""
    return f"{100 * score:.2f} %" if metric == "accuracy" else f"{score:.4f}"


_FILE = "sweep.json"
_OWN = {".lock", "trials", "work"}  # what there may be before it


def check_definition(folder: Path, search: Search, config: Config) -> None:
    """Write sweep.json into a new folder, or compare with the one that is there.

    Raises:
        FileExistsError: the folder holds something else than a sweep.
        UserError: it holds another search.
    """
    own = _definition(search, config)
    if not (folder / _FILE).exists():
        others = sorted(each.name for each in folder.iterdir() if each.name not in _OWN)
        if others or any((folder / "trials").iterdir()):
            raise FileExistsError(
                f"{folder} is not empty and holds no sweep: choose another --output_dir"
            )
        write_json(folder / _FILE, own)
        return
    there = read_definition(folder)
    defaults = deciding_settings(Config())  # of settings that there were none of then
    for part in ("space", "settings"):
        for key in own[part].keys() | there[part].keys():
            before, now = there[part].get(key, defaults.get(key)), own[part].get(key)
            if before != now:
                raise UserError(
                    f"{folder} was begun with {key} {before!r}, not {now!r}: go on as it was "
                    "begun, or choose another --output_dir"
                )


def read_definition(folder: Path) -> dict[str, Any]:
    """What a sweep's folder was begun for.

    Raises:
        FileNotFoundError: it is none.
        UserError: the file is damaged.
    """
    path = folder / _FILE
    if not path.is_file():
        raise FileNotFoundError(f"{folder} holds no sweep: it has no {_FILE}")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if not (values["settings"]["training.monitor"] and values["space"].keys()):
            raise UserError("it is empty")
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{path} is damaged: begin again in another --output_dir") from error
    return values


def _definition(search: Search, config: Config) -> dict[str, Any]:
    settings = deciding_settings(config)
    values = {
        "settings": {key: value for key, value in settings.items() if key not in search.space},
        "space": search.text,
    }
    return json.loads(json.dumps(values))  # as it will be read


_NAME = "sweep"


@dataclass
class ClaimedTrial:
    """A trial that this process works on.

    Attributes:
        trial: as Optuna knows it.
        values: of the settings that are searched.
        claim: on it, to be handed on to its training.
        is_taken_up: whether another process, or an earlier one, had begun it.
        told: epochs whose scores are known.
    """

    trial: Trial
    values: dict[str, Value]
    claim: Claim
    is_taken_up: bool
    told: set[int]

    @property
    def number(self) -> int:
        return self.trial.number


class Study:
    """A search's trials.

    Args:
        folder: where they lie; it is made where there is none.
        search: what is searched.
        config: the settings that are not.

    Raises:
        UserError: the folder holds another search, or a damaged one.
        FileExistsError: it holds something else.
    """

    def __init__(self, folder: Path, search: Search, config: Config) -> None:
        self.folder = folder
        self._search = search
        self._config = config
        for name in ("trials", "work"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        with held(folder / ".lock"):
            check_definition(folder, search, config)
            self._study = open_journal(folder, config.training.monitor)
        if search.pruning:
            self._study.pruner = optuna.pruners.MedianPruner()
        else:
            self._study.pruner = optuna.pruners.NopPruner()

    def next_trial(self, num_trials: int) -> ClaimedTrial | None:
        """A trial to work on: one that was left, or a new one; None where there is none to begin.

        Args:
            num_trials: of all processes together, in whatever way they end.
        """
        with held(self.folder / ".lock"):
            for each in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
                claim = try_claim(self.work(each.number, "claim"))
                if claim is not None:
                    return self._hold(Trial(self._study, each._trial_id), claim, is_taken_up=True)
            while (number := len(self._study.get_trials(deepcopy=False))) < num_trials:
                self._study.sampler = _sampler(self._config.seed, number)
                trial = self._study.ask()
                claim = try_claim(self.work(trial.number, "claim"))
                assert claim is not None  # nobody else can know of it
                new = self._hold(trial, claim, is_taken_up=False)
                if not self._is_known(new):
                    return new
        return None

    def _hold(self, trial: Trial, claim: Claim, *, is_taken_up: bool) -> ClaimedTrial:
        space = self._search.space
        values = {key: dimension.suggest(trial, key) for key, dimension in space.items()}
        told = set(self._frozen(trial.number).intermediate_values)
        return ClaimedTrial(trial, values, claim, is_taken_up, told)

    def _is_known(self, new: ClaimedTrial) -> bool:
        """Give a trial the score of an earlier one with the same values: it would be the same."""
        for each in self._study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
            if each.params == new.values:
                new.trial.set_user_attr("same_as", each.user_attrs.get("same_as", each.number))
                self._study.tell(new.number, each.value)
                new.claim.release()
                return True
        return False

    def report(self, held_trial: ClaimedTrial, epoch: int, score: float) -> bool:
        """Note an epoch's score; returns whether the trial has fallen behind."""
        with held(self.folder / ".lock"):
            if epoch not in held_trial.told:
                held_trial.told.add(epoch)
                held_trial.trial.report(score, epoch)
            return held_trial.trial.should_prune()

    def complete(self, held_trial: ClaimedTrial, score: float) -> None:
        """The trial was trained to its end; the best one's settings are written."""
        with held(self.folder / ".lock"):
            self._study.tell(held_trial.number, score)
            best = self._study.best_trial
            config = with_values(self._config, best.params)
            place = f"{config.output_dir.rstrip('/')}-best"
            save_config(replace(config, output_dir=place), self.folder / "best.yaml")

    def prune(self, held_trial: ClaimedTrial) -> None:
        """The trial was ended because it had fallen behind."""
        with held(self.folder / ".lock"):
            self._study.tell(held_trial.number, state=TrialState.PRUNED)

    def fail(self, held_trial: ClaimedTrial, message: str) -> None:
        """The trial ended by a mistake."""
        with held(self.folder / ".lock"):
            held_trial.trial.set_user_attr("message", message)
            self._study.tell(held_trial.number, state=TrialState.FAIL)

    def trials(self) -> list[FrozenTrial]:
        """All trials, those of other processes too."""
        with held(self.folder / ".lock"):
            return self._study.get_trials()

    def config_of(self, held_trial: ClaimedTrial) -> Config:
        """The settings of a trial's training.

        Raises:
            UserError: its values contradict each other.
        """
        config = with_values(self._config, held_trial.values)
        return replace(config, output_dir=str(self.run(held_trial.number)))

    def run(self, number: int) -> Path:
        """The folder of a trial's run."""
        return run_of(self.folder, number)

    def work(self, number: int, kind: str) -> Path:
        """A file that is needed to work on a trial."""
        return self.folder / "work" / f"{number:03d}.{kind}"

    def _frozen(self, number: int) -> FrozenTrial:
        return self._study.get_trials(deepcopy=False)[number]


def read_trials(folder: Path) -> tuple[list[FrozenTrial], str]:
    """All trials of a sweep, and the metric they are compared by.

    Raises:
        FileNotFoundError: the folder holds no sweep.
        UserError: it is damaged.
    """
    metric = read_definition(folder)["settings"]["training.monitor"]
    with held(folder / ".lock"):
        return open_journal(folder, metric).get_trials(), metric


def run_of(folder: Path, number: int) -> Path:
    """The folder of a trial's run, in a sweep's folder."""
    return folder / "trials" / f"{number:03d}"


def open_journal(folder: Path, metric: str) -> optuna.Study:
    """The study in a sweep's folder, whose lock is held; a new one where there is none.

    Raises:
        UserError: the journal is damaged.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    # Absolute, because Optuna's lock is a link to it, which is looked up from where it lies.
    path = (folder / "study.log").resolve()
    _cut_torn_line(path)
    try:
        return optuna.create_study(
            storage=JournalStorage(JournalFileBackend(str(path))),
            study_name=_NAME,
            direction="minimize" if metric in LOWER_IS_BETTER else "maximize",
            load_if_exists=True,
        )
    except (ValueError, LookupError, TypeError, AssertionError) as error:
        raise UserError(
            f"{path} is damaged ({type(error).__name__}): begin again in another --output_dir"
        ) from error


def _cut_torn_line(path: Path) -> None:
    """Cut off what a full disk has left of a line: the next one would be glued to it."""
    data = path.read_bytes() if path.exists() else b""
    if data and not data.endswith(b"\n"):
        with path.open("r+b") as file:
            file.truncate(data.rfind(b"\n") + 1)


def _sampler(seed: int, number: int) -> optuna.samplers.BaseSampler:
    """Draws for one trial by seed and number, so that a search taken up again repeats none."""
    own = int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        # Running trials count as bad ones, so that processes do not try the same at once.
        return optuna.samplers.TPESampler(seed=own, constant_liar=True)
