from __future__ import annotations

import pytest
import torch
from helpers.recurrences import make_classifier

from sentiment.model.layers import drop_over_time, drop_words, dropout


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


def test_torchs_generator_decides():
    x = torch.ones(10_000)
    first = [torch.manual_seed(seed) and dropout(x, 0.5, True) for seed in (3, 3, 4)]
    assert torch.equal(first[0], first[1])
    assert not torch.equal(first[0], first[2])


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
