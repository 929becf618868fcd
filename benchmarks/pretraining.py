"""How fast a language model is trained, against the classifier that starts from it.

An update of the language model reads each word in both directions and tells the next one from
others by a sampled softmax, which the classifier's update does not have.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.corpus import synthetic_corpus
from benchmarks.measure import Row, Worker, faster, in_turns, timed
from benchmarks.training import CONFIG, epoch_seconds, epoch_tokens, make_model, make_vocabulary
from sentiment.data.pipeline import PretrainingTexts
from sentiment.pretraining.pretrainer import Pretrainer
from sentiment.runs.manifest import FORMAT_VERSION, LANGUAGE_MODEL, write_manifest
from sentiment.runtime.device import find_precision

_CPU = torch.device("cpu")
_NUM_REVIEWS = 64 * 30
_ROUNDS = 3
_DESCRIPTION = {
    "format_version": FORMAT_VERSION,
    "kind": LANGUAGE_MODEL,
    "class_names": ["neg", "pos"],
    "config_sha256": "",
    "vocabulary_sha256": "",
    "identity": "benchmark",
}


def pretraining_seconds_per_word() -> float:
    """An epoch of a new language model, divided by the words of the reviews.

    With it the perplexity of one review and the checkpoint, by which each epoch ends.
    """
    corpus = synthetic_corpus(_NUM_REVIEWS)
    texts = PretrainingTexts(
        corpora=(corpus,),
        validation=synthetic_corpus(1),
        vocabulary=make_vocabulary(),
        vectors=None,
        class_names=("neg", "pos"),
        fingerprints={},
    )
    config = replace(CONFIG, pretraining=replace(CONFIG.pretraining, num_epochs=1))
    with tempfile.TemporaryDirectory() as folder:
        pretrainer = Pretrainer(
            make_model(), texts, config, device=_CPU, precision=find_precision("auto", _CPU),
            path=Path(folder),
        )  # fmt: skip
        write_manifest(Path(folder), _DESCRIPTION)  # which a checkpoint refers to
        return timed(pretrainer.fit) / int(corpus.lengths.sum())


def classifier_seconds_per_word() -> float:
    """An epoch of the classifier."""
    return epoch_seconds() / epoch_tokens()


def rows(prepared: Worker) -> list[Row]:
    """Words a second of both."""
    seconds = in_turns(
        {
            "language model": lambda: prepared(pretraining_seconds_per_word),
            "classifier": lambda: prepared(classifier_seconds_per_word),
        },
        _ROUNDS,
    )
    name = "words/s of pre-training : tokens/s of training the classifier"
    return [faster("pretraining", name, seconds["classifier"], seconds["language model"], 0.5)]
