"""Logging of a run: TensorBoard, console and metrics.json."""

from __future__ import annotations

import logging
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams
from torchtext.vocab import Vocab

from sentiment.config.config import Config, deciding_settings
from sentiment.data.batches import EncodedCorpus
from sentiment.data.reviews import Reviews
from sentiment.data.tokenizer import clean
from sentiment.display.console import sanitize
from sentiment.display.plots import add_figure
from sentiment.evaluation.calibration import apply_temperature
from sentiment.evaluation.evaluate import Predictions
from sentiment.evaluation.metrics import Metrics
from sentiment.evaluation.outputs import add_scalars
from sentiment.evaluation.plots import draw_predictions
from sentiment.explain.attribution import Words, read_words
from sentiment.explain.page import explanation_figure
from sentiment.model import SentimentClassifier
from sentiment.runtime.errors import UserError
from sentiment.runtime.files import sync_folder, write_json

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def measure_files(folder: Path) -> dict[str, int]:
    """Flush all files of a folder to the disk; returns their lengths in bytes."""
    lengths = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        with path.open("rb") as file:
            os.fsync(file.fileno())
        lengths[path.relative_to(folder).as_posix()] = path.stat().st_size
    sync_folder(folder)
    return lengths


def rewind_files(folder: Path, lengths: dict[str, int]) -> list[str]:
    """Truncate files to the given lengths, and remove all others.

    Returns:
        Names of files that are missing or shorter, so that part of them is lost.
    """
    lost = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        if path.relative_to(folder).as_posix() not in lengths:
            path.unlink()
    for name, length in lengths.items():
        path = folder / name
        if not path.resolve().is_relative_to(folder.resolve()):
            raise UserError(f"the checkpoint names {name!r}, a file outside {folder}")
        if not path.is_file() or path.stat().st_size < length:
            lost.append(name)
        else:
            os.truncate(path, length)
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if path.is_dir() and not any(inner.is_file() for inner in path.rglob("*")):
            shutil.rmtree(path)
    return lost


logger = logging.getLogger(__name__)

_PROJECTED_WORDS = 5_000  # the projector page grows slow with more
_LONGEST_REVIEW = 2_000  # characters of a logged review


@dataclass(frozen=True)
class EpochMetrics:
    """Training metrics of an epoch.

    Attributes:
        epoch: from 1.
        update: updates made so far.
        loss, accuracy: means over the reviews while they were trained on, with dropout; the loss
            is the negative log-likelihood without label smoothing, as in validation.
        seconds: time spent training, without validation.
        tokens_per_second: without padding.
        padding_share: of all positions of the batches, between 0 and 1.
        learning_rate: of the last update.
        peak_memory_bytes: since the start of the process.
    """

    epoch: int
    update: int
    loss: float
    accuracy: float
    seconds: float
    tokens_per_second: float
    padding_share: float
    learning_rate: float
    peak_memory_bytes: int


class RunLogger:
    """Writes a run's curves, tables and metrics.

    Args:
        path: the run's folder.
        is_silent: write nothing, as on all ranks but the main one.
        state: what :meth:`state` returned at a checkpoint; whatever was written later is removed.
    """

    def __init__(
        self, path: Path, *, is_silent: bool = False, state: dict[str, Any] | None = None
    ) -> None:
        self._path = path
        self._is_silent = is_silent
        self._epochs: list[dict[str, Any]] = state["epochs"] if state is not None else []
        if is_silent:
            return
        if state is not None:
            self._rewind(state["files"])
        self._train = SummaryWriter(str(path / "tensorboard" / "train"))
        self._validation = SummaryWriter(str(path / "tensorboard" / "validation"))

    def _rewind(self, files: dict[str, dict[str, int]]) -> None:
        for writer in ("train", "validation"):
            for name in rewind_files(self._path / "tensorboard" / writer, files[writer]):
                logger.warning("part of TensorBoard's curves is lost: %s/%s", writer, name)
        write_json(self._path / "metrics.json", {"epochs": self._epochs})

    def state(self) -> dict[str, Any]:
        """Flush everything to the disk; returns what identifies the files' content so far."""
        if self._is_silent:
            return {}
        self._flush()
        folder = self._path / "tensorboard"
        files = {name: measure_files(folder / name) for name in ("train", "validation")}
        return {"epochs": self._epochs, "files": files}

    def update(
        self,
        update: int,
        *,
        loss: float,
        accuracy: float,
        terms: Mapping[str, float] = MappingProxyType({}),
        **metrics: float,
    ) -> None:
        """Log an update: ``terms`` of the objective, and metrics charted under ``training/``."""
        if self._is_silent:
            return
        self._train.add_scalar("loss/by_update", loss, update)
        self._train.add_scalar("accuracy/by_update", accuracy, update)
        for name, value in metrics.items():
            self._train.add_scalar(f"training/{name}", value, update)
        for name, value in terms.items():
            self._train.add_scalar(f"objectives/{name}", value, update)

    def epoch(self, training: EpochMetrics, validation: Metrics, *, is_best: bool) -> None:
        """Log the end of an epoch: curves, console, metrics.json."""
        if self._is_silent:
            return
        number, update = training.epoch, training.update
        self._train.add_scalar("loss/by_epoch", training.loss, number)
        self._train.add_scalar("accuracy/by_epoch", training.accuracy, number)
        self._train.add_scalar("training/padding_share", training.padding_share, number)
        self._train.add_scalar("training/peak_memory_bytes", training.peak_memory_bytes, number)
        self._validation.add_scalar("loss/by_update", validation.nll, update)
        self._validation.add_scalar("accuracy/by_update", validation.accuracy, update)
        add_scalars(self._validation, validation, number)
        self._epochs.append(
            {"training": asdict(training), "validation": validation.as_dict(), "is_best": is_best}
        )
        write_json(self._path / "metrics.json", {"epochs": self._epochs})
        self._print(training, validation, is_best)
        self._flush()

    def _print(self, training: EpochMetrics, validation: Metrics, is_best: bool) -> None:
        low, high = validation.accuracy_ci95
        logger.info(
            "epoch %-2d training    loss %.4f  accuracy %.2f %%  %.1f s, %s tokens/s",
            training.epoch,
            training.loss,
            100 * training.accuracy,
            training.seconds,
            f"{training.tokens_per_second:,.0f}",
        )
        logger.info(
            "         validation  loss %.4f  accuracy %.2f %%  95 %%: %.1f to %.1f%s",
            validation.nll,
            100 * validation.accuracy,
            100 * low,
            100 * high,
            "  best" if is_best else "",
        )
        logger.info(
            "         padding %.1f %%, learning rate %.1e, memory %.2f GB",
            100 * training.padding_share,
            training.learning_rate,
            training.peak_memory_bytes / 1e9,
        )

    def histograms(self, model: nn.Module, epoch: int) -> None:
        """Log distributions of all weights, and of the last update's gradients."""
        if self._is_silent:
            return
        for name, parameter in model.named_parameters():
            self._train.add_histogram(f"weights/{name}", parameter.detach().float(), epoch)
            if parameter.grad is not None and parameter.grad.isfinite().all():
                self._train.add_histogram(f"gradients/{name}", parameter.grad.float(), epoch)

    def reviews(self, rows: list[tuple[str, str, str, float]], epoch: int) -> None:
        """Log validation reviews: (text, class, predicted class, its probability)."""
        if self._is_silent:
            return
        paragraphs = []
        for text, label, predicted, probability in rows:
            verdict = "right" if label == predicted else f"wrong, it is {_as_markdown(label)}"
            head = f"**{_as_markdown(predicted)}, {probability:.1%}: {verdict}**"
            paragraphs.append(f"{head}\n\n{_as_markdown(clean(text))}")
        self._validation.add_text("reviews", "\n\n---\n\n".join(paragraphs), epoch)

    def figure(self, tag: str, figure: Figure, epoch: int) -> None:
        """Log a picture of the validation reviews."""
        if not self._is_silent:
            add_figure(self._validation, tag, figure, epoch)

    def predictions(
        self, predictions: Predictions, class_names: Sequence[str], temperature: float, epoch: int
    ) -> None:
        """Log pictures of the validation predictions, whose temperature was fitted on them."""
        pictures = draw_predictions(predictions, class_names, temperature, fitted_here=True)
        for tag, figure in pictures.items():
            self.figure(tag, figure, epoch)

    def finish(
        self, config: Config, best: Mapping[str, Any], embedding: torch.Tensor, vocabulary: Vocab
    ) -> None:
        """Log hyperparameters with the best metrics, and the word embeddings."""
        if self._is_silent:
            return
        final = {
            f"best/{name}": float(best[name])
            for name in ("accuracy", "f1", "auroc", "nll")
            if best.get(name) is not None
        }
        # SummaryWriter.add_hparams would open another folder, apart from the run's curves.
        writer = self._validation.file_writer
        assert writer is not None  # opened with the SummaryWriter
        for summary in hparams(_hyperparameters(config), final):
            writer.add_summary(summary)
        for tag, value in final.items():
            self._validation.add_scalar(tag, value)
        self._train.add_embedding(
            embedding[:_PROJECTED_WORDS].detach().float().cpu(),
            metadata=vocabulary.itos[:_PROJECTED_WORDS],
            tag="words",
        )

    def _flush(self) -> None:
        self._train.flush()
        self._validation.flush()

    def close(self) -> None:
        if not self._is_silent:
            self._train.close()
            self._validation.close()


def _as_markdown(text: str) -> str:
    """Markdown that shows a text literally, on one line and without what exceeds the limit."""
    line = " ".join(text.split())
    if len(line) > _LONGEST_REVIEW:
        line = f"{line[:_LONGEST_REVIEW].rstrip()} …"
    # Any punctuation may be markup; as numeric references none is.
    return re.sub(r"[!-/:-@[-`{-~]", lambda match: f"&#{ord(match[0])};", sanitize(line))


def _hyperparameters(config: Config) -> dict[str, bool | int | float | str]:
    """The settings by dotted key, as values that TensorBoard can tabulate."""
    settings = deciding_settings(config) | config.data.hold_out_settings()
    return {
        key: value if isinstance(value, bool | int | float | str) else str(value)
        for key, value in settings.items()
    }


_NUM_SHOWN = 8
_NUM_EXPLAINED = 3
_LONGEST_EXPLAINED = 60  # tokens: the picture stays legible and is quick to make


class ValidationSamples:
    """Some validation reviews, chosen by a seed, to follow through the training.

    Args:
        reviews: the validation reviews.
        corpus: the same, encoded.
        seed: decides which are chosen.
    """

    def __init__(self, reviews: Reviews, corpus: EncodedCorpus, seed: int) -> None:
        self._reviews = reviews
        self._corpus = corpus
        generator = np.random.default_rng(seed)
        count = min(_NUM_SHOWN, len(reviews))
        self._shown = np.sort(generator.choice(len(reviews), count, replace=False)).tolist()
        lengths = corpus.lengths.numpy()
        by_length = np.argsort(lengths, kind="stable")
        short = by_length[: max(_NUM_EXPLAINED, (lengths <= _LONGEST_EXPLAINED).sum())]
        count = min(_NUM_EXPLAINED, len(short))
        self._explained = np.sort(generator.choice(short, count, replace=False)).tolist()
        self._words: dict[int, Words] = {}

    def verdicts(
        self, predictions: Predictions, temperature: float
    ) -> list[tuple[str, str, str, float]]:
        """Text, class, predicted class and its calibrated probability of some reviews."""
        names = self._reviews.class_names
        probabilities = np.exp(apply_temperature(predictions.log_probabilities, temperature))
        rows = []
        for index in self._shown:
            predicted = int(predictions.predicted[index])
            probability = float(probabilities[index, predicted])
            label = names[int(predictions.labels[index])]
            rows.append((self._reviews.texts[index], label, names[predicted], probability))
        return rows

    def explanations(
        self, model: SentimentClassifier, temperature: float
    ) -> Iterator[tuple[str, Figure]]:
        """Tags, with rows counted from 1, and pictures of some short reviews."""
        for index in self._explained:
            if index not in self._words:  # read late, because it loads spaCy
                self._words[index] = read_words(self._corpus, index, self._reviews.texts[index])
            words, names = self._words[index], self._reviews.class_names
            # Explaining draws random numbers; logging must not change the training's.
            with torch.random.fork_rng(devices=[]):
                figure = explanation_figure(model, words, names, temperature=temperature)
            yield f"explanation_of_row_{index + 1}", figure
