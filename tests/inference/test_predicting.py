"""Predicting files: rows carried unchanged, bad rows told, memory bounded, kills survived."""

import csv
import gzip
import hashlib
import itertools
import json
import os
import signal
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sentiment.config.config import DataConfig
from sentiment.data import batches
from sentiment.data.batches import TextEncoder, windows
from sentiment.data.tokenizer import Tokenizer
from sentiment.data.vocabulary import build_vocabulary, count_tokens
from sentiment.inference.batch_predict import check_output, output_lock, predict_to_file
from sentiment.inference.outputs import AddedColumns
from sentiment.inference.predictor import Prediction
from sentiment.readers import arrow_formats, text_formats
from sentiment.readers.columns import FileOptions
from sentiment.readers.formats import open_source

TEXTS = [
    "plain", "", "comma, \"quote\" 'n' tab\t", "two\nlines", "two\r\nlines", "lone\rreturn",
    "\u2028 \x85 é 🎬", " spaces ", '"', "NULL", "3", "=1+1", " ", "NA",
    "\\N", "a NA",
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


def write(path, texts):
    """The texts with an ``id`` before and an ``other`` column behind."""
    rows = [[str(n), text, f"x{n}"] for n, text in enumerate(texts)]
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


ADDED = ["predicted", "probability", "probability_a", "probability_b", "was_cut"]


def read(path):
    """Rows as dictionaries of what is in a file."""
    if path.suffix == ".parquet":
        return pq.read_table(path).to_pylist()
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_bytes().decode().split("\n") if line]
    with path.open(encoding="utf-8", errors="replace", newline="") as file:
        delimiter = "\t" if path.suffix == ".tsv" else ","
        return list(csv.DictReader(file, delimiter=delimiter, strict=True))


FORMATS = [".csv", ".tsv", ".jsonl", ".parquet"]


@pytest.mark.parametrize(("ours", "theirs"), list(itertools.product(FORMATS, FORMATS)))
def test_rows_keep_their_order_and_their_values(tmp_path, ours, theirs):
    path, output = write(tmp_path / f"in{ours}", TEXTS), tmp_path / f"out{theirs}"
    watcher = predict(path, output)
    rows = read(output)
    assert [row["text"] for row in rows] == TEXTS
    assert [int(row["id"]) for row in rows] == list(range(len(TEXTS)))
    assert list(rows[0]) == ["id", "text", "other", *ADDED]
    for row, text in zip(rows, TEXTS, strict=True):
        if text in ("", " ", "NULL", "NA", "\\N"):  # no text
            assert all(row[name] in (None, "") for name in ADDED)
            continue
        assert float(row["probability_a"]) == pytest.approx(share(text), abs=1e-6)
        assert row["predicted"] == "ab"[share(text) < 0.5]
        assert str(row["was_cut"]).lower() == str(len(text) > 9).lower()
    assert watcher.n == watcher.total == len(TEXTS)
    assert {each.name for each in tmp_path.iterdir()} == {path.name, output.name}


def test_json_lines_are_carried_to_the_character(tmp_path):
    path, output = write(tmp_path / "in.jsonl", TEXTS), tmp_path / "out.jsonl"
    predict(path, output)
    pairs = zip(path.read_text().split("\n"), output.read_text().split("\n"), strict=False)
    for before, after in pairs:
        assert after.startswith(before[:-1] + ', "predicted": ')


def test_parquet_keeps_its_types_and_metadata(tmp_path):
    path, output = write(tmp_path / "in.parquet", TEXTS), tmp_path / "out.parquet"
    predict(path, output)
    before, after = pq.read_schema(path), pq.read_schema(output)
    assert [after.field(n) for n in range(3)] == [before.field(n) for n in range(3)]
    assert after.metadata[b"a"] == b"b"
    assert after.field("was_cut").type == pa.bool_()
    assert pq.ParquetFile(output).num_row_groups == 4  # of a window each


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=8), min_size=1, max_size=12))
def test_any_text_survives_csv(tmp_path_factory, texts):
    folder = tmp_path_factory.mktemp("csv")
    texts = [text.replace("\0", "") for text in texts]  # which Python 3.10 cannot read
    predict(write(folder / "in.csv", texts), folder / "out.csv")
    assert [row["text"] for row in read(folder / "out.csv")] == texts


def test_packed_files_and_lines_of_text(tmp_path):
    plain = write(tmp_path / "in.csv", TEXTS)
    (tmp_path / "in.csv.gz").write_bytes(gzip.compress(plain.read_bytes()))
    predict(plain, tmp_path / "plain.csv")
    predict(tmp_path / "in.csv.gz", tmp_path / "packed.csv")
    assert (tmp_path / "plain.csv").read_bytes() == (tmp_path / "packed.csv").read_bytes()
    (tmp_path / "in.txt").write_bytes("one\r\n\nthree \u2028 é".encode())
    predict(tmp_path / "in.txt", tmp_path / "lines.jsonl")
    assert [row["text"] for row in read(tmp_path / "lines.jsonl")] == ["one", "", "three \u2028 é"]


def test_windows_end_early_where_texts_are_long(tmp_path, monkeypatch):
    for module in (arrow_formats, text_formats):
        monkeypatch.setattr(module, "MAX_BLOCK_CHARACTERS", 100)
    for name in ("in.csv", "in.jsonl"):
        source = open_source(write(tmp_path / name, ["x" * 60] * 6))
        assert [len(block) for block in source.blocks(4)] == [2, 2, 2]
    assert [len(each) for each in windows(["x"] * 7, 3)] == [3, 3, 1]
    assert [len(each) for each in windows(["x" * 30_000_000] * 3, 3)] == [2, 1]


BAD = {
    "in.csv": (b'id,text\n1,good\n2,a,b\n3\n4,caf\xe9\n\n5,"fine"\n', {
        2: "3 values, but the header names 2 columns", 3: "1 values", 4: "not UTF-8"}),
    "in.jsonl": (
        b'{"text": "good", "id": 1}\n{"text": "x"\n\n[1]\n{"text": null}\n{"id": 2}\n'
        b'{"text": 3}\n{"text": "\xe9"}\n{"text": "\\ud83d"}\n' + b"[" * 100_000
        + b'\n{"text": "fine"}', {
            2: "delimiter", 3: "a JSON list", 6: "text 3, but must be",
            7: "not UTF-8", 8: "a lone surrogate", 9: "nested too deeply"}),
    "in.txt": (b"good\ncaf\xe9\nfine\n", {2: "not UTF-8"}),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("ending", FORMATS)
def test_bad_rows_are_told_and_keep_their_place(tmp_path, name, ending):
    content, problems = BAD[name]
    path, output = tmp_path / name, tmp_path / f"out{ending}"
    path.write_bytes(content)
    watcher = predict(path, output, skip=True, window=2)
    assert len(watcher.messages) == len(problems)
    for message, (row, problem) in zip(watcher.messages, problems.items(), strict=True):
        assert message.startswith(f"{path}, row {row}: ") and problem in message
    rows = read(output)
    num_good = len(rows) - len(problems) - 2 * (name == "in.jsonl")  # without a text
    assert [row["predicted"] not in (None, "") for row in rows].count(True) == num_good
    for row in problems:
        assert all(rows[row - 1][name] in (None, "") for name in ADDED)
    assert rows[0]["text"] == "good" and rows[-1]["text"] == "fine"


@pytest.mark.parametrize("name", BAD)
def test_a_bad_row_ends_everything_unless_told_otherwise(tmp_path, name):
    content, problems = BAD[name]
    (tmp_path / name).write_bytes(content)
    row, problem = next(iter(problems.items()))
    with pytest.raises(ValueError, match=rf"row {row}: .*{problem}.*--on-error skip") as stopped:
        predict(tmp_path / name, tmp_path / "out.csv")
    assert "\n" not in str(stopped.value)
    assert {each.name for each in tmp_path.iterdir()} == {name}, "no row was done: nothing is left"


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_an_error_closes_the_output(tmp_path):
    content, _ = BAD["in.csv"]
    (tmp_path / "in.csv").write_bytes(content)
    with pytest.raises(ValueError, match="--on-error skip"):  # whose frames hold the output
        predict(tmp_path / "in.csv", tmp_path / "out.csv", window=1)
    files = [f"/proc/self/fd/{name}" for name in os.listdir("/proc/self/fd")]
    is_output = [os.path.exists(file) and "out.csv" in os.readlink(file) for file in files]
    assert not any(is_output)


def test_csv_carries_bytes_that_are_not_utf8(tmp_path):
    (tmp_path / "in.csv").write_bytes(BAD["in.csv"][0])
    predict(tmp_path / "in.csv", tmp_path / "out.csv", skip=True)
    assert b"4,caf\xe9,,,,,\n" in (tmp_path / "out.csv").read_bytes()


def test_a_row_with_too_many_values_shifts_none_into_another_column(tmp_path):
    (tmp_path / "in.csv").write_bytes(b"id,text,by\n1,good,ann\n2,long, and bad,bob\n3,fine\n")
    predict(tmp_path / "in.csv", tmp_path / "out.csv", skip=True)
    rows = [(row["id"], row["text"], row["by"]) for row in read(tmp_path / "out.csv")]
    assert rows == [("1", "good", "ann"), ("", "", ""), ("3", "fine", "")]


def test_nulls_and_wrong_bytes_in_parquet(tmp_path):
    wrong = pa.array([b"good", None, b"\xff", b"fine"], pa.binary()).view(pa.string())
    pq.write_table(pa.table({"text": wrong}), tmp_path / "in.parquet")
    watcher = predict(tmp_path / "in.parquet", tmp_path / "out.parquet", skip=True)
    messages = [each.partition(", ")[2] for each in watcher.messages]
    assert messages == ["row 3: the text is not UTF-8"]
    predicted = pq.read_table(tmp_path / "out.parquet", columns=["predicted"])["predicted"]
    assert [value is None for value in predicted.to_pylist()] == [False, True, True, False]


def test_a_broken_quote_is_an_error_whatever_is_to_be_passed_over(tmp_path):
    path = tmp_path / "in.csv"
    for content, line in (('text\n"a\nb"\n"never closed\n', 4), ('text\n"a"b\n', 2)):
        path.write_text(content)
        with pytest.raises(ValueError, match=f"begins in line {line}: .*quote a value"):
            predict(path, tmp_path / "out.csv", skip=True)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("in.csv", b"T,label\na,b\n", "no column 'text'; columns: 'T', 'label': .*--text-col"),
        ("in.csv", b"text,predicted\nx,y\n", "a column 'predicted' already: .*--prefix"),
        ("in.jsonl", b'{"review": "x"}\n', "no column 'text'; columns: 'review'"),
        ("in.jsonl", b'{"text": "x"}\n{"text": "x", "was_cut": 1}\n', "'was_cut' already"),
    ],
)  # fmt: skip
def test_files_that_cannot_be_predicted_say_why(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        predict(tmp_path / name, tmp_path / "out.jsonl")
    assert not (tmp_path / "out.jsonl").exists()


def test_a_prefix_makes_room(tmp_path):
    first = write(tmp_path / "in.csv", TEXTS)
    predict(first, tmp_path / "one.csv")
    predict(tmp_path / "one.csv", tmp_path / "two.csv", prefix="second_")
    assert list(read(tmp_path / "two.csv")[0])[-1] == "second_was_cut"


@pytest.mark.parametrize("ending", FORMATS)
def test_no_rows_give_no_rows(tmp_path, ending):
    (tmp_path / "in.csv").write_text("id,text\n")
    predict(tmp_path / "in.csv", tmp_path / f"out{ending}")
    assert read(tmp_path / f"out{ending}") == []


def test_rows_of_json_that_differ_do_not_fit_into_columns(tmp_path):
    (tmp_path / "in.jsonl").write_text('{"text": "x"}\n' * 100 + '{"text": "y", "more": 1}\n')
    with pytest.raises(ValueError, match="row 101: 'more' is not among .*--output NAME.jsonl"):
        predict(tmp_path / "in.jsonl", tmp_path / "out.csv")
    predict(tmp_path / "in.jsonl", tmp_path / "out.jsonl")


def test_encoding_is_the_same_and_bounded_however_much_is_forgotten(monkeypatch):
    texts = [f"film number{n} isn't plot{n % 7}, " * (n % 5) for n in range(60)]
    vocabulary = build_vocabulary(count_tokens(Tokenizer()(texts)), min_frequency=2)
    data = DataConfig(max_length=9)
    whole = TextEncoder(vocabulary, data)(texts)
    many = batches._MAX_PIECES
    for limits in ({}, {"_MAX_PIECES": 12}, {"_MAX_PIECES": many, "_MAX_CHARACTERS": 80}):
        for name, limit in limits.items():
            monkeypatch.setattr(batches, name, limit)
        parts = TextEncoder(vocabulary, data)
        for start in range(0, 60, 4):
            corpus = parts(texts[start : start + 4])
            for number in range(4):
                one, other = (
                    corpus.batch(torch.tensor([number])),
                    whole.batch(torch.tensor([start + number])),
                )
                assert one.tokens.tolist() == other.tokens.tolist()
                assert one.lengths.tolist() == other.lengths.tolist()
            if limits:
                assert len(corpus.ids) < 12 + 4 * 30


def killed_at(moment, action):
    """Run in a process of its own that is killed at its n-th durable step; whether it was."""
    child = os.fork()
    if child == 0:
        steps = itertools.count()
        for name in ("fsync", "replace", "unlink"):
            setattr(os, name, _or_die(getattr(os, name), moment, steps))
        try:
            action()
            os._exit(0)
        except BaseException as error:
            print(repr(error), file=sys.stderr)
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert status in (0, signal.SIGKILL), status
    return status != 0


def _or_die(call, moment, steps):
    def step(*arguments, **options):
        if next(steps) == moment:
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*arguments, **options)

    return step


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("ending", [".csv", ".parquet"])
def test_killed_at_any_moment_and_resumed_is_as_if_never_stopped(tmp_path, ending):
    path = write(tmp_path / "in.csv", TEXTS)
    expected = tmp_path / f"expected{ending}"
    predict(path, expected)
    output = tmp_path / f"out{ending}"
    num_killed = 0
    for moment in itertools.count():
        was_killed = killed_at(moment, lambda: predict(path, output, resumes=True))
        if not was_killed:
            break
        num_killed += 1
        progress = tmp_path / f"out{ending}.partial.json"
        if moment % 2 and progress.exists():  # once more
            killed_at(moment // 2, lambda: predict(path, output, resumes=True))
        if progress.exists() or not output.exists():
            predict(path, output, resumes=True)
        assert output.read_bytes() == expected.read_bytes(), f"killed at step {moment}"
        assert not list(tmp_path.glob("*.partial")) + list(tmp_path.glob("*.json"))
        output.unlink()
    assert num_killed > 12


def begin_and_kill(tmp_path):
    path, output = write(tmp_path / "in.csv", TEXTS), tmp_path / "out.csv"
    assert killed_at(12, lambda: predict(path, output))
    assert (tmp_path / "out.csv.partial").exists() and not output.exists()
    return path, output


def test_an_unfinished_output_is_not_lost_unasked(tmp_path):
    path, output = begin_and_kill(tmp_path)
    with pytest.raises(FileExistsError, match="out.csv.partial exists already.*--resume, or start"):
        predict(path, output)
    progress = json.loads((tmp_path / "out.csv.partial.json").read_text())
    assert progress["num_rows"] == 10


def test_what_was_begun_otherwise_is_not_continued(tmp_path):
    path, output = begin_and_kill(tmp_path)
    with pytest.raises(ValueError, match="cannot resume: --window was 5 and is now 4"):
        predict(path, output, window=4, resumes=True)
    (tmp_path / "out.csv.partial.json").write_text("{")
    with pytest.raises(ValueError, match="out.csv.partial.json is damaged .*--overwrite"):
        predict(path, output, resumes=True)


def test_outputs_that_cannot_be_written_are_refused_before_anything_is_read(tmp_path):
    path, output = write(tmp_path / "in.csv", TEXTS), tmp_path / "out.csv"
    output.write_text("mine")

    def check(output, **options):
        check_output(output, path, **{"resumes": False, "overwrites": False, **options})

    for options in ({}, {"resumes": True}):
        with pytest.raises(FileExistsError, match="out.csv exists already: .*--overwrite"):
            check(output, **options)
    check(output, overwrites=True)
    with pytest.raises(ValueError, match="in.csv is the input"):
        check(path, overwrites=True)
    with pytest.raises(ValueError, match="must end in .csv, .tsv"):
        check(tmp_path / "out.xlsx")
    with pytest.raises(FileNotFoundError, match="no folder .*nowhere"):
        check(tmp_path / "nowhere" / "out.csv")
    assert output.read_text() == "mine"


def test_two_do_not_write_one_output(tmp_path):
    with (
        output_lock(tmp_path / "out.csv"),
        pytest.raises(FileExistsError, match="another process is writing"),
        output_lock(tmp_path / "out.csv"),
    ):
        pass
    assert list(tmp_path.iterdir()) == []
