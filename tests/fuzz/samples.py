"""Valid files that are mutated: small, but with every part of their format."""

import functools
import gzip
import io
import json
import tempfile
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

TEXTS = [
    "A lovely film.",
    'She said "no"; twice, and\nleft.',
    "",
    "Straße, naïve – 好 😀",
    "dull " * 60,
]
LABELS = ["pos", "neg", "neg", "pos", "neg"]

CONFIG = b"""# a comment
output_dir: runs/x
seed: 3
device: cpu
data:
  path: null
  class_names: [neg, pos]
  validation_share: 0.1
  max_length: 400
model: {hidden_size: 8, dropout: 0.5, bidirectional: true, pooling: max}
training:
  num_epochs: 2
  learning_rate: 1.0e-3
  gradient_clip: null
"""

BEHAVIOUR = b"""capability: negation
tests:
  - name: a
    kind: minimum
    expect: positive
    templates: ["The {thing} was not bad."]
lexicon:
  thing: &things [film, plot]
  other: *things
"""

VECTORS = b"2 3\nthe 0.5 0.5 0.5\ngood 1 2 3\n. . . 1 1 1\nfilm -1e-1 .5 4\r\nbad 4 5 6\nzzz 7 8\n"


def delimited(delimiter: str) -> list[bytes]:
    def quote(text: str) -> str:
        return '"' + text.replace('"', '""') + '"'

    rows = [f"{quote(text)}{delimiter}{label}" for text, label in zip(TEXTS, LABELS, strict=True)]
    named = "\n".join([f"text{delimiter}label", *rows]) + "\n"
    stars = f"label{delimiter}n{delimiter}text\r\n" + "".join(
        f"{n % 2}{delimiter}{n}{delimiter}review {n} of many words\r\n" for n in range(400)
    )
    return [named.encode(), stars.encode("utf-8-sig")]


def json_lines() -> list[bytes]:
    rows = [{"text": t, "label": v, "n": [1]} for t, v in zip(TEXTS, LABELS, strict=True)]
    escaped = "".join(json.dumps(row) + "\n" for row in rows)
    integers = "".join(
        json.dumps({"label": n % 2, "text": f"größer {n}"}, ensure_ascii=False) + "\r\n"
        for n in range(300)
    )
    return [escaped.encode(), integers.encode()]


def parquet() -> list[bytes]:
    texts, labels = [*TEXTS, *TEXTS], [*LABELS, *LABELS]
    integers = [label == "pos" for label in labels]
    tables = [
        (pa.table({"text": texts, "label": labels}), {}),
        (
            pa.table({"text": texts, "label": pa.array(integers)}),
            {"compression": "none", "use_dictionary": False, "row_group_size": 3},
        ),
        (
            pa.table({"id": [[1], None] * 5, "text": pa.array(texts, pa.large_string()),
                      "label": pa.array(map(int, integers), pa.uint8())}),
            {"compression": "zstd", "data_page_version": "2.0", "write_page_checksum": True},
        ),
        (
            pa.table({"text": pa.array(texts).dictionary_encode(), "label": labels}),
            {"compression": "gzip", "store_schema": True},
        ),
        (
            pa.table({"text": texts, "label": labels}),
            {"use_dictionary": False, "column_encoding": "DELTA_BYTE_ARRAY"},
        ),
    ]  # fmt: skip
    files = []
    for table, options in tables:
        file = io.BytesIO()
        pq.write_table(table, file, **options)
        files.append(file.getvalue())
    return files


def packed_vectors(suffix: str) -> list[bytes]:
    if suffix == ".gz":
        return [gzip.compress(VECTORS, mtime=0), gzip.compress(VECTORS[:30]) + gzip.compress(b"")]
    files = []
    for kind in (zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED):
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w", kind) as archive:
            archive.writestr("../v.3d.txt", VECTORS)
            archive.writestr("/readme.md", "x")
            archive.writestr("v.2d.txt", "good 1 2\n")
        files.append(file.getvalue())
    return files


VOCABULARY = "<pad>\t0\n<unk>\t0\nthe\t40\n,\t9\nÿes\t9\n好\t1\n".encode()


@functools.cache
def cache_entry() -> dict[str, bytes]:
    """Names and contents of the files of TEXTS' entry in the token cache."""
    from sentiment.data.tokenizer import tokenize_cached

    with tempfile.TemporaryDirectory() as folder:
        tokenize_cached(TEXTS, Path(folder))
        return _files_of(next((Path(folder) / "tokens").iterdir()))


@functools.cache
def run_folder() -> dict[str, bytes]:
    """Names and contents of the files of a briefly trained run."""
    import contextlib
    import os

    from sentiment.cli.main import main
    from tests.helpers.corpus import write_corpus

    with tempfile.TemporaryDirectory() as scratch:
        corpus = write_corpus(Path(scratch) / "corpus", splits={"train": 40, "validation": 20})
        arguments = [
            "train", "--data.path", str(corpus), "--output_dir", f"{scratch}/run",
            "--data.cache_dir", f"{scratch}/cache", "--training.num_epochs", "1",
            "--model.hidden_size", "4", "--model.embedding_size", "3", "--device", "cpu",
            "--training.pictures", "false",
        ]  # fmt: skip
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
            status = main(arguments)
        assert not status, f"training ended with status {status}"
        return _files_of(Path(scratch) / "run")


def _files_of(folder: Path) -> dict[str, bytes]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}
