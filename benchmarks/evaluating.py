"""How fast evaluate.py is, and how much of that is tokenizing."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import torch

from benchmarks.corpus import texts
from benchmarks.measure import Row, Worker, in_turns, timed
from sentiment.data.batches import encode
from sentiment.data.tokenizer import TokenizedTexts, tokenize
from sentiment.evaluation.evaluate import predict_corpus
from sentiment.model import SentimentClassifier

_NUM_TEXTS = 4_000


@functools.cache
def _tokenized(folder: Path | None) -> TokenizedTexts:
    return tokenize(texts(folder, _NUM_TEXTS), num_processes=1)


def tokenizing_seconds(folder: Path | None) -> float:
    """spaCy's import apart, which evaluating pays once."""
    _tokenized(folder)
    all_texts = texts(folder, _NUM_TEXTS)
    return timed(lambda: tokenize(all_texts, num_processes=1))


def predicting_seconds(folder: Path | None) -> float:
    """configs/imdb.yaml's model over all of them, in fp32."""
    torch.manual_seed(0)
    model = SentimentClassifier(
        vocabulary_size=30_002, num_classes=2, embedding_size=100, hidden_size=256
    )
    tokenized = _tokenized(folder)
    ids = np.arange(len(tokenized.lexicon), dtype=np.int32) % 30_000 + 2
    corpus = encode(tokenized, ids, np.zeros(len(tokenized)), max_length=400)
    return timed(lambda: predict_corpus(model, corpus, device=torch.device("cpu")))


def rows(prepared: Worker, folder: Path | None) -> list[Row]:
    """The share of tokenizing, with reviews/s beside it."""
    seconds = in_turns(
        {
            "tokenizing": lambda: prepared(tokenizing_seconds, folder),
            "predicting": lambda: prepared(predicting_seconds, folder),
        },
        3,
    )
    pairs = list(zip(seconds["tokenizing"], seconds["predicting"], strict=True))
    shares = sorted(one / (one + other) for one, other in pairs)
    speed = sorted(_NUM_TEXTS / sum(pair) for pair in pairs)[1]
    return [
        Row("evaluating", "share of tokenizing in the time of evaluating", shares[1], shares[0],
            shares[-1], f"{speed:.0f} reviews/s")
    ]  # fmt: skip
