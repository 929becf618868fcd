"""Beginning an output file, or continuing one that was interrupted."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from sentiment.predicting.files import output_format
from sentiment.predicting.outputs import partial_path, publish
from sentiment.predicting.progress import (
    Progress,
    check_same,
    discard,
    load_progress,
    progress_path,
    save_progress,
)


def check_output(path: Path, source: Path | None, *, resumes: bool, overwrites: bool) -> None:
    """Check that an output may be written, and write nothing.

    Args:
        path: the output.
        source: the file that is read, if it is one.
        resumes, overwrites: what the user has asked for.

    Raises:
        FileExistsError: it is there, or an interrupted one, and nobody said what to do.
        FileNotFoundError: its folder is not there.
        ValueError: nothing is written in that format, or it is the input.
    """
    output_format(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {path.parent} to write {path.name} to")
    if path.is_dir():
        raise FileExistsError(f"{path} is a folder: name a file to write")
    if source is not None and path.exists() and source.exists() and path.samefile(source):
        raise ValueError(f"{path} is the input: write to another file")
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
        ValueError: what is there was begun with another input, run or option, or is damaged.
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
