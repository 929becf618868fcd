"""The cost of several ranks and of a growing corpus: the constants of docs/scaling.md.

    python -m benchmarks.ranks [--imdb FOLDER] --write studies/scaling.json

Two ranks share the cores of this machine, so together they are at most as fast as one process with
all cores: the difference is the cost of sharding and exchanging gradients. Both are started anew in
every round, alternating, and time their own updates.
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

from benchmarks import constants as corpus_constants
from benchmarks.corpus import synthetic_corpus
from benchmarks.machine import describe_machine
from benchmarks.measure import Row, timed
from benchmarks.training import CONFIG, make_parts
from sentiment.environment import VARIABLES
from sentiment.runtime.device import prepare_threads
from sentiment.runtime.distributed import init_distributed, local_size
from sentiment.training.meters import MeanMeter
from sentiment.training.trainer import DDP_BUCKET_MB

_SECTION = "ranks, the default model"
_CPU = torch.device("cpu")
_WARM_UP = 5  # untimed updates: the first ones allocate memory
_EXCHANGES = 20
_COMMAND = "python -m benchmarks.ranks --write studies/scaling.json"


@dataclass(frozen=True)
class Size:
    """Rounds, timed updates in each, and reviews of the corpora."""

    rounds: int = 5
    updates: int = 40
    reviews: int = 20_000


TINY = Size(rounds=1, updates=2, reviews=640)


def train_as_rank(size: Size, path: Path) -> None:
    """The program of a rank; the main one writes the measurements."""
    prepare_threads(local_size())
    with init_distributed() as distributed:
        batch_size = CONFIG.training.batch_size
        corpus = synthetic_corpus(batch_size * (size.updates + _WARM_UP))
        parts = make_parts(corpus, distributed=distributed)
        groups, sums = parts.groups(), MeanMeter(_CPU)
        for group in groups[:_WARM_UP]:
            parts.step(group, sums)
        timed_groups = groups[_WARM_UP : _WARM_UP + size.updates]
        distributed.barrier()
        seconds = timed(lambda: [parts.step(group, sums) for group in timed_groups])
        exchange = _exchange_seconds(parts.model) if distributed.is_distributed else 0.0
        tokens = sum(map(parts.num_tokens, timed_groups))
        if distributed.is_main:
            measurements = {
                "seconds_per_update": seconds / len(timed_groups),
                "tokens_per_second": tokens / seconds,
                "exchange_seconds": exchange,
                "gradient_bytes": sum(4 * p.numel() for p in parts.model.parameters()),
                "tokens_per_batch": tokens / len(timed_groups),
                "threads": torch.get_num_threads(),
                "precision": str(parts.precision).removeprefix("torch."),
            }
            path.write_text(json.dumps(measurements), encoding="utf-8")
        distributed.barrier()  # no rank leaves while others still exchange


def _exchange_seconds(model: torch.nn.Module) -> float:
    """Seconds of an all-reduce as large as the gradients, in the buckets of training."""
    count = sum(p.numel() for p in model.parameters())
    buckets = torch.zeros(count).split(DDP_BUCKET_MB * 2**20 // 4)

    def exchange() -> None:
        for handle in [dist.all_reduce(bucket, async_op=True) for bucket in buckets]:
            handle.wait()

    exchange()
    return statistics.median(timed(exchange) for _ in range(_EXCHANGES))


def _train(num_ranks: int, size: Size) -> dict[str, float]:
    """Run the ranks of one round and return their measurements."""
    launcher = [sys.executable]
    environment = {**os.environ, **VARIABLES}
    environment.pop("OMP_NUM_THREADS", None)  # all cores, shared among the ranks
    if num_ranks > 1:
        launcher += ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={num_ranks}"]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "measurements.json"
        arguments = ["-m", "benchmarks.ranks", "--as_rank", str(path), "--updates"]
        subprocess.run(
            [*launcher, *arguments, str(size.updates)],
            check=True, env=environment, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        return json.loads(path.read_text(encoding="utf-8"))


def measure_ranks(size: Size) -> dict[int, list[dict[str, float]]]:
    """Measurements of one process and of two ranks in each round, alternating."""
    rounds: dict[int, list[dict[str, float]]] = {1: [], 2: []}
    for _ in range(size.rounds):
        for num_ranks, measurements in rounds.items():
            measurements.append(_train(num_ranks, size))
    return rounds


def rows(folder: Path | None, size: Size = Size(rounds=3)) -> list[Row]:
    """Two ranks against one process, the exchange, and the constants of the corpus."""
    return _rows(measure_ranks(size), corpus_constants.measure(folder, size.reviews))


def _rows(
    rounds: dict[int, list[dict[str, float]]], constants: dict[str, corpus_constants.Constant]
) -> list[Row]:
    pairs = list(zip(rounds[1], rounds[2], strict=True))
    ratios = [two["tokens_per_second"] / one["tokens_per_second"] for one, two in pairs]
    shares = [two["exchange_seconds"] / two["seconds_per_update"] for two in rounds[2]]
    one, two = (_median(rounds[number], "tokens_per_second") for number in (1, 2))
    megabytes = rounds[2][0]["gradient_bytes"] / 1e6
    exchange = _median(rounds[2], "exchange_seconds")
    return [
        Row(_SECTION, "training throughput of two ranks (gloo) vs one process with as many threads",
            statistics.median(ratios), min(ratios), max(ratios),
            f"{two:,.0f} vs {one:,.0f} tokens/s"),
        Row(_SECTION, "all-reduce of the gradients alone (gloo) vs a whole update of two ranks",
            statistics.median(shares), min(shares), max(shares),
            f"{megabytes:.1f} MB in {1000 * exchange:.1f} ms"),
        *[Row(_SECTION, constant.what, None, value=f"{constant.value:.4g} {constant.unit}")
          for constant in constants.values()],
    ]  # fmt: skip


def _median(rounds: list[dict[str, float]], name: str) -> float:
    return statistics.median(measured[name] for measured in rounds)


def constants_of_ranks(
    rounds: dict[int, list[dict[str, float]]],
) -> dict[str, corpus_constants.Constant]:
    """Medians over the rounds."""
    first = rounds[1][0]
    threads, precision = int(first["threads"]), first["precision"]
    one = f"one process with {threads} threads, {precision}"
    values = {
        "tokens_per_second": (
            "tokens/s", f"training, {one}", _median(rounds[1], "tokens_per_second")),
        "tokens_per_second_of_two": (
            "tokens/s", "training, two ranks that share these cores, gloo",
            _median(rounds[2], "tokens_per_second")),
        "seconds_per_update": ("s", f"an update of 64 reviews, {one}",
                               _median(rounds[1], "seconds_per_update")),
        "exchange_seconds": ("s", "all-reduce of the gradients of two ranks (gloo) on one machine",
                             _median(rounds[2], "exchange_seconds")),
        "gradient_bytes": ("bytes", "gradients of the model, in fp32", first["gradient_bytes"]),
        "tokens_per_batch": ("tokens", "tokens of 64 reviews, truncated (data.max_length 400)",
                             first["tokens_per_batch"]),
    }  # fmt: skip
    return {
        name: corpus_constants.Constant(value, unit, what)
        for name, (unit, what, value) in values.items()
    }


def write_constants(path: Path, folder: Path | None, size: Size) -> None:
    """Measure all constants of docs/scaling.md and write them."""
    constants = constants_of_ranks(measure_ranks(size)) | corpus_constants.measure(
        folder, size.reviews
    )
    command = _COMMAND if folder is None else _COMMAND.replace(" --write", " --imdb FOLDER --write")
    values = {
        **describe_machine(),
        "reviews": "IMDB" if folder is not None else "synthetic",
        "command": command,
        "constants": {
            name: {"value": _rounded(constant.value), "unit": constant.unit, "what": constant.what}
            for name, constant in constants.items()
        },
    }
    path.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _rounded(value: float) -> float:
    """Four digits of measurements, all digits of counts."""
    return int(value) if float(value).is_integer() else float(f"{value:.4g}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--imdb", type=Path, help="folder with IMDB's train.parquet")
    parser.add_argument("--write", type=Path, help="JSON file to write the constants to")
    parser.add_argument("--tiny", action="store_true", help="try the program without measuring")
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
