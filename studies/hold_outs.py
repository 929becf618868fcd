"""How optimistic a hold-out is, by the length of its stretches: the linear model on tenths of IMDB.

    python -m studies.hold_outs --data FOLDER

``FOLDER`` holds ``train.parquet``. Prints the rows of a table in docs/accuracy.md, in some minutes:
for stretches of a film's reviews of both classes, as the recipes hold them out, and for stretches
of neighbouring rows of the file, which have one class. The n-grams are selected once, from all
reviews; their weights are learned from the training reviews of each draw only.
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

LENGTHS = (1, 5, 10, 25, 50, 100, 250, 625, 1250)  # rows of a stretch; 1 means single reviews
NUM_DRAWS = 12
CLASS_NAMES = ("neg", "pos")


def main() -> None:
    """Print a row for each length as soon as it is measured."""
    parser = argparse.ArgumentParser(prog="python -m studies.hold_outs")
    parser.add_argument("--data", required=True, help="folder with train.parquet")
    data = DataConfig(source="imdb", path=parser.parse_args().data)
    rows = read_split(data, "train")
    labels = np.array(rows.labels, dtype=np.int64)
    tokens = tokenize_reviews(rows, data)
    matrix = find_ngrams(tokens, min_texts=MIN_REVIEWS).matrix(tokens)
    numbers = np.arange(len(labels))
    for length in LENGTHS:
        cells = []
        for groups in (number_stretches(rows.texts, labels, numbers, length), numbers // length):
            accuracies = []
            for seed in range(NUM_DRAWS):
                masks = hold_out(
                    rows.texts, labels, replace(data, validation_seed=seed),
                    class_names=CLASS_NAMES, origin=rows.origin,
                    groups=None if length == 1 else groups,
                )  # fmt: skip
                train, validation = map(np.flatnonzero, masks)
                model = fit_linear(matrix[train], labels[train], len(CLASS_NAMES))
                predicted = model.log_probabilities(matrix[validation]).argmax(axis=1)
                accuracies.append(100 * float((predicted == labels[validation]).mean()))
            shown = ", ".join(f"{accuracy:.2f}" for accuracy in accuracies)
            cells.append(f"{np.mean(accuracies):.2f} % ({shown})")
        print(f"| {length} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
