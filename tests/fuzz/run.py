"""python -m tests.fuzz.run: give mutated files to every reader.

The same seed gives the same inputs. An input that fails is kept as a file.
"""

from __future__ import annotations

import argparse
import faulthandler
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from . import samples, targets
from .contract import check_memory, within_time
from .mutations import mutate

_SLOW = 0.03  # share of the slow targets: building the parser of settings takes 30 ms
_Plan = tuple[targets.Target, Callable[[], list[bytes]], float]

# Each target with the samples that are mutated, and its share of the inputs.
PLAN: dict[str, _Plan] = {
    "csv": (targets.reviews(".csv"), lambda: samples.delimited(","), 1.0),
    "tsv": (targets.reviews(".tsv"), lambda: samples.delimited("\t"), 0.3),
    "jsonl": (targets.reviews(".jsonl"), samples.json_lines, 1.0),
    "parquet": (targets.reviews(".parquet"), samples.parquet, 1.0),
    "vectors": (targets.vectors(".txt"), lambda: [samples.VECTORS], 1.0),
    "vectors gz": (targets.vectors(".gz"), lambda: samples.packed_vectors(".gz"), 0.6),
    "vectors zip": (targets.vectors(".zip"), lambda: samples.packed_vectors(".zip"), 1.0),
    "vocabulary": (targets.vocabulary, lambda: [samples.VOCABULARY], 1.0),
    "token cache": (
        targets.token_cache, lambda: targets.numbered(samples.cache_entry()), 0.6,
    ),
    "predict gz": (
        targets.predicted(".csv.gz"), lambda: targets.packed(samples.delimited(",")), 0.3,
    ),
    "predict lines": (targets.predicted(".txt"), lambda: [samples.VECTORS], 0.3),
    "predict parquet": (targets.predicted(".parquet"), samples.parquet, 0.6),
    "behaviour": (targets.behaviour, lambda: [samples.BEHAVIOUR], 0.3),
    "settings": (targets.settings, lambda: [samples.CONFIG], 2 * _SLOW),
    "run folder": (
        targets.run_folder,
        lambda: [
            bytes([number]) + samples.run_folder()[name]
            for number, name in enumerate(targets.read_of_a_run(samples.run_folder()))
        ],
        _SLOW,
    ),
}  # fmt: skip


def run(name: str, num_inputs: int, seed: int, scratch: Path) -> int:
    """Give a target its inputs; returns the number of those that ended in a result."""
    target, make_samples, _ = PLAN[name]
    inputs = make_samples()
    generator = random.Random(f"{name} {seed}")
    num_results = 0
    folder = scratch / "input"
    for number in range(num_inputs):
        data = mutate(inputs[number % len(inputs)], generator)
        folder.mkdir()
        try:
            with within_time():
                num_results += target(data, folder)
        except BaseException:
            failed = Path(tempfile.gettempdir()) / f"failed-{name.replace(' ', '-')}-{seed}"
            failed.write_bytes(data)
            print(f"{name}, seed {seed}, input {number}: kept in {failed}", file=sys.stderr)
            raise
        finally:
            shutil.rmtree(folder)
    check_memory()
    return num_results


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the plan and print the number of inputs."""
    faulthandler.enable()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=10_000, help="of a target whose share is 1")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=PLAN, action="append", help="these targets")
    options = parser.parse_args(arguments)
    memory = Path("/dev/shm")
    total, started = 0, time.perf_counter()
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as scratch:
        for name in options.only or PLAN:
            num_inputs = max(10, round(options.inputs * PLAN[name][2]))
            target_started = time.perf_counter()
            num_results = run(name, num_inputs, options.seed, Path(scratch))
            seconds = time.perf_counter() - target_started
            print(f"{name:<16}{num_inputs:>8,} inputs{num_results:>8,} results{seconds:>7.1f} s",
                  flush=True)  # fmt: skip
            total += num_inputs
    print(f"{total} inputs in {time.perf_counter() - started:.0f} s, seed {options.seed}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
