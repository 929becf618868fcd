"""Folders, split columns and the hub: which rows belong to which split."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from helpers.review_files import write, write_text_folder

from sentiment.config.config import DataConfig
from sentiment.data import layouts
from sentiment.data.reviews import load_split, load_training_splits
from sentiment.data.sources import choose_reviews, has_validation, is_undivided
from sentiment.runtime.errors import UserError

datasets = pytest.importorskip("datasets")

CASES = Path(__file__).parents[3] / "shared" / "cases"


def columns(count: int, start: int = 0) -> dict[str, list[Any]]:
    numbers = range(start, start + count)
    return {"text": [f"review {n}" for n in numbers], "label": ["np"[n % 2] for n in numbers]}


def sizes(path: Path, **settings: Any) -> tuple[int, int]:
    train, validation = load_training_splits(DataConfig(path=str(path), **settings))
    return len(train), len(validation)


@pytest.mark.parametrize("validation", ["validation", "valid", "val", "dev", "Dev"])
@pytest.mark.parametrize("train", ["train.csv", "Train.CSV", "TRAIN.csv"])
def test_names_of_splits(tmp_path: Path, train: str, validation: str) -> None:
    write(tmp_path / "t.csv", columns(6)).rename(tmp_path / train)
    write(tmp_path / f"{validation}.jsonl", columns(4, 10))
    assert sizes(tmp_path) == (6, 4)


def test_shards_of_the_hub_and_of_spark(tmp_path: Path) -> None:
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


def test_saved_datasets(tmp_path: Path) -> None:
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


def test_class_folders_without_splits(tmp_path: Path) -> None:
    texts = {f"{name}/{n}.txt": f"{name} {n}" for name in ("neg", "pos") for n in range(10)}
    write_text_folder(tmp_path, texts)
    assert sizes(tmp_path) == (18, 2)
    (tmp_path / "neg" / "0.txt").write_bytes(b"caf\xe9")
    with pytest.raises(UserError, match=r"0\.txt: not UTF-8.*--data.encoding cp1252"):
        sizes(tmp_path)
    assert sizes(tmp_path, encoding="cp1252") == (18, 2)


@pytest.mark.parametrize(
    ("name", "advice"),
    [("IMDB Dataset.csv", "IMDB Dataset.csv"), ("data/train.parquet", "data")],
)
def test_a_folder_without_train_names_what_to_give(tmp_path: Path, name: str, advice: str) -> None:
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
def test_split_columns(
    tmp_path: Path, name: str, values: list[Any], expected: tuple[int, int, int], suffix: str
) -> None:
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


def test_split_columns_that_are_not_understood(tmp_path: Path, caplog: Any) -> None:
    path = write(tmp_path / "a.csv", {**columns(20), "split": ["train", "holdout"] * 10})
    with pytest.raises(UserError, match=r"row 2: split 'holdout', but must be train, validation"):
        sizes(path, split_column="split")
    with pytest.raises(UserError, match="no column 'part'; columns: 'text', 'label', 'split'"):
        sizes(path, split_column="part")
    caplog.set_level("INFO", "sentiment")
    assert sizes(path) == (18, 2)
    assert "'split' is ignored (--data.split_column split takes splits from it)" in caplog.text


def test_another_file_is_evaluated_as_a_whole(tmp_path: Path) -> None:
    own = DataConfig(path=str(write(tmp_path / "a.csv", columns(20))), split_column=None)
    other = write(tmp_path / "b.csv", columns(7))
    assert is_undivided(own) and not has_validation(own)
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


def test_any_dataset_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"encoding": "cp12520"}, "data.encoding is 'cp12520', but must be an encoding of text"),
        ({"encoding": "rot13"}, "an encoding of text"),
        ({"delimiter": "::"}, "data.delimiter is '::', but must be one character or tab"),
        ({"column_names": ("a", "a")}, "distinct names"),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        DataConfig(**settings)


@pytest.mark.skipif(not CASES.is_dir(), reason="needs the collected files")
def test_collected_files_are_read_or_refused_in_one_line(tmp_path: Path) -> None:
    """Each file that people really have trains at once, or names what to do."""
    for path in sorted(CASES.rglob("*.*")):
        if path.is_dir() or path.parent.name in ("vectors", "cases") or "json" in path.suffix:
            continue
        try:
            assert len(load_split(DataConfig(path=str(path)), "all")) > 50
        except UserError as error:
            assert "--data." in str(error) and "\n" not in str(error)
