"""The commands: what train.py, evaluate.py and ``sentiment`` do, and how they fail.

A mistake of the user's (settings, files, devices) ends in one line and exit status 1 or 2;
anything else is a bug of ours and keeps its traceback. Each command is a module of
:mod:`sentiment.cli` with a ``parse`` and an ``execute``, whose heavy imports lie inside its
functions, so that ``--help`` and a mistyped setting answer at once.
"""

from __future__ import annotations

import argparse
import importlib
import io
import logging
import os
import sys
from collections.abc import Callable, Sequence

from sentiment.display.console import did_you_mean, sanitize
from sentiment.runtime.environment import set_variables
from sentiment.runtime.errors import UserError

logger = logging.getLogger("sentiment")

# In the order of use: what each does, for --help.
COMMANDS = {
    "train": "train a classifier as settings say",
    "pretrain": "learn embedding and LSTM from all reviews, without labels",
    "find-lr": "suggest a learning rate, by a range test",
    "sweep": "search settings: many trainings, the best of them",
    "cross-validate": "measure settings fold by fold, on reviews each model had not seen",
    "baseline": "train the linear model that a run has to beat, in a minute",
    "evaluate": "measure a run on a split: table, pictures, page",
    "compare": "compare runs: paired tests, intervals, seeds",
    "check": "test a run's behaviour: negation, turns, typos, contrast pairs",
    "predict": "classify texts, or files of any size",
    "explain": "show what each word did, and the LSTM's gates",
    "export": "write a run's model for onnxruntime or torch alone",
    "reproduce": "train a run again from its receipt, and compare",
    "doctor": "examine the installation, and say what to mend",
}


def train(arguments: Sequence[str] | None = None, prog: str = "train.py") -> int:
    """Train a classifier as settings say; returns the exit status."""
    return _run("train", arguments, prog)


def evaluate(arguments: Sequence[str] | None = None, prog: str = "evaluate.py") -> int:
    """Evaluate a trained run on a split; returns the exit status."""
    return _run("evaluate", arguments, prog)


def main(arguments: Sequence[str] | None = None) -> int:
    """The console command ``sentiment``."""
    width = max(map(len, COMMANDS))
    lines = "\n".join(f"  {name:<{width}}  {text}" for name, text in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog="sentiment",
        description="LSTM sentiment classifiers.",
        epilog=f"commands (each answers --help):\n{lines}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", choices=COMMANDS, metavar="COMMAND", help="what to do")
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given and not given[0].startswith("-") and given[0] not in COMMANDS:
        near = did_you_mean(given[0], list(COMMANDS)) or f": one of {', '.join(COMMANDS)}"
        parser.error(f"unknown command {sanitize(given[0])!r}{near}")
    command = parser.parse_args(given[:1]).command
    return _run(command, given[1:], f"sentiment {command}")


def _run(command: str, arguments: Sequence[str] | None, prog: str) -> int:
    module = importlib.import_module(f"sentiment.cli.{command.replace('-', '_')}")
    options = module.parse(arguments, prog)
    return run_command(lambda: module.execute(options))


def run_command(command: Callable[[], None]) -> int:
    """Do what a command does; returns the exit status, after one line where the user erred."""
    set_variables()  # before the commands import torch
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal may not know a review's characters
    logging.basicConfig(format="%(message)s", stream=sys.stdout, level=logging.WARNING, force=True)
    logging.raiseExceptions = False  # a closed pipe behind us must not fill the screen
    logger.setLevel(logging.DEBUG)
    logging.getLogger().handlers[0].addFilter(lambda record: record.levelno >= logging.INFO)
    try:
        command()
        sys.stdout.flush()
    except BrokenPipeError:  # whoever read us has seen enough, as head does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141  # as a shell says of a program that SIGPIPE ended
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except (UserError, OSError, MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not _is_out_of_memory(error):
            raise
        logger.debug("what went wrong:", exc_info=True)  # for train.log alone
        text = " ".join(str(error).split()) or type(error).__name__
        is_explained = not isinstance(error, RuntimeError) and bool(str(error))
        hint = (
            "" if is_explained or not _is_out_of_memory(error) else ": use a smaller model or batch"
        )
        several = os.environ.get("WORLD_SIZE", "1") != "1"
        rank = f" (rank {os.environ.get('RANK')})" if several else ""
        print(f"error: {sanitize(text)}{hint}{rank}", file=sys.stderr)
        return 1
    return 0


def _is_out_of_memory(error: Exception) -> bool:
    """torch says so on a CPU by a plain RuntimeError."""
    return isinstance(error, MemoryError) or ("memory" in str(error) and "alloc" in str(error))
