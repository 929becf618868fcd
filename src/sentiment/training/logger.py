"""Logging of a run to TensorBoard, console and metrics.json; validation after each epoch."""

from __future__ import annotations

import logging
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import torch
from torch import nn
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams
from torchtext.vocab import Vocab

from sentiment.config.config import Config, deciding_settings
from sentiment.config.sections import Metric
from sentiment.data.pipeline import TrainingData
from sentiment.data.tokenizer import clean
from sentiment.display.console import sanitize, truncate
from sentiment.display.plots import add_figure
from sentiment.evaluation.evaluate import Predictions, predict_corpus
from sentiment.evaluation.metrics import Metrics
from sentiment.evaluation.outputs import add_scalars
from sentiment.evaluation.plots import draw_predictions
from sentiment.explain.attribution import Words, read_words
from sentiment.explain.explain import explain_words
from sentiment.explain.page import draw
from sentiment.model import SentimentClassifier
from sentiment.runtime.errors import UserError
from sentiment.runtime.files import sync_folder, write_json
from sentiment.training.context import TrainingContext

if TYPE_CHECKING:
    from matplotlib.figure import Figure

logger = logging.getLogger(__name__)

_PROJECTED_WORDS = 5_000  # the projector page becomes slow with more
_LONGEST_REVIEW = 2_000  # characters of a logged review


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

    Returns the names of files that are missing or shorter, so that part of them is lost.
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


@dataclass(frozen=True)
class EpochMetrics:
    """Training metrics of an epoch.

    Loss and accuracy are means over the reviews while they were trained on, with dropout; the loss
    is the negative log-likelihood without label smoothing, as in validation.
    """

    epoch: int  # from 1
    update: int  # updates made so far
    loss: float
    accuracy: float
    seconds: float  # time spent training, without validation
    tokens_per_second: float  # without padding
    padding_share: float  # of all positions of the batches, from 0 to 1
    learning_rate: float  # of the last update
    peak_memory_bytes: int  # since the start of the process


class RunLogger:
    """Writes a run's curves, tables and metrics.

    Args:
        path: the run's folder.
        is_silent: write nothing, as on all ranks but the main one.
        state: result of :meth:`state` at a checkpoint; whatever was written later is removed.
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
            for writer in ("train", "validation"):
                for name in rewind_files(path / "tensorboard" / writer, state["files"][writer]):
                    logger.warning("part of TensorBoard's curves is lost: %s/%s", writer, name)
            write_json(path / "metrics.json", {"epochs": self._epochs})
        self._train = SummaryWriter(str(path / "tensorboard" / "train"))
        self._validation = SummaryWriter(str(path / "tensorboard" / "validation"))

    def state(self) -> dict[str, Any]:
        """Flush everything to the disk; returns the lengths of the files so far."""
        if self._is_silent:
            return {}
        self._flush()
        folder = self._path / "tensorboard"
        files = {name: measure_files(folder / name) for name in ("train", "validation")}
        return {"epochs": self._epochs, "files": files}

    def update(
        self,
        update: int,
        terms: Mapping[str, float],
        *,
        loss: float,
        accuracy: float,
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
        low, high = validation.accuracy_ci95
        for line in (
            f"epoch {training.epoch:<2} training    loss {training.loss:.4f}  "
            f"accuracy {100 * training.accuracy:.2f} %  "
            f"{training.seconds:.1f} s, {training.tokens_per_second:,.0f} tokens/s",
            f"         validation  loss {validation.nll:.4f}  "
            f"accuracy {100 * validation.accuracy:.2f} %  "
            f"95 %: {100 * low:.1f} to {100 * high:.1f}{'  best' if is_best else ''}",
            f"         padding {100 * training.padding_share:.1f} %, "
            f"learning rate {training.learning_rate:.1e}, "
            f"memory {training.peak_memory_bytes / 1e9:.2f} GB",
        ):
            logger.info("%s", line)
        self._flush()

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
        paragraphs = []
        for text, label, predicted, probability in rows:
            verdict = "right" if label == predicted else f"wrong, it is {_as_markdown(label)}"
            head = f"**{_as_markdown(predicted)}, {probability:.1%}: {verdict}**"
            paragraphs.append(f"{head}\n\n{_as_markdown(clean(text))}")
        self._validation.add_text("reviews", "\n\n---\n\n".join(paragraphs), epoch)

    def figures(self, figures: Iterable[tuple[str, Figure]], epoch: int) -> None:
        """Log pictures of the validation reviews by tag."""
        for tag, figure in figures:
            add_figure(self._validation, tag, figure, epoch)

    def finish(
        self, config: Config, best: Mapping[str, Any], embedding: torch.Tensor, vocabulary: Vocab
    ) -> None:
        """Log hyperparameters with the best metrics, and the word embeddings."""
        if self._is_silent:
            return
        final = {
            f"best/{name}": float(best[name])
            for name in get_args(Metric)
            if best.get(name) is not None
        }
        settings = {  # as values that TensorBoard can tabulate
            key: value if isinstance(value, bool | int | float | str) else str(value)
            for key, value in (deciding_settings(config) | config.data.hold_out_settings()).items()
        }
        # SummaryWriter.add_hparams would open another folder, apart from the run's curves.
        writer = self._validation.file_writer
        assert writer is not None  # opened with the SummaryWriter
        for summary in hparams(settings, final):
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
    """Markdown that shows a text literally, on one line and truncated."""
    line = " ".join(text.split())
    if len(line) > _LONGEST_REVIEW:
        line = f"{line[:_LONGEST_REVIEW].rstrip()} …"
    # Any punctuation may be markup, but not as numeric references.
    return re.sub(r"[!-/:-@[-`{-~]", lambda match: f"&#{ord(match[0])};", sanitize(line))


_NUM_SHOWN = 8
_NUM_EXPLAINED = 3
_LONGEST_EXPLAINED = 60  # tokens: the picture stays legible and is quick to make


class Validator:
    """Predicts the validation reviews and logs the results, with some reviews to follow."""

    def __init__(
        self,
        model: SentimentClassifier,
        data: TrainingData,
        context: TrainingContext,
        run_logger: RunLogger,
    ) -> None:
        self._model, self._context, self._run_logger = model, context, run_logger
        self._class_names, self._reviews = data.class_names, data.validation_reviews
        self._positive = context.config.training.positive_index(data.class_names)
        self._corpus = data.validation.to(context.device)
        generator = np.random.default_rng(context.config.seed)
        count = min(_NUM_SHOWN, len(self._reviews))
        self._shown = np.sort(generator.choice(len(self._reviews), count, replace=False)).tolist()
        lengths = self._corpus.lengths.numpy()
        by_length = np.argsort(lengths, kind="stable")
        short = by_length[: max(_NUM_EXPLAINED, (lengths <= _LONGEST_EXPLAINED).sum())]
        count = min(_NUM_EXPLAINED, len(short))
        self._explained = np.sort(generator.choice(short, count, replace=False)).tolist()
        self._words: dict[int, Words] = {}

    def predict(self, report: Callable[[int], object]) -> Predictions:
        """All predictions, on every rank; ``report`` takes the size of each finished batch."""
        return predict_corpus(
            self._model, self._corpus, device=self._context.device, positive=self._positive,
            description="validating", distributed=self._context.distributed, report=report,
        )  # fmt: skip

    def log(
        self,
        epoch: EpochMetrics,
        predictions: Predictions,
        metrics: Metrics,
        temperature: float,
        *,
        is_best: bool,
    ) -> None:
        """Log metrics, sample reviews and pictures of an epoch."""
        if not self._context.distributed.is_main:
            return
        number, run_logger = epoch.epoch, self._run_logger
        run_logger.epoch(epoch, metrics, is_best=is_best)
        monitor = self._context.config.training.monitor
        if monitor not in ("accuracy", "nll"):  # which the lines above show
            value = getattr(metrics, monitor)
            logger.info("         %s %s", monitor, "undefined" if value is None else f"{value:.4f}")
        predicted = np.unique(predictions.predicted)
        if len(predicted) == 1:
            name = truncate(self._class_names[predicted[0]], 30)
            logger.info("         every validation review is predicted %s", name)
        run_logger.reviews(self._verdicts(predictions, temperature), number)
        if self._context.config.training.pictures:
            pictures = draw_predictions(
                predictions, self._class_names, temperature, fitted_here=True
            )
            run_logger.figures(pictures.items(), number)
            run_logger.figures(self._explanations(temperature), number)

    def _verdicts(
        self, predictions: Predictions, temperature: float
    ) -> list[tuple[str, str, str, float]]:
        """Text, class, predicted class and its calibrated probability of some reviews."""
        names = self._class_names
        probabilities = predictions.calibrated(temperature).probabilities
        rows = []
        for index in self._shown:
            predicted = int(predictions.predicted[index])
            probability = float(probabilities[index, predicted])
            label = names[int(predictions.labels[index])]
            rows.append((self._reviews.texts[index], label, names[predicted], probability))
        return rows

    def _explanations(self, temperature: float) -> Iterator[tuple[str, Figure]]:
        """Pictures of some short reviews, by tags that count rows from 1."""
        for index in self._explained:
            if index not in self._words:  # read late, because it loads spaCy
                text, language = self._reviews.texts[index], self._context.config.data.language
                self._words[index] = read_words(self._corpus, index, text, language=language)
            # Explaining draws random numbers, and must not change those of the training.
            with torch.random.fork_rng(devices=[]):
                explanation = explain_words(
                    self._model, self._words[index], self._class_names,
                    temperature=temperature, steps=20, most_steps=20,
                )  # fmt: skip
            yield f"explanation_of_row_{index + 1}", draw(explanation)
