"""``sentiment reproduce``: what it finds equal, what it finds to differ, what it refuses."""

import json
import shutil
import signal
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers.trainings import refusal, rewrite, train

from sentiment.cli import main as cli
from sentiment.config.config import Config
from sentiment.config.parser import load_config
from sentiment.diagnostics import reproduce
from sentiment.diagnostics.reproduce import (
    Reproduction,
    plan_reproduction,
    reproduction_json,
    reproduction_table,
)
from sentiment.diagnostics.run_diff import RunDiff, read_provenance
from sentiment.runs.manifest import read_manifest
from sentiment.runs.run import load_run
from sentiment.runs.weights import save_weights
from sentiment.runtime.errors import UserError
from sentiment.runtime.processes import check_exit, run_module


@pytest.fixture(scope="module")
def vectors(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("vectors") / "small.txt"
    path.write_text("".join(f"{word} {'0.5 ' * 7}0.25\n" for word in ("great", "dull", "film")))
    return path


@pytest.fixture(scope="module")
def trained(corpus, vectors, tmp_path_factory) -> Path:
    return train(corpus, tmp_path_factory.mktemp("runs") / "run", f"--vectors.path={vectors}")


@pytest.fixture
def run(trained, tmp_path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(trained, tmp_path / "run"))


@pytest.fixture
def copied(trained, monkeypatch) -> list[tuple[Config, dict[str, object]]]:
    """Copies the run instead of training it again, which would give the same files.

    Returns the settings and the options of each training's processes.
    """
    trainings: list[tuple[Config, dict[str, object]]] = []

    def train(arguments: list[str], **options: object) -> subprocess.CompletedProcess[str]:
        config = load_config(Path(arguments[-1].removeprefix("--config=")))
        shutil.copytree(trained, config.output_dir)
        trainings.append((config, options))
        return subprocess.CompletedProcess(arguments, 0, "", "")

    monkeypatch.setattr(reproduce, "run_module", train)
    return trainings


@pytest.fixture
def never(monkeypatch) -> None:
    """Training must not begin."""
    monkeypatch.setattr(reproduce, "run_module", lambda *_, **__: pytest.fail("training began"))


def refuse(arguments: list[object], capfd) -> str:
    return refusal(arguments, capfd, "reproduce")


def test_a_run_is_reproduced_to_the_bit_by_another_process(trained, tmp_path, capfd):
    output = tmp_path / "again"
    assert cli.main(["reproduce", str(trained), f"--output={output}"]) == 0
    shown = capfd.readouterr().out
    assert "versions, revision, device, threads and precision: unchanged" in shown
    assert "epoch 2  training    loss" in shown, "what the training says is shown"
    assert shown.endswith("\nequal to the bit: weights, metrics and curves\n")
    names = ("best", "last")
    for one, two in [(load_run(p, checkpoint=n) for p in (trained, output)) for n in names]:
        for first, second in zip(one.model.parameters(), two.model.parameters(), strict=True):
            assert torch.equal(first, second)


def test_json_is_all_there_is_on_standard_output(trained, copied, capsys):
    assert cli.main(["reproduce", str(trained), "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert values["verdict"] == "equal" and values["differences"] == []
    assert values["largest_difference"] == {"weights": 0, "metrics": 0, "curves": 0}
    assert values["then"] == values["now"]


def test_altered_weights_are_found(run, copied, capfd):
    trained = load_run(run, checkpoint="best")
    with torch.no_grad():
        trained.model.output.weight[0, 0] += 2**-10
    save_weights(run, "best", trained.model, trained.checkpoint)  # with its checksum
    message = "differs, although versions, revision, device, threads and precision are"
    assert message in refuse([run], capfd)


def test_altered_metrics_are_found(run, copied, capfd):
    """The same better accuracy in every file that has it."""
    result = read_manifest(run)["result"]
    result["metrics"]["accuracy"] += 0.01
    rewrite(run, result=result)
    history = json.loads((run / "metrics.json").read_text())
    history["epochs"][result["best_epoch"] - 1]["validation"]["accuracy"] += 0.01
    (run / "metrics.json").write_text(json.dumps(history))
    assert cli.main(["reproduce", str(run)]) == 1
    output, errors = capfd.readouterr()
    assert "differs: run.json: metrics of the result" in output
    (line,) = (line for line in output.splitlines() if "metrics of all epochs" in line)
    assert line.split()[-1] == "0.01"
    assert errors.startswith("error: differs")


def test_an_altered_result_alone_is_found(run, copied, capfd):
    rewrite(run, result={**read_manifest(run)["result"], "best_epoch": 1, "num_epochs": 3})
    assert "differs" in refuse([run], capfd)


def test_changed_versions_are_listed_before_training(run, copied, capfd):
    rewrite(run, versions={**read_manifest(run)["versions"], "torch": "2.0.0"}, threads=1_000)
    assert cli.main(["reproduce", str(run)]) == 0
    output = capfd.readouterr().out
    assert output.startswith(f"torch: 2.0.0 then, {torch.__version__} now\nthreads: 1000 then, ")
    assert output.endswith("equal to the bit: weights, metrics and curves\n")


def test_verdicts(trained):
    then = read_provenance(trained)
    low, high = then.interval
    threads, gpu = {"threads": 99}, {"device": "cuda (H)"}
    for accuracy, difference, changes, verdict in [
        (then.accuracy, 0, {}, "equal"),
        (then.accuracy, 1e-9, {}, "differs"),
        (then.accuracy, 1e-9, threads, "within"),
        (then.accuracy, 1e-9, gpu, "within"),
        (then.accuracy, float("inf"), threads, "within"),
        (low, 0.1, threads, "within"),
        (low - 0.01, 0.1, threads, "differs"),
        (high + 0.01, 0.1, threads, "differs"),
    ]:
        environment = replace(then.environment, **changes)
        now = replace(then, environment=environment, accuracy=accuracy)
        found = Reproduction(RunDiff(difference, difference, difference, 7, ()), then, now)
        assert found.verdict == verdict
        values = json.loads(reproduction_json(found))
        assert values["sentence"].startswith({"within": "equal within"}.get(verdict, verdict))
        assert (values["largest_difference"]["weights"] is None) == (difference == float("inf"))
    on_gpu = replace(then, environment=replace(then.environment, **gpu))
    found = Reproduction(RunDiff(1e-9, 0, 0, 7, ()), on_gpu, on_gpu)
    assert found.verdict == "within", "GPUs may sum in any order"


def test_the_table_fits_a_terminal(trained):
    provenance = read_provenance(trained)
    diff = RunDiff(1.23456e-10, float("inf"), 0.0, 10**9, ("x" * 200, "y\n"))
    table = reproduction_table(Reproduction(diff, provenance, provenance))
    assert max(map(len, table.splitlines())) <= 80


def test_one_changed_validation_review_is_refused(run, corpus, never, tmp_path, capfd):
    other = Path(shutil.copytree(corpus, tmp_path / "other"))
    text = (other / "validation.csv").read_text()
    (other / "validation.csv").write_text(text.replace("film", "movie", 1))
    message = refuse([run, "--data.path", other], capfd)
    assert "the validation reviews are 60 with digest " in message


def test_reviews_and_vectors_may_have_moved(run, corpus, vectors, copied, tmp_path):
    reviews = shutil.copytree(corpus, tmp_path / "other")
    moved = shutil.copy(vectors, tmp_path / "renamed.txt")
    cache = tmp_path / "cache"
    options = [f"--data.path={reviews}", f"--vectors.path={moved}", f"--data.cache_dir={cache}"]
    assert cli.main(["reproduce", str(run), *options]) == 0
    ((config, _),) = copied
    assert (config.data.path, config.vectors.path) == (str(reviews), str(moved))
    assert config.data.cache_dir == str(cache)


def test_changed_and_missing_vectors_are_refused(run, vectors, never, tmp_path, capfd):
    other = tmp_path / "other.txt"
    other.write_text(vectors.read_text().replace("0.25", "0.26"))
    assert "other.txt has digest " in refuse([run, f"--vectors.path={other}"], capfd)
    gone = tmp_path / "gone.txt"
    assert "gone.txt with the vectors" in refuse([run, f"--vectors.path={gone}"], capfd)


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("result", "is not finished"),
        ("threads", "lacks what is needed to reproduce the run"),
        ("data", "lacks what is needed to reproduce the run"),
        ("vectors", "lacks what is needed to reproduce the run"),
    ],
)
def test_an_incomplete_provenance_is_refused(run, key, message, never, capfd):
    rewrite(run, **{key: None})
    assert message in refuse([run], capfd)


def test_damaged_runs_are_refused(run, never, capfd):
    text = (run / "run.json").read_text()
    (run / "run.json").write_text(text.replace('"threads": ', '"threads": 1'))
    assert "checksum" in refuse([run], capfd)
    (run / "run.json").write_text(text)
    (run / "metrics.json").unlink()
    assert "metrics.json is missing: copy it" in refuse([run], capfd)
    (run / "config.yaml").write_text("seed: 3\n")
    assert "config.yaml is not the one" in refuse([run], capfd)
    assert "is not a run (there is no such folder)" in refuse([run / "nowhere"], capfd)


def test_a_place_or_a_launcher_that_it_cannot_use_is_refused(run, never, monkeypatch, capfd):
    assert "give --output a new folder" in refuse([run, f"--output={run}"], capfd)
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert "without torchrun" in refuse([run], capfd)


def test_as_many_ranks_are_started_as_then(run, copied):
    rewrite(run, ranks=3, threads=2)
    plan = plan_reproduction(run, run.with_name("again"), {})
    reproduce.reproduce(plan)
    ((_, options),) = copied
    assert options["num_ranks"] == 3
    changed = plan.provenance.environment.differences(plan.environment)
    assert "ranks" not in [difference.name for difference in changed]


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_a_run_of_a_gpu_asks_before_it_is_trained_elsewhere(run, never, capfd):
    rewrite(run, device="cuda:0 (NVIDIA H100)")
    assert "no CUDA device" in refuse([run], capfd)


def test_a_failed_training_is_told_with_its_last_words():
    done = run_module(["sentiment", "train", "--seed=x"])
    assert done.returncode == 2
    with pytest.raises(UserError, match="a training failed: .*seed"):
        check_exit(done)
    killed = subprocess.CompletedProcess([], -9, None, None)
    with pytest.raises(UserError, match="a training failed: SIGKILL: killed"):
        check_exit(killed)
    check_exit(killed, -9)


def test_an_interruption_leaves_no_process_behind(monkeypatch):
    started: list[subprocess.Popen[str]] = []
    monkeypatch.setattr(
        subprocess,
        "Popen",
        lambda *a, popen=subprocess.Popen, **k: started.append(popen(*a, **k)) or started[-1],
    )

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.5)
    try:
        with pytest.raises(KeyboardInterrupt):
            run_module(["timeit", "-n", "1", "import time; time.sleep(60)"])
    finally:
        signal.signal(signal.SIGALRM, before)
    assert started[0].returncode == -signal.SIGTERM
