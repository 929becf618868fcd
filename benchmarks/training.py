"""What a training step costs beside its recurrence, and an epoch beside its steps."""

from __future__ import annotations

import functools
import tempfile
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torchtext.vocab import Vocab

from benchmarks.corpus import synthetic_corpus
from benchmarks.measure import Row, Worker, faster, in_turns, timed
from sentiment.config.config import Config, TrainingConfig
from sentiment.data.batches import Batch, EncodedCorpus
from sentiment.data.pipeline import TrainingData
from sentiment.data.reviews import Reviews
from sentiment.data.sampler import BucketSampler, by_update
from sentiment.data.vocabulary import SPECIALS
from sentiment.model import SentimentClassifier
from sentiment.runs.run import build_model
from sentiment.runtime.device import autocast, find_precision
from sentiment.runtime.distributed import DistributedContext
from sentiment.training.logger import RunLogger
from sentiment.training.meters import EpochProgress
from sentiment.training.step import TrainStep
from sentiment.training.trainer import Trainer

_CPU = torch.device("cpu")
_NUM_REVIEWS = 64 * 40
# configs/imdb.yaml's model and recipe.
CONFIG = replace(
    Config(),
    training=TrainingConfig(
        learning_rate=2e-3,
        schedule="linear",
        label_smoothing=0.1,
        num_epochs=99,
        checkpoint_minutes=None,  # a worker lives long, and there is no run to make one in
    ),
)


@dataclass(frozen=True)
class TrainingParts:
    """The parts of a training whose updates are timed alone, without journal and checkpoints.

    Attributes:
        model: the classifier, in training mode.
        corpus: where batches are cut from.
        sampler: of the batches.
        updates: the updates of the weights.
        precision: arithmetic of the matrix products.
    """

    model: SentimentClassifier
    corpus: EncodedCorpus
    sampler: BucketSampler
    updates: TrainStep
    precision: torch.dtype

    def groups(self) -> list[list[torch.Tensor]]:
        """The batches of the first epoch, by update."""
        self.sampler.set_epoch(1)
        return list(by_update(self.sampler, CONFIG.training.accumulation_steps))

    def num_tokens(self, group: list[torch.Tensor]) -> int:
        """Words in the batches of an update, padding not counted."""
        return sum(int(self.corpus.lengths[indices].sum()) for indices in group)


def make_vocabulary() -> Vocab:
    """30,000 words and the special ones, as the synthetic corpora number them."""
    return Vocab(Counter({f"word{number}": 2 for number in range(30_000)}), specials=SPECIALS)


def make_model(device: torch.device = _CPU) -> SentimentClassifier:
    """The model of CONFIG, from random vectors."""
    torch.manual_seed(0)
    size = len(make_vocabulary())
    return build_model(CONFIG.model, vocabulary_size=size, num_classes=2).to(device)


def make_parts(
    corpus: EncodedCorpus,
    device: torch.device = _CPU,
    distributed: DistributedContext | None = None,
) -> TrainingParts:
    """Model, batches and updates of CONFIG."""
    training = CONFIG.training
    model, precision = make_model(device).train(), find_precision("auto", device)
    sampler = BucketSampler(
        corpus.lengths, batch_size=training.batch_size, unit=training.batch_unit, seed=CONFIG.seed
    )
    corpus = corpus.to(device)
    updates = TrainStep(
        model, corpus, training, device=device, precision=precision,
        num_updates=training.num_epochs * len(sampler),
        distributed=distributed or DistributedContext(),
    )  # fmt: skip
    return TrainingParts(model, corpus, sampler, updates, precision)


@functools.cache
def _trainer() -> Trainer:
    reviews = Reviews([""], np.zeros(1, dtype=np.int64), ("neg", "pos"), "none")
    corpus = synthetic_corpus(_NUM_REVIEWS)
    data = TrainingData(corpus, corpus, reviews, make_vocabulary(), None, None)
    path = Path(tempfile.mkdtemp())
    return Trainer(
        make_model(), data, CONFIG, device=_CPU, precision=find_precision("auto", _CPU),
        path=path, journal=RunLogger(path),
    )  # fmt: skip


@functools.cache
def _parts() -> TrainingParts:
    return make_parts(synthetic_corpus(_NUM_REVIEWS))


@functools.cache
def _batches() -> list[Batch]:
    parts = _parts()
    return [parts.corpus.batch(indices) for group in parts.groups() for indices in group]


def recurrence_seconds() -> float:
    """The recurrence alone, forward and backward, on embeddings made beforehand."""
    parts, model = _parts(), _parts().model

    def run(x: torch.Tensor, batch: Batch) -> None:
        with autocast(_CPU, parts.precision):
            output, _ = model.recurrence(x, batch.lengths)
        torch.autograd.grad(output, [x, *model.recurrence.parameters()], torch.ones_like(output))

    total = 0.0
    for batch in _batches():
        x = model.embedding(batch.tokens.t()).detach().transpose(0, 1).requires_grad_()
        total += timed(functools.partial(run, x, batch))
    return total


def model_seconds() -> float:
    """The model alone, forward and backward, on batches made beforehand."""
    parts, model = _parts(), _parts().model
    smoothing = CONFIG.training.label_smoothing
    measure = nn.CrossEntropyLoss(reduction="sum", label_smoothing=smoothing)

    def run() -> None:
        for batch in _batches():
            model.zero_grad(set_to_none=True)
            with autocast(_CPU, parts.precision):
                logits = model(batch.tokens, batch.lengths)
            measure(logits.float(), batch.labels).backward()

    return timed(run)


def epoch_seconds() -> float:
    """All of an epoch but its validation: batching, updates, logging."""
    trainer = _trainer()
    trainer._standing.progress = EpochProgress(1, _CPU)
    return timed(trainer._train_epoch)


def epoch_tokens() -> int:
    """Words of it, padding not counted."""
    return int(synthetic_corpus(_NUM_REVIEWS).lengths.sum())


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
