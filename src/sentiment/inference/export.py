"""Exporting a run's model for onnxruntime or torch alone, and checking the export."""

from __future__ import annotations

import copy
import json
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence

from sentiment.data.vocabulary import token_counts
from sentiment.model import SentimentClassifier
from sentiment.model.classifier import InitialStates
from sentiment.model.layers import split_pooling
from sentiment.runs.run import Run
from sentiment.runtime.device import exact_fp32
from sentiment.runtime.errors import UserError


class ScriptedClassifier(nn.Module):
    """TorchScript's version of :class:`sentiment.model.SentimentClassifier`, for both formats."""

    def __init__(self, model: SentimentClassifier) -> None:
        super().__init__()
        whole = model.recurrence
        self.embedding = nn.Embedding.from_pretrained(model.embedding_table())
        kind = {"LSTM": nn.LSTM, "GRU": nn.GRU, "RNN_TANH": nn.RNN}[whole.mode]
        self.recurrence = kind(
            whole.input_size, whole.hidden_size, whole.num_layers, batch_first=True,
            bidirectional=whole.bidirectional,
        )  # fmt: skip
        self.recurrence.load_state_dict(whole.state_dict())
        initial = model.initial_states or InitialStates(whole)
        self.h, self.c = initial.h, initial.c  # (layers * directions, hidden)
        self.num_directions = whole.directions
        self.poolings = list(split_pooling(model.pooling))
        self.attention = model.attention
        self.output = model.output

    def forward(self, tokens: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """(batch, time) ids and (batch,) lengths, on any device, to (batch, num_classes) logits."""
        # Longest first, as a packed sequence needs them.
        lengths, order = lengths.to(tokens.device).sort(descending=True)
        embedded = self.embedding(tokens[order])  # (batch, time, embedding)
        # pack_padded_sequence without its check of types, which ONNX cannot express.
        data, batch_sizes = torch._VF._pack_padded_sequence(embedded, lengths.to("cpu"), True)
        packed = PackedSequence(data, batch_sizes, None, None)
        h = self.h.unsqueeze(1).repeat(1, tokens.size(0), 1)
        if self.c is not None:
            c = self.c.unsqueeze(1).repeat(1, tokens.size(0), 1)
            packed, (final, _) = self.recurrence(packed, (h, c))
        else:
            packed, final = self.recurrence(packed, h)
        # (batch, longest, directions * hidden), zero past each length
        output, _ = pad_packed_sequence(packed, batch_first=True)
        final = final[-self.num_directions :]  # (directions, batch, hidden)
        pooled = [self.pool(kind, output, final, lengths) for kind in self.poolings]
        return self.output(torch.cat(pooled, dim=1))[order.argsort()]

    def pool(
        self, kind: str, output: torch.Tensor, final: torch.Tensor, lengths: torch.Tensor
    ) -> torch.Tensor:
        """As :func:`sentiment.model.layers.pool`, to (batch, directions * hidden)."""
        if self.attention is not None and kind == "attention":
            return self.attention(output, lengths)
        if kind == "mean":
            return output.sum(dim=1) / lengths.unsqueeze(1)
        if kind == "max":
            is_padding = torch.arange(output.size(1), device=output.device) >= lengths.unsqueeze(1)
            return output.masked_fill(is_padding.unsqueeze(2), float("-inf")).amax(dim=1)
        return final.transpose(0, 1).flatten(1)


# Rounding alone, from another order of additions, is a few millionths.
TOLERANCE = 1e-4
_LONGEST = 400

Classifier = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def largest_difference(run: Run, exported: Classifier) -> float:
    """The largest difference between logits of the run's model, on the CPU, and an exported one.

    ``exported`` maps (batch, time) ids and (batch,) lengths, int64, to (batch, num_classes) logits.
    """
    model = run.model.eval()
    differences = []
    with torch.inference_mode(), exact_fp32():
        for tokens, lengths in _batches(run):
            logits = exported(tokens, lengths)
            expected = model(tokens, lengths)
            if logits.shape != expected.shape or not logits.isfinite().all():
                return float("inf")
            differences.append(float((logits - expected).abs().max()))
    return max(differences)


def _batches(run: Run) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Random reviews of 1 to 400 words, drawn by frequency and uniformly."""
    generator = np.random.default_rng(0)
    counts = np.array(token_counts(run.vocabulary), dtype=np.float64)
    size = len(counts)
    for shares in (counts / counts.sum(), np.full(size, 1 / size)):
        for batch, time in ((1, 1), (1, _LONGEST), (17, _LONGEST), (17, 2)):
            lengths = generator.integers(1, time + 1, batch)
            lengths[-1] = time
            tokens = generator.choice(size, (batch, time), p=shares)
            tokens[np.arange(time) >= lengths[:, None]] = 0
            yield torch.from_numpy(tokens), torch.from_numpy(lengths)


Format = Literal["onnx", "torch"]

FORMAT_VERSION = 1
_OPSET = 17  # of ONNX; old, as older readers refuse newer ones
_MOST_BYTES_OF_ONNX = 2**31 - 2**24  # protobuf's limit of 2 GiB, minus room for the graph


def export_run(run: Run, path: Path, format: Format) -> float:
    """Export a run's model, on the CPU, to one file; returns the largest difference of its logits.

    The format ``onnx`` is for onnxruntime and others, ``torch`` for ``torch.jit.load``. Nothing is
    written if the model cannot be exported or is too large, or if logits differ by more than
    :data:`TOLERANCE`.
    """
    write, load = _FORMATS[format]
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(path.name + ".new")
    try:
        write(run, new)
        difference = largest_difference(run, load(new))
        if not difference <= TOLERANCE:
            raise UserError(
                f"logits of the exported model differ from the run's by {difference:.2g}, where "
                f"{TOLERANCE:g} is allowed: nothing was written; please report this"
            )
        os.replace(new, path)
    finally:
        new.unlink(missing_ok=True)
    return difference


def describe(run: Run) -> dict[str, str]:
    """Metadata of the exported file, as strings."""
    data = run.config.data
    return {
        "format_version": str(FORMAT_VERSION),
        # A JSON list, in the order of the logits.
        "class_names": json.dumps(list(run.class_names), ensure_ascii=False),
        "temperature": repr(run.checkpoint.temperature),  # divides logits before the softmax
        "max_length": str(data.max_length),  # longer texts are truncated as keep says
        "keep": data.keep,
        "lower_case": json.dumps(data.lower_case),
        "tokenizer": f'spacy.blank("{data.language}"), after <br> became spaces and HTML entities '
        "characters",
        "vocabulary": "\n".join(run.vocabulary.itos),  # the line number, from 0, is the id
    }


def _script(run: Run) -> torch.jit.ScriptModule:
    model = copy.deepcopy(run.model).requires_grad_(False)
    return torch.jit.script(ScriptedClassifier(model).requires_grad_(False).eval())


@contextmanager
def _without_warnings() -> Iterator[None]:
    """TorchScript is deprecated, but torch.export cannot do it yet; all outputs are checked."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _write_onnx(run: Run, path: Path) -> None:
    import onnx

    size = sum(value.numel() * value.element_size() for value in run.model.state_dict().values())
    if size > _MOST_BYTES_OF_ONNX:
        raise UserError(f"the model has {size:,} bytes, but an ONNX file holds 2 GiB at most")
    example = torch.ones(1, 1, dtype=torch.int64), torch.ones(1, dtype=torch.int64)
    axes = {"tokens": {0: "batch", 1: "time"}, "lengths": {0: "batch"}, "logits": {0: "batch"}}
    with _without_warnings():
        torch.onnx.export(
            _script(run), example, path, dynamo=False, opset_version=_OPSET, dynamic_axes=axes,
            input_names=["tokens", "lengths"], output_names=["logits"],
        )  # fmt: skip
    model = onnx.load(path)
    onnx.helper.set_model_props(model, describe(run))
    onnx.checker.check_model(model, full_check=True)
    path.write_bytes(model.SerializeToString())


def _load_onnx(path: Path) -> Classifier:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def classify(tokens: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        inputs = {"tokens": tokens.numpy(), "lengths": lengths.numpy()}
        return torch.from_numpy(session.run(["logits"], inputs)[0])

    return classify


def _write_torch(run: Run, path: Path) -> None:
    with _without_warnings():
        torch.jit.save(_script(run), str(path), _extra_files=describe(run))


def _load_torch(path: Path) -> Classifier:
    with _without_warnings():
        return torch.jit.load(str(path))


_FORMATS = {"onnx": (_write_onnx, _load_onnx), "torch": (_write_torch, _load_torch)}
