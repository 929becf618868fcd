"""python -m tests.fuzz.run: give mutated files to every reader.

The same seed gives the same inputs. An input that fails is kept as a file.
"""

import argparse
import faulthandler
import random
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from . import samples, targets

_SLOW = 0.03  # share of the slow targets: building the parser of settings takes 30 ms
_Plan = tuple[targets.Target, Callable[[], list[bytes]], float]

ABSURD_NUMBERS = [
    b"-1", b"0", b"1e999", b"nan", b"inf", b"-0.0", b"1_000", b"2147483648", b"9223372036854775808",
    b"18446744073709551616", b"1" * 5_000, b"0x7fffffff",
    "٣".encode(),  # a digit of another script
]  # fmt: skip
PIECES = [
    b"\xed\xa0\x80",  # a lone surrogate, as UTF-8 would encode it
    b"\0", b"\0" * 50, b"\\ud83d", b"\xff\xfe", b"\xef\xbb\xbf", b"\r", b"\r\n", b"\n\n\n",
    "\u2028\u0085\u202e".encode(), b'"', b'"",""', b"\t", b",", b"[" * 3_000, b'{"a":' * 3_000,
    b"{a: " * 60, b"- " * 400, b"&a [*a]", b"*a", b"!!python/object/apply:os.system [true]",
    b"!!int ''", b"<<: ", b"class_path: antigravity", b"../../etc/passwd", b"null", b"true",
    b"text", b"label", b"x" * 10_000, b" " * 9_000, b"(5, 5)", b"'|O'", b"__reduce__",
]  # fmt: skip


def _slice(data: bytes, generator: random.Random) -> tuple[int, int]:
    start = generator.randrange(len(data) + 1)
    return start, min(len(data), start + generator.choice((1, 2, 8, 40, 400)))


def _flip_bit(data: bytes, generator: random.Random) -> bytes:
    if not data:
        return data
    at = generator.randrange(len(data))
    return data[:at] + bytes([data[at] ^ 1 << generator.randrange(8)]) + data[at + 1 :]


def _cut_out(data: bytes, generator: random.Random) -> bytes:
    start, end = _slice(data, generator)
    return data[:start] + data[end:]


def _double(data: bytes, generator: random.Random) -> bytes:
    start, end = _slice(data, generator)
    return data[:end] + data[start:end] * generator.choice((1, 1, 20)) + data[end:]


def _insert(data: bytes, generator: random.Random) -> bytes:
    at = generator.randrange(len(data) + 1)
    return data[:at] + generator.choice(PIECES) + data[at:]


def _change_number(data: bytes, generator: random.Random) -> bytes:
    numbers = list(re.finditer(rb"\d+", data))
    if not numbers:
        return _insert(data, generator)
    number = generator.choice(numbers)
    return data[: number.start()] + generator.choice(ABSURD_NUMBERS) + data[number.end() :]


def _change_encoding(data: bytes, generator: random.Random) -> bytes:
    text = data.decode("latin-1")
    return text.encode(generator.choice(("utf-8", "utf-16", "utf-8-sig", "utf-7")))


_MUTATIONS: list[Callable[[bytes, random.Random], bytes]] = [
    *[_flip_bit] * 4, _cut_out, _double, *[_insert] * 2, *[_change_number] * 2,
]  # fmt: skip


def mutate(data: bytes, generator: random.Random) -> bytes:
    """A copy with one to four mutations; one in forty copies has none."""
    if generator.random() < 0.025:
        return data
    if generator.random() < 0.01:
        return _change_encoding(data, generator)
    for _ in range(generator.choice((1, 1, 2, 4))):
        data = generator.choice(_MUTATIONS)(data, generator)
    return data


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
            with targets.within_time():
                num_results += target(data, folder)
        except BaseException:
            failed = Path(tempfile.gettempdir()) / f"failed-{name.replace(' ', '-')}-{seed}"
            failed.write_bytes(data)
            print(f"{name}, seed {seed}, input {number}: kept in {failed}", file=sys.stderr)
            raise
        finally:
            shutil.rmtree(folder)
    targets.check_memory()
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
