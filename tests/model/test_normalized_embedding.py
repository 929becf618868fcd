"""The normalized embedding: against numpy's moments, finite differences, and through a run."""

from collections import Counter
from dataclasses import asdict

import numpy as np
import pytest
import torch
from helpers.recurrences import make_classifier

from sentiment.config.config import Config, ModelConfig
from sentiment.data.vocabulary import build_vocabulary, token_counts
from sentiment.model import SentimentClassifier
from sentiment.model import layers as embedding
from sentiment.model.layers import NormalizedEmbedding
from sentiment.runs.run import create_run, load_run
from sentiment.runs.weights import WeightsInfo, save_weights

COUNTS = [0, 0, 90, 40, 33, 9, 5, 5, 2, 2, 1]
TOKENS = torch.tensor([[2, 5, 10, 1], [3, 0, 0, 0], [2, 2, 7, 0]])
LENGTHS = torch.tensor([4, 1, 3])
NORMALIZED = {
    "vocabulary_size": len(COUNTS), "normalize_embedding": True, "frequencies": COUNTS,
}  # fmt: skip


def make_embedding(counts=COUNTS, size: int = 4, seed: int = 0) -> NormalizedEmbedding:
    torch.manual_seed(seed)
    made = NormalizedEmbedding(len(counts), size, counts)
    with torch.no_grad():
        made.weight.mul_(3).add_(2)[0] = 0
    return made


def oracle(table: np.ndarray, counts: list[int]) -> np.ndarray:
    """Each word written out as often as it occurs, unknown ones once."""
    written = np.repeat(table[1:], [1, *counts[2:]], axis=0).astype(np.float64)
    normalized = (table - written.mean(axis=0)) / np.sqrt(written.var(axis=0) + 1e-6)
    normalized[0] = 0
    return normalized


@pytest.mark.parametrize("rows", [1, 4, 1024])
def test_moments_are_those_of_the_texts_written_out(rows, monkeypatch):
    monkeypatch.setattr(embedding, "_ROWS_PER_BLOCK", rows)
    made = make_embedding()
    wanted = torch.from_numpy(oracle(made.weight.detach().numpy(), COUNTS)).float()
    assert torch.allclose(made.table(), wanted, atol=1e-5)
    assert torch.allclose(made(TOKENS), wanted[TOKENS], atol=1e-5)
    assert torch.allclose(made(TOKENS), made.table()[TOKENS], atol=1e-6), "one table for all"
    assert made.table()[0].eq(0).all()


@pytest.mark.parametrize("rows", [3, 1024])
def test_gradients_are_those_of_finite_differences(rows, monkeypatch):
    monkeypatch.setattr(embedding, "_ROWS_PER_BLOCK", rows)
    made = make_embedding().double()
    made.shares.div_(made.shares.sum())  # to double precision

    def forward(weight):  # of the words; the row of the padding stays zero
        table = torch.cat((torch.zeros_like(weight[:1]), weight))
        return torch.func.functional_call(made, {"weight": table}, (TOKENS,))

    weight = made.weight.detach()[1:].requires_grad_()
    assert torch.autograd.gradcheck(forward, weight)
    (found,) = torch.autograd.grad(forward(weight).sin().sum(), weight)
    assert found[8].ne(0).all(), "a word that is not read moves the moments all the same"


@pytest.mark.parametrize("counts", [[0, 0], [0, 0, 7], [0, 0, 0, 0], [5, 0, 10**12, 1]], ids=str)
def test_nothing_is_divided_by_zero(counts):
    made = make_embedding(counts)
    with torch.no_grad():
        made.weight[:, 1] = 0.25  # alike in all words
        made.weight[0] = 0
    tokens = torch.arange(len(counts))
    made(tokens).square().sum().backward()
    assert made.table().isfinite().all() and made.weight.grad.isfinite().all()
    assert made.table()[:, 1].abs().max() < 1e-2
    assert made.shares[0] == 0 and (made.shares[1:] > 0).all()


def test_frequencies_must_be_of_the_vocabulary():
    with pytest.raises(ValueError, match="normalize_embedding is True, but frequencies is None"):
        make_classifier(**NORMALIZED | {"frequencies": None})
    with pytest.raises(ValueError, match="frequencies has 10 words, expected 11"):
        make_classifier(**NORMALIZED | {"frequencies": COUNTS[1:]})


def test_a_classifier_reads_the_normalized_table():
    model = make_classifier(**NORMALIZED).eval()
    plain = make_classifier(vocabulary_size=len(COUNTS)).eval()
    weights = {**model.state_dict(), "embedding.weight": model.embedding_table().detach()}
    del weights["embedding.shares"]
    assert torch.equal(plain.embedding_table(), plain.embedding.weight)
    plain.load_state_dict(weights)
    assert torch.allclose(model(TOKENS, LENGTHS), plain(TOKENS, LENGTHS), atol=1e-6)
    assert model.embed(TOKENS)[1, 1:].eq(0).all(), "padding is zero"


def test_moments_are_in_full_precision_under_autocast():
    model = make_classifier(**NORMALIZED)
    exact = model.embed(TOKENS)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(model.embed(TOKENS), exact)


def test_a_saved_run_is_rebuilt_by_itself(tmp_path):
    """With the frequencies that it was trained with, whatever the vocabulary's file says."""
    settings = ModelConfig(embedding_size=4, hidden_size=5, normalize_embedding=True)
    vocabulary = build_vocabulary(Counter({"a": 30, "b": 20, "c": 1}))
    create_run(tmp_path / "run", Config(model=settings), ("neg", "pos"), vocabulary)
    assert token_counts(vocabulary) == [0, 0, 30, 20, 1]
    sizes = {"vocabulary_size": 5, "num_classes": 2}
    model = SentimentClassifier(**sizes, frequencies=[0, 4, 30, 20, 1], **asdict(settings))
    save_weights(tmp_path / "run", "best", model, WeightsInfo(1, 1, {}))
    loaded = load_run(tmp_path / "run").model
    assert torch.equal(loaded.embedding_table(), model.embedding_table())
    tokens, lengths = torch.tensor([[2, 3, 4]]), torch.tensor([3])
    assert torch.equal(loaded(tokens, lengths), model.eval()(tokens, lengths))
    assert not loaded.embedding.shares.is_meta
