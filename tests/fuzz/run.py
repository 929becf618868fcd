"""python -m tests.fuzz.run: mutated files into every reader, as many as there is time for.

The same seed gives the same inputs. What fails is left as a file, and told with its seed.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from . import samples, targets
from .contract import check_memory, within_time
from .mutations import mutate

_SETTINGS = 0.03  # of the share of a quick one: building jsonargparse's parser takes 30 ms
_Plan = tuple[targets.Target, Callable[[], list[bytes]], float]

# What to call, where inputs start from, and the share of the inputs that it gets.
PLAN: dict[str, _Plan] = {
    "csv": (targets.reviews(".csv"), lambda: samples.delimited(","), 1.0),
    "tsv": (targets.reviews(".tsv"), lambda: samples.delimited("\t"), 0.3),
    "jsonl": (targets.reviews(".jsonl"), samples.json_lines, 1.0),
    "parquet": (targets.reviews(".parquet"), samples.parquet, 1.0),
    "text folders": (targets.text_folders, samples.text_folders, 0.6),
    "vectors": (targets.vectors(".txt"), lambda: [samples.VECTORS], 1.0),
    "vectors gz": (targets.vectors(".gz"), lambda: samples.packed_vectors(".gz"), 0.6),
    "vectors zip": (targets.vectors(".zip"), lambda: samples.packed_vectors(".zip"), 1.0),
    "vocabulary": (targets.vocabulary, lambda: [samples.VOCABULARY], 1.0),
    "token cache": (
        targets.token_cache, lambda: targets.numbered(samples.cache_entry()), 0.6,
    ),
    "predict csv": (targets.predicted(".csv"), lambda: samples.delimited(","), 0.6),
    "predict gz": (
        targets.predicted(".csv.gz"), lambda: targets.packed(samples.delimited(",")), 0.3,
    ),
    "predict jsonl": (targets.predicted(".jsonl"), samples.json_lines, 0.6),
    "predict lines": (targets.predicted(".txt"), lambda: [samples.VECTORS], 0.3),
    "predict parquet": (targets.predicted(".parquet"), samples.parquet, 0.6),
    "behaviour": (targets.behaviour, lambda: [samples.BEHAVIOUR], 0.3),
    "settings": (targets.settings, lambda: [samples.CONFIG], 2 * _SETTINGS),
    "run folder": (
        targets.run_folder,
        lambda: [
            bytes([number]) + samples.run_folder()[name]
            for number, name in enumerate(targets.read_of_a_run(samples.run_folder()))
        ],
        _SETTINGS,
    ),
}  # fmt: skip


def run(name: str, num_inputs: int, seed: int, place: Path) -> int:
    """Give a target its inputs; returns how many ended in a result."""
    target, make_samples, _ = PLAN[name]
    inputs = make_samples()
    generator = random.Random(f"{name} {seed}")
    num_results = 0
    folder = place / "input"
    for number in range(num_inputs):
        data = mutate(inputs[number % len(inputs)], generator)
        folder.mkdir()
        try:
            with within_time():
                num_results += target(data, folder)
        except BaseException:
            failed = Path(tempfile.gettempdir()) / f"failed-{name.replace(' ', '-')}-{seed}"
            failed.write_bytes(data)
            print(f"{name}, seed {seed}, input {number}: left in {failed}", file=sys.stderr)
            raise
        finally:
            shutil.rmtree(folder)
    check_memory()
    return num_results


def main() -> None:
    """Run the plan and say how many inputs there were."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=10_000, help="of a target with share 1")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=PLAN, action="append", help="these targets")
    parser.add_argument("--except", choices=PLAN, action="append", dest="left_out", default=[])
    options = parser.parse_args()
    shared = Path("/dev/shm")
    total, started = 0, time.perf_counter()
    with tempfile.TemporaryDirectory(dir=shared if shared.is_dir() else None) as place:
        for name in options.only or [each for each in PLAN if each not in options.left_out]:
            num_inputs = max(10, round(options.inputs * PLAN[name][2]))
            begun = time.perf_counter()
            num_results = run(name, num_inputs, options.seed, Path(place))
            seconds = time.perf_counter() - begun
            print(f"{name:<16}{num_inputs:>8,} inputs{num_results:>8,} results{seconds:>7.1f} s",
                  flush=True)  # fmt: skip
            total += num_inputs
    print(f"{total} inputs in {time.perf_counter() - started:.0f} s, seed {options.seed}")


if __name__ == "__main__":
    main()
