"""Run the steps one after another, each within a limit, and write the results as they come.

    bash benchmarks/gpu.sh --kit FOLDER [--output FOLDER]
    bash benchmarks/gpu.sh --device cpu --dry-run [--output FOLDER]

Each step is a process of its own, so that neither a crash nor a hang ends the others. The output
folder gets ``results.json``, which is replaced after each step, and ``log.txt``. Only the standard
library is imported here: the kit's packages are found by the steps' processes alone.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from benchmarks.gpu.options import ROOT, Options

TOTAL_SECONDS = 530
_DRY_SECONDS = 3600.0
STEPS: dict[str, float] = {  # in this order, each with its limit in seconds
    "versions": 40,
    "tests": 90,
    "kinds": 60,
    "waits": 60,
    "step": 90,
    "epoch": 90,
    "imdb": 220,
    "resume": 120,
    "virtual_adversarial": 60,
    "pretraining": 60,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kit", type=Path, help="folder packed by benchmarks.gpu.kit")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--dry-run", action="store_true", help="small sizes, to try the code")
    parser.add_argument("--output", type=Path, default=ROOT / "runs" / "gpu", help="folder")
    arguments = parser.parse_args()
    if not arguments.dry_run and (arguments.kit is None or arguments.device == "cpu"):
        parser.error("give --kit FOLDER on a machine with a GPU, or --device cpu --dry-run")
    arguments.output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="gpu-") as work:
        kit = "" if arguments.dry_run else str(arguments.kit.resolve())
        options = Options(arguments.device, arguments.dry_run, kit, work)
        steps = dict.fromkeys(STEPS, _DRY_SECONDS) if options.is_dry else STEPS
        results = run_steps(steps, options, arguments.output)
    sys.exit(any(step["status"] != "done" for step in results["steps"]))


def run_steps(steps: dict[str, float], options: Options, output: Path) -> dict[str, Any]:
    """Run steps, named with their limits in seconds; returns the content of results.json."""
    started = time.perf_counter()
    environment = _prepare(options)
    reviews = "mini" if options.is_dry else "IMDB"
    results: dict[str, Any] = {"reviews": reviews, "rows": [], "growth": {}, "steps": []}
    with (output / "log.txt").open("w", encoding="utf-8") as log:
        for name, limit in steps.items():
            if not options.is_dry:  # which may run on a busy machine
                limit = min(limit, TOTAL_SECONDS - (time.perf_counter() - started))
            step = _run_step(name, limit, options, environment, log)
            print(f"{name}: {step['status']}, {step['seconds']:.0f} s", flush=True)
            rows = step.pop("rows")
            print("".join(f"  {_describe(row)}\n" for row in rows), end="", flush=True)
            if name == "versions":
                results = step["details"] | results
            results["rows"] += rows
            results["steps"].append(step)
            results["minutes"] = round((time.perf_counter() - started) / 60, 1)
            _write(output / "results.json", results)
    print(f"{results['minutes']} minutes; {output / 'results.json'}")
    return results


def _prepare(options: Options) -> dict[str, str]:
    """The environment of the steps; unpacks the kit's packages."""
    paths = [str(ROOT), str(ROOT / "src"), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    if options.kit:
        site = Path(options.work) / "site"
        wheels = sorted(str(path) for path in (Path(options.kit) / "wheels").glob("*.whl"))
        install = ["install", "--quiet", "--no-index", "--no-deps", "--target", str(site), *wheels]
        subprocess.run([sys.executable, "-m", "pip", *install], check=True)
        paths.insert(0, str(site))
    if importlib.util.find_spec("spacy") is None:
        paths.append(str(Path(__file__).parent / "stand_in"))
    cache = str(Path(options.work) / "cache")
    return os.environ | {
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "XDG_CACHE_HOME": cache,
        "PYTHONUNBUFFERED": "1",
    }


def _run_step(
    name: str, limit: float, options: Options, environment: dict[str, str], log: IO[str]
) -> dict[str, Any]:
    """Run one step in a process; its result, with what became of it."""
    step: dict[str, Any] = {"name": name, "status": "done", "seconds": 0.0, "rows": []}
    step["details"] = {}
    if limit <= 0:
        return step | {"status": "left out: no time was left"}
    started = time.perf_counter()
    log.write(f"==== {name}\n")
    log.flush()
    result = Path(options.work) / f"{name}.json"
    command = ["benchmarks.gpu.step", name, options.dump(), str(result)]
    returncode = _call(command, limit, environment, log)
    step["seconds"] = round(time.perf_counter() - started, 1)
    if result.exists():
        step |= json.loads(result.read_text(encoding="utf-8"))
    elif returncode is None:
        step["status"] = f"stopped at its limit of {limit:.0f} s"
    else:
        step["status"] = f"failed with exit status {returncode}: see log.txt"
    return step


def _call(
    module: Sequence[str], limit: float, environment: dict[str, str], log: IO[str]
) -> int | None:
    """Run ``python -m``; the exit status, or None if it and its children had to be killed."""
    process = subprocess.Popen(
        [sys.executable, "-m", *module],
        cwd=ROOT,
        env=environment,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        return process.wait(limit)
    except BaseException as error:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if isinstance(error, subprocess.TimeoutExpired):
            return None
        raise


def _describe(row: dict[str, Any]) -> str:
    text = f"{row['name']}: {row['value']}" if row["value"] else row["name"]
    if row["ratio"] is None:
        return text
    text = f"{text}; ratio {row['ratio']:.3g}"
    if row["goal"] is None:
        return text
    return f"{text}, goal {row['goal']:.3g}{' missed' if row['ratio'] < row['goal'] else ''}"


def _write(path: Path, results: dict[str, Any]) -> None:
    """Replace the file in one step, so that a kill leaves the last one."""
    text = json.dumps(results, indent=2, ensure_ascii=False) + "\n"
    part = path.with_suffix(".part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)


if __name__ == "__main__":
    main()
