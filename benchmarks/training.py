"""What a training step costs beside its recurrence, and an epoch beside its steps."""

from __future__ import annotations

import functools
import tempfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torchtext.vocab import Vocab

from benchmarks.corpus import synthetic_corpus
from benchmarks.measure import Row, Worker, faster, in_turns, timed
from sentiment.config import Config, TrainingConfig
from sentiment.runs import build_model
from sentiment.runtime import autocast, find_precision
from sentiment.text.batches import Batch, EncodedCorpus
from sentiment.text.pipeline import TrainingData
from sentiment.text.reviews import Reviews
from sentiment.text.vocabulary import SPECIALS
from sentiment.training.journal import Journal
from sentiment.training.progress import EpochProgress
from sentiment.training.trainer import Trainer

_CPU = torch.device("cpu")
_NUM_REVIEWS = 64 * 40


def make_trainer(corpus: EncodedCorpus, device: torch.device = _CPU) -> Trainer:
    """A trainer of configs/imdb.yaml's model and recipe, from random vectors."""
    recipe = TrainingConfig(
        learning_rate=2e-3, schedule="linear", label_smoothing=0.1, num_epochs=99
    )
    config = replace(Config(), training=recipe)
    vocabulary = Vocab(Counter({f"word{number}": 2 for number in range(30_000)}), specials=SPECIALS)
    reviews = Reviews([""], np.zeros(1, dtype=np.int64), ("neg", "pos"), "none")
    data = TrainingData(corpus, corpus, reviews, vocabulary, None, None)
    torch.manual_seed(0)
    model = build_model(config.model, vocabulary_size=len(vocabulary), num_classes=2).to(device)
    path = Path(tempfile.mkdtemp())
    return Trainer(
        model, data, config, device=device, precision=find_precision("auto", device), path=path,
        journal=Journal(path),
    )  # fmt: skip


@functools.cache
def _trainer() -> Trainer:
    return make_trainer(synthetic_corpus(_NUM_REVIEWS))


@functools.cache
def _batches() -> list[Batch]:
    trainer = _trainer()
    trainer._sampler.set_epoch(1)
    return list(trainer._corpus.batches(trainer._sampler))


def recurrence_seconds() -> float:
    """The recurrence alone, forward and backward, on embeddings made beforehand."""
    trainer, model = _trainer(), _trainer()._model
    model.train()

    def run(x: torch.Tensor, batch: Batch) -> None:
        with autocast(_CPU, trainer._updates._precision):
            output, _ = model.recurrence(x, batch.lengths)
        torch.autograd.grad(output, [x, *model.recurrence.parameters()], torch.ones_like(output))

    total = 0.0
    for batch in _batches():
        x = model.embedding(batch.tokens.t()).detach().transpose(0, 1).requires_grad_()
        total += timed(functools.partial(run, x, batch))
    return total


def model_seconds() -> float:
    """The model alone, forward and backward, on batches made beforehand."""
    trainer, model = _trainer(), _trainer()._model
    model.train()

    def run() -> None:
        for batch in _batches():
            model.zero_grad(set_to_none=True)
            with autocast(_CPU, trainer._updates._precision):
                logits = model(batch.tokens, batch.lengths)
            trainer._updates._loss(logits.float(), batch.labels).backward()

    return timed(run)


def epoch_seconds() -> float:
    """All of an epoch but its validation: batching, updates, logging."""
    trainer = _trainer()
    trainer._standing.progress = EpochProgress(1, _CPU)
    return timed(trainer._train_epoch)


def epoch_tokens() -> int:
    """Words of it, padding not counted."""
    return int(_trainer()._corpus.lengths.sum())


def rows(prepared: Worker) -> list[Row]:
    """Shares of an epoch's time."""
    seconds = in_turns(
        {
            "recurrence": lambda: prepared(recurrence_seconds),
            "model": lambda: prepared(model_seconds),
            "epoch": lambda: prepared(epoch_seconds),
        },
        5,
    )
    section = "training, configs/imdb.yaml"
    return [
        faster(section, "tokens/s of an epoch : of the model alone on ready-made batches",
               seconds["model"], seconds["epoch"], 0.9, headline=True),
        faster(section, "tokens/s of an epoch : of the bare recurrence",
               seconds["recurrence"], seconds["epoch"]),
    ]  # fmt: skip
