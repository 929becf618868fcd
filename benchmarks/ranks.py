"""What several ranks cost, and what grows with the corpus: the constants of docs/scaling.md.

    python -m benchmarks.ranks [--imdb FOLDER] --write studies/scaling.json

Two ranks share the cores of this machine, so together they can be as fast as one process with all
of its cores, and no faster: what they lose is what dealing and exchanging cost. Each contestant
starts anew in every round, in turns, and times its updates from within.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist

from benchmarks import growing
from benchmarks.corpus import synthetic_corpus
from benchmarks.machine import describe_machine
from benchmarks.measure import Row, timed
from benchmarks.training import CONFIG, make_parts
from sentiment.runtime.device import prepare_threads
from sentiment.runtime.distributed import init_distributed, local_size
from sentiment.runtime.environment import VARIABLES
from sentiment.training.meters import MeanMeter
from sentiment.training.step import _BUCKET_MEGABYTES

_SECTION = "ranks, configs/imdb.yaml"
_CPU = torch.device("cpu")
_SETTLING = 5  # updates that are not timed: the first ones pay for memory
_EXCHANGES = 20
_COMMAND = "python -m benchmarks.ranks --write studies/scaling.json"


@dataclass(frozen=True)
class Size:
    """How much is measured.

    Attributes:
        rounds: turns of both contestants.
        updates: timed in each.
        reviews: of the corpora.
    """

    rounds: int = 5
    updates: int = 40
    reviews: int = 20_000


TINY = Size(rounds=1, updates=2, reviews=640)


def train_as_rank(size: Size, path: Path) -> None:
    """What one rank does; the first one writes what it measured."""
    prepare_threads(local_size())
    with init_distributed() as distributed:
        batch_size = CONFIG.training.batch_size
        corpus = synthetic_corpus(batch_size * (size.updates + _SETTLING))
        parts = make_parts(corpus, distributed=distributed)
        groups, sums = parts.groups(), MeanMeter(_CPU)
        for group in groups[:_SETTLING]:
            parts.updates.step(group, sums)
        timed_groups = groups[_SETTLING : _SETTLING + size.updates]
        distributed.barrier()
        seconds = timed(lambda: [parts.updates.step(group, sums) for group in timed_groups])
        exchange = _exchange_seconds(parts.model) if distributed.is_distributed else 0.0
        tokens = sum(map(parts.num_tokens, timed_groups))
        if distributed.is_main:
            found = {
                "seconds_per_update": seconds / len(timed_groups),
                "tokens_per_second": tokens / seconds,
                "exchange_seconds": exchange,
                "gradient_bytes": sum(4 * each.numel() for each in parts.model.parameters()),
                "tokens_per_batch": tokens / len(timed_groups),
                "threads": torch.get_num_threads(),
                "precision": str(parts.precision).removeprefix("torch."),
            }
            path.write_text(json.dumps(found), encoding="utf-8")
        distributed.barrier()  # parting while the others compute would take the exchange from them


def _exchange_seconds(model: torch.nn.Module) -> float:
    """Of adding up as many bytes as the gradients have, in pieces as training does, and no more."""
    count = sum(each.numel() for each in model.parameters())
    pieces = torch.zeros(count).split(_BUCKET_MEGABYTES * 2**20 // 4)

    def exchange() -> None:
        for handle in [dist.all_reduce(piece, async_op=True) for piece in pieces]:
            handle.wait()

    exchange()
    return statistics.median(timed(exchange) for _ in range(_EXCHANGES))


def _train(num_ranks: int, size: Size) -> dict[str, float]:
    """Start the ranks of one round, and take what they measured."""
    launcher = [sys.executable]
    environment = {**os.environ, **VARIABLES}
    environment.pop("OMP_NUM_THREADS", None)  # all cores of the machine, shared out
    if num_ranks > 1:
        launcher += ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={num_ranks}"]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "found.json"
        arguments = ["-m", "benchmarks.ranks", "--as_rank", str(path), "--updates"]
        subprocess.run(
            [*launcher, *arguments, str(size.updates)],
            check=True, env=environment, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        return json.loads(path.read_text(encoding="utf-8"))


def measure_ranks(size: Size) -> dict[int, list[dict[str, float]]]:
    """What one process and two ranks measured in each round, in turns."""
    found: dict[int, list[dict[str, float]]] = {1: [], 2: []}
    for _ in range(size.rounds):
        for num_ranks, taken in found.items():
            taken.append(_train(num_ranks, size))
    return found


def rows(folder: Path | None, size: Size = Size(rounds=3)) -> list[Row]:
    """Two ranks against one process, the exchange, and what grows with the corpus."""
    found = measure_ranks(size)
    return _rows(found, growing.measure(folder, size.reviews))


def _rows(
    found: dict[int, list[dict[str, float]]], constants: dict[str, growing.Constant]
) -> list[Row]:
    pairs = list(zip(found[1], found[2], strict=True))
    ratios = [two["tokens_per_second"] / one["tokens_per_second"] for one, two in pairs]
    shares = [each["exchange_seconds"] / each["seconds_per_update"] for each in found[2]]
    one, two = (_median(found[number], "tokens_per_second") for number in (1, 2))
    megabytes = found[2][0]["gradient_bytes"] / 1e6
    exchange = _median(found[2], "exchange_seconds")
    return [
        Row(_SECTION, "tokens/s of two ranks by gloo : of one process with their threads",
            statistics.median(ratios), min(ratios), max(ratios),
            f"{two:,.0f} : {one:,.0f} tokens/s"),
        Row(_SECTION, "exchange of the gradients by gloo alone : a whole update of two ranks",
            statistics.median(shares), min(shares), max(shares),
            f"{megabytes:.1f} MB in {1000 * exchange:.1f} ms"),
        *[Row(_SECTION, each.what, None, value=f"{each.value:.4g} {each.unit}")
          for each in constants.values()],
    ]  # fmt: skip


def _median(rounds: list[dict[str, float]], name: str) -> float:
    return statistics.median(each[name] for each in rounds)


def constants_of_ranks(found: dict[int, list[dict[str, float]]]) -> dict[str, growing.Constant]:
    """Medians of the rounds."""
    first = found[1][0]
    threads, precision = int(first["threads"]), first["precision"]
    one = f"one process with {threads} threads, {precision}"
    values = {
        "tokens_per_second": (
            "tokens/s", f"training, {one}", _median(found[1], "tokens_per_second")),
        "tokens_per_second_of_two": (
            "tokens/s", "training, two ranks that share these cores, gloo",
            _median(found[2], "tokens_per_second")),
        "seconds_per_update": ("s", f"an update of 64 reviews, {one}",
                               _median(found[1], "seconds_per_update")),
        "exchange_seconds": ("s", "adding up the gradients of two ranks by gloo on one machine",
                             _median(found[2], "exchange_seconds")),
        "gradient_bytes": ("bytes", "gradients of the model, in fp32", first["gradient_bytes"]),
        "tokens_per_batch": ("tokens", "kept of 64 reviews (data.max_length 400)",
                             first["tokens_per_batch"]),
    }  # fmt: skip
    return {
        name: growing.Constant(value, unit, what) for name, (unit, what, value) in values.items()
    }


def write_constants(path: Path, folder: Path | None, size: Size) -> None:
    """Measure everything, and write what docs/scaling.md is computed from."""
    constants = constants_of_ranks(measure_ranks(size)) | growing.measure(folder, size.reviews)
    command = _COMMAND if folder is None else _COMMAND.replace(" --write", " --imdb FOLDER --write")
    values = {
        **describe_machine(),
        "reviews": "IMDB" if folder is not None else "synthetic",
        "command": command,
        "constants": {
            name: {"value": _rounded(each.value), "unit": each.unit, "what": each.what}
            for name, each in constants.items()
        },
    }
    path.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _rounded(value: float) -> float:
    """Four digits of what was measured, all of what was counted."""
    return int(value) if float(value).is_integer() else float(f"{value:.4g}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--imdb", type=Path, help="folder with IMDB's train.parquet")
    parser.add_argument("--write", type=Path, help="JSON file to write the constants to")
    parser.add_argument("--tiny", action="store_true", help="to try the program, not to measure")
    parser.add_argument("--updates", type=int, default=Size.updates, help=argparse.SUPPRESS)
    parser.add_argument("--as_rank", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.as_rank is not None:
        train_as_rank(Size(updates=options.updates), options.as_rank)
        return
    if options.write is None:
        parser.error("give --write FILE, or run python -m benchmarks.run --only ranks")
    write_constants(options.write, options.imdb, TINY if options.tiny else Size())


if __name__ == "__main__":
    main()
