"""A small training from end to end, in a process of its own."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from sentiment.doctoring.findings import Finding
from sentiment.doctoring.processes import how_it_ended

_MOST_SECONDS = 90.0
_SLOW_SECONDS = 25.0  # two cores take 7
_LEAST_ACCURACY = 0.7  # seeds reach 83 to 92 %, guessing 50 ± 4

_TRAIN = "import sys; from sentiment.cli import main; sys.exit(main(sys.argv[1:]))"
_SETTINGS = [
    "--training.num_epochs=1", "--training.batch_size=16", "--training.learning_rate=0.01",
    "--training.schedule=linear", "--training.pictures=false", "--model.embedding_size=50",
    "--model.hidden_size=64", "--model.embedding_dropout=0", "--model.dropout=0",
]  # fmt: skip


def check_training() -> Finding:
    """Train for an epoch on the embedded corpus, in a temporary folder, and see that it learns."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        places = [f"--output_dir={run}", f"--data.cache_dir={folder}/cache"]
        started = time.perf_counter()
        try:
            done = subprocess.run(
                [sys.executable, "-c", _TRAIN, "train", *places, *_SETTINGS],
                capture_output=True,
                text=True,
                timeout=_MOST_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return Finding(
                f"not done after {_MOST_SECONDS:.0f} s",
                "mend",
                "two cores take some 7 s: see what else computes here, and the cores above",
            )
        seconds = time.perf_counter() - started
        if done.returncode != 0:
            return Finding(
                f"failed: {how_it_ended(done)}",
                "mend",
                "mend what stands above first; what is left, make train tells in full",
            )
        (epoch,) = json.loads((run / "metrics.json").read_text(encoding="utf-8"))["epochs"]
    return judge(epoch["training"]["loss"], epoch["validation"]["accuracy"], seconds)


def judge(loss: float, accuracy: float, seconds: float) -> Finding:
    """What a training's loss, validation accuracy (0 to 1) and duration say."""
    found = f"{100 * accuracy:.1f} % of validation right, {seconds:.0f} s"
    if not (math.isfinite(loss) and accuracy >= _LEAST_ACCURACY):
        return Finding(
            f"learned too little: loss {loss:.3f}, {found}",
            "mend",
            f"{100 * _LEAST_ACCURACY:.0f} % at least were expected: install torch anew, and "
            "see that make test passes",
        )
    if seconds > _SLOW_SECONDS:
        return Finding(
            found, "note", "two cores take some 7 s: see what else computes here, and the cores"
        )
    return Finding(found)
