"""Several processes equal one, on the CPU; torch's own launcher starts, stops and restarts them."""

import json
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.corpus import write_corpus
from helpers.processes import free_port, start_ranks
from helpers.review_files import read_rows
from helpers.trainings import arguments, ended, torchrun

from sentiment.cli import main as cli
from sentiment.data.batches import BucketSampler, shard
from sentiment.diagnostics.run_diff import compare_runs
from sentiment.runs.manifest import read_manifest
from sentiment.training import objectives
from sentiment.training.checkpoint import load_state

# No dropout, so that only the order of sums over ranks differs.
EXACT = ["--model.dropout=0", "--model.embedding_dropout=0", "--training.num_epochs=1",
         "--training.log_every=1", "--device=cpu"]  # fmt: skip


@pytest.fixture(scope="module")
def uneven(tmp_path_factory) -> Path:
    """243 reviews: 15 batches of 16 and one of 3; neither divides by 2 ranks."""
    folder = tmp_path_factory.mktemp("uneven")
    splits = {"train": 243, "validation": 61, "test": 61, "unsupervised": 50}
    return write_corpus(folder, splits=splits)


def options(corpus: Path, run: Path, *more: str) -> list[str]:
    return arguments(corpus, run, *EXACT, *more)


@pytest.fixture(scope="module")
def one(uneven, tmp_path_factory) -> Path:
    """The run of one process."""
    run = tmp_path_factory.mktemp("one") / "run"
    assert cli.train(options(uneven, run)) == 0
    return run


@pytest.fixture(scope="module")
def two(uneven, tmp_path_factory) -> tuple[Path, str]:
    """The run of two, and what they printed."""
    run = tmp_path_factory.mktemp("two") / "run"
    out, _ = ended(torchrun(2, "train.py", *options(uneven, run)))
    return run, out


def assert_equal(run: Path, one: Path) -> None:
    difference = compare_runs(one, run)
    assert not difference.problems and difference.num_points > 50
    assert difference.weights < 1e-4 and difference.metrics < 1e-5


def test_two_ranks_equal_one_process(one, two):
    run, out = two
    assert_equal(run, one)
    assert out.count("epoch 1  training") == 1, "one rank speaks"
    assert read_manifest(run)["ranks"] == 2
    folders = list((run / "tensorboard").rglob("events*"))
    assert len(folders) == len(list((one / "tensorboard").rglob("events*"))), "one rank writes"


OBJECTIVES = ["--objectives.adversarial=1", "--objectives.virtual_adversarial=1",
              "--objectives.entropy=1", "--objectives.perturbation_norm=0.3"]  # fmt: skip
# Large steps: small ones change predictions near one half no more than rounding does.
BY_POWER = [*OBJECTIVES, "--objectives.power_iterations=1", "--objectives.finite_difference=1"]
SMALL_BATCHES = ["--training.batch_size=4"]
WEIGHTED = "--training.class_weights={pos: 5}"


@pytest.mark.parametrize(
    ("num_ranks", "settings"),
    [
        (3, ["--training.accumulation_steps=2", WEIGHTED, "--training.nonfinite=skip"]),
        (3, [*BY_POWER, WEIGHTED]),
        pytest.param(5, SMALL_BATCHES, marks=pytest.mark.long),
        pytest.param(5, [*SMALL_BATCHES, *OBJECTIVES], marks=pytest.mark.long),
    ],
)
def test_several_ranks_equal_one_process(num_ranks, settings, uneven, tmp_path):
    """The last batch, of 3, has one review a rank, or none for some of five."""
    one = tmp_path / "one"
    assert cli.train(options(uneven, one, *settings)) == 0
    ended(start_ranks(num_ranks, cli.train, options(uneven, tmp_path / "run", *settings)))
    assert_equal(tmp_path / "run", one)


def train_in_parts(command: list[str]) -> int:
    """Train as on reviews so long that a CPU takes a batch in several parts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(objectives, "_MAX_TOKEN_BYTES", 400)
        return cli.train(command)


def test_ranks_that_take_batches_in_parts_equal_one_that_does_not(one, uneven, tmp_path):
    ended(start_ranks(2, train_in_parts, options(uneven, tmp_path / "run")))
    assert_equal(tmp_path / "run", one)


def node(number: int, port: int) -> tuple[str, ...]:
    """Options of the launcher on one of two machines."""
    return ("--nnodes=2", f"--node-rank={number}", "--rdzv-backend=c10d", f"--rdzv-id={port}",
            f"--rdzv-endpoint=127.0.0.1:{port}")  # fmt: skip


@pytest.mark.long
def test_two_machines_equal_one_process(one, uneven, tmp_path):
    """Two launchers that meet at an address, as on two machines, each with another cache."""
    port, processes = free_port(), []
    for number in range(2):
        cache = f"--data.cache_dir={tmp_path / str(number)}"
        command = options(uneven, tmp_path / "run", cache)
        processes.append(torchrun(1, "train.py", *command, launcher=node(number, port)))
    for process in processes:
        ended(process)
    assert_equal(tmp_path / "run", one)


def test_ranks_share_an_evaluation(two, uneven):
    run, _ = two
    assert cli.evaluate([str(run)]) == 0
    alone = (run / "evaluation/test/predictions.csv").read_bytes()
    out, _ = ended(start_ranks(2, cli.evaluate, [str(run), "--max_lengths", "9"]))
    assert (run / "evaluation/test/predictions.csv").read_bytes() == alone
    assert out.count("right class") == 1
    report = json.loads((run / "evaluation/test/report.json").read_text())
    assert report["num_reviews"] == 61


def test_predictions_of_ranks_are_merged_in_order(two, uneven, tmp_path):
    run, _ = two
    files = [str(tmp_path / name) for name in ("one.csv", "two.csv")]
    command = ["predict", str(run), "--file", str(uneven / "train.csv"), "--window=50", "--output"]
    assert cli.main([*command, files[0]]) == 0
    out, _ = ended(start_ranks(2, cli.main, [*command, files[1]]))
    assert out.count("243 rows") == 1
    rows = [read_rows(Path(file)) for file in files]
    assert [row["text"] for row in rows[1]] == [row["text"] for row in rows[0]]
    assert [row["predicted"] for row in rows[1]] == [row["predicted"] for row in rows[0]]
    shares = [[float(row["probability_pos"]) for row in each] for each in rows]
    assert shares[1] == pytest.approx(shares[0], abs=1e-5)
    assert not list(tmp_path.glob("*.partial*"))


def test_a_killed_rank_ends_all_and_one_process_goes_on(uneven, one, tmp_path):
    run = tmp_path / "run"
    process = torchrun(2, "tests/helpers/failing_rank.py", "12", *options(uneven, run))
    _, error = process.communicate(timeout=180)
    assert process.returncode != 0
    killed_at = float(Path(f"{run}.killed").read_text())
    assert time.time() - killed_at < 60
    assert "error: rank 0 has lost another rank, whose own message says why: resume" in error
    assert "/src/sentiment/" not in error, "no traceback of ours"
    assert load_state(run).values["updates"]["update"] == 10
    assert cli.train([f"--resume={run}"]) == 0
    assert_equal(run, one)


RESTARTING = ("--standalone", "--max-restarts=1")


@pytest.mark.long
def test_the_launcher_starts_lost_ranks_again(uneven, one, tmp_path):
    run = tmp_path / "run"
    command = ("tests/helpers/failing_rank.py", "12", *options(uneven, run))
    out, _ = ended(torchrun(2, *command, launcher=RESTARTING))
    assert "resuming at update 10, in epoch 1" in out
    assert read_manifest(run)["result"]["num_resumed"] == 1
    assert_equal(run, one)


@pytest.mark.long
def test_a_machine_that_cannot_prepare_ends_the_others(uneven, tmp_path):
    port, processes = free_port(), []
    started = time.monotonic()
    for number, folder in enumerate((uneven, tmp_path / "nowhere")):
        command = options(folder, tmp_path / "run")
        processes.append(torchrun(1, "train.py", *command, launcher=node(number, port)))
    errors = [process.communicate(timeout=120)[1] for process in processes]
    assert all(process.returncode != 0 for process in processes)
    assert time.monotonic() - started < 90
    assert "which does not exist: give a file or a folder" in errors[1]


@pytest.mark.long
def test_ranks_end_together_on_a_signal(uneven, one, tmp_path):
    run = tmp_path / "run"
    process = torchrun(2, "train.py", *options(uneven, run, "--training.num_epochs=400"))
    deadline = time.monotonic() + 60
    while not list(run.glob("metrics.json")) and time.monotonic() < deadline:
        time.sleep(0.2)
    os.killpg(process.pid, signal.SIGTERM)  # as a scheduler: to the launcher and to the ranks
    out, _ = process.communicate(timeout=120)
    assert process.returncode != 0
    assert "stopped by SIGTERM; resume: python train.py --resume" in out
    state = load_state(run)
    assert state.values["num_ranks"] == 2


@pytest.mark.long
def test_resumed_ranks_equal_ranks_that_never_stopped(uneven, tmp_path):
    """To the bit, with dropout, which differs between ranks."""
    dropout = ["--model.dropout=0.3", "--model.embedding_dropout=0.3"]
    ended(start_ranks(2, cli.train, options(uneven, tmp_path / "whole", *dropout)))
    run = tmp_path / "broken"
    command = options(uneven, run, *dropout)
    torchrun(2, "tests/helpers/failing_rank.py", "12", *command).communicate(timeout=180)
    tensors = load_state(run).section("generators")
    assert not torch.equal(tensors["cpu.0"], tensors["cpu.1"])
    ended(start_ranks(2, cli.train, [f"--resume={run}"]))
    assert compare_runs(tmp_path / "whole", run).is_equal


def test_several_ranks_need_files_to_predict(two):
    run, _ = two
    process = start_ranks(2, cli.main, ["predict", str(run), "a text"])
    _, error = process.communicate(timeout=120)
    assert process.returncode != 0
    assert "error: several ranks share a file: give --file and --output" in error


def test_sharding_covers_each_batch_once_and_ranks_finish_together():
    """Longest over mean work: the ranks wait for the one with most to do."""
    generator = np.random.default_rng(0)
    lengths = torch.from_numpy(generator.lognormal(5.4, 0.6, 25_000).astype(np.int64)).clamp(1, 400)
    for unit, size in (("reviews", 64), ("tokens", 16_000)):
        sampler = BucketSampler(lengths, batch_size=size, unit=unit)
        batches = list(sampler)
        for num_ranks in (2, 4, 8):
            longest = mean = 0.0
            for batch in batches:
                shares = [shard(batch, rank, num_ranks) for rank in range(num_ranks)]
                assert sorted(torch.cat(shares).tolist()) == sorted(batch.tolist())
                work = [len(each) * int(lengths[each].max()) for each in shares if len(each)]
                longest += max(work)
                mean += sum(work) / num_ranks
            assert longest / mean <= 1.05, (unit, num_ranks, longest / mean)


def test_other_ranks_wait_while_one_prepares(tmp_path):
    """For longer than a collective call may take, which would end the others."""
    code = (
        "import sys, time, datetime, pathlib, sentiment.runtime.distributed as distributed\n"
        "distributed._TIMEOUT = datetime.timedelta(seconds=2)\n"
        "with distributed.init_distributed() as ranks:\n"
        "    with ranks.local_main_first():\n"
        "        time.sleep(4 if ranks.is_main else 0)\n"
        "        with open(sys.argv[1], 'a') as file:\n"
        "            print(ranks.rank, file=file, flush=True)\n"
        "    ranks.all_reduce_sum(__import__('torch').ones(1))\n"
    )
    (tmp_path / "wait.py").write_text(code)
    ended(torchrun(2, str(tmp_path / "wait.py"), str(tmp_path / "order")))
    assert (tmp_path / "order").read_text() == "0\n1\n"


def test_ranks_without_a_launcher_are_one_line(one, monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert cli.evaluate([str(one)]) == 1
    error = capsys.readouterr().err
    assert "WORLD_SIZE is 2, but RANK is not set: start several ranks with torchrun" in error
