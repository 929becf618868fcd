"""The language model, against plain softmaxes and nn.LSTM one review at a time."""

import math

import pytest
import torch
from torch import nn

from sentiment.config.config import PretrainingConfig
from sentiment.data.batches import Batch, EncodedCorpus
from sentiment.model import SentimentClassifier
from sentiment.pretraining.language_model import (
    Candidates,
    LanguageModel,
    log_likelihood,
    measure_perplexity,
    read_streams,
    stream_windows,
)
from sentiment.pretraining.pretrainer import BatchPlan

WORDS = 23
LENGTHS = [13, 12, 9, 4, 2]


def make_batch(lengths: list[int], seed: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.zeros(len(lengths), max(lengths), dtype=torch.int32)
    for row, length in enumerate(lengths):
        tokens[row, :length] = torch.randint(1, WORDS, (length,), generator=generator).int()
    labels, indices = torch.zeros(len(lengths)), torch.arange(len(lengths))
    return Batch(tokens, torch.tensor(lengths), labels, indices)


def make_model(*, directions: int = 2, layers: int = 1, dropout: float = 0.0) -> LanguageModel:
    torch.manual_seed(1)
    classifier = SentimentClassifier(
        vocabulary_size=WORDS, num_classes=2, embedding_size=6, hidden_size=5, num_layers=layers,
        bidirectional=directions == 2,
    )  # fmt: skip
    return LanguageModel(classifier, torch.arange(WORDS), dropout)


def whole_losses(model: LanguageModel, words: torch.Tensor) -> list[float]:
    """Loss of each direction by nn.LSTM and a plain softmax, over one whole review."""
    lstm = model.classifier.recurrence
    oracle = nn.LSTM(
        6, 5, num_layers=lstm.num_layers, bidirectional=lstm.bidirectional, batch_first=True
    )
    oracle.load_state_dict(lstm.state_dict())
    table = model.classifier.embedding.weight
    output = oracle(table[words.long()].unsqueeze(0))[0][0]  # (time, directions * hidden)
    losses = []
    for direction in range(model.directions):
        part = output[:, 5 * direction : 5 * direction + 5]
        read, wanted = (part[:-1], words[1:]) if direction == 0 else (part[1:], words[:-1])
        logits = model.projections[direction](read) @ table.t() + model.biases.squeeze(1)
        logits[:, 0] = -math.inf
        losses.append(nn.functional.cross_entropy(logits, wanted.long(), reduction="sum").item())
    return losses


@pytest.mark.parametrize("window", [3, 12, 100])
@pytest.mark.parametrize(("directions", "layers"), [(2, 1), (1, 1), (1, 2)])
@pytest.mark.parametrize("by_onednn", [True, False])
def test_windows_of_a_batch_equal_whole_reviews(window, directions, layers, by_onednn, monkeypatch):
    model = make_model(directions=directions, layers=layers).eval()
    batch = make_batch(LENGTHS)
    expected = torch.zeros(directions)
    for row, length in enumerate(LENGTHS):
        expected += torch.tensor(whole_losses(model, batch.tokens[row, :length]))
    monkeypatch.setattr("sentiment.pretraining.language_model._LOGITS_AT_ONCE", 4 * WORDS)
    total, states, count = torch.zeros(directions), None, 0
    with torch.backends.mkldnn.flags(enabled=by_onednn), torch.no_grad():
        for each in stream_windows(batch, directions, window, is_repeated=False):
            losses, states = model.exact_losses(each, states)
            total += losses
            count += len(each.rows)
    assert count == sum(LENGTHS) - len(LENGTHS)
    torch.testing.assert_close(total, expected, rtol=1e-4, atol=1e-4)


def test_candidates_come_as_often_as_their_chances_say():
    counts = torch.tensor([0.0, 50, 400, 10, 3, 1, 90, 7])
    candidates = Candidates(counts, num_candidates=3, seed=5)
    draws = torch.stack([candidates.draw(update) for update in range(2_000)])
    assert all(len(set(draw.tolist())) == 3 for draw in draws)
    assert torch.equal(draws[17], Candidates(counts, num_candidates=3, seed=5).draw(17))
    assert not torch.equal(draws, torch.stack([draws[0]] * len(draws)))
    shares = torch.bincount(draws.flatten(), minlength=8) / len(draws)
    assert shares[0] == 0
    # Drawing three different words is nearly the same as drawing more with replacement.
    torch.testing.assert_close(shares[1:], candidates.log_chances.exp()[1:], atol=0.08, rtol=0)


def test_the_sampled_sum_estimates_that_of_all_words():
    """Each candidate is weighted by the inverse of its chance; the right word is excluded."""
    generator = torch.Generator().manual_seed(2)
    hidden = torch.randn(1, 4, generator=generator)
    table = torch.randn(WORDS, 4, generator=generator)
    biases = torch.randn(WORDS, generator=generator)
    counts = torch.arange(1.0, WORDS + 1) ** 2
    candidates = Candidates(counts, num_candidates=8, seed=0)
    target = torch.tensor([WORDS - 1])  # drawn most often
    right = (hidden @ table[target].t()).squeeze() + biases[target]
    sums = []
    for update in range(3_000):
        drawn = candidates.draw(update)
        share = log_likelihood(
            hidden, target, (table[target], biases[target]), drawn, (table[drawn], biases[drawn]),
            candidates.log_chances,
        )  # fmt: skip
        sums.append((right - share).exp() - right.exp())
    logits = hidden @ table.t() + biases
    expected = logits.exp().sum() - right.exp()
    assert torch.stack(sums).mean() == pytest.approx(expected.item(), rel=0.15)


def test_words_and_outputs_are_dropped_in_training_alone(monkeypatch):
    batch, words, chances = make_batch([9, 8, 7]), torch.arange(1, WORDS), torch.zeros(WORDS)
    (window,) = stream_windows(batch, 2, 100, is_repeated=False)
    model = make_model(dropout=0.5)
    seen: list[torch.Tensor] = []

    def read(lstm, x, states):
        seen.append(x)
        return read_streams(lstm, x, states)

    monkeypatch.setattr("sentiment.pretraining.language_model.read_streams", read)
    model.projections[0].register_forward_hook(lambda _, given, __: seen.append(given[0]))
    model.losses(window, None, words, chances)
    for each in seen:  # embedded words, then outputs
        assert 0.3 < (each == 0).float().mean() < 0.7
    model.eval()
    plain = make_model().losses(window, None, words, chances)[0]
    torch.testing.assert_close(model.losses(window, None, words, chances)[0], plain)


def test_gradients_of_windows_are_those_of_the_reviews():
    """With a window longer than all reviews, and every word a candidate."""
    model = make_model()
    batch = make_batch(LENGTHS)
    words, chances = torch.arange(1, WORDS), torch.zeros(WORDS)
    (window,) = stream_windows(batch, 2, 100, is_repeated=False)
    losses, _ = model.losses(window, None, words, chances)
    losses.sum().backward()
    found = {name: each.grad for name, each in model.named_parameters() if each.grad is not None}
    assert found["classifier.embedding.weight"][0].abs().max() == 0, "none into padding"
    model.zero_grad()
    total = torch.zeros(())
    for row, length in enumerate(LENGTHS):
        one = Batch(
            batch.tokens[row : row + 1, :length], torch.tensor([length]), batch.labels, None
        )
        (window,) = stream_windows(one, 2, 100, is_repeated=False)
        total = total + model.losses(window, None, words, chances)[0].sum()
    torch.testing.assert_close(losses.sum(), total)
    total.backward()
    for name, parameter in model.named_parameters():
        if name in found:
            torch.testing.assert_close(found[name], parameter.grad, rtol=1e-4, atol=1e-5)
    assert {name for name in found if "output" in name} == set()


def test_an_autoencoder_predicts_the_second_reading():
    batch = make_batch([4, 2])
    (window,) = stream_windows(batch, 2, 100, is_repeated=True)
    first, second = batch.tokens[0].tolist(), batch.tokens[1, :2].tolist()
    assert window.words[0, :, 0].tolist() == [*first, *first][:-1]
    assert window.words[1, :, 0].tolist() == [*first[::-1], *first[::-1]][:-1]
    wanted = window.targets.flatten(1)[:, window.rows]
    place = [[row // 2, row % 2] for row in window.rows.tolist()]  # time, review
    assert [wanted[0, i].item() for i, at in enumerate(place) if at[1] == 0] == first
    assert [wanted[0, i].item() for i, at in enumerate(place) if at[1] == 1] == second
    assert [wanted[1, i].item() for i, at in enumerate(place) if at[1] == 1] == second[::-1]


def test_every_review_is_read_once_an_epoch():
    lengths = [torch.tensor([5, 1, 9, 7]), torch.tensor([3, 2, 2, 8, 1])]
    corpora = [
        EncodedCorpus(torch.zeros(1), torch.zeros(1), each, each, each, each) for each in lengths
    ]
    plan = BatchPlan(corpora, PretrainingConfig(batch_size=2, window=4), seed=3)
    for epoch in (1, 2):
        batches = plan.batches(epoch)
        read = sorted((number, index) for number, each in batches for index in each.tolist())
        assert read == [(0, 0), (0, 2), (0, 3), (1, 0), (1, 1), (1, 2), (1, 3)]
    windows = sum(
        len(range(0, int(lengths[number][each[0]]) - 1, 4))
        for epoch in (1, 2)
        for number, each in plan.batches(epoch)
    )
    assert plan.num_updates(2) == windows
    one = torch.tensor([1, 1])
    corpus = EncodedCorpus(torch.zeros(1), torch.zeros(1), one, one, one, one)
    with pytest.raises(ValueError, match="every review has fewer than two words"):
        BatchPlan([corpus], PretrainingConfig(batch_size=2, window=4), seed=3)


def test_perplexity_of_equal_chances_is_the_number_of_words():
    model = make_model()
    with torch.no_grad():
        model.classifier.embedding.weight.zero_()
        model.biases.zero_()
    batch = make_batch([6, 5, 3])
    flat = torch.cat([batch.tokens[row, :length] for row, length in enumerate([6, 5, 3])])
    lengths, starts = batch.lengths, torch.tensor([0, 6, 11])
    corpus = EncodedCorpus(flat, torch.arange(WORDS), starts, lengths, lengths, torch.zeros(3))
    found = measure_perplexity(model, corpus, window=4, is_repeated=False, precision=torch.float32)
    assert found == pytest.approx([WORDS - 1] * 2, rel=1e-5)
    assert model.training
