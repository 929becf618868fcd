"""What runs on a GPU, on a pretended one: against the CPU's results, and without waits."""

import contextlib
import copy
import re
import warnings
from pathlib import Path

import pytest
import torch
from helpers.corpus import write_corpus
from helpers.pretended_device import PretendedDevice
from helpers.pretraining import options
from helpers.trainings import arguments, stop_after, train
from torch import nn

from sentiment.cli import main as cli
from sentiment.cli.train import execute, parse
from sentiment.config.config import TrainingConfig
from sentiment.diagnostics.doctor import check_recurrence
from sentiment.diagnostics.machine import check_device
from sentiment.diagnostics.run_diff import compare_runs
from sentiment.explain import attribution
from sentiment.model import SentimentClassifier
from sentiment.pretraining.pretrainer import Pretrainer
from sentiment.training import trainer
from sentiment.training.checkpoint import load_state
from sentiment.training.optim import build_optimizer

LENGTHS = torch.tensor([3, 9, 1, 7])  # not in order
TOKENS = torch.randint(2, 30, (4, 9), generator=torch.Generator().manual_seed(1))
LABELS = torch.tensor([0, 1, 1, 0])

MODELS = {
    "last": {"pooling": "last"},
    "gru": {"cell": "gru", "num_layers": 2, "pooling": "mean"},
    "rnn": {"cell": "rnn", "bidirectional": False, "pooling": "attention"},
    "reference": {"implementation": "reference", "pooling": "last+max+mean"},
    "states": {"learned_initial_state": True, "num_layers": 2},
    "gru-states": {"cell": "gru", "learned_initial_state": True, "pooling": "last"},
    "normalized": {"normalize_embedding": True, "frequencies": range(30), "pooling": "last+mean"},
}


def make_model(**settings: object) -> SentimentClassifier:
    sizes = {"vocabulary_size": 30, "num_classes": 2, "embedding_size": 6, "hidden_size": 5}
    return SentimentClassifier(**sizes, **settings)


def learn(device: str, **model: object) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Logits after two updates, and the weights."""
    torch.manual_seed(0)
    classifier = make_model(**model).to(device).train()
    optimizer = build_optimizer(classifier, TrainingConfig(learning_rate=0.01))
    tokens, labels = TOKENS.to(device), LABELS.to(device)
    for _ in range(2):
        optimizer.zero_grad()
        nn.functional.cross_entropy(classifier(tokens, LENGTHS), labels).backward()
        nn.utils.clip_grad_norm_(classifier.parameters(), 1.0)
        optimizer.step()
    with torch.inference_mode():
        logits = classifier.eval()(tokens, LENGTHS).cpu()
    return logits, {name: weight.cpu() for name, weight in classifier.state_dict().items()}


@pytest.mark.parametrize("device", ["cuda", "mps"])
@pytest.mark.parametrize("model", MODELS)
def test_models_learn_as_on_the_cpu(model, device):
    expected_logits, expected = learn("cpu", **MODELS[model])
    with PretendedDevice(device) as pretended, warnings.catch_warnings():
        warnings.simplefilter("error")  # as cuDNN's about weights in pieces
        logits, weights = learn(device, **MODELS[model])
    torch.testing.assert_close(logits, expected_logits, rtol=1e-4, atol=1e-5)
    for name, weight in weights.items():  # Adam divides by tiny gradients
        torch.testing.assert_close(weight, expected[name], rtol=1e-3, atol=2e-4)
    assert pretended.num_compactions == 0


DROPOUTS = {"dropout": 0.5, "embedding_dropout": 0.5, "word_dropout": 0.2, "num_layers": 2}


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_operations_do_not_grow_with_the_reviews(cell):
    """As they would by torch's own packing, whose backward copies once for each time step."""
    counts = []
    for time in (5, 60):
        with PretendedDevice() as device:
            model = make_model(cell=cell).cuda().train()
            tokens = torch.ones(2, time, dtype=torch.int64, device="cuda")
            model(tokens, torch.tensor([time, 4])).sum().backward()
        counts.append(device.num_operations)
    assert counts[0] == counts[1] < 60


@pytest.mark.parametrize(
    "more", [{}, {"locked_dropout": True, "weight_dropout": 0.5}, {"cell": "gru"}]
)
def test_every_dropout_draws_from_the_devices_generator(more):
    """So that a checkpoint, which holds that one's state, continues to the bit."""
    with PretendedDevice():
        torch.manual_seed(0)
        model = make_model(**DROPOUTS, **more).cuda().train()
        tokens, state = TOKENS.cuda(), torch.cuda.get_rng_state()
        logits = model(tokens, LENGTHS)
        assert not torch.equal(model(tokens, LENGTHS), logits)
        torch.cuda.set_rng_state(state)
        torch.randn(9)
        assert torch.equal(model(tokens, LENGTHS), logits)


TRAININGS = {
    "guarded": ["--training.nonfinite=skip", "--training.average_decay=0.9",
                "--training.accumulation_steps=2", "--model.learned_initial_state=true",
                "--model.pooling=last+max+mean", "--model.word_dropout=0.1",
                "--training.class_weights=balanced", "--data.keep=head+tail",
                "--data.max_length=12"],
    "dropped": ["--objectives.virtual_adversarial=1", "--objectives.power_iterations=1",
                "--model.num_layers=2", "--model.dropout=0.5", "--model.weight_dropout=0.5",
                "--model.locked_dropout=true", "--model.pooling=attention",
                "--model.normalize_embedding=true", "--training.nonfinite=skip",
                "--training.average_decay=0.9", "--training.accumulation_steps=2"],
    "objectives": ["--objectives.adversarial=1", "--objectives.virtual_adversarial=1",
                   "--objectives.entropy=1", "--distillation.num_teachers=1"],
}  # fmt: skip


@pytest.fixture(scope="module")
def reviews(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reviews")
    splits = {"train": 48, "validation": 12, "test": 12, "unsupervised": 20}
    return write_corpus(folder, splits=splits)


def command(name: str, reviews: Path, run: Path, *more: str) -> list[str]:
    short = ["--training.num_epochs=1", "--training.batch_size=8", "--training.log_every=1000"]
    return arguments(reviews, run, "--device=cuda", *short, *TRAININGS[name], *more)


def train_whole(name: str, reviews: Path, run: Path) -> None:
    """Train without a stop, and check that no update waits for the device."""
    counts = []
    with PretendedDevice() as device:
        request = parse(command(name, reviews, run, "--training.checkpoint_updates=1000"), "train")
        execute(request, lambda update: counts.append(len(device.waits)))
    assert len(counts) >= 3
    # In the last update, the epoch's end waits for the histograms.
    assert device.waits[counts[0] : counts[-2]] == []
    assert device.num_compactions == 0


def train_in_parts(name: str, reviews: Path, run: Path) -> None:
    with PretendedDevice():
        stop_after(command(name, reviews, run, "--training.checkpoint_updates=1"), 2)
    with PretendedDevice():  # another process, with another state of its generators
        assert cli.train([f"--resume={run}"]) == 0


def test_resumed_equals_never_stopped(reviews, tmp_path, monkeypatch):
    train_whole("dropped", reviews, tmp_path / "whole")
    train_in_parts("dropped", reviews, tmp_path / "broken")
    difference = compare_runs(tmp_path / "whole", tmp_path / "broken")
    assert difference.is_equal, difference
    # A fault that this must find: the device's generator is not saved.
    monkeypatch.setattr(trainer, "generator_states", lambda *_: {"cpu.0": torch.get_rng_state()})
    train_in_parts("dropped", reviews, tmp_path / "faulty")
    assert not compare_runs(tmp_path / "whole", tmp_path / "faulty").is_equal


@pytest.mark.parametrize("name", ["guarded", "objectives"])
def test_no_update_waits(name, reviews, tmp_path):
    train_whole(name, reviews, tmp_path / "run")


def test_updates_are_skipped_without_waiting(reviews, tmp_path, monkeypatch):
    """The same ones as on the CPU, which reads each loss at once."""
    forward, weights, skipped = SentimentClassifier.forward, {}, {}

    def poisoned(self, tokens, lengths):
        logits = forward(self, tokens, lengths)
        # By the batch's shape, which is known without waiting.
        return logits * float("inf") if self.training and tokens.shape[1] % 2 else logits

    monkeypatch.setattr(SentimentClassifier, "forward", poisoned)
    more = ["--training.nonfinite=skip", "--training.num_epochs=2", "--training.batch_size=8",
            "--model.dropout=0", "--model.embedding_dropout=0", "--training.average_decay=0.9",
            "--training.checkpoint_updates=1"]  # fmt: skip
    for device in ("cpu", "cuda"):
        run = tmp_path / device
        with PretendedDevice():
            stop_after(arguments(reviews, run, f"--device={device}", *more), 9)
        state = load_state(run)
        weights[device] = state.section("model") | state.section("average")
        skipped[device] = state.values["updates"]["num_skipped"], state.section("sums")["all"]
    assert 1 < skipped["cpu"][0] < 8
    assert skipped["cuda"][0] == skipped["cpu"][0]
    torch.testing.assert_close(skipped["cuda"][1], skipped["cpu"][1], rtol=1e-5, atol=0)
    torch.testing.assert_close(weights["cuda"], weights["cpu"], rtol=1e-3, atol=1e-5)


def test_pretraining_and_the_training_that_starts_from_it(reviews, tmp_path, monkeypatch):
    train_batch, waits = Pretrainer._train_batch, []

    def watched(self, batch):
        before = len(pretended.waits)
        train_batch(self, batch)
        waits.extend(pretended.waits[before:])

    monkeypatch.setattr(Pretrainer, "_train_batch", watched)
    more = ["--device=cuda", "--training.log_every=1000"]
    with PretendedDevice() as pretended:
        assert cli.train(options(reviews, tmp_path / "run", *more)) == 0
    assert waits == []
    assert pretended.num_compactions == 0


@pytest.fixture(scope="module")
def run(reviews: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run trained on the CPU."""
    return train(reviews, tmp_path_factory.mktemp("trained") / "run", "--training.num_epochs=1")


def test_commands_say_what_they_say_on_the_cpu(run, reviews, tmp_path, capsys):
    commands = {
        "evaluate": ["--run", run, "--max_lengths", 5, 10],
        "explain": [run, "a great film, but a dull plot"],
        "predict": [run, "a great film", "a dull plot"],
        "compare": [run, run, "--split", "validation"],
    }
    printed = {}
    for device, count in {"cpu": 4, "cuda": 4, "mps": 2}.items():
        for name, rest in list(commands.items())[:count]:
            output = [] if name == "predict" else ["--output", tmp_path / device / name]
            words = [name, *map(str, [*rest, *output]), f"--device={device}"]
            with PretendedDevice("mps" if device == "mps" else "cuda"):
                assert cli.main(words) == 0, capsys.readouterr()
            text = capsys.readouterr().out.replace(str(tmp_path / device), "")
            printed[device, name] = re.sub(r"[\d.]+ s on .*", "", text)
            assert printed[device, name] == printed["cpu", name]


def test_find_lr_and_doctor(reviews, tmp_path, capsys):
    with PretendedDevice():
        command = ["find-lr", f"--data.path={reviews}", "--device=cuda", "--num_updates=12",
                   f"--output_dir={tmp_path / 'range'}", "--model.hidden_size=8"]  # fmt: skip
        assert cli.main(command) == 0, capsys.readouterr()
        assert check_device().message.startswith("cuda:0 (pretended GPU), 60.0 of 80.0 GB")
        recurrence = check_recurrence()
    assert recurrence.status == "ok", recurrence.message


def test_training_on_an_apple_gpu(reviews, tmp_path):
    more = [*TRAININGS["guarded"], "--device=mps", "--training.num_epochs=1"]
    with PretendedDevice("mps"):
        assert cli.train(arguments(reviews, tmp_path / "run", *more)) == 0


# The pretended device itself: its rules, and that it catches faults that a GPU would.


def test_devices_do_not_mix_but_for_single_numbers():
    with PretendedDevice():
        values = torch.ones(3, device="cuda")
        for operation in (torch.add, torch.dot):
            with pytest.raises(RuntimeError, match="at least two devices, cuda:0 and cpu"):
                operation(values, torch.ones(3))
        with pytest.raises(RuntimeError, match="at least two devices"):
            torch.stack((values[0], torch.ones(())))
        total = values + torch.tensor(2.0)
        assert total.device == torch.device("cuda", 0) and total.cpu().tolist() == [3, 3, 3]
        with pytest.raises(TypeError, match="numpy"):
            values.numpy()
    assert not torch.cuda.is_available()


def test_waits_are_logged():
    with PretendedDevice() as device:
        values = torch.arange(4, device="cuda")
        host = torch.arange(4)
        host.pin_memory().to("cuda", non_blocking=True)
        values.mul(2).sum()
        assert device.waits == []
        waiting = [
            lambda: float(values[0]), lambda: bool(values.any()), values.tolist, values.cpu,
            lambda: values[values > 1], values.nonzero, lambda: host.to("cuda"),
            lambda: host.to("cuda", non_blocking=True), lambda: values[host],
            lambda: torch.tensor([1, 2], device="cuda"), lambda: values.copy_(host),
        ]  # fmt: skip
        for number, wait in enumerate(waiting, 1):
            wait()
            assert len(device.waits) == number


def test_random_numbers_are_the_devices_own():
    with PretendedDevice():
        torch.manual_seed(3)
        on_host, on_device = torch.rand(4), torch.rand(4, device="cuda").cpu()
        assert torch.equal(on_host, on_device)  # equal seeds, two generators
        state = torch.cuda.get_rng_state()
        torch.rand(9)
        first = torch.rand(4, device="cuda").cpu()
        torch.cuda.set_rng_state(state)
        assert torch.equal(torch.rand(4, device="cuda").cpu(), first)


def test_cudnn_refuses_states_that_are_not_contiguous():
    with PretendedDevice():
        lstm = nn.LSTM(4, 3).cuda()
        state = torch.zeros(1, 1, 3, device="cuda").expand(1, 2, 3)
        with pytest.raises(RuntimeError, match="rnn: hx is not contiguous"):
            lstm(torch.ones(5, 2, 4, device="cuda"), (state, state))


def test_cudnn_warns_of_weights_in_pieces():
    with PretendedDevice() as device:
        lstm = nn.LSTM(4, 3).cuda()
        lstm(torch.ones(5, 2, 4, device="cuda"))
        assert device.num_compactions == 0
        with pytest.warns(UserWarning, match="not part of single contiguous chunk"):
            copy.deepcopy(lstm)(torch.ones(5, 2, 4, device="cuda"))
        assert device.num_compactions == 1


def test_cudnn_left_on_in_explaining_is_found(monkeypatch):
    @contextlib.contextmanager
    def left_on(**_: object):
        yield

    with PretendedDevice():
        model = make_model().cuda()
        attribution.integrated_gradients(model, torch.tensor([2, 3, 4]).numpy())
        monkeypatch.setattr(torch.backends.cudnn, "flags", left_on)
        with pytest.raises(RuntimeError, match="can only be called in training mode"):
            attribution.integrated_gradients(model, torch.tensor([2, 3, 4]).numpy())


def test_an_apple_gpu_has_no_fp64():
    with PretendedDevice("mps"):
        values = torch.ones(3, device="mps")
        for operation in (values.double, lambda: torch.zeros(2, dtype=torch.float64).to("mps")):
            with pytest.raises(TypeError, match="float64"):
                operation()
