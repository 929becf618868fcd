"""The package needs nothing that only POSIX systems have."""

from __future__ import annotations

import subprocess
import sys

from helpers.corpus import write_corpus

PROGRAM = """
import builtins, importlib, os, pkgutil, signal, sys
import datasets, joblib, optuna, tensorboard, torch.utils.tensorboard  # may use what POSIX has

for module, names in {
    os: "fork register_at_fork getuid geteuid getpgid killpg setsid sysconf mkfifo",
    signal: "SIGKILL SIGHUP SIGPIPE SIGQUIT SIGUSR1 SIGALRM alarm",
}.items():
    for name in names.split():
        delattr(module, name)

os.environ["USERNAME"] = "tests"  # as Windows sets it

hidden, original = {"resource", "fcntl", "pwd", "grp", "termios"}, builtins.__import__

def guarded_import(name, globals=None, *rest, **options):
    if name in hidden and (globals or {}).get("__name__", "").startswith("sentiment"):
        raise ModuleNotFoundError(name)
    return original(name, globals, *rest, **options)

builtins.__import__ = guarded_import
import sentiment
for module in pkgutil.walk_packages(sentiment.__path__, "sentiment."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)

from sentiment.cli.main import main
folder, run = sys.argv[1:]
for command in (
    f"train --data.path={folder} --output_dir={run} --model.embedding_size=4 "
    "--model.hidden_size=4 --training.num_epochs=1 --training.pictures=false",
    f"evaluate {run}",
    f"predict {run} great --device=cpu",
):
    assert main(command.split()) == 0, command
"""


def test_all_modules_and_a_small_run_work_without_posix(tmp_path):
    folder = write_corpus(tmp_path / "data", splits={"train": 40, "validation": 10, "test": 10})
    arguments = [sys.executable, "-c", PROGRAM, str(folder), str(tmp_path / "run")]
    done = subprocess.run(arguments, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert '"predicted"' in done.stdout.splitlines()[-1]
