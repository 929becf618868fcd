"""sentiment audit finds planted faults; what it lists, train leaves out."""

import json
import random
import re
from pathlib import Path

import numpy as np
import pytest
from helpers.corpus import BAD, GOOD, SHARED, needs_imdb, write_corpus
from helpers.review_files import read_rows, write, write_text_folder
from helpers.trainings import arguments, refusal

from sentiment.audit.audit import Audit, audit
from sentiment.audit.label_errors import find_label_errors
from sentiment.audit.report import PAGE, TABLE, audit_table
from sentiment.audit.texts import find_copies, find_faults
from sentiment.cli import main as cli
from sentiment.config.config import Config, DataConfig
from sentiment.data.reviews import load_split
from sentiment.data.splits import row_digest
from sentiment.display.console import width

NAMES = ("neg", "pos")


def corpus_rows(count: int, seed: int = 0) -> list[tuple[str, str]]:
    """Different reviews whose words are often, not always, those of their class."""
    generator = random.Random(seed)
    rows = []
    for number in range(count):
        words = generator.choices((BAD, GOOD)[number % 2], k=6)
        words += [*generator.choices(BAD + GOOD, k=1), *generator.choices("abcdefgh", k=3)]
        generator.shuffle(words)
        rows.append((f"{' '.join(words)} number{number}", NAMES[number % 2]))
    return rows


def write_rows(folder: Path, rows: list[tuple[str, str]], split: str = "train") -> Path:
    texts, labels = zip(*rows, strict=True)
    write(folder / f"{split}.csv", {"text": texts, "label": labels})
    return folder


def look(folder: Path, **settings) -> Audit:
    return audit(Config(data=DataConfig(path=str(folder), **settings)))


@pytest.fixture(scope="module")
def planted(tmp_path_factory) -> tuple[Path, list[int]]:
    """A folder with faults planted, and the rows, from 0, whose labels were flipped."""
    rows = corpus_rows(400)
    flipped = random.Random(1).sample(range(400), 30)
    for row in flipped:
        rows[row] = (rows[row][0], NAMES[rows[row][1] == "neg"])
    rows += [(f"{rows[0][0].upper()}!", rows[0][1])]  # 400: a copy
    rows += [(rows[1][0], NAMES[rows[1][1] == "neg"])]  # 401: contradicts
    rows += [("Un film très moyen, à éviter".encode().decode("cp1252"), "neg")]  # 402
    rows += [("a \x85 b c &amp; <i>d</i> www.e.org\ufffd", "pos")]
    rows += [("?!", "pos"), ("дорогой фильм", "pos")]
    return write_rows(tmp_path_factory.mktemp("planted"), rows), flipped


@pytest.fixture(scope="module")
def found(planted) -> Audit:
    return look(planted[0])


def test_flipped_labels_are_listed_first(planted, found):
    _, flipped = planted
    listed = [doubt.index for doubt in found.doubts[: len(flipped)]]
    assert len({*listed} & {*flipped}) >= 0.9 * len(flipped)
    for doubt in found.doubts:
        assert doubt.suggested == 1 - found.reviews.labels[doubt.index]


def test_copies_and_contradictions_are_found(found):
    assert found.copies.within == {"train": 2}
    assert found.copies.contradictions == [[1, 401]]


def test_damaged_texts_are_found(found):
    where = {fault.title.split(",")[0]: fault.indices.tolist() for fault in found.faults}
    assert where == {
        "no letter or digit": [404], "fewer than 3 tokens": [405], "mojibake": [402],
        "replacement characters �": [403], "control or invisible characters": [403],
        "<br />": [], "HTML entities": [403], "other HTML tags": [403], "web addresses": [403],
    }  # fmt: skip
    assert found.scripts == {"Latin": 404, "Cyrillic": 1, "none": 1}


def share_right(result: Audit) -> float:
    return result.out_of_fold.predictions.is_right.mean()


def test_the_words_of_each_class_tell_it(found):
    result, labels = found.out_of_fold, found.reviews.labels
    texts = [f" {text.lower()} " for text in found.reviews.texts]
    for label, words in enumerate((BAD, GOOD)):
        assert any(word in " ".join(result.ngrams[label]) for word in words)
        for ngram, counts in zip(result.ngrams[label], result.counts[label], strict=True):
            expected = [f" {ngram} " in text for text in texts]
            assert counts.tolist() == np.bincount(labels[expected], minlength=2).tolist()


def test_the_summary_fits_a_terminal(found):
    table = audit_table(found)
    assert max(map(width, table.splitlines())) <= 80
    for part in ("406 labelled reviews, 2", "contradicting labels", "train row 403", "Cyrillic 1"):
        assert part in " ".join(table.split())


@pytest.mark.parametrize(
    "text",
    [
        "« Le café » était fermé à « Noël »", "CAFÉ», „Ü“ und “Ö”", "ESPAÑA… ¡ÑU!", "Ãntes ðað",
        "Кино и немцы", "Ταινία της ζωής", "فيلم رائع", "电影很好看", "映画です", "🎬 àüß",
    ],
)  # fmt: skip
def test_mojibake_is_told_from_real_letters(text, tmp_path):
    """The text itself is sound; its UTF-8 read as Windows-1252 or Latin-1 is damaged."""
    lengths = np.array([9])
    assert not len(find_faults([text], lengths)[2].indices)
    broken = text.encode().decode("latin-1")
    assert len(find_faults([broken], lengths)[2].indices)


def test_confident_learning_follows_its_rule():
    """Three reviews of each class, worked out by hand: thresholds 0.6 and 0.7."""
    probability = np.array([0.1, 0.8, 0.3, 0.9, 0.9, 0.3])  # of class 1
    labels = np.array([0, 0, 0, 1, 1, 1])
    doubts = find_label_errors(np.stack([1 - probability, probability], axis=1), labels)
    assert [(doubt.index, doubt.suggested) for doubt in doubts] == [(1, 1), (5, 0)]
    assert doubts[0].suggested_probability == pytest.approx(0.8)


def test_copies_across_splits_are_counted_once_a_review():
    keys = {"train": [b"a", b"a", b"b"], "test": [b"a", b"c", b"c"]}
    copies = find_copies(keys, keys["train"], np.array([0, 0, 1]))
    assert (copies.within, copies.across) == ({"train": 1, "test": 1}, {("train", "test"): 2})
    assert copies.contradictions == []


def test_groups_stay_in_one_fold_and_validation_is_judged_too(tmp_path):
    """With the class named by a word of each stretch, only a model that saw it could know."""
    generator = random.Random(0)
    rows = []
    for stretch in range(60):
        label = generator.choice(NAMES)
        words = " ".join(generator.choices("abcdefgh", k=6))
        rows += [(f"film{stretch} {words} number{len(rows) + n}", label) for n in range(5)]
    write_rows(tmp_path, rows)
    honest = look(tmp_path, validation="stretches", stretch_length=5)
    assert share_right(look(tmp_path)) > 0.9 > share_right(honest)
    write_rows(tmp_path, corpus_rows(20, seed=3), "validation")
    write_rows(tmp_path, corpus_rows(5), "test")
    both = look(tmp_path, validation="stretches", stretch_length=5)
    assert "Read without labels: 5 of test." in audit_table(both)
    assert len(both.out_of_fold.predictions.labels) == 320 and both.place(300) == "validation row 1"


def test_reviews_in_a_folder_are_named_by_their_files(tmp_path):
    rows = corpus_rows(40)
    rows[5] = (rows[5][0], "neg")
    files = {f"train/{label}/{number}_x.txt": text for number, (text, label) in enumerate(rows)}
    write_text_folder(tmp_path, files)
    result = look(tmp_path)
    doubt = result.doubts[0]
    assert result.files[doubt.index].endswith("5_x.txt")
    assert result.reviews.texts[doubt.index] == rows[5][0]


def test_too_few_reviews_are_said_not_judged(tmp_path):
    result = look(write_rows(tmp_path, [("good film good", "pos"), ("bad film bad film", "neg")]))
    assert result.doubts == [] and "too few reviews or words" in audit_table(result)


def test_the_command_writes_a_list_that_train_leaves_out(planted, tmp_path, capsys):
    folder, flipped = planted
    output = tmp_path / "out"
    options = [str(folder), f"--output={output}", "--vocabulary.min_frequency=1"]
    assert cli.main(["audit", *options]) == 0
    assert "406 labelled reviews" in " ".join(capsys.readouterr().out.split())
    page = (output / PAGE).read_text(encoding="utf-8")
    assert "<script" not in page and not re.search(r'(src|href)="(?!#)', page)  # self-contained
    listed = read_rows(output / TABLE)
    reviews = load_split(DataConfig(path=str(folder)), "train", NAMES)
    assert {int(row["row"]) - 1 for row in listed[:10]} <= {*flipped, 401}
    assert {row["file"] for row in listed} == {str(folder / "train.csv")}
    assert all(row["split"] == "train" and row["suggested"] != row["label"] for row in listed)

    kept = listed[:5]  # as after deleting the other lines
    write(output / TABLE, {name: [row[name] for row in kept] for name in kept[0]})
    assert "--overwrite" in refusal(options, capsys, "audit"), "it was edited"
    run, exclude = tmp_path / "run", f"--data.exclude={output / TABLE}"
    assert cli.train(arguments(folder, run, exclude)) == 0
    assert "leaves out" in capsys.readouterr().out
    data = json.loads((run / "run.json").read_text())
    assert set(data["exclude"]) == {"name", "bytes", "sha256"}
    trained = DataConfig(path=str(folder), exclude=str(output / TABLE))
    texts = {
        row_digest(text) for s in ("train", "validation") for text in load_split(trained, s).texts
    }
    assert not texts & {row["digest"] for row in kept}
    assert sum(data["data"][split]["rows"] for split in ("train", "validation")) <= 406 - 5
    assert len(reviews) > len(load_split(trained, "train"))


def test_wrong_inputs_are_refused_before_anything_is_written(tmp_path, capsys):
    output = tmp_path / "out"
    assert "none" in refusal([tmp_path / "none", "--output", output], capsys, "audit")
    refusal(["--output", output, "--resume", "x"], capsys, "audit", status=2)
    (tmp_path / "file").write_text("")
    folder = write_corpus(tmp_path / "reviews", splits={"train": 20})
    refusal([folder, "--output", tmp_path / "file"], capsys, "audit")
    assert not output.exists()


@needs_imdb
def test_imdb():
    """Two of the labels that are plainly wrong are listed, and reviews of one film are noticed."""
    result = look(SHARED / "imdb", source="imdb", class_names=NAMES)
    assert result.neighbours.is_suspicious and 0.9 < share_right(result) < 0.92
    assert {2355, 11755} <= {doubt.index for doubt in result.doubts[:50]}
