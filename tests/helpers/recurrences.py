"""Recurrences on padded batches, ours and torch's own on the PackedSequence; a classifier."""

import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from sentiment.model import SentimentClassifier


def run(model, x: torch.Tensor, lengths: torch.Tensor, initial=()) -> list[torch.Tensor]:
    """Output and final states; ``initial`` holds h, and c of an LSTM."""
    start = None if not initial else tuple(initial) if len(initial) > 1 else initial[0]
    if type(model) in (nn.LSTM, nn.GRU, nn.RNN):
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        output, states = model(packed, start)
        output, _ = pad_packed_sequence(output, batch_first=True, total_length=x.shape[1])
    else:
        output, states = model(x, lengths, start)
    return [output, *(states if isinstance(states, tuple) else [states])]


def run_with_gradients(model, x, lengths, initial=()):
    """All results in fp32, and the gradients of a weighted sum of them."""
    results = [result.float() for result in run(model, x, lengths, initial)]
    generator = torch.Generator().manual_seed(3)
    total = sum((each * torch.randn(each.shape, generator=generator)).sum() for each in results)
    return results, torch.autograd.grad(total, [x, *initial, *model.parameters()])


def make_classifier(**settings) -> SentimentClassifier:
    """A classifier with the same weights at each call."""
    torch.manual_seed(0)
    sizes = {"vocabulary_size": 30, "num_classes": 3, "embedding_size": 6, "hidden_size": 8}
    return SentimentClassifier(**{**sizes, **settings})
