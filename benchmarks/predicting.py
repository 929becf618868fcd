"""What ``sentiment predict`` adds to its model and its tokenizer: reading, carrying, committing."""

from __future__ import annotations

import csv
import functools
import tempfile
from pathlib import Path

import torch

from benchmarks.corpus import texts
from benchmarks.measure import Row, Worker, in_turns, timed
from sentiment.data.tokenizer import tokenize
from sentiment.data.vocabulary import build_vocabulary, count_tokens
from sentiment.inference.predictor import Predictor
from sentiment.model import SentimentClassifier

_NUM_TEXTS = 4_000


@functools.cache
def _predictor(folder: Path | None) -> Predictor:
    """configs/imdb.yaml's model, untrained."""
    from sentiment.config.config import Config
    from sentiment.runs.run import Run
    from sentiment.runs.weights import WeightsInfo

    torch.manual_seed(0)
    counts = count_tokens(tokenize(texts(folder, _NUM_TEXTS), num_processes=1))
    vocabulary = build_vocabulary(counts, max_size=30_000)
    model = SentimentClassifier(
        vocabulary_size=len(vocabulary), num_classes=2, embedding_size=100, hidden_size=256
    )
    run = Run(Path(), Config(), ("neg", "pos"), vocabulary, model, WeightsInfo(1, 1, {}))
    return Predictor(run, torch.device("cpu"))


def _new_predictor(folder: Path | None) -> Predictor:
    """One that has not seen the texts yet."""
    return Predictor(_predictor(folder).run, torch.device("cpu"))


def bare_seconds(folder: Path | None) -> float:
    """Tokens, then the model over all of them: what there is no way around."""
    predictor, all_texts = _new_predictor(folder), texts(folder, _NUM_TEXTS)
    return timed(lambda: predictor.log_probabilities(predictor.encode(all_texts)))


def command_seconds(folder: Path | None, place: Path, ending: str) -> float:
    """From a file to a file, committed twice on the way."""
    from sentiment.inference.batch_predict import predict_to_file
    from sentiment.inference.formats import open_source
    from sentiment.inference.live import Bar
    from sentiment.inference.outputs import AddedColumns

    predictor = _new_predictor(folder)
    path, output = place / f"in{ending}", place / f"out{ending}"
    if not path.exists():
        _write(path, texts(folder, _NUM_TEXTS))

    def predict() -> None:
        with Bar(is_shown=False) as bar:
            predict_to_file(
                open_source(path, "text"),
                output,
                predictor.predict,
                AddedColumns(predictor.class_names),
                request={},
                window=_NUM_TEXTS // 2,
                watcher=bar,
            )

    return timed(predict)


def _write(path: Path, all_texts: list[str]) -> None:
    if path.suffix == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.table({"text": all_texts}), path)
        return
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([["text"], *([text] for text in all_texts)])


def rows(prepared: Worker, folder: Path | None) -> list[Row]:
    """The share of the bare throughput that is left of it, with reviews/s beside it."""
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        seconds = in_turns(
            {
                "bare": lambda: prepared(bare_seconds, folder),
                ".csv": lambda: prepared(command_seconds, folder, place, ".csv"),
                ".parquet": lambda: prepared(command_seconds, folder, place, ".parquet"),
            },
            3,
        )
    found = []
    for ending in (".csv", ".parquet"):
        pairs = zip(seconds["bare"], seconds[ending], strict=True)
        shares = sorted(bare / whole for bare, whole in pairs)
        speed = sorted(_NUM_TEXTS / each for each in seconds[ending])[1]
        title = f"predicting a {ending[1:]} file : tokenizing and the model alone, throughput"
        found.append(
            Row("predicting", title, shares[1], shares[0], shares[-1], f"{speed:.0f} reviews/s",
                goal=0.8)
        )  # fmt: skip
    return found
