"""A corpus small enough to train on in seconds, and where the real one lies."""

from __future__ import annotations

import csv
import random
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared"

needs_imdb = pytest.mark.skipif(
    not (SHARED / "imdb" / "train.parquet").is_file(), reason="needs the IMDB reviews"
)

GOOD = ["great", "lovely", "moving", "funny"]
BAD = ["dull", "awful", "clumsy", "flat"]
FILLER = [
    "the",
    "a",
    "film",
    "plot",
    "camera",
    "and",
    "of",
    "in",
    "with",
    "it",
    "was",
    "scene",
    "actor",
    "music",
    "story",
]


def write_corpus(folder: Path, *, splits: dict[str, int], seed: int = 0) -> Path:
    """Reviews in CSV files whose class a single word decides; ``splits`` gives their numbers."""
    generator = random.Random(seed)
    folder.mkdir(parents=True, exist_ok=True)
    for split, count in splits.items():
        with (folder / f"{split}.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["text", "label"])
            for number in range(count):
                words = generator.choices(FILLER, k=generator.randint(3, 30))
                words.insert(
                    generator.randrange(len(words)), generator.choice((BAD, GOOD)[number % 2])
                )
                words.append(f"{split}{number}")  # no two reviews alike
                writer.writerow([" ".join(words), ("neg", "pos")[number % 2]])
    return folder
