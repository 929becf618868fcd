"""``sentiment sweep``: search settings by many trainings, and find the best of them."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from sentiment.cli.options import CommandParser, positive
from sentiment.config.config import Config
from sentiment.config.parser import parse_training
from sentiment.runtime.errors import UserError
from sentiment.tuning.search_space import Search, check_space, read_search

if TYPE_CHECKING:
    from sentiment.tuning.study import ClaimedTrial


_DESCRIPTION = (
    "Search settings as FILE says: train one trial after another, each with what the earlier ones "
    "make promising (Optuna), and end those early that fall behind. The same command goes on where "
    "it was stopped, and several at once, also on several machines, share the work."
)
_EPILOG = (
    "Other settings are fixed as for train: --training.num_epochs 3, --device cuda:1. "
    "configs/sweep.yaml is a file to start from."
)


class SweepRequest(NamedTuple):
    """What is asked for: the search, the settings it begins from, and the options."""

    search: Search
    config: Config
    folder: Path
    num_trials: int
    shows: bool


def parse(arguments: Sequence[str] | None, prog: str) -> SweepRequest:
    """The options, the search file, and the settings that are not searched."""
    parser = CommandParser(prog, _DESCRIPTION)
    parser.usage = f"{prog} FILE [options] [--section.key VALUE …]"
    parser.epilog = _EPILOG
    parser.add_argument("file", type=Path, metavar="FILE", help="search file (YAML), given first")
    parser.add_argument(
        "--output_dir", type=Path, metavar="FOLDER", help="the sweep's (default: sweeps/NAME)"
    )
    parser.add_argument(
        "--trials", type=positive, metavar="N", help="trainings in all (default: the file's)"
    )
    parser.add_argument("--show", action="store_true", help="show the trials, and train none")
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given and given[0].startswith("-") and not {"-h", "--help"} & set(given):
        parser.error("give the search file first, and then the options")
    options, settings = parser.parse_known_args(given)
    try:
        search = read_search(options.file)
        config = _fixed_settings(search, settings, prog)
        check_space(search.space, config)
    except (ValueError, FileNotFoundError) as error:
        parser.error(str(error))
    folder = options.output_dir or Path("sweeps") / options.file.stem
    num_trials = options.trials or search.trials
    return SweepRequest(search, config, folder.expanduser(), num_trials, options.show)


def _fixed_settings(search: Search, settings: list[str], prog: str) -> Config:
    for each in settings:
        key = each.removeprefix("--").partition("=")[0]
        if key in search.space:
            raise UserError(f"{key} is searched, so it cannot be fixed: leave one of them out")
        if key in ("config", "print_config"):
            raise UserError(f"--{key} does not go with a sweep: its file names the config")
    begin = [] if search.config is None else [f"--config={search.config}"]
    metric = [] if search.metric is None else [f"--training.monitor={search.metric}"]
    request = parse_training([*begin, *metric, *settings], prog)
    if request.overwrites or request.resumes or request.resumes_if_begun or request.verifies:
        raise UserError("a sweep resumes by itself and overwrites nothing: give settings only")
    return request.config


def execute(request: SweepRequest) -> None:
    """Carry out the trials that are left, and show all.

    Raises:
        UserError: every trial failed.
    """
    from sentiment.display.console import sanitize
    from sentiment.runtime.files import check_writable
    from sentiment.tuning.study import Study, read_trials
    from sentiment.tuning.sweep import run_trials, settings_text, summary_text, trials_table

    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError("a sweep starts its trainings itself: call it without torchrun")
    folder, signal = request.folder, 0
    if not request.shows:
        check_writable(folder)
        study = Study(folder, request.search, request.config)

        def announce(trial: ClaimedTrial, text: str) -> None:
            values = f": {settings_text(trial.values)}" if text in ("started", "resumed") else ""
            print(f"trial {trial.number:03d} {text}{values}", flush=True)

        signal = run_trials(study, request.num_trials, request.config.training.monitor, announce)
    trials, metric = read_trials(folder)
    print(f"\n{trials_table(folder, trials, metric)}\n")
    print(summary_text(folder, trials, metric))
    if signal:
        print(f"stopped: the same command continues; results so far: {sanitize(str(folder))}")
        raise SystemExit(128 + signal)
