"""``sentiment sweep``: a search of settings by many trainings."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sentiment.cli.options import CommandParser, positive
from sentiment.runtime.errors import UserError
from sentiment.tuning.search_space import Search, check_space, read_search

if TYPE_CHECKING:
    from sentiment.tuning.sweep import ClaimedTrial


def parse(arguments: Sequence[str], prog: str) -> argparse.Namespace:
    parser = CommandParser(
        prog,
        "Search settings as FILE describes: train one trial after another, with values that Optuna "
        "samples given the earlier trials, and prune trials that fall behind. The same "
        "command continues a stopped sweep, and several at once, also on several machines, share "
        "the work.",
        epilog="Other settings are fixed as for train: --training.num_epochs 3, --device cuda:1. "
        "configs/sweep.yaml is a file to start from.",
    )
    parser.usage = f"{prog} FILE [options] [--section.key VALUE …]"
    parser.add_argument("file", type=Path, metavar="FILE", help="search file (YAML), given first")
    parser.add_output("the sweep's folder (default: sweeps/NAME)", "--output_dir")
    help = "number of trainings (default: the file's)"
    parser.add_argument("--trials", type=positive, metavar="N", help=help)
    parser.add_argument("--show", action="store_true", help="show the trials without training")
    if arguments and arguments[0].startswith("-") and not {"-h", "--help"} & set(arguments):
        parser.error("give the search file first, and then the options")
    options, settings = parser.parse_known_args(arguments)
    try:
        options.search = search = read_search(options.file)
        _check_fixed(search, settings)
        if search.metric is not None:
            settings.insert(0, f"--training.monitor={search.metric}")
        if search.config is not None:
            settings.insert(0, f"--config={search.config}")
        why = "a sweep resumes by itself and overwrites nothing: give settings only"
        options.config = parser.parse_settings(settings, why=why)
        check_space(search.space, options.config)
    except (UserError, FileNotFoundError) as error:
        parser.error(str(error))
    folder = options.output or Path("sweeps") / options.file.stem
    options.output = folder.expanduser()
    options.trials = options.trials or search.trials
    return options


def _check_fixed(search: Search, settings: Sequence[str]) -> None:
    for setting in settings:
        key = setting.removeprefix("--").partition("=")[0]
        if key in search.space:
            raise UserError(f"{key} is searched, so it cannot be fixed: leave one of the two out")
        if key in ("config", "print_config"):
            raise UserError(f"--{key} cannot be given to a sweep: its file names the config")


def execute(options: argparse.Namespace) -> None:
    from sentiment.display.console import sanitize
    from sentiment.runtime.distributed import refuse_ranks
    from sentiment.runtime.files import check_writable
    from sentiment.tuning.sweep import (
        Study,
        read_trials,
        run_trials,
        settings_text,
        summary_text,
        trials_table,
    )

    refuse_ranks("a sweep")
    folder, signal = options.output, 0
    if not options.show:
        check_writable(folder)
        study = Study(folder, options.search, options.config)

        def announce(trial: ClaimedTrial, text: str) -> None:
            values = f": {settings_text(trial.values)}" if text in ("started", "resumed") else ""
            print(f"trial {trial.number:03d} {text}{values}", flush=True)

        signal = run_trials(study, options.trials, options.config.training.monitor, announce)
    trials, metric = read_trials(folder)
    print(f"\n{trials_table(folder, trials, metric)}\n")
    print(summary_text(folder, trials, metric))
    if signal:
        print(f"stopped: the same command continues; results so far: {sanitize(str(folder))}")
        raise SystemExit(128 + signal)
