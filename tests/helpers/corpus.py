"""A corpus small enough to train on in a second, and the path of the real one."""

import csv
import random
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared"


def needs_imdb(test: Callable[..., None]) -> Callable[..., None]:
    """Mark a test that reads the IMDB reviews, which takes seconds and is skipped without them."""
    is_missing = not (SHARED / "imdb" / "train.parquet").is_file()
    return pytest.mark.long(pytest.mark.skipif(is_missing, reason="needs the IMDB reviews")(test))


GOOD = ["great", "lovely", "moving", "funny"]
BAD = ["dull", "awful", "clumsy", "flat"]
FILLER = [
    "the", "a", "film", "plot", "camera", "and", "of", "in", "with", "it", "was", "scene", "actor",
    "music", "story",
]  # fmt: skip


def write_corpus(folder: Path, *, splits: dict[str, int], seed: int = 0) -> Path:
    """Write reviews whose class one word decides to CSV files, as many as ``splits`` says."""
    generator = random.Random(seed)
    folder.mkdir(parents=True, exist_ok=True)
    for split, count in splits.items():
        with (folder / f"{split}.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["text", "label"])
            for number in range(count):
                words = generator.choices(FILLER, k=generator.randint(3, 30))
                place = generator.randrange(len(words))
                words.insert(place, generator.choice((BAD, GOOD)[number % 2]))
                words.append(f"{split}{number}")  # no two reviews alike
                writer.writerow([" ".join(words), ("neg", "pos")[number % 2]])
    return folder
