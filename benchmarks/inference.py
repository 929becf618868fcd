"""Evaluation and ``sentiment predict``: throughput, and the overhead of reading and writing."""

from __future__ import annotations

import csv
import functools
import tempfile
from pathlib import Path

import numpy as np
import torch

from benchmarks.corpus import texts
from benchmarks.measure import Row, Worker, in_turns, timed
from sentiment.config.config import Config
from sentiment.data.batches import encode
from sentiment.data.tokenizer import TokenizedTexts, tokenize
from sentiment.data.vocabulary import build_vocabulary, count_tokens
from sentiment.evaluation.evaluate import predict_corpus
from sentiment.inference.predictor import Predictor
from sentiment.model import SentimentClassifier
from sentiment.runs.run import Run
from sentiment.runs.weights import WeightsInfo

_NUM_TEXTS = 4_000


def _imdb_model(vocabulary_size: int) -> SentimentClassifier:
    """An untrained model of the size of the default model, with max pooling."""
    torch.manual_seed(0)
    return SentimentClassifier(
        vocabulary_size=vocabulary_size, num_classes=2, embedding_size=100, hidden_size=256
    )


@functools.cache
def _tokenized(folder: Path | None) -> TokenizedTexts:
    return tokenize(texts(folder, _NUM_TEXTS), num_processes=1)


def tokenizing_seconds(folder: Path | None) -> float:
    """Tokenizing, without importing spaCy, which happens once."""
    _tokenized(folder)
    all_texts = texts(folder, _NUM_TEXTS)
    return timed(lambda: tokenize(all_texts, num_processes=1))


def evaluating_seconds(folder: Path | None) -> float:
    """The model on all reviews, in fp32."""
    model = _imdb_model(30_002)
    tokenized = _tokenized(folder)
    ids = np.arange(len(tokenized.lexicon), dtype=np.int32) % 30_000 + 2
    corpus = encode(tokenized, ids, np.zeros(len(tokenized)), max_length=400)
    return timed(lambda: predict_corpus(model, corpus, device=torch.device("cpu")))


def evaluation_rows(prepared: Worker, folder: Path | None) -> list[Row]:
    """The share of tokenization, and reviews per second."""
    seconds = in_turns(
        {
            "tokenizing": lambda: prepared(tokenizing_seconds, folder),
            "predicting": lambda: prepared(evaluating_seconds, folder),
        },
        3,
    )
    pairs = list(zip(seconds["tokenizing"], seconds["predicting"], strict=True))
    shares = sorted(one / (one + other) for one, other in pairs)
    speed = sorted(_NUM_TEXTS / sum(pair) for pair in pairs)[1]
    name = "share of tokenization in the time of an evaluation"
    return [Row("evaluating", name, shares[1], shares[0], shares[-1], f"{speed:.0f} reviews/s")]


@functools.cache
def _run(folder: Path | None) -> Run:
    vocabulary = build_vocabulary(count_tokens(_tokenized(folder)), max_size=30_000)
    model = _imdb_model(len(vocabulary))
    return Run(Path(), Config(), ("neg", "pos"), vocabulary, model, WeightsInfo(1, 1, {}))


def _new_predictor(folder: Path | None) -> Predictor:
    """A predictor that has no tokens cached."""
    return Predictor(_run(folder), torch.device("cpu"))


def bare_seconds(folder: Path | None) -> float:
    """Tokenizing, then the model: the lower bound."""
    predictor, all_texts = _new_predictor(folder), texts(folder, _NUM_TEXTS)
    return timed(lambda: predictor.predict_log_probabilities(all_texts))


def command_seconds(folder: Path | None, directory: Path, suffix: str) -> float:
    """From a file to a file, committed twice on the way."""
    from sentiment.display.console import progress_bar
    from sentiment.inference.batch_predict import predict_to_file
    from sentiment.inference.outputs import AddedColumns
    from sentiment.readers.formats import open_source

    predictor = _new_predictor(folder)
    path, output = directory / f"in{suffix}", directory / f"out{suffix}"
    if not path.exists():
        _write(path, texts(folder, _NUM_TEXTS))

    def predict() -> None:
        with progress_bar(is_hidden=True) as bar:
            predict_to_file(
                open_source(path),
                output,
                predictor.predict,
                AddedColumns(predictor.class_names),
                request={},
                window=_NUM_TEXTS // 2,
                bar=bar,
            )

    return timed(predict)


def _write(path: Path, all_texts: list[str]) -> None:
    if path.suffix == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.table({"text": all_texts}), path)
        return
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["text"], *([text] for text in all_texts)])


def prediction_rows(prepared: Worker, folder: Path | None) -> list[Row]:
    """Throughput from file to file as a share of the lower bound's, and reviews per second."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        seconds = in_turns(
            {
                "bare": lambda: prepared(bare_seconds, folder),
                ".csv": lambda: prepared(command_seconds, folder, directory, ".csv"),
                ".parquet": lambda: prepared(command_seconds, folder, directory, ".parquet"),
            },
            3,
        )
    results = []
    for suffix in (".csv", ".parquet"):
        pairs = zip(seconds["bare"], seconds[suffix], strict=True)
        shares = sorted(bare / complete for bare, complete in pairs)
        speed = sorted(_NUM_TEXTS / taken for taken in seconds[suffix])[1]
        title = f"throughput of predicting a {suffix[1:]} file vs tokenizing and the model alone"
        results.append(
            Row("predicting", title, shares[1], shares[0], shares[-1], f"{speed:.0f} reviews/s",
                goal=0.8)
        )  # fmt: skip
    return results
