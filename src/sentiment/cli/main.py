"""The commands of train.py, evaluate.py and ``sentiment``, and how they fail.

A user's mistake (settings, files, devices) ends in one line and exit status 1 or 2; any other
exception is a bug and keeps its traceback. Each command is a module of :mod:`sentiment.cli` with a
``parse`` and an ``execute``. Heavy imports are inside functions, so that ``--help`` and a mistyped
setting answer at once.
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
from sentiment.environment import set_variables
from sentiment.runtime.errors import UserError
from sentiment.runtime.processes import Interrupted

logger = logging.getLogger("sentiment")

# In the order of use.
COMMANDS = {
    "audit": "look at reviews before training: copies, damage, label errors",
    "train": "train a classifier",
    "pretrain": "learn embedding and LSTM from all reviews, without labels",
    "find-lr": "suggest a learning rate, by a range test",
    "sweep": "search settings with many trainings",
    "cross-validate": "measure settings on folds held out in turn",
    "baseline": "train the linear model that a run has to beat",
    "evaluate": "measure a run on a split: table, figures, page",
    "compare": "compare runs: paired tests, intervals, seeds",
    "check": "test a run's behaviour: negation, typos, contrast pairs",
    "predict": "classify texts, or files of any size",
    "explain": "show what each word contributed, and the LSTM's gates",
    "export": "write a run's model for onnxruntime or torch alone",
    "reproduce": "train a run again from its provenance, and compare",
    "doctor": "check the installation",
}


def train(arguments: Sequence[str] | None = None, prog: str = "train.py") -> int:
    """Train a classifier; returns the exit status."""
    return _run("train", arguments, prog)


def evaluate(arguments: Sequence[str] | None = None, prog: str = "evaluate.py") -> int:
    """Evaluate a trained run on a split; returns the exit status."""
    return _run("evaluate", arguments, prog)


def main(arguments: Sequence[str] | None = None) -> int:
    """The console command ``sentiment``; returns the exit status."""
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
        hint = did_you_mean(given[0], COMMANDS, list_all=True)
        parser.error(f"unknown command {sanitize(given[0])!r}{hint}")
    command = parser.parse_args(given[:1]).command
    return _run(command, given[1:], f"sentiment {command}")


def _run(command: str, arguments: Sequence[str] | None, prog: str) -> int:
    module = importlib.import_module(f"sentiment.cli.{command.replace('-', '_')}")
    options = module.parse(list(sys.argv[1:] if arguments is None else arguments), prog)
    return run_command(lambda: module.execute(options))


def run_command(command: Callable[[], None]) -> int:
    """Run a command; returns the exit status, after one line about a user's mistake."""
    set_variables()  # before the commands import torch
    _set_up_output()
    try:
        command()
        sys.stdout.flush()
    except BrokenPipeError:  # the reader has closed the pipe, as head does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141  # as shells report a program that SIGPIPE ended
    except Interrupted as stop:
        raise SystemExit(stop.status) from None
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except (UserError, OSError, MemoryError, RuntimeError) as error:
        # On a CPU, torch raises a plain RuntimeError where memory cannot be allocated.
        text = str(error)
        if isinstance(error, RuntimeError) and not ("memory" in text and "alloc" in text):
            raise
        logger.debug("traceback:", exc_info=True)  # for train.log only
        print(f"error: {sanitize(_message(error))}", file=sys.stderr)
        return 1
    return 0


def _set_up_output() -> None:
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal may lack a review's characters
    logging.basicConfig(format="%(message)s", stream=sys.stdout, level=logging.WARNING, force=True)
    logging.raiseExceptions = False  # no traceback of logging's for a closed pipe
    logger.setLevel(logging.DEBUG)
    logging.getLogger().handlers[0].addFilter(lambda record: record.levelno >= logging.INFO)


def _message(error: Exception) -> str:
    text = " ".join(str(error).split())
    if isinstance(error, RuntimeError) or (isinstance(error, MemoryError) and not text):
        text = f"{text or type(error).__name__}: use a smaller model or batch"
    is_distributed = os.environ.get("WORLD_SIZE", "1") != "1"
    rank = f" (rank {os.environ.get('RANK')})" if is_distributed else ""
    return f"{text or type(error).__name__}{rank}"
