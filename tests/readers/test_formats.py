"""Files as people have them: what they do not say is found out, or a mend is named that works."""

import bz2
import csv
import gzip
import io
import itertools
import json
import lzma
import re
import shlex
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sentiment.config.config import DataConfig
from sentiment.config.parser import parse_training
from sentiment.data.reviews import Reviews, load_split
from sentiment.readers.labels import MISSING
from sentiment.readers.sources import read_split
from sentiment.runtime.errors import UserError

PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "": lambda data: data,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
}
ROWS = [("A lovely film, truly.", "pos"), ("Dull; and long | grim.", "neg"), ("Fine", "pos")] * 4


def table(rows: Sequence[Sequence[Any]], delimiter: str = ",", end: str = "\n") -> str:
    file = io.StringIO()
    csv.writer(file, delimiter=delimiter, lineterminator=end).writerows(rows)
    return file.getvalue()


def encode(texts: Sequence[str], labels: Sequence[str], suffix: str) -> bytes:
    """A file of texts and labels in a format, written by other code than the program's."""
    rows = [{"text": text, "label": label} for text, label in zip(texts, labels, strict=True)]
    if suffix in (".csv", ".tsv"):
        head = [("text", "label"), *zip(texts, labels, strict=True)]
        return table(head, "," if suffix == ".csv" else "\t", "\r\n").encode()
    if suffix == ".json":
        return json.dumps(rows, indent=1).encode()
    if suffix in (".jsonl", ".ndjson"):
        return "".join(f"{json.dumps(row)}\n" for row in rows).encode()
    columns, sink = pa.table({"text": list(texts), "label": list(labels)}), io.BytesIO()
    if suffix == ".parquet":
        pq.write_table(columns, sink)
    elif suffix == ".feather":
        feather.write_feather(columns, sink)
    else:
        with pa.ipc.new_stream(sink, columns.schema) as stream:
            stream.write_table(columns, max_chunksize=2)
    return sink.getvalue()


def load(path: Path, **options: Any) -> Reviews:
    return load_split(DataConfig(path=str(path), **options), "all")


TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1)


@settings(max_examples=30)
@given(
    texts=st.lists(TEXTS.filter(lambda text: text.strip() not in MISSING), min_size=3, max_size=6),
    suffix=st.sampled_from([".csv", ".tsv", ".json", ".jsonl", ".ndjson"]),
    packer=st.sampled_from([*PACKERS, ".zip"]),
)
def test_any_text_in_any_format_and_compression(tmp_path_factory, texts, suffix, packer):
    path = tmp_path_factory.getbasetemp() / f"reviews{suffix}{packer}"
    labels = ["neg", "pos", "pos", "neg", "neg", "pos"][: len(texts)]
    data = encode(texts, labels, suffix)
    if packer == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(f"inner{suffix}", data)
            archive.writestr("__MACOSX/._inner", b"")
    else:
        path.write_bytes(PACKERS[packer](data))
    reviews = load(path)
    assert reviews.texts == texts
    assert [reviews.class_names[label] for label in reviews.labels] == labels


@pytest.mark.parametrize("suffix", [".parquet", ".arrow", ".feather"])
def test_columnar_files_are_read_in_batches(tmp_path, suffix):
    path = tmp_path / f"reviews{suffix}"
    texts, labels = [f"text {n}" for n in range(2_500)], ["neg", "pos"] * 1_250
    path.write_bytes(encode(texts, labels, suffix))
    assert load(path).texts == texts


def test_lines_of_fasttext(tmp_path):
    path = tmp_path / "train.ft.txt.bz2"
    path.write_bytes(bz2.compress(b"__label__2 Good: film\n\n__label__1 bad\n"))
    reviews = load(path)
    assert (reviews.texts, reviews.class_names) == (["Good: film", "bad"], ("1", "2"))
    path.write_bytes(bz2.compress(b"__label__a good\n__label__a __label__b both\n"))
    with pytest.raises(UserError, match="row 2: 1 values"):
        load(path)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_delimiters_and_unicode_are_found_out(tmp_path, encoding, delimiter, caplog):
    path = tmp_path / "reviews.csv"
    caplog.set_level("INFO", "sentiment")
    path.write_bytes(table([("text", "label"), *ROWS], delimiter, "\r\n").encode(encoding))
    assert load(path).texts == [text for text, _ in ROWS]
    name = "tab" if delimiter == "\t" else repr(delimiter)
    assert any(f"delimiter {name}" in line for line in caplog.messages) == (delimiter != ",")


def test_what_spreadsheets_add_is_harmless(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("sep=;\n;Text;Label;;\n0;a;neg;;\n1;b;pos;;;;\n")
    assert load(path).texts == ["a", "b"]


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        (["review", "sentiment"], ["review", "sentiment"]),
        (["Unnamed: 0", "Review Text", "Rating", "Title"], ["Review Text", "Rating"]),
        (["overall", "reviewText", "summary"], ["reviewText", "overall"]),
        (["title", "review", "text", "stars", "label"], ["text", "label"]),
        (["Text", "text_clean", "Score"], ["Text", "Score"]),
        (["review", "comment", "label"], "'review' and 'comment' may hold the texts; columns: "),
        (["text", "rating", "class"], "'rating' and 'class' may hold the labels; columns: "),
        (["a b c", "label"], "no column has a usual name for texts"),
    ],
)
def test_well_known_columns(tmp_path, columns, expected):
    path = tmp_path / "a.csv"
    rows = [[f"{name} {n % 2 if name in LABELS else n}" for name in columns] for n in range(6)]
    path.write_text(table([columns, *rows]))
    if isinstance(expected, str):
        with pytest.raises(UserError, match=re.escape(expected)):
            load(path)
        return
    read = read_split(DataConfig(path=str(path)), "all")
    assert read.texts[1] == f"{expected[0]} 1"
    assert read.labels[1] == f"{expected[1]} 1"


LABELS = ("sentiment", "Rating", "overall", "label", "Score", "rating", "class", "stars")


def test_several_text_columns_are_joined(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("title,body,label\nT,B,neg\n,B,pos\n")
    assert load(path, text_column=("title", "body")).texts == ["T\n\nB", "B"]


def settings_in(message: str) -> list[str]:
    """The options that a message names, with their values, as a shell would read them."""
    words = shlex.split(re.sub(r"^.*?(?=--data\.)", "", message).replace("(", " ("))
    options = []
    for name, value in itertools.pairwise(words):
        if name.startswith("--data."):
            options.append(f"{name}={value.rstrip(',;:')}")
    return options


RUSSIAN = [
    ("Отличный фильм, всем советую", "хорошо"),
    ("Скучно и глупо, жаль времени", "плохо"),
] * 9
TWEETS = [(str(n % 2 * 4), str(n), f"It's a café {n}, loved it") for n in range(20)]
SPAM = [("ham" if n % 2 else "spam", f"Call now for £{n}", "", "") for n in range(20)]
WIZ = "".join(f'"{n}_8"\t{n % 2}\t"With \\"The Wiz\\", a {n}"\n' for n in range(20))
MENDS = {
    "cp1252.csv": table([("text", "label"), ("café “x”", "neg"), ("b", "pos")]).encode("cp1252"),
    "russian.csv": table([("отзыв", "оценка"), *RUSSIAN], ";").encode("cp1251"),
    "spam.csv": table([("v1", "v2", "", ""), *SPAM]).encode("cp1252"),
    "tweets.csv": table(TWEETS).encode("cp1252"),
    "headless.tsv": table([(f"text {n}", "np"[n % 2]) for n in range(9)], "\t").encode(),
    "table.txt": table([(f"text {n}", n % 2) for n in range(9)], "\t").encode(),
    "ambiguous.csv": b"review,comment,label\na,b c,0\nd,e,1\n",
    "backslash.csv": ("text,label\n" + '"a \\"b\\", c",neg\n"d",pos\n').encode(),
    "wiz.tsv": f"id\tsentiment\treview\n{WIZ}".encode(),
    # Sorted by label, and users repeat too.
    "sorted.csv": table([(n // 100 * 4, 7000 + n, "NO_QUERY", f"user{n % 9}", f"It's day {n} of it")
                         for n in range(200)]).encode(),
    "dump.csv": "".join(f'{n},"a \\"b\\", {n}\\\n c",{["no", "yes"][n % 2]}\n'
                        for n in range(30)).encode(),
    "spaced.txt": ('"text" "label"\n' + "".join(f'"{n}" "a {n}" "{n % 2}"\n'
                                                for n in range(9))).encode(),
    "nested.jsonl": "".join(json.dumps({"id": n, "review": {"title": "T", "body": f"so {n} it"},
        "rating": {"value": n % 5, "max": 5}}) + "\n" for n in range(30)).encode(),
    "label-studio.json": json.dumps([{"id": n, "file_upload": "a.csv", "data": {"text": f"so {n}"},
        "annotations": [{"result": [{"value": {"choices": ["np"[n % 2]]}, "type": "choices"}]}]
        * (n > 2)} for n in range(30)]).encode(),
    "open.tsv": b'text\tlabel\n"a\tneg\nb\tpos\n',
    "swallow.tsv": b'text\tlabel\nx\tpos\n"a\tneg\nb\tpos\nc\tneg\nd\tpos\ne 5"\tneg\n',
}  # fmt: skip


SETTINGS = {
    "sorted.csv": ["column_names=[label,column2,column3,column4,text]"],
    "dump.csv": ["quoting=backslash", "column_names=[column1,text,label]"],
    "russian.csv": ["text_column=отзыв", "label_column=оценка", "encoding=cp1251"],
    "spaced.txt": ["delimiter= "],
    "nested.jsonl": ["label_column=rating.value"],
    "label-studio.json": [
        "text_column=data.text", "label_column=annotations.0.result.0.value.choices"
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", MENDS)
def test_mends_work_when_followed(tmp_path, name):
    path, options, num_mends = tmp_path / name, [], 0
    path.write_bytes(MENDS[name])
    while True:
        data = parse_training([f"--data.path={path}", *options], "train").config.data
        try:
            reviews = load_split(data, "all")
            break
        except UserError as refusal:
            message = str(refusal)
        assert message.startswith(str(path)) and "\n" not in message
        named = settings_in(message.removeprefix(str(path)))
        assert named and not set(named) & set(options), message
        options += named
        num_mends += 1
    assert num_mends == 1 + (name == "dump.csv")  # whose columns show once its quotes are read
    if name in SETTINGS:
        assert [option.removeprefix("--data.") for option in options] == SETTINGS[name]
    text = MENDS[name].decode(data.encoding or "utf-8")
    assert len(reviews) >= 2 and all(text.count(review.split()[0]) for review in reviews.texts)


@pytest.mark.parametrize("delimiter", [";", ",", "\t", " "])
@pytest.mark.parametrize("numbered", [True, False])
def test_row_names_of_r_are_ignored(tmp_path, caplog, delimiter, numbered):
    rows = [[str(n) if numbered else f"r{n}", f"a {n}", "np"[n % 2]] for n in range(9)]
    quoted = [delimiter.join(f'"{cell}"' for cell in row) for row in [["text", "label"], *rows]]
    (tmp_path / "a.csv").write_text("\n".join(quoted))
    caplog.set_level("INFO", "sentiment")
    reviews = load(tmp_path / "a.csv", delimiter=delimiter if delimiter == " " else None)
    assert reviews.texts == [f"a {n}" for n in range(9)]
    assert "row names without a header are ignored" in caplog.text


def test_rows_with_an_unquoted_delimiter_are_not_taken_for_row_names(tmp_path):
    for rows in ("so, fine,pos\nno, bad,neg\n", '"a b",pos,\n"c d",neg,\n'):
        (tmp_path / "a.csv").write_text("text,label\n" + rows)
        if rows.endswith(",\n"):  # filled up
            assert load(tmp_path / "a.csv").texts == ["a b", "c d"]
        else:
            with pytest.raises(UserError, match="row 1: 3 values, but the header names 2"):
                load(tmp_path / "a.csv")


def test_nulls_of_mysql_are_missing_whatever_the_quoting(tmp_path):
    for quoting in ("double", "backslash", "none"):
        (tmp_path / "a.csv").write_text("text,label\na,\\N\nb,x\n\\N,x\nc,N\n")
        reviews = load(tmp_path / "a.csv", quoting=quoting, missing="skip")
        assert (reviews.texts, reviews.class_names) == (["b", "c"], ("N", "x"))


def test_a_label_may_be_a_list_of_one(tmp_path):
    rows = [
        {"text": "a", "label": ["x"]},
        {"text": "b", "label": ["y"]},
        {"text": "c", "label": []},
    ]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert load(tmp_path / "a.jsonl").texts == ["a", "b"]


def test_what_was_found_out_is_said_once_for_all_parts(tmp_path, caplog):
    for part in range(3):
        path = tmp_path / "train" / f"part-{part}.csv"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"body;label\na {part};x\nb {part};y\n", encoding="utf-16")
    caplog.set_level("INFO", "sentiment")
    load_split(DataConfig(path=str(tmp_path)), "train")
    assert caplog.text.count("texts from column 'body', encoding UTF-16, delimiter ';'") == 1


@pytest.mark.parametrize(
    ("name", "data", "options", "message"),
    [
        ("a.xlsx", b"PK", {}, "save it as CSV UTF-8"),
        ("a.pkl", b"x", {}, "pickles may run code when they are read"),
        ("a.tar.gz", b"x", {}, "unpack it and give the folder"),
        ("a.parquet.gz", b"x", {}, r"\.parquet files are compressed already: unpack it"),
        ("a.csv.gz", b"x", {}, "is damaged"),
        ("a.csv.bz2", b"x", {}, "is damaged"),
        ("a.csv.xz", b"x", {}, "is damaged"),
        ("a.zip", b"x", {}, "is damaged"),
        ("a.arrow", b"ARROW1 but not really", {}, "not a complete Arrow file"),
        ("a.json", b'{"text": {"0": "a"}, "label": {"0": 1}}', {}, r"orient='records'"),
        ("a.json", b'{"count": 1, "rows": [{"text": "a", "label": 1}]}', {}, "orient='records'"),
        ("a.json", b'[["a", 1], ["b", 0]]', {}, "is an array of arrays, .* orient='records'"),
        ("a.json", b'[{"text": "a"},\n {"text": ]', {}, "row 2: Expecting value"),
        ("a.txt", b"just\nlines\n", {}, "begin each line with __label__NAME"),
        ("a.csv", b"text^label\na^b\n", {}, r"name the character .* by --data\.delimiter"),
        ("a.csv", b"1,so it is,7\n2,and on,8\n", {}, r"like data .*'\[column1,text,column3\]'"),
        ("a.csv", b"text,label\na,b\n", {"column_names": ("text", "label")}, "leave .* out"),
        ("a.csv", b"a,b\n", {"column_names": ("text",)}, "names 1 columns, but the first"),
        ("a.csv", b"text,label\na,b\n", {"text_column": "x"}, "no column 'x'; columns: 'text'"),
    ],
)  # fmt: skip
def test_files_that_cannot_be_read(tmp_path, name, data, options, message):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(UserError, match=message) as refusal:
        load(tmp_path / name, **options)
    assert "\n" not in str(refusal.value)


def test_an_archive_of_several_files_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name in ("train.csv", "test.csv"):
            archive.writestr(name, "text,label\n")
    with pytest.raises(UserError, match="holds train.csv, test.csv, but must hold one file"):
        load(tmp_path / "a.zip")


@pytest.mark.parametrize("packer", [".gz", ".bz2", ".xz", ".zip"])
def test_bombs_of_every_kind_are_refused(tmp_path, packer, monkeypatch):
    monkeypatch.setattr("sentiment.runtime.files._MIN_LIMIT", 10_000)
    data, path = b"text,label\n" + b"x,neg\n" * 100_000, tmp_path / f"a.csv{packer}"
    if packer == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("a.csv", data)
    else:
        path.write_bytes(PACKERS[packer](data))
    with pytest.raises(UserError, match="unpacks to more than"):
        load(path)


def test_arrow_with_absurd_offsets_is_refused(tmp_path):
    data = bytearray(encode(["a" * 40, "b" * 40], ["n", "p"], ".arrow"))
    start = data.rindex((40).to_bytes(4, "little") + (80).to_bytes(4, "little"))
    data[start : start + 8] = (2**30).to_bytes(4, "little") * 2
    (tmp_path / "a.arrow").write_bytes(bytes(data))
    with pytest.raises(UserError, match="not a complete Arrow file"):
        load(tmp_path / "a.arrow")


@pytest.mark.parametrize("line", ["x" * 200_000, "one\rtwo"])
def test_lines_within_a_value_may_be_of_any_kind(tmp_path, line):
    text = f"a\n{line}\nb\nc"
    with (tmp_path / "a.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("text", "label"), (text, "pos"), ("bad", "neg")])
    assert load(tmp_path / "a.csv").texts == [text, "bad"]
