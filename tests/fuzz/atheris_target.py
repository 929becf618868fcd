"""python -m tests.fuzz.atheris_target NAME: the same targets, guided by coverage, with atheris.

atheris (https://github.com/google/atheris) is no dependency: pip install it where it has wheels.
Whatever follows the name goes to libFuzzer, as ``-runs=100000`` or a folder of inputs.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path


def main() -> None:
    """Fuzz one target without end, or say what is missing."""
    try:
        import atheris
    except ImportError:
        raise SystemExit("atheris is not installed: pip install atheris, or make fuzz") from None
    with atheris.instrument_imports(include=["sentiment", "yaml", "zipfile", "gzip"]):
        from .run import PLAN
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name not in PLAN:
        raise SystemExit(f"name a target: {', '.join(PLAN)}")
    target, _, _ = PLAN[name]
    folder = Path(tempfile.mkdtemp()) / "input"

    def once(data: bytes) -> None:
        folder.mkdir()
        try:
            target(data, folder)
        finally:
            shutil.rmtree(folder)

    atheris.Setup([sys.argv[0], *sys.argv[2:]], once)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
