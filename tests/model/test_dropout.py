"""Dropout of values, words and recurrent weights, the latter against a plain model."""

import pytest
import torch
from helpers.recurrences import make_classifier
from torch import nn

from sentiment.model import SentimentClassifier
from sentiment.model.classifier import weight_drop
from sentiment.model.layers import drop_over_time, drop_words, dropout
from sentiment.model.rnn_base import VariableLengthRNN


@pytest.mark.parametrize("p", [0.1, 0.2, 0.5, 0.9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_drops_its_share_and_keeps_the_mean(p, dtype):
    torch.manual_seed(0)
    dropped = dropout(torch.ones(1001, 997, dtype=dtype), p, True)
    assert dropped.dtype == dtype
    share = dropped.eq(0).double().mean().item()
    assert abs(share - p) < 5 * (p * (1 - p) / dropped.numel()) ** 0.5 + 1 / 65_536
    kept = dropped[dropped != 0].double()
    assert kept.min() == kept.max() and abs(kept[0].item() * (1 - p) - 1) < 4e-3


def test_values_are_dropped_independently():
    """Four values share one draw of eight bytes: neighbours must not fall together."""
    torch.manual_seed(0)
    kept = dropout(torch.ones(400_000), 0.5, True).ne(0).double()
    for distance in (1, 2, 3, 4):
        together = torch.corrcoef(torch.stack((kept[:-distance], kept[distance:])))[0, 1]
        assert abs(together) < 5 / 400_000**0.5


def test_gradients_flow_where_values_were_kept():
    x = torch.randn(7, 9, requires_grad=True)
    y = dropout(x, 0.4, True)
    y.sum().backward()
    assert torch.allclose(x.grad, y.detach() / x.detach())


def test_nothing_is_dropped_in_evaluation_or_at_zero():
    x = torch.randn(5)
    assert dropout(x, 0.5, False) is x
    assert dropout(x, 0.0, True) is x


def test_locked_values_fall_together_over_time_and_apart_over_reviews():
    torch.manual_seed(0)
    dropped = drop_over_time(torch.ones(9, 200, 300), 0.3, True)  # (time, batch, values)
    assert torch.equal(dropped, dropped[:1].expand_as(dropped))
    kept = dropped[0].ne(0)
    assert abs(1 - kept.double().mean().item() - 0.3) < 0.01
    assert dropped.max().item() == pytest.approx(1 / 0.7, rel=1e-3)
    assert not torch.equal(kept[0], kept[1])
    x = torch.ones(3, 2, 2)
    assert drop_over_time(x, 0.3, False) is x and drop_over_time(x, 0.0, True) is x


def test_words_become_unknown_and_padding_stays():
    torch.manual_seed(0)
    tokens = torch.randint(2, 50, (200, 300))
    tokens[:, 250:] = 0
    dropped = drop_words(tokens, 0.1, True)
    assert torch.equal(dropped[:, 250:], tokens[:, 250:])
    changed = dropped != tokens
    assert (dropped[changed] == 1).all()
    assert abs(changed[:, :250].double().mean().item() - 0.1) < 0.005
    assert drop_words(tokens, 0.1, False) is tokens and drop_words(tokens, 0.0, True) is tokens


@pytest.mark.parametrize(
    "settings",
    [
        {"word_dropout": 0.5},
        {"embedding_dropout": 0.5},
        {"embedding_dropout": 0.5, "locked_dropout": True},
    ],
)
def test_a_classifier_drops_in_training_alone(settings):
    model, plain = make_classifier(**settings), make_classifier()
    tokens, lengths = torch.randint(2, 30, (4, 9)), torch.tensor([9, 9, 5, 2])
    assert not torch.equal(model(tokens, lengths), plain(tokens, lengths))
    assert torch.equal(model.eval()(tokens, lengths), plain.eval()(tokens, lengths))


LENGTHS = torch.tensor([5, 2, 7, 1])
TOKENS = torch.randint(2, 30, (4, 7), generator=torch.Generator().manual_seed(1))
VARIANTS = [("lstm", "packed"), ("gru", "packed"), ("rnn", "packed"), ("lstm", "reference")]
each_variant = pytest.mark.parametrize(("cell", "implementation"), VARIANTS)


def make(cell="lstm", implementation="packed", weight_dropout=0.5) -> SentimentClassifier:
    return make_classifier(
        num_layers=2, cell=cell, implementation=implementation, weight_dropout=weight_dropout
    )


def run(model: SentimentClassifier, seed: int = 3) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Logits and the gradients of all parameters."""
    model.zero_grad()
    torch.manual_seed(seed)
    logits = model(TOKENS, LENGTHS)
    logits.square().sum().backward()
    return logits.detach(), {name: each.grad.clone() for name, each in model.named_parameters()}


@pytest.mark.parametrize(
    ("cell", "implementation", "is_autocast"),
    [
        *((*variant, False) for variant in VARIANTS),
        *((cell, "packed", True) for cell in ("lstm", "gru", "rnn")),
    ],
)
def test_a_batch_is_that_of_a_plain_model_with_the_weights_left(cell, implementation, is_autocast):
    model, plain = (make(cell, implementation, weight_dropout=p) for p in (0.5, 0.0))
    torch.manual_seed(3)  # the masks are all that is drawn
    dropped = weight_drop(model.recurrence, 0.5)
    assert len(dropped) == 4  # of two layers in two directions
    plain.recurrence.load_state_dict(dropped, strict=False)
    with torch.autocast("cpu", torch.bfloat16, enabled=is_autocast):
        (logits, gradients), (wanted_logits, wanted) = run(model), run(plain)
    tolerance = {"atol": 0, "rtol": 0} if is_autocast else {"atol": 1e-6}
    assert torch.allclose(logits, wanted_logits, **tolerance)
    for name, gradient in gradients.items():
        assert gradient.dtype == torch.float32
        inner = name.removeprefix("recurrence.")
        scale = dropped[inner].ne(0) * 2.0 if inner in dropped else 1.0
        assert torch.allclose(gradient, scale * wanted[name], **tolerance), name


def test_the_expected_weight_is_the_weight():
    model = make(weight_dropout=0.3)
    torch.manual_seed(0)
    drawn = [weight_drop(model.recurrence, 0.3) for _ in range(2000)]
    for name, parameter in model.recurrence.named_parameters():
        if not name.startswith("weight_hh"):
            assert name not in drawn[0]
            continue
        mean = torch.stack([each[name].detach() for each in drawn]).mean(dim=0)
        deviation = parameter.detach().abs() * (0.3 / 0.7 / len(drawn)) ** 0.5
        assert ((mean - parameter) / deviation).abs().max() < 6


def test_masks_are_new_for_each_batch_and_the_same_within_it():
    model = make()
    assert not torch.equal(run(model, seed=3)[0], run(model, seed=4)[0])
    # Equal reviews of one batch meet equal weights.
    logits = model(TOKENS[2:3].expand(4, -1), torch.full((4,), 7))
    assert torch.allclose(logits, logits[:1].expand_as(logits), atol=1e-6)


@each_variant
def test_no_weight_is_dropped_in_evaluation(cell, implementation):
    model, plain = make(cell, implementation), make(cell, implementation, weight_dropout=0.0)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    run(model)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), "the weights themselves are left alone"
    assert list(before) == list(plain.state_dict())
    plain.load_state_dict(model.state_dict())
    with torch.no_grad():
        wanted = plain.eval()(TOKENS, LENGTHS)
        assert torch.equal(model.eval()(TOKENS, LENGTHS), wanted)
        assert not torch.equal(model.train()(TOKENS, LENGTHS), wanted)


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
def test_torchs_own_recurrence_takes_the_dropped_weights(cell, monkeypatch):
    """What runs on a GPU reads its weights otherwise; here it is run without one."""
    model = make(cell)
    wanted_logits, wanted = run(model)
    kind = type(model.recurrence)
    monkeypatch.setattr(kind, "forward", VariableLengthRNN.run_cudnn)
    logits, gradients = run(model)
    assert torch.allclose(logits, wanted_logits, atol=1e-6)
    for name, gradient in gradients.items():
        assert torch.allclose(gradient, wanted[name], atol=1e-5), name
    plain = make(cell, weight_dropout=0.0).eval()
    with torch.no_grad():  # no dropped weights are left over
        assert torch.equal(model.eval()(TOKENS, LENGTHS), plain(TOKENS, LENGTHS))


@pytest.mark.cuda
@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
def test_cuda_drops_weights_as_the_cpu_does(cell, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    model = make(cell)
    torch.manual_seed(5)
    dropped = {key: value.detach() for key, value in weight_drop(model.recurrence, 0.5).items()}
    masks = {key: value.ne(0) * 2.0 for key, value in dropped.items()}

    def drop_the_same(recurrence: nn.Module, p: float) -> dict[str, torch.Tensor]:
        parameters = dict(recurrence.named_parameters())
        return {key: parameters[key] * masks[key].to(parameters[key].device) for key in masks}

    monkeypatch.setattr("sentiment.model.classifier.weight_drop", drop_the_same)
    wanted_logits, wanted = run(model)
    model.cuda()
    for _ in range(2):  # the second time after weights were put together anew
        model.zero_grad()
        logits = model(TOKENS.cuda(), LENGTHS)
        logits.square().sum().backward()
        assert torch.allclose(logits.cpu(), wanted_logits, atol=1e-5)
        for name, parameter in model.named_parameters():
            assert torch.allclose(parameter.grad.cpu(), wanted[name], atol=1e-4), name
    plain = make(cell, weight_dropout=0.0).eval()
    with torch.no_grad():
        found = model.eval()(TOKENS.cuda(), LENGTHS).cpu()
        assert torch.allclose(found, plain(TOKENS, LENGTHS), atol=1e-5)
