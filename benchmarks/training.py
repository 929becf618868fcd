"""Training throughput of the default model: an epoch, its parts, pre-training."""

from __future__ import annotations

import atexit
import functools
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torchtext.vocab import Vocab

from benchmarks.corpus import synthetic_corpus
from benchmarks.measure import Row, Worker, faster, in_turns, timed
from sentiment.config.config import Config, TrainingConfig
from sentiment.data.batches import Batch, BucketSampler, EncodedCorpus, by_update
from sentiment.data.pipeline import PretrainingTexts, TrainingData
from sentiment.data.reviews import Reviews
from sentiment.data.vocabulary import SPECIALS
from sentiment.model import SentimentClassifier
from sentiment.pretraining.pretrainer import Pretrainer
from sentiment.runs.manifest import FORMAT_VERSION, LANGUAGE_MODEL, write_manifest
from sentiment.runs.run import build_model
from sentiment.runtime.device import autocast, find_precision
from sentiment.runtime.distributed import DistributedContext
from sentiment.training.context import TrainingContext
from sentiment.training.logger import RunLogger
from sentiment.training.meters import EpochProgress
from sentiment.training.trainer import Trainer

_CPU = torch.device("cpu")
_NUM_REVIEWS = 64 * 40
_PRETRAINING_REVIEWS = 64 * 30
# The default model with the schedule and smoothing of the recipes.
CONFIG = replace(
    Config(),
    training=TrainingConfig(
        learning_rate=2e-3,
        schedule="linear",
        label_smoothing=0.1,
        num_epochs=99,
        checkpoint_minutes=None,  # there is no run folder to write one to
    ),
)


@dataclass(frozen=True)
class TrainingParts:
    """The parts of a training, to time updates without logging and checkpoints."""

    model: SentimentClassifier
    corpus: EncodedCorpus
    sampler: BucketSampler
    step: Callable[..., object]
    precision: torch.dtype

    def groups(self) -> list[list[torch.Tensor]]:
        """The batches of the first epoch, by update."""
        self.sampler.set_epoch(1)
        return list(by_update(self.sampler, CONFIG.training.accumulation_steps))

    def num_tokens(self, group: list[torch.Tensor]) -> int:
        """Tokens in the batches of an update, without padding."""
        return sum(int(self.corpus.lengths[indices].sum()) for indices in group)


def make_vocabulary() -> Vocab:
    """30,000 words and the special ones, with the ids of the synthetic corpora."""
    return Vocab(Counter({f"word{number}": 2 for number in range(30_000)}), specials=SPECIALS)


def make_model(device: torch.device = _CPU, config: Config | None = None) -> SentimentClassifier:
    """The model of the settings, by default CONFIG, with random embeddings."""
    torch.manual_seed(0)
    return build_model((config or CONFIG).model, make_vocabulary(), 2).to(device)


def make_parts(
    corpus: EncodedCorpus,
    device: torch.device = _CPU,
    distributed: DistributedContext | None = None,
    config: Config | None = None,
) -> TrainingParts:
    """Model, sampler and train step of the settings, by default CONFIG."""
    config = config or CONFIG
    training = config.training
    model, precision = make_model(device, config).train(), find_precision("auto", device)
    sampler = BucketSampler(
        corpus.lengths, batch_size=training.batch_size, unit=training.batch_unit, seed=config.seed
    )
    ranks = distributed or DistributedContext()
    context = TrainingContext(config, Path(), device, precision, ranks)
    trainer = _make_trainer(model, corpus, context, is_silent=True)
    return TrainingParts(model, corpus.to(device), sampler, trainer.train_step, precision)


def _make_trainer(
    model: SentimentClassifier, corpus: EncodedCorpus, context: TrainingContext, *, is_silent: bool
) -> Trainer:
    reviews = Reviews([""], np.zeros(1, dtype=np.int64), ("neg", "pos"), "none")
    data = TrainingData(corpus, corpus, reviews, make_vocabulary(), None, None)
    return Trainer(model, data, context, RunLogger(context.path, is_silent=is_silent))


@functools.cache
def _trainer() -> Trainer:
    path = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    context = TrainingContext(CONFIG, path, _CPU, find_precision("auto", _CPU))
    return _make_trainer(make_model(), synthetic_corpus(_NUM_REVIEWS), context, is_silent=False)


@functools.cache
def _parts() -> TrainingParts:
    return make_parts(synthetic_corpus(_NUM_REVIEWS))


@functools.cache
def _batches() -> list[Batch]:
    parts = _parts()
    return [parts.corpus.batch(indices) for group in parts.groups() for indices in group]


def recurrence_seconds() -> float:
    """The recurrence alone, forward and backward, on precomputed embeddings."""
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
    """The model alone, forward and backward, on precomputed batches."""
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
    """An epoch without its validation: batching, updates, logging."""
    trainer = _trainer()
    trainer._state.progress = EpochProgress(1, _CPU)
    return timed(trainer._train_epoch)


def epoch_tokens() -> int:
    """Tokens of that epoch, without padding."""
    return int(synthetic_corpus(_NUM_REVIEWS).lengths.sum())


def rows(prepared: Worker) -> list[Row]:
    """Throughput of an epoch against its parts."""
    seconds = in_turns(
        {
            "recurrence": lambda: prepared(recurrence_seconds),
            "model": lambda: prepared(model_seconds),
            "epoch": lambda: prepared(epoch_seconds),
        },
        5,
    )
    section = "training, the default model"
    return [
        faster(section, "training throughput of an epoch vs the model alone on prepared batches",
               seconds["model"], seconds["epoch"], 0.9),
        faster(section, "training throughput of an epoch vs the recurrence alone",
               seconds["recurrence"], seconds["epoch"]),
    ]  # fmt: skip


def pretraining_seconds_per_word() -> float:
    """An epoch of a new language model, per word, with validation on one review and a checkpoint.

    Compared with the classifier's update, it reads each word in both directions and has a sampled
    softmax.
    """
    corpus = synthetic_corpus(_PRETRAINING_REVIEWS)
    texts = PretrainingTexts(
        corpora=(corpus,),
        validation=synthetic_corpus(1),
        vocabulary=make_vocabulary(),
        vectors=None,
        class_names=("neg", "pos"),
        fingerprints={},
    )
    config = replace(CONFIG, pretraining=replace(CONFIG.pretraining, num_epochs=1))
    manifest = {
        "format_version": FORMAT_VERSION,
        "kind": LANGUAGE_MODEL,
        "class_names": ["neg", "pos"],
        "config_sha256": "",
        "vocabulary_sha256": "",
        "identity": "benchmark",
    }
    with tempfile.TemporaryDirectory() as folder:
        context = TrainingContext(config, Path(folder), _CPU, find_precision("auto", _CPU))
        pretrainer = Pretrainer(make_model(), texts, context)
        write_manifest(Path(folder), manifest)  # the checkpoint refers to it
        return timed(pretrainer.fit) / int(corpus.lengths.sum())


def classifier_seconds_per_word() -> float:
    """An epoch of the classifier, per word."""
    return epoch_seconds() / epoch_tokens()


def pretraining_rows(prepared: Worker) -> list[Row]:
    """Words per second of pre-training against those of training the classifier."""
    seconds = in_turns(
        {
            "language model": lambda: prepared(pretraining_seconds_per_word),
            "classifier": lambda: prepared(classifier_seconds_per_word),
        },
        3,
    )
    name = "pre-training throughput vs training the classifier"
    return [faster("pretraining", name, seconds["classifier"], seconds["language model"], 0.5)]
