"""A run's model as one file, checked against the run before it appears."""

from __future__ import annotations

import json
import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from sentiment.exporting.checking import TOLERANCE, Classifier, largest_difference
from sentiment.exporting.parts import take_apart
from sentiment.runs import Run

Format = Literal["onnx", "torch"]

FORMAT_VERSION = 1
_MOST_BYTES_OF_ONNX = 2**31 - 2**24  # protobuf's limit of 2 GiB, less what is not weights


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        path: the file.
        num_bytes: its size.
        difference: the largest one between its logits and the run's.
    """

    path: Path
    num_bytes: int
    difference: float


def export_run(run: Run, path: Path, format: Format) -> Exported:
    """Write a run's model as one file, if it says what the run says.

    Args:
        run: the run, on the CPU.
        path: where to.
        format: ``onnx``, for onnxruntime and others; ``torch``, for ``torch.jit.load``.

    Raises:
        ValueError: the model has a part that cannot be exported, is too large for the format, or
            logits differ by more than a ten-thousandth; nothing is written then.
        ModuleNotFoundError: onnx or onnxruntime is not installed.
    """
    write, load = _FORMATS[format]
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(path.name + ".new")
    try:
        write(run, new)
        difference = largest_difference(run, load(new))
        if not difference <= TOLERANCE:
            raise ValueError(
                f"logits of the exported model differ from the run's by {difference:.2g}, where "
                f"{TOLERANCE:g} is allowed: nothing was written; please report this"
            )
        os.replace(new, path)
    finally:
        new.unlink(missing_ok=True)
    return Exported(path, path.stat().st_size, difference)


def describe(run: Run) -> dict[str, str]:
    """What whoever uses the file must know, as texts.

    ``class_names`` (a JSON list, in the order of the logits), ``temperature`` (what logits are
    divided by before the softmax), ``max_length`` and ``keep`` (which tokens of a longer text are
    read), ``lower_case`` (true or false), ``tokenizer``, and ``vocabulary``: a word a line, the
    number of the line, from 0, being its id.
    """
    data = run.config.data
    return {
        "format_version": str(FORMAT_VERSION),
        "class_names": json.dumps(list(run.class_names), ensure_ascii=False),
        "temperature": repr(run.checkpoint.temperature),
        "max_length": str(data.max_length),
        "keep": data.keep,
        "lower_case": json.dumps(data.lower_case),
        "tokenizer": 'spacy.blank("en"), after <br> became spaces and HTML entities characters',
        "vocabulary": "\n".join(run.vocabulary.itos),
    }


def _write_onnx(run: Run, path: Path) -> None:
    import onnx

    from sentiment.exporting.onnx_graph import build_onnx

    parts = take_apart(run.model)
    size = sum(value.numel() * value.element_size() for value in run.model.state_dict().values())
    if size > _MOST_BYTES_OF_ONNX:
        raise ValueError(f"the model has {size:,} bytes, but an ONNX file holds 2 GiB at most")
    model = build_onnx(parts, describe(run))
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
    from sentiment.exporting.torch_module import ScriptedClassifier

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # torch.export cannot do it yet
        scripted = torch.jit.script(ScriptedClassifier(take_apart(run.model)).eval())
        torch.jit.save(scripted, str(path), _extra_files=describe(run))


def _load_torch(path: Path) -> Classifier:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return torch.jit.load(str(path))


_FORMATS = {"onnx": (_write_onnx, _load_onnx), "torch": (_write_torch, _load_torch)}
