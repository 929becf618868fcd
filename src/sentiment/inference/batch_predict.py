"""Predicting files of any size, resumably, in one process or on several ranks; and typed lines."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from tqdm import tqdm

from sentiment.display.console import sanitize
from sentiment.inference.outputs import (
    OUTPUT_FORMATS,
    AddedColumns,
    Output,
    open_output,
    partial_path,
    publish,
)
from sentiment.inference.predictor import Prediction, Predictor
from sentiment.readers.blocks import Block, Source, delimited_block
from sentiment.runtime.distributed import DistributedContext
from sentiment.runtime.errors import UserError
from sentiment.runtime.files import LONGEST_LINE, write_json

FORMAT_VERSION = 1
_HEAD_BYTES = 1 << 20
_READ_BYTES = 1 << 18  # of standard input at a time

Classify = Callable[..., list[Prediction]]  # as Predictor.predict


def shard_predict(
    predictor: Predictor,
    distributed: DistributedContext,
    texts: Sequence[str],
    *,
    report: Callable[[int], object],
) -> list[Prediction]:
    """Classify a share of the texts on each rank; all call it together and get all predictions."""
    share = slice(distributed.rank, None, distributed.world_size)
    table = torch.zeros(len(texts), len(predictor.class_names) + 2, dtype=torch.float64)
    if predictions := predictor.predict(texts[share]):
        rows = [[*p.probabilities, p.num_tokens, p.was_cut] for p in predictions]
        table[share] = torch.tensor(rows, dtype=torch.float64)
    table = distributed.all_reduce_sum(table)  # each row is zero on all ranks but one
    report(len(texts))
    return [
        predictor.decide(probabilities, int(num_tokens), bool(was_cut))
        for *probabilities, num_tokens, was_cut in table.tolist()
    ]


@dataclass(frozen=True)
class Progress:
    """How far a prediction has come; also the fields of the progress file."""

    request: dict[str, Any]  # everything that decides the output, by the names used in messages
    num_rows: int = 0  # rows of the input that the output holds
    num_bad: int = 0  # rows among them that are bad or have no text
    position: int = 0  # where the output ends, from Output.commit
    is_whole: bool = False  # whether it is complete and only has to be moved to its path


def predict_to_file(
    source: Source,
    path: Path,
    classify: Classify,
    added: AddedColumns,
    *,
    request: dict[str, Any] | None,
    resumes: bool = False,
    window: int,
    skips_bad_rows: bool = False,
    bar: tqdm,
    distributed: DistributedContext | None = None,
) -> tuple[Progress, Progress]:
    """Predict all rows of a source into a file, which appears once it is complete.

    Interrupted at any moment and called again with ``resumes``, it writes the same bytes as
    without the interruption. With several ranks, all call it and the main one writes. The path was
    checked before by :func:`check_output`. ``request`` is everything that decides the output; None
    if it cannot be resumed. For the other arguments, see :func:`predict_rows`.

    Returns the progress before and after this call. Raises UserError if the interrupted prediction
    had another request, and FileExistsError if another process is writing the output.
    """
    distributed = distributed or DistributedContext()
    is_main = distributed.is_main
    with output_lock(path) if is_main else nullcontext():
        begun = _begin(path, request, resumes) if is_main else Progress({})
        before = done = _broadcast(begun, distributed)
        if not before.is_whole:
            save = partial(_save_progress, path) if is_main and request is not None else None
            try:
                output = open_output(path, source, added, before.position) if is_main else Output()
                with closing(output):
                    done = predict_rows(
                        source, output, classify, window=window, skips_bad_rows=skips_bad_rows,
                        begin_at=before, save=save, bar=bar,
                    )  # fmt: skip
            except Exception:
                progress = _load_progress(path) if is_main else None
                if progress is not None and progress.num_rows == 0:
                    _discard(path)
                raise
        if is_main:
            publish(path)  # interrupted here, the next call repeats both steps
            _discard(path)
    return before, done


def _broadcast(progress: Progress, distributed: DistributedContext) -> Progress:
    """The main rank's progress, without changing the request."""
    values = [progress.num_rows, progress.num_bad, progress.position, progress.is_whole]
    values = distributed.broadcast(torch.tensor(values, dtype=torch.int64)).tolist()
    num_rows, num_bad, position, is_whole = values
    return Progress(progress.request, num_rows, num_bad, position, bool(is_whole))


def predict_rows(
    source: Source,
    output: Output,
    classify: Classify,
    *,
    window: int,
    skips_bad_rows: bool,
    begin_at: Progress,
    save: Callable[[Progress], object] | None = None,
    bar: tqdm,
) -> Progress:
    """Predict all rows of a source and complete the output, opened at ``begin_at.position``.

    Row ``i`` of the output is row ``i`` of the source. A row without a text has empty added values;
    a bad row is an error or, with ``skips_bad_rows``, has them too. ``window`` rows are read,
    sorted by length and predicted together; then ``save`` is called with the progress.
    """
    done = begin_at
    bar.initial = bar.n = done.num_rows  # so that earlier rows do not count for the speed
    for block in source.blocks(window):
        if block.last_row <= begin_at.num_rows:
            continue
        assert block.first_row == done.num_rows + 1, "an unchanged file gives the same blocks"
        if block.share_read > 0:
            bar.total = round(block.last_row / block.share_read)
        for index, problem in sorted(block.problems.items()):
            message = f"{block.place(index)}: {problem}"
            if not skips_bad_rows:
                raise UserError(f"{message} (to skip bad rows, use --on-error skip)")
            bar.write(f"skipped: {sanitize(message)}", file=sys.stderr)
        texts = [text for text in block.texts if text is not None]
        predictions = iter(classify(texts, report=bar.update))
        bar.update(len(block.bad_rows))
        output.write(block, [None if text is None else next(predictions) for text in block.texts])
        num_bad = done.num_bad + len(block.bad_rows)
        done = replace(done, num_rows=block.last_row, num_bad=num_bad)
        if save is not None:
            done = replace(done, position=output.commit())
            save(done)
    output.finish()
    done = replace(done, is_whole=True)
    if save is not None:
        save(done)
    return done


def check_output(path: Path, source: Path | None, *, resumes: bool, overwrites: bool) -> None:
    """Check that an output may be written, without writing anything.

    It may not if the folder does not exist, the format is unknown, the output is the input
    ``source``, or it or an interrupted one exists and the user allows neither resuming nor
    overwriting it.
    """
    if path.suffix not in OUTPUT_FORMATS:
        raise UserError(
            f"{path}: its name must end in {', '.join(OUTPUT_FORMATS)}, which decides the format"
        )
    if not path.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {path.parent} to write {path.name} to")
    if path.is_dir():
        raise FileExistsError(f"{path} is a folder: name a file to write")
    if source is not None and path.exists() and source.exists() and path.samefile(source):
        raise UserError(f"{path} is the input: write to another file")
    if overwrites:
        return
    can_resume = _progress_path(path).exists()
    if path.exists() and not (resumes and can_resume):
        raise FileExistsError(f"{path} exists already: replace it with --overwrite")
    if (can_resume or partial_path(path).exists()) and not resumes:
        advice = "continue it with --resume, or" if can_resume else "move it away, or"
        raise FileExistsError(
            f"{partial_path(path)} exists already, from a prediction that was interrupted or "
            f"is still running: {advice} start again with --overwrite"
        )


@contextmanager
def output_lock(path: Path) -> Iterator[None]:
    """Lock an output against other processes; FileExistsError if one of them has locked it."""
    lock = path.with_name(path.name + ".partial.lock")
    try:
        with FileLock(lock, blocking=False):
            try:
                yield
            finally:
                with suppress(OSError):  # Windows does not remove open files
                    lock.unlink()
    except Timeout as error:
        raise FileExistsError(f"another process is writing {path}: wait until it ends") from error


def describe_file(path: Path) -> dict[str, Any]:
    """Fingerprint of a file: size, modification time and a checksum of the start."""
    stat = path.stat()
    with path.open("rb") as file:
        head = hashlib.sha256(file.read(_HEAD_BYTES)).hexdigest()
    return {"bytes": stat.st_size, "modified": stat.st_mtime_ns, "head_sha256": head}


def _begin(path: Path, request: dict[str, Any] | None, resumes: bool) -> Progress:
    """The progress to resume from, or a new one after removing an unfinished output."""
    if request is not None and resumes and (progress := _load_progress(path)) is not None:
        _check_request(progress.request, request)
        return progress
    _discard(path)
    progress = Progress(request or {})
    if request is not None:
        _save_progress(path, progress)
    return progress


def _check_request(before: dict[str, Any], now: dict[str, Any]) -> None:
    for name in {**before, **now}:
        if name in before and name in now and before[name] == now[name]:
            continue
        was, value = (
            repr(request[name]) if name in request else "the default" for request in (before, now)
        )
        is_file = isinstance(now.get(name), dict)
        change = "has changed" if is_file else f"was {was} and is now {value}"
        raise UserError(
            f"cannot resume: {name} {change}: restore what the output was started with, or "
            "start again with --overwrite"
        )


def _progress_path(output: Path) -> Path:
    return output.with_name(output.name + ".partial.json")


def _save_progress(output: Path, progress: Progress) -> None:
    write_json(_progress_path(output), {"format_version": FORMAT_VERSION, **asdict(progress)})


def _load_progress(output: Path) -> Progress | None:
    path = _progress_path(output)
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if values.pop("format_version") != FORMAT_VERSION:
            raise UserError("written by another release")
        progress = Progress(**values)
        counts = (progress.num_rows, progress.num_bad, progress.position)
        if not isinstance(progress.request, dict) or not all(isinstance(n, int) for n in counts):
            raise UserError("a value has the wrong type")
    except FileNotFoundError:
        return None
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} is damaged ({error}): start again with --overwrite") from error
    return progress


def _discard(output: Path) -> None:
    """Remove an unfinished output and its progress."""
    unfinished = partial_path(output)
    if unfinished.is_dir():
        shutil.rmtree(unfinished)
    else:
        unfinished.unlink(missing_ok=True)
    _progress_path(output).unlink(missing_ok=True)


class TextsSource(Source):
    """Lists of texts, as rows of one column; a block holds texts of one list."""

    def __init__(self, origin: str, lists: Iterable[list[str]], text_column: str) -> None:
        self.origin = origin
        self.columns, self.text_columns = [text_column], (text_column,)
        self._lists = lists

    def blocks(self, window: int) -> Iterator[Block]:
        first = 1
        for texts in self._lists:
            for start in range(0, len(texts), window):
                rows = [[text] for text in texts[start : start + window]]
                yield delimited_block(self.origin, first, self.columns, [0], rows, 0.0)
                first += len(rows)


def read_lines(descriptor: int) -> Iterator[list[str]]:
    """The lines that have arrived on a file descriptor, a list for each read.

    So each line that is typed is answered at once.
    """
    rest = b""
    while data := os.read(descriptor, _READ_BYTES):
        *lines, last = data.split(b"\n")
        if lines:
            lines[0], rest = rest + lines[0], b""
            yield list(map(_decode, lines))
        rest += last
        if len(rest) > LONGEST_LINE:
            raise UserError(f"standard input: a line of more than {LONGEST_LINE:,} bytes")
    if rest:
        yield [_decode(rest)]


def _decode(line: bytes) -> str:
    return line.removesuffix(b"\r").decode("utf-8", "surrogateescape")
