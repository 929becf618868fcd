"""How optimistic a hold-out is, by the length of its stretches: the linear model on IMDB's tenths.

    python -m studies.hold_outs --data FOLDER

``FOLDER`` holds ``train.parquet``. Prints the rows of a table in docs/accuracy.md, in some minutes:
for stretches of a film's reviews of both classes, as the recipes hold them out, and for stretches
of neighbouring rows of the file, which have one class. Each review is predicted once, in one of ten
folds. The n-grams are selected once, from all reviews; their weights are learned from the training
reviews of each fold only.
"""

from __future__ import annotations

import argparse
from dataclasses import replace

import numpy as np

from sentiment.baseline.linear import find_ngrams, fit_linear
from sentiment.baseline.train import MIN_REVIEWS
from sentiment.config.config import DataConfig
from sentiment.data.pipeline import tokenize_reviews
from sentiment.data.splits import hold_out
from sentiment.data.stretches import number_stretches
from sentiment.readers.sources import read_split

LENGTHS = (1, 5, 10, 25, 50, 100, 250, 625)  # reviews of a stretch; 1 means single reviews
NUM_FOLDS = 10
CLASS_NAMES = ("neg", "pos")


def main() -> None:
    """Print a row for each length as soon as it is measured."""
    parser = argparse.ArgumentParser(prog="python -m studies.hold_outs")
    parser.add_argument("--data", required=True, help="folder with train.parquet")
    data = DataConfig(source="imdb", path=parser.parse_args().data, num_folds=NUM_FOLDS)
    rows = read_split(data, "train")
    labels = np.array(rows.labels, dtype=np.int64)
    tokens = tokenize_reviews(rows, data)
    matrix = find_ngrams(tokens, min_texts=MIN_REVIEWS).matrix(tokens)
    numbers = np.arange(len(labels))

    def measure(groups: np.ndarray | None) -> str:
        log_probabilities = np.full((len(labels), len(CLASS_NAMES)), np.nan)
        accuracies = []
        for fold in range(1, NUM_FOLDS + 1):
            train, validation = hold_out(
                rows.texts, labels, replace(data, fold=fold),
                class_names=CLASS_NAMES, origin=rows.origin, groups=groups,
            )  # fmt: skip
            model = fit_linear(matrix[train], labels[train], len(CLASS_NAMES))
            log_probabilities[validation] = model.log_probabilities(matrix[validation])
            is_right = log_probabilities[validation].argmax(axis=1) == labels[validation]
            accuracies.append(100 * float(is_right.mean()))
        accuracy = 100 * float((log_probabilities.argmax(axis=1) == labels).mean())
        nll = -float(log_probabilities[numbers, labels].mean())
        return f"{accuracy:.2f} %, {nll:.4f} ({min(accuracies):.2f} to {max(accuracies):.2f})"

    for length in LENGTHS:
        groupings = [None]
        if length > 1:
            both = number_stretches(rows.texts, labels, numbers, length)
            groupings = [both, numbers // length]
        print(f"| {length} | {' | '.join(map(measure, groupings))} |", flush=True)


if __name__ == "__main__":
    main()
