"""Predicting files with a classifier that a hash replaces, and files to predict."""

from __future__ import annotations

import csv
import hashlib
import json

import pyarrow as pa
import pyarrow.parquet as pq

from sentiment.data.columns import FileOptions
from sentiment.data.formats import open_source
from sentiment.inference.batch_predict import check_output, predict_to_file
from sentiment.inference.outputs import AddedColumns
from sentiment.inference.predictor import Prediction

TEXTS = [
    "plain", "", "comma, \"quote\" 'n' tab\t", "two\nlines", "two\r\nlines", "lone\rreturn",
    "\u2028 \x85 é 🎬", " spaces ", '"', "NULL", "3", "=1+1",
]  # fmt: skip


def share(text: str) -> float:
    """A probability that the text alone decides."""
    return round(int(hashlib.sha256(text.encode()).hexdigest()[:6], 16) / 16**6, 6)


def classify(texts, *, report):
    report(len(texts))
    return [
        Prediction("ab"[share(t) < 0.5], max(share(t), 1 - share(t)), (share(t), 1 - share(t)),
                   len(t), len(t) > 9)
        for t in texts
    ]  # fmt: skip


class Watcher:
    """What predicting uses of a progress bar."""

    def __init__(self):
        self.messages, self.total, self.n = [], None, 0

    def update(self, num_rows):
        self.n += num_rows

    def write(self, message, file):
        self.messages.append(message.removeprefix("skipped: "))


def predict(path, output, *, window=5, skip=False, resumes=False, column="text", prefix=""):
    source = open_source(path, FileOptions(text_column=column))
    check_output(output, path, resumes=resumes, overwrites=False)
    watcher = Watcher()
    predict_to_file(
        source, output, classify, AddedColumns("ab", prefix), request={"--window": window},
        resumes=resumes, window=window, skips_bad_rows=skip, bar=watcher,
    )  # fmt: skip
    return watcher


def write(path, texts, extra=lambda number: f"x{number}"):
    """The texts with an ``id`` before and an ``other`` column behind."""
    rows = [[str(n), text, extra(n)] for n, text in enumerate(texts)]
    if path.suffix == ".parquet":
        ids, values, others = zip(*rows, strict=True)
        table = pa.table({"id": pa.array(map(int, ids), pa.int16()), "text": values,
                          "other": pa.array(others).dictionary_encode()})  # fmt: skip
        pq.write_table(table.replace_schema_metadata({"a": "b"}), path, row_group_size=7)
    elif path.suffix == ".jsonl":
        lines = [f'{{ "id":{n},"text" : {json.dumps(t)}, "other":[1.10]}}' for n, t, _ in rows]
        path.write_text("\n".join(lines), encoding="utf-8")
    else:
        with path.open("w", encoding="utf-8", newline="") as file:
            quoting = csv.QUOTE_ALL  # as csv would not quote a lone \r
            delimiter = "\t" if path.suffix == ".tsv" else ","
            writer = csv.writer(file, delimiter=delimiter, quoting=quoting)
            writer.writerows([["id", "text", "other"], *rows])
    return path
