"""Reviews from files, folders, split columns and the hub, and what is said of broken ones."""

import os
import shutil
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers.review_files import load, refusal, write, write_text_folder

from sentiment.config.config import DataConfig
from sentiment.data.reviews import load_split, load_training_splits
from sentiment.readers import layouts
from sentiment.readers.sources import choose_reviews, has_split, is_undivided
from sentiment.runtime.errors import UserError


@pytest.mark.parametrize(
    "kind", [pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())]
)
def test_string_types_of_parquet(tmp_path, kind):
    labels = pa.array(["neg", "pos", "pos", "neg"], kind)
    pq.write_table(pa.table({"text": list("abcd"), "label": labels}), tmp_path / "test.parquet")
    assert load(tmp_path).labels.tolist() == [0, 1, 1, 0]


def test_shards_are_one_split(tmp_path):
    write(tmp_path / "test-00001-of-00002.parquet", {"text": ["c"], "label": [1]})
    write(tmp_path / "test-00000-of-00002.parquet", {"text": ["a", "b"], "label": [0, 1]})
    assert load(tmp_path).texts == ["a", "b", "c"]
    write(tmp_path / "test-00001-of-00002.parquet", {"text": ["c"], "label": [2]})
    expected = "test-00001-of-00002.parquet, row 1: label 2, but the classes are 0 to 1 (a, b)"
    assert refusal(ValueError, tmp_path, class_names=("a", "b")).startswith(expected)


def test_text_folders_by_class(tmp_path):
    texts = {
        "train/pos/10_9.txt": "ten",
        "train/pos/2_7.txt": "two",
        "train/neg/0_1.txt": "zero é",
        "train/unsup/1_0.txt": "one",
        "train/unsup/0_0.txt": "nought",
        "train/urls_pos.txt": "not a review",
        "train/labeledBow.feat": "not a review",
        "test/neg/0_2.txt": "bad",
        "test/so-so/0_5.txt": "so-so",
    }
    write_text_folder(tmp_path, texts)
    unsupervised = load(tmp_path, "unsupervised")
    assert unsupervised.texts == ["nought", "one"]
    assert unsupervised.labels.tolist() == [-1, -1]
    write_text_folder(tmp_path, {"validation/pos/0_10.txt": "good"})
    train, validation = load_training_splits(DataConfig(path=str(tmp_path)))
    assert train.texts == ["zero é", "two", "ten"]
    assert train.labels.tolist() == [0, 1, 1]
    assert train.class_names == validation.class_names == ("neg", "pos")
    assert validation.labels.tolist() == [1]
    assert refusal(ValueError, tmp_path, class_names=("neg", "pos")).startswith(
        f"test{os.sep}so-so{os.sep}0_5.txt: label 'so-so' is not one of the classes neg, pos: "
    )


def test_unsupervised_needs_no_label(tmp_path):
    write(tmp_path / "unsupervised.csv", {"text": ["a", "b"]})
    reviews = load(tmp_path, "unsupervised")
    assert (reviews.texts, reviews.labels.tolist()) == (["a", "b"], [-1, -1])
    assert reviews.class_names == ()
    write(tmp_path / "unsupervised.csv", {"text": ["a"], "label": ["?"]})
    assert load(tmp_path, "unsupervised", ("neg", "pos")).class_names == ("neg", "pos")


def test_class_names_decide_what_labels_mean(tmp_path):
    write(tmp_path / "test.csv", {"text": ["a", "b"], "label": ["pos ", "pos"]})
    assert load(tmp_path, class_names=("pos", "neg")).labels.tolist() == [0, 0]
    assert load(tmp_path, "test", ("neg", "pos")).labels.tolist() == [1, 1]
    write(tmp_path / "test.csv", {"text": ["a", "b"], "label": [0, 1]})
    assert load(tmp_path, class_names=("neg", "pos")).labels.tolist() == [0, 1]
    write(tmp_path / "test.csv", {"text": ["a", "b"], "label": [1, 3]})
    assert load(tmp_path, class_names=("1", "2", "3")).labels.tolist() == [0, 2]


def test_validation_takes_the_classes_of_train(tmp_path):
    write(tmp_path / "train.csv", {"text": ["a", "b", "c"], "label": ["bad", "good", "so-so"]})
    write(tmp_path / "validation.csv", {"text": ["d"], "label": ["so-so"]})
    _, validation = load_training_splits(DataConfig(path=str(tmp_path)))
    assert validation.labels.tolist() == load(tmp_path, "validation").labels.tolist() == [2]
    write(tmp_path / "validation.csv", {"text": ["d", "e"], "label": ["good", "Goood"]})
    expected = (
        "validation.csv, row 2: label 'Goood' is not one of the classes bad, good, so-so "
        "(did you mean good?)"
    )
    assert refusal(ValueError, tmp_path, "validation").startswith(expected)


FILL_IN = "fill them in, or leave them out with --data.missing skip"
NEEDED = "no column has a usual name for"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("test.csv", "", " is empty: it needs a header"),
        ("test.csv", "text,label\n", ": no rows, where reviews were expected"),
        ("test.csv", "review,label,review\na,b,c\n", ": column 'review' occurs twice: rename one"),
        ("test.tsv", "a,b\nc,d\n", f": {NEEDED} texts (text, review, reviews, sentence, …), "),
        ("test.csv", "text,label\na,neg\nb, c,pos\n", ", row 2: 3 values, but the header names 2"),
        ("test.csv", 'text,label\n"a,neg\n"b,pos\n', ", in the row that begins in line 2: ','"),
        ("test.csv", 'text,label\n"a,neg\nb,c,pos\n', ", in the row that begins in line 2: unex"),
        ("test.csv", "text,label\na,neg\n ,pos\n", f", row 2: no text in 1 of 2 rows: {FILL_IN}"),
        ("test.csv", "text,label\na,\nb, \n", ": no row has a label, but there must be two "),
        ("test.csv", "text,label\na,-1\nb,-1\n", ": no row has a label, but there must be two "),
        ("test.csv", "text,label\na,pos\nb,pos\n", ": all labels are 'pos', but there must be two"),
        ("test.csv", "text,label\na,1\nb,1\n", ": all labels are '1', but there must be two cla"),
        ("test.csv", "text,label\na,neg\nb,\xe9\n", ", row 2: not UTF-8, but probably cp1252: set"),
        ("test.jsonl", '{"text": "a", "label": 0}\n{"text": "b"\n', ", row 2: Expecting ','"),
        ("test.jsonl", "[]\n", ": no rows, where reviews were expected"),
        ("test.jsonl", "[[]]\n", " is an array of arrays, but must be an array of objects or"),
        ("test.jsonl", '{"text": "a", "sterne": 0}\n', f": {NEEDED} labels (label, labels, "),
        ("test.jsonl", '{"text": ["a"], "label": 0}\n', ", row 1: text ['a'], but must be a"),
        ("test.jsonl", '{"text": "a", "label": [0, 1]}\n', ", row 1: label [0, 1], but must be"),
        ("test.jsonl", '{"text": "a\\ud83d", "label": 0}\n', ", row 1: character 2 of the text "),
        ("test.parquet", "text,label\n", ": not a complete Parquet file (Parquet magic bytes not"),
    ],
)
def test_broken_files(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content.encode("latin-1"))
    assert refusal(ValueError, tmp_path).startswith(name + message)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"satz": ["a b", "c d"], "label": [0, 1]}, "set --data.text_column satz"),
        ({"text": ["a", None], "label": [0, 1]}, f"row 2: no text in 1 of 2 rows: {FILL_IN}"),
        ({"text": [b"a"], "label": [0]}, "column 'text' holds binary, but must hold strings"),
        (
            {"text": pa.array([b"a", b"\xff"]).view(pa.string()), "label": [0, 1]},
            "row 2: the text is not UTF-8",
        ),
        ({"text": pa.array([], pa.string()), "label": pa.array([], pa.int64())}, "no rows, where"),
    ],
)
def test_broken_parquet_tables(tmp_path, columns, message):
    pq.write_table(pa.table(columns), tmp_path / "test.parquet")
    assert message in refusal(ValueError, tmp_path)


def test_folder_without_text_files(tmp_path):
    write_text_folder(tmp_path, {"test/pos/0_9.md": "a"})
    expected = "test: no .txt files, where reviews were expected"
    assert refusal(ValueError, tmp_path).startswith(expected)


def test_training_on_one_class(tmp_path):
    write(tmp_path / "train.csv", {"text": ["a", "b"], "label": ["pos", "pos"]})
    assert refusal(ValueError, tmp_path, "train", class_names=("neg", "pos")) == (
        "train.csv: all 2 reviews are of class 'pos': training needs two classes"
    )


def test_missing_split(tmp_path):
    write(tmp_path / "train.csv", {"text": ["a", "b"], "label": [0, 1]})
    write_text_folder(tmp_path, {"docs/readme.txt": "read me"})
    assert refusal(FileNotFoundError, tmp_path) == (
        "FOLDER has no test split; found: docs/, train.csv: a split is a file named "
        "test.csv|.tsv|.tab|.json|.jsonl|.ndjson|.txt|.parquet|.arrow|.feather, or a folder test "
        "with a folder of text files for each class; to evaluate without one, give other reviews "
        "with --data.path, or choose the held-out ones with --split validation"
    )
    with pytest.raises(FileNotFoundError, match="nowhere, which does not exist: give a file or"):
        load_training_splits(DataConfig(path=str(tmp_path / "nowhere")))


@pytest.mark.parametrize("text", ["", " \n", "NA"])
def test_a_text_file_without_a_text_is_missing_too(text, tmp_path):
    write_text_folder(tmp_path, {"test/neg/0_1.txt": "a", "test/pos/0_9.txt": text})
    assert f"no text in 1 of 2 rows: {FILL_IN}" in refusal(ValueError, tmp_path)


def test_split_twice(tmp_path):
    for suffix in ("csv", "jsonl"):
        write(tmp_path / f"test.{suffix}", {"text": ["a", "b"], "label": [0, 1]})
    write_text_folder(tmp_path, {"test/pos/0_9.txt": "a"})
    assert refusal(ValueError, tmp_path) == (
        "FOLDER has split test more than once: test/, test.csv, test.jsonl: keep one"
    )


CASES = Path(__file__).parents[3] / "shared" / "cases"


def columns(count: int, start: int = 0) -> dict[str, list[Any]]:
    numbers = range(start, start + count)
    return {"text": [f"review {n}" for n in numbers], "label": ["np"[n % 2] for n in numbers]}


def sizes(path: Path, **settings: Any) -> tuple[int, int]:
    train, validation = load_training_splits(DataConfig(path=str(path), **settings))
    return len(train), len(validation)


@pytest.mark.parametrize("validation", ["validation", "valid", "val", "dev", "Dev"])
@pytest.mark.parametrize("train", ["train.csv", "Train.CSV", "TRAIN.csv"])
def test_names_of_splits(tmp_path, train, validation):
    write(tmp_path / "t.csv", columns(6)).rename(tmp_path / train)
    write(tmp_path / f"{validation}.jsonl", columns(4, 10))
    assert sizes(tmp_path) == (6, 4)


def test_shards_of_the_hub_and_of_spark(tmp_path):
    name = "train-0000{}-of-00002-0a1b2c3d4e5f6789.parquet"
    for number in range(2):
        write(tmp_path / "hub" / name.format(number), columns(6, 6 * number))
        write(tmp_path / "spark" / "train" / f"part-0000{number}-f3.csv", columns(6, 6 * number))
    (tmp_path / "spark" / "train" / "_SUCCESS").touch()
    (tmp_path / "spark" / "train" / ".part-00000-f3.csv.crc").write_bytes(b"crc")
    (tmp_path / "spark" / "train" / "part-00002-f3.csv").touch()  # Spark writes empty parts
    for path in (tmp_path / "hub", tmp_path / "spark", tmp_path / "spark" / "train"):
        assert sum(sizes(path)) == 12
    (tmp_path / "hub" / name.format(1)).unlink()
    with pytest.raises(UserError, match="has 1 of the files train-"):
        sizes(tmp_path / "hub")


def test_saved_datasets(tmp_path):
    features = datasets.Features(
        text=datasets.Value("string"), label=datasets.ClassLabel(names=["p", "n"])
    )
    values = {**columns(12), "label": [0, 1] * 6}
    saved = datasets.Dataset.from_dict(values, features)
    saved.save_to_disk(tmp_path / "one")
    shutil.copy(next((tmp_path / "one").glob("*.arrow")), tmp_path / "one" / "cache-1.arrow")
    splits = {"train": saved, "validation": saved.select(range(4))}
    datasets.DatasetDict(splits).save_to_disk(tmp_path / "all")
    saved.to_parquet(tmp_path / "one.parquet")
    assert sizes(tmp_path / "all", shared_reviews="ignore") == (12, 4)
    for path in (tmp_path / "one", tmp_path / "all", tmp_path / "one.parquet"):
        train, _ = load_training_splits(DataConfig(path=str(path), shared_reviews="ignore"))
        assert train.class_names == ("p", "n")  # not in alphabetical order
        number = int(train.texts[0].split()[1])
        assert train.class_names[train.labels[0]] == "pn"[number % 2]
    (tmp_path / "one" / "state.json").write_text('{"_data_files": [{}]}')
    with pytest.raises(UserError, match="state.json is damaged"):
        sizes(tmp_path / "one")


def test_class_folders_without_splits(tmp_path):
    texts = {f"{name}/{n}.txt": f"{name} {n}" for name in ("neg", "pos") for n in range(10)}
    write_text_folder(tmp_path, texts)
    assert sizes(tmp_path) == (18, 2)
    (tmp_path / "neg" / "0.txt").write_bytes(b"caf\xe9")
    with pytest.raises(UserError, match=r"0\.txt: not UTF-8.*--data.encoding cp1252"):
        sizes(tmp_path)
    assert sizes(tmp_path, encoding="cp1252") == (18, 2)


@pytest.mark.parametrize(
    ("name", "advice"), [("IMDB Dataset.csv", "IMDB Dataset.csv"), ("data/train.parquet", "data")]
)
def test_a_folder_without_train_names_what_to_give(tmp_path, name, advice):
    write(tmp_path / name, columns(20))
    with pytest.raises(FileNotFoundError) as refusal:
        sizes(tmp_path)
    assert str(refusal.value).endswith(f"--data.path '{tmp_path / advice}'")
    assert sizes(tmp_path / advice) == (18, 2)


@pytest.mark.parametrize(
    ("name", "values", "expected"),  # numbers of reviews to train, validate and test on
    [
        ("split", ["train", "train", "dev", "test"], (20, 10, 10)),
        ("partition", [" Training", "train", "val", "TEST"], (20, 10, 10)),
        ("is_valid", [False, False, True, True], (20, 20, 0)),
        ("is_valid", ["0", "0", "1", "1"], (20, 20, 0)),
        ("is_test", ["False", "False", "True", "True"], (18, 2, 20)),  # validation is held out
        ("is_train", [1.0, 1.0, 0.0, 0.0], (20, 20, 0)),
    ],
)
@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_split_columns(tmp_path, name, values, expected, suffix):
    splits = [value for value in values for _ in range(10)]
    path = write(tmp_path / f"reviews.{suffix}", {**columns(40), name: splits})
    data = DataConfig(path=str(path), split_column=name)
    train, validation = load_training_splits(data)
    assert (len(train), len(validation)) == expected[:2]
    if expected[2] == 0:
        with pytest.raises(FileNotFoundError, match="has no test split: column"):
            load_split(data, "test", train.class_names)
        return
    test = load_split(data, "test", train.class_names)
    # Rows are counted in the file, not in the split.
    assert (len(test), test.rows.tolist()[-1], test.texts[-1]) == (expected[2], 39, "review 39")


def test_split_columns_that_are_not_understood(tmp_path, caplog):
    path = write(tmp_path / "a.csv", {**columns(20), "split": ["train", "holdout"] * 10})
    with pytest.raises(UserError, match=r"row 2: split 'holdout', but must be train, validation"):
        sizes(path, split_column="split")
    with pytest.raises(UserError, match="no column 'part'; columns: 'text', 'label', 'split'"):
        sizes(path, split_column="part")
    caplog.set_level("INFO", "sentiment")
    assert sizes(path) == (18, 2)
    assert "'split' is ignored (--data.split_column split takes splits from it)" in caplog.text


def test_another_file_is_evaluated_as_a_whole(tmp_path):
    own = DataConfig(path=str(write(tmp_path / "a.csv", columns(20))), split_column=None)
    other = write(tmp_path / "b.csv", columns(7))
    assert is_undivided(own) and not has_split(own, "validation")
    assert choose_reviews(own, "test", {}) == (own, "test")
    with pytest.raises(FileNotFoundError, match="a.csv has no test split.*--split validation"):
        load_split(own, "test", ("n", "p"))
    data, split = choose_reviews(own, "test", {"path": str(other)})
    assert len(load_split(data, split, ("n", "p"))) == 7
    data, split = choose_reviews(DataConfig(hub="x/y"), "test", {"path": str(tmp_path / "b.csv")})
    assert (data.hub, split) == (None, "all")


class FakedHub:
    """Answers as ``datasets.load_dataset`` does."""

    def __init__(self, folder: Path) -> None:
        features = datasets.Features(
            sentence=datasets.Value("string"), label=datasets.ClassLabel(names=["neg", "pos"])
        )
        self.splits = {}
        for name, labels in (("train", [0, 1]), ("dev", [1, 0]), ("test", [-1, -1])):
            values = {"sentence": [f"{name} {n}" for n in range(10)], "label": labels * 5}
            datasets.Dataset.from_dict(values, features).save_to_disk(folder / name)
            self.splits[name] = datasets.load_from_disk(folder / name)

    def __call__(self, name: str, config: str | None = None) -> Any:
        if name == "nyu/glue" and config is None:
            raise ValueError("Config name is missing.\nPlease pick one among: ['sst2', 'cola']")
        if name != "nyu/glue" or config != "sst2":
            raise ConnectionError("Couldn't reach it")
        return datasets.DatasetDict(self.splits)


def test_any_dataset_of_the_hub(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets, "load_dataset", FakedHub(tmp_path))
    layouts.load_hub.cache_clear()
    train, validation = load_training_splits(DataConfig(hub="nyu/glue:sst2"))
    assert (len(train), len(validation), train.class_names) == (10, 10, ("neg", "pos"))
    assert train.texts[:2] == ["train 0", "train 1"] and validation.labels[:2].tolist() == [1, 0]
    with pytest.raises(UserError, match=r"give --data.hub nyu/glue:CONFIG.*'sst2', 'cola'"):
        load_training_splits(DataConfig(hub="nyu/glue"))
    with pytest.raises(FileNotFoundError, match="nobody/none is neither in the cache"):
        load_training_splits(DataConfig(hub="nobody/none"))
    with pytest.raises(FileNotFoundError, match="has no unsupervised split; it has train"):
        load_split(DataConfig(hub="nyu/glue:sst2"), "unsupervised")
    with pytest.raises(UserError, match="set one of them to null"):
        DataConfig(hub="nyu/glue", path="x")


@pytest.mark.skipif(not CASES.is_dir(), reason="needs the collected files")
def test_collected_files_are_read_or_refused_in_one_line(tmp_path):
    """Each file that people really have trains at once, or names what to do."""
    for path in sorted(CASES.rglob("*.*")):
        if path.is_dir() or path.parent.name in ("vectors", "cases") or "json" in path.suffix:
            continue
        try:
            assert len(load_split(DataConfig(path=str(path)), "all")) > 50
        except UserError as error:
            assert "--data." in str(error) and "\n" not in str(error)
