"""The process of one step: ``python -m benchmarks.gpu.step NAME OPTIONS RESULT``."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

from sentiment.environment import prepare_environment

prepare_environment()  # before torch is loaded, as the program's entry points do

from benchmarks.gpu import checks, speed, trainings  # noqa: E402
from benchmarks.gpu.options import Options  # noqa: E402

STEPS = {
    "versions": checks.versions,
    "tests": checks.tests,
    "kinds": checks.kinds,
    "waits": checks.waits,
    "step": speed.step,
    "epoch": trainings.epoch,
    "imdb": trainings.imdb,
    "resume": trainings.resume,
    "virtual_adversarial": trainings.virtual_adversarial,
    "pretraining": trainings.pretraining,
}


def main() -> None:
    name, options, path = sys.argv[1:]
    outcome = STEPS[name](Options.parse(options))
    result = {"rows": [asdict(row) for row in outcome.rows], "details": outcome.details}
    if outcome.problem:
        result["status"] = f"failed: {outcome.problem}"
    Path(path).write_text(json.dumps(result), encoding="utf-8")


if __name__ == "__main__":
    main()
