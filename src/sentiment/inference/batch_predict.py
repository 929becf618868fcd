"""Predicting files of any size, on one process or several ranks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch

from sentiment.data.blocks import Block
from sentiment.data.readers import Source
from sentiment.inference.outputs import AddedColumns, Output, Predictions, open_output
from sentiment.inference.predictor import Prediction, Predictor
from sentiment.inference.resume import (
    Progress,
    begin,
    complete,
    discard,
    load_progress,
    save_progress,
    writing_alone,
)
from sentiment.runtime.distributed import DistributedContext
from sentiment.runtime.errors import UserError


class SharedPredictor:
    """Classifies texts together with the other ranks, which must be given the same ones.

    Args:
        predictor: what classifies this rank's share.
        world: the ranks.
    """

    def __init__(self, predictor: Predictor, distributed: DistributedContext) -> None:
        self._predictor = predictor
        self._distributed = distributed

    def predict(
        self, texts: Sequence[str], *, report: Callable[[int], object] = lambda count: None
    ) -> list[Prediction]:
        """As :meth:`Predictor.predict`; every rank gets all predictions."""
        own = slice(self._distributed.rank, None, self._distributed.world_size)
        found = self._predictor.predict(texts[own])
        num_classes = len(self._predictor.class_names)
        table = torch.zeros(len(texts), num_classes + 2, dtype=torch.float64)
        if found:
            table[own] = torch.tensor(
                [[*each.probabilities, each.num_tokens, each.was_cut] for each in found],
                dtype=torch.float64,
            )
        rows = self._distributed.all_reduce_sum(
            table
        ).tolist()  # where others have filled it, a rank has zeros
        report(len(texts))
        return [self._prediction(row) for row in rows]

    def _prediction(self, row: list[float]) -> Prediction:
        *probabilities, num_tokens, was_cut = row
        best = probabilities.index(max(probabilities))
        return Prediction(
            label=self._predictor.class_names[best],
            probability=probabilities[best],
            probabilities=tuple(probabilities),
            num_tokens=int(num_tokens),
            was_cut=bool(was_cut),
        )


class NoOutput:
    """Where the other ranks' predictions go: the first one writes them too."""

    def write(self, block: Block, predictions: Predictions) -> None:
        pass

    def commit(self) -> int:
        return 0

    def finish(self) -> None:
        pass


def progress_of_first(progress: Progress, distributed: DistributedContext) -> Progress:
    """What the first rank has found done already, for all of them."""
    counts = [progress.num_rows, progress.num_bad, progress.position, progress.is_whole]
    counts = distributed.broadcast(torch.tensor(counts, dtype=torch.int64)).tolist()
    return replace(
        progress,
        num_rows=counts[0],
        num_bad=counts[1],
        position=counts[2],
        is_whole=bool(counts[3]),
    )


class Classify(Protocol):
    """As :meth:`sentiment.inference.predictor.Predictor.predict`."""

    def __call__(
        self, texts: Sequence[str], *, report: Callable[[int], object]
    ) -> list[Prediction]: ...


class Watcher(Protocol):
    """Who is told how it goes."""

    def begin(self, num_rows: int) -> None:
        """So many rows are done already."""

    def expect(self, num_rows: int) -> None:
        """So many rows there are, as far as one can tell."""

    def update(self, num_rows: int) -> object:
        """So many more rows are done."""

    def bad_row(self, message: str) -> None:
        """A bad row is passed over."""


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
    watcher: Watcher,
    distributed: DistributedContext | None = None,
) -> tuple[Progress, Progress]:
    """Predict all rows of a source into a file that appears when it is whole.

    Interrupted at any moment, and called again with ``resumes``, it writes the same bytes as if
    it never had been.

    Args:
        source, classify, window, skips_bad_rows, watcher: as :func:`predict_rows` says.
        path: the file; checked by :func:`sentiment.inference.resume.check_output`.
        added: the columns to add.
        request: what decides the output; None where it cannot be continued.
        resumes: whether what is there of it is to be continued.
        world: the ranks that predict together, each with ``classify`` of its own; the first one
            writes.

    Returns:
        What was done before, and what is done.

    Raises:
        UserError: as :func:`predict_rows` says, or what is there is of another request.
        FileExistsError: another process is writing it.
    """
    distributed = distributed or DistributedContext()
    with writing_alone(path) if distributed.is_main else nullcontext():
        before = _begin(path, request, resumes) if distributed.is_main else Progress({})
        before = done = progress_of_first(before, distributed)
        if not before.is_whole:
            with _remove_if_empty(path) if distributed.is_main else nullcontext():
                done = predict_rows(
                    source,
                    open_output(path, source, added, before.position)
                    if distributed.is_main
                    else NoOutput(),
                    classify,
                    window=window,
                    skips_bad_rows=skips_bad_rows,
                    begin_at=before,
                    save=partial(save_progress, path) if distributed.is_main and request else None,
                    watcher=watcher,
                )
        if distributed.is_main:
            complete(path)
    return before, done


def _begin(path: Path, request: dict[str, Any] | None, resumes: bool) -> Progress:
    if request is not None:
        return begin(path, request, resumes=resumes)
    discard(path)
    return Progress({})


@contextmanager
def _remove_if_empty(path: Path) -> Iterator[None]:
    """Remove an unfinished output in which there is no row to be continued from."""
    try:
        yield
    except Exception:
        progress = load_progress(path)
        if progress is not None and progress.num_rows == 0:
            discard(path)
        raise


def predict_rows(
    source: Source,
    output: Output,
    classify: Classify,
    *,
    window: int,
    skips_bad_rows: bool,
    begin_at: Progress,
    save: Callable[[Progress], object] | None,
    watcher: Watcher,
) -> Progress:
    """Predict all rows of a source and make the output whole.

    Row ``i`` of the output is row ``i`` of the source: a bad row, where it is not an error, has
    empty values for what is added.

    Args:
        source: the rows.
        output: where they go, opened at ``begin_at.position``.
        classify: texts to predictions.
        window: rows that are read, sorted by length and predicted together.
        skips_bad_rows: whether a bad row is passed over, or is an error.
        begin_at: what is done already.
        save: called with what is done when it is, block by block; None keeps no account.
        watcher: told how it goes.

    Raises:
        UserError: a row is bad, or the source cannot be read further.
    """
    done = begin_at
    watcher.begin(done.num_rows)
    for block in source.blocks(window):
        if block.last_row <= begin_at.num_rows:
            continue
        assert block.first_row == done.num_rows + 1, "an unchanged file gives the same blocks"
        if block.share_read > 0:
            watcher.expect(round(block.last_row / block.share_read))
        _tell_problems(block, skips_bad_rows, watcher)
        output.write(block, _predict_block(block, classify, watcher.update))
        num_bad = done.num_bad + len(block.problems)
        done = replace(done, num_rows=block.last_row, num_bad=num_bad)
        if save is not None:
            done = replace(done, position=output.commit())
            save(done)
    output.finish()
    done = replace(done, is_whole=True)
    if save is not None:
        save(done)
    return done


def _tell_problems(block: Block, skips_bad_rows: bool, watcher: Watcher) -> None:
    for index, problem in sorted(block.problems.items()):
        message = f"{block.place(index)}: {problem}"
        if not skips_bad_rows:
            raise UserError(f"{message} (--on-error skip passes over such rows)")
        watcher.bad_row(message)


def _predict_block(
    block: Block, classify: Classify, report: Callable[[int], object]
) -> list[Prediction | None]:
    predictions = iter(classify([text for text in block.texts if text is not None], report=report))
    report(len(block.problems))
    return [None if text is None else next(predictions) for text in block.texts]
