"""What a user would use instead: Keras, and the pipeline of torchtext's tutorials.

``pip install .[bench-peers]`` installs Keras; without it a row says that it is missing.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import random
from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from benchmarks.corpus import synthetic_lengths
from benchmarks.measure import Row, Worker, faster, in_turns, settled, timed
from sentiment.model import SentimentClassifier
from sentiment.runtime.device import autocast

_BATCH, _TIME, _WORDS = 64, 230, 30_000
_SECTION = "peers"


def _batch() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Tokens (batch, time), 0 on padding, lengths and labels."""
    generator = np.random.default_rng(0)
    lengths = -np.sort(-generator.integers(round(0.9 * _TIME), _TIME + 1, _BATCH))
    lengths[0] = _TIME
    tokens = generator.integers(2, _WORDS, (_BATCH, _TIME))
    tokens[np.arange(_TIME) >= lengths[:, None]] = 0
    return tokens.astype(np.int32), lengths, np.arange(_BATCH) % 2


@functools.cache
def _keras_step() -> Callable[[], object]:
    os.environ |= {"TF_CPP_MIN_LOG_LEVEL": "3", "KERAS_BACKEND": "tensorflow"}
    import keras

    model = keras.Sequential(
        [
            keras.layers.Embedding(_WORDS, 100, mask_zero=True),
            keras.layers.Bidirectional(keras.layers.LSTM(256)),
            keras.layers.Dense(2),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=keras.optimizers.Adam(1e-3), loss=loss)
    tokens, _, labels = _batch()
    return lambda: model.train_on_batch(tokens, labels)


def keras_seconds() -> float:
    """A training step of Keras's masked BiLSTM that classifies by its final states."""
    return settled(_keras_step())


@functools.cache
def _our_step(precision: torch.dtype) -> Callable[[], object]:
    model = SentimentClassifier(
        vocabulary_size=_WORDS, num_classes=2, embedding_size=100, hidden_size=256, pooling="last"
    )
    optimizer = torch.optim.Adam(model.parameters(), 1e-3, fused=True)
    tokens, lengths, labels = map(torch.from_numpy, _batch())

    def step() -> None:
        optimizer.zero_grad()
        with autocast(torch.device("cpu"), precision):
            logits = model(tokens, lengths)
        nn.functional.cross_entropy(logits.float(), labels).backward()
        optimizer.step()

    return step


def our_seconds(precision: torch.dtype) -> float:
    """The same step with SentimentClassifier."""
    return settled(_our_step(precision))


def tutorial_seconds_per_token() -> float:
    """As in tutorials: torchtext's fields and BucketIterator, a unidirectional packed nn.LSTM."""
    from torchtext.data import BucketIterator, Dataset, Example, Field, LabelField

    generator = np.random.default_rng(4)
    lengths = np.minimum(synthetic_lengths(640, seed=4), 400)
    random.seed(4)  # torchtext shuffles with it
    text, label = Field(include_lengths=True, batch_first=True), LabelField(dtype=torch.long)
    fields = [("text", text), ("label", label)]
    examples = [
        Example.fromlist([[f"w{n}" for n in generator.integers(0, 5000, length)], i % 2], fields)
        for i, length in enumerate(lengths)
    ]
    dataset = Dataset(examples, fields)
    text.build_vocab(dataset)
    label.build_vocab(dataset)
    iterator = BucketIterator(
        dataset, 64, sort_key=lambda example: len(example.text), sort_within_batch=True, train=True
    )
    embedding = nn.Embedding(len(text.vocab), 100, padding_idx=1)
    lstm, output = nn.LSTM(100, 256, batch_first=True), nn.Linear(256, 2)
    parameters = [*embedding.parameters(), *lstm.parameters(), *output.parameters()]
    optimizer = torch.optim.Adam(parameters)
    tokens = 0

    def train() -> None:
        nonlocal tokens
        for number, batch in enumerate(iterator):
            if number == 6:
                break
            words, sizes = batch.text
            packed = nn.utils.rnn.pack_padded_sequence(embedding(words), sizes, batch_first=True)
            _, (h, _) = lstm(packed)
            optimizer.zero_grad()
            nn.functional.cross_entropy(output(h[-1]), batch.label).backward()
            optimizer.step()
            tokens += int(sizes.sum())

    return timed(train) / tokens


def our_seconds_per_token() -> float:
    """An epoch of this program."""
    from benchmarks.training import epoch_seconds, epoch_tokens

    return epoch_seconds() / epoch_tokens()


def rows(prepared: Worker, plain: Worker) -> list[Row]:
    """Against both, if installed."""
    prepared(our_seconds_per_token)  # warm-up; the tutorial is too slow for one
    seconds = in_turns(
        {
            "tutorial": lambda: plain(tutorial_seconds_per_token),
            "ours": lambda: prepared(our_seconds_per_token),
        },
        3,
        warm_up=0,
    )
    name = (
        "training throughput of the default model (bf16) vs torchtext's BucketIterator and a "
        "unidirectional packed nn.LSTM (fp32)"
    )
    results = [faster(_SECTION, name, seconds["tutorial"], seconds["ours"], headline=True)]
    if importlib.util.find_spec("keras") is None:
        return [*results, Row(_SECTION, "Keras is not installed: pip install .[bench-peers]", None)]
    keras_worker = Worker(prepared=False)
    seconds = in_turns(
        {
            "keras": lambda: keras_worker(keras_seconds),
            "fp32": lambda: prepared(our_seconds, torch.float32),
            "bf16": lambda: prepared(our_seconds, torch.bfloat16),
        },
        9,
        warm_up=3,
    )
    keras_worker.close()
    shape = f"BiLSTM 256, final states, batch {_BATCH} × {_TIME}"
    for precision, goal in (("fp32", 1 / 0.75), ("bf16", 1 / 0.4)):
        name = f"training step in {precision} vs Keras in fp32 with masking, {shape}"
        is_headline = precision == "fp32"
        results.append(
            faster(_SECTION, name, seconds["keras"], seconds[precision], goal, headline=is_headline)
        )
    return results
