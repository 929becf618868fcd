"""Exported files against the run: both formats, all shapes of model, batches never seen."""

import copy
import json
import re
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from helpers.untrained_run import CLASSES, make_run

from sentiment.cli import main as cli
from sentiment.inference import export
from sentiment.inference.export import export_run

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")

SUFFIXES = {"onnx": ".onnx", "torch": ".pt"}
SHAPES = [
    {},
    {"num_layers": 3},
    {"bidirectional": False, "pooling": "last"},
    {"pooling": "last", "num_layers": 2},
    {"pooling": "mean", "bidirectional": False, "num_layers": 2},
    {"pooling": "mean", "learned_initial_state": True},
    {"pooling": "attention", "learned_initial_state": True, "num_layers": 2},
    {"cell": "gru"},
    {"cell": "gru", "pooling": "last", "num_layers": 2, "learned_initial_state": True},
    {"cell": "rnn", "pooling": "mean", "learned_initial_state": True},
    {"cell": "rnn", "pooling": "last", "bidirectional": False, "num_layers": 2},
    {"implementation": "reference", "pooling": "attention"},
    {"pooling": "last+max+mean", "num_layers": 2},
    {"pooling": "attention+last", "bidirectional": False, "weight_dropout": 0.5},
    {"cell": "gru", "pooling": "max+attention+mean", "normalize_embedding": True},
    {"normalize_embedding": True},
]


@pytest.fixture(autouse=True)
def shorter_check(monkeypatch):
    """Reviews of 30 words instead of 400, which a reference implementation takes seconds for."""
    monkeypatch.setattr(export, "_LONGEST", 30)


def batches():
    """Shapes that the check at the export has not seen."""
    generator = torch.Generator().manual_seed(1)
    for batch, time in ((1, 1), (1, 13), (5, 3), (33, 57)):
        lengths = torch.randint(1, time + 1, (batch,), generator=generator)
        # Anything may stand past a review's end, and a batch be longer than its longest review.
        yield torch.randint(0, 43, (batch, time), generator=generator), lengths


def run_exported(path, tokens, lengths):
    if path.suffix == ".pt":
        return torch.jit.load(str(path))(tokens, lengths)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    inputs = {"tokens": tokens.numpy(), "lengths": lengths.numpy()}
    return torch.from_numpy(session.run(["logits"], inputs)[0])


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: "-".join(map(str, shape.values())))
def test_logits_are_the_runs(tmp_path, shape):
    run = make_run(tmp_path / "run", **shape)
    for format, suffix in SUFFIXES.items():
        path = tmp_path / f"model{suffix}"
        assert export_run(run, path, format) < 1e-5
        for tokens, lengths in batches():
            with torch.inference_mode():
                expected = run.model(tokens, lengths)
            found = run_exported(path, tokens, lengths)
            assert found.shape == (len(lengths), 3)
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    assert {each.name for each in tmp_path.iterdir()} == {"run", "model.onnx", "model.pt"}


def check_metadata(metadata, run):
    assert metadata["vocabulary"].split("\n") == run.vocabulary.itos
    expected = {
        "format_version": "1",
        "class_names": json.dumps(list(CLASSES)),
        "temperature": "1.25",
        "max_length": "30",
        "keep": "head",
        "lower_case": "false",
    }
    assert expected.items() <= metadata.items()


def test_onnx_holds_what_its_user_must_know(tmp_path):
    run = make_run(tmp_path / "run")
    export_run(run, path := tmp_path / "model.onnx", "onnx")
    model = onnx.load(path)
    check_metadata({each.key: each.value for each in model.metadata_props}, run)
    assert [each.version for each in model.opset_import] == [17]
    assert [each.name for each in model.graph.input] == ["tokens", "lengths"]


def test_torch_alone_loads_the_file_and_what_its_user_must_know(tmp_path):
    run = make_run(tmp_path / "run")
    export_run(run, path := tmp_path / "model.pt", "torch")
    tokens, lengths = torch.tensor([[5, 6, 7], [8, 0, 0]]), torch.tensor([3, 1])
    code = f"""
import json, sys, torch
names = ("format_version", "class_names", "temperature", "max_length", "keep", "lower_case",
         "vocabulary")
extra = dict.fromkeys(names, "")
model = torch.jit.load({str(path)!r}, _extra_files=extra)
with torch.inference_mode():
    logits = model(torch.tensor({tokens.tolist()}), torch.tensor({lengths.tolist()}))
assert not any(name.partition(".")[0] == "sentiment" for name in sys.modules)
extra = {{name: value.decode() for name, value in extra.items()}}
print(json.dumps([logits.tolist(), extra]))
"""
    # Isolated, and in another folder: nothing of this package can be found by chance.
    done = subprocess.run(
        [sys.executable, "-I", "-c", code], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    logits, metadata = json.loads(done.stdout)
    torch.testing.assert_close(torch.tensor(logits), run.model(tokens, lengths).detach())
    check_metadata(metadata, run)


@pytest.mark.parametrize("format", SUFFIXES)
def test_a_file_that_says_something_else_does_not_appear(tmp_path, monkeypatch, format):
    run = make_run(tmp_path / "run")
    path = tmp_path / f"model{SUFFIXES[format]}"
    path.write_text("an earlier one")

    write, load = export._FORMATS[format]

    def write_wrongly(run, path):
        model = copy.deepcopy(run.model)
        model.output.bias.data += torch.tensor([0, 2e-4, 0])
        write(replace(run, model=model), path)

    monkeypatch.setitem(export._FORMATS, format, (write_wrongly, load))
    with pytest.raises(ValueError, match=r"differ from the run's by 0.0002, where 0.0001"):
        export_run(run, path, format)
    assert path.read_text() == "an earlier one"
    assert {each.name for each in tmp_path.iterdir()} == {"run", path.name}


def test_the_command_writes_into_the_run_or_where_it_is_told(tmp_path, capsys):
    make_run(tmp_path / "run")
    assert cli.main(["export", str(tmp_path / "run"), "--format", "torch"]) == 0
    assert (tmp_path / "run" / "export" / "model.pt").is_file()
    assert re.search(r"model.pt: 0.\d MB in .* s; logits within ", capsys.readouterr().out)
    other = tmp_path / "other.onnx"
    arguments = ["export", str(tmp_path / "run"), "--format", "onnx", f"--output={other}"]
    assert cli.main(arguments) == 0
    assert other.is_file()


def test_without_onnx_the_way_to_it_is_told(tmp_path, capsys, monkeypatch):
    from sentiment.cli import export as command

    monkeypatch.setattr(command, "find_spec", lambda name: None)
    assert cli.main(["export", str(tmp_path), "--format", "onnx"]) == 1
    error = capsys.readouterr().err
    assert " not installed: pip install onnx" in error and error.count("\n") == 1
