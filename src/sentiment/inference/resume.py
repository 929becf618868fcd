"""Continuing a prediction that was interrupted."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from sentiment.inference.outputs import check_format, partial_path, publish
from sentiment.runtime.errors import UserError
from sentiment.runtime.files import write_json

FORMAT_VERSION = 1
_HEAD_BYTES = 1 << 20


@dataclass(frozen=True)
class Progress:
    """What is done of a request.

    Attributes:
        request: what decides the output, by names that messages use.
        num_rows: rows of the input that the output holds.
        num_bad: bad ones among them.
        position: where the output ends with these rows, as its commit said.
        is_whole: whether there are no more, and the output only has to be put in its place.
    """

    request: dict[str, Any]
    num_rows: int = 0
    num_bad: int = 0
    position: int = 0
    is_whole: bool = False


def progress_path(output: Path) -> Path:
    """Where the progress of an output is kept."""
    return output.with_name(output.name + ".partial.json")


def save_progress(output: Path, progress: Progress) -> None:
    """Write it in one step, to last."""
    write_json(progress_path(output), {"format_version": FORMAT_VERSION, **asdict(progress)})


def load_progress(output: Path) -> Progress | None:
    """The progress beside an output, or None where there is none.

    Raises:
        UserError: it is damaged.
    """
    path = progress_path(output)
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if values.pop("format_version") != FORMAT_VERSION:
            raise UserError("it is of another release")
        progress = Progress(**values)
        counts = (progress.num_rows, progress.num_bad, progress.position)
        if not isinstance(progress.request, dict) or not all(isinstance(n, int) for n in counts):
            raise UserError("a value is not of its kind")
    except FileNotFoundError:
        return None
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} is damaged ({error}): begin again with --overwrite") from error
    return progress


def check_same(progress: Progress, request: dict[str, Any]) -> None:
    """Refuse to continue what was begun otherwise.

    Raises:
        UserError: the input, the run or an option has changed.
    """
    for name in {**progress.request, **request}:
        before, value = (each.get(name, "the default") for each in (progress.request, request))
        if before != value:
            is_file = isinstance(value, dict)
            was, now = (each if each == "the default" else repr(each) for each in (before, value))
            change = "has changed" if is_file else f"was {was} and is now {now}"
            raise UserError(
                f"cannot resume: {name} {change}: give what the output was begun with, or "
                "begin again with --overwrite"
            )


def discard(output: Path) -> None:
    """Remove what is unfinished of an output."""
    import shutil

    partial = partial_path(output)
    if partial.is_dir():
        shutil.rmtree(partial)
    else:
        partial.unlink(missing_ok=True)
    progress_path(output).unlink(missing_ok=True)


def describe_file(path: Path) -> dict[str, Any]:
    """What tells a file from what it was before."""
    stat = path.stat()
    with path.open("rb") as file:
        head = hashlib.sha256(file.read(_HEAD_BYTES)).hexdigest()
    return {"bytes": stat.st_size, "modified": stat.st_mtime_ns, "head_sha256": head}


def describe_weights(run: Path, checkpoint: str) -> dict[str, Any]:
    """What tells a run from another one: its description holds the other files' checksums."""
    weights = run / "checkpoints" / checkpoint / "model.safetensors"
    paths = {"run_sha256": run / "run.json", "weights_sha256": weights}
    return {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in paths.items()}


def check_output(path: Path, source: Path | None, *, resumes: bool, overwrites: bool) -> None:
    """Check that an output may be written, and write nothing.

    Args:
        path: the output.
        source: the file that is read, if it is one.
        resumes, overwrites: what the user has asked for.

    Raises:
        FileExistsError: it is there, or an interrupted one, and nobody said what to do.
        FileNotFoundError: its folder is not there.
        UserError: nothing is written in that format, or it is the input.
    """
    check_format(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {path.parent} to write {path.name} to")
    if path.is_dir():
        raise FileExistsError(f"{path} is a folder: name a file to write")
    if source is not None and path.exists() and source.exists() and path.samefile(source):
        raise UserError(f"{path} is the input: write to another file")
    if overwrites:
        return
    is_begun = progress_path(path).exists()
    if path.exists() and not (resumes and is_begun):
        raise FileExistsError(f"{path} is there already: replace it with --overwrite")
    if (is_begun or partial_path(path).exists()) and not resumes:
        advice = "continue it with --resume, or" if is_begun else "move it away, or"
        raise FileExistsError(
            f"{partial_path(path)} is there already, from a prediction that was interrupted or "
            f"still runs: {advice} begin again with --overwrite"
        )


@contextmanager
def writing_alone(path: Path) -> Iterator[None]:
    """Hold an output against other processes, also of other machines where locks reach these.

    Raises:
        FileExistsError: another one writes it.
    """
    lock = path.with_name(path.name + ".partial.lock")
    try:
        with FileLock(lock, blocking=False):
            try:
                yield
            finally:
                with suppress(OSError):  # not every system removes a file that is open
                    lock.unlink()
    except Timeout as error:
        raise FileExistsError(f"another process is writing {path}: let it end first") from error


def begin(path: Path, request: dict[str, Any], *, resumes: bool) -> Progress:
    """Where an output is to be continued; at 0, with nothing left of an earlier one, to begin.

    Raises:
        UserError: what is there was begun with another input, run or option, or is damaged.
    """
    progress = load_progress(path) if resumes else None
    if progress is not None:
        check_same(progress, request)
        return progress
    discard(path)
    progress = Progress(request)
    save_progress(path, progress)
    return progress


def complete(path: Path) -> None:
    """Put a whole output in its place, and leave nothing else behind.

    Whatever this is interrupted at, doing it again completes it.
    """
    publish(path)
    discard(path)
