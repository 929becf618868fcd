"""How well a language model foretells reviews that it has not read."""

from __future__ import annotations

import math

import torch

from sentiment.pretraining.language_model import LanguageModel
from sentiment.pretraining.streaming import stream_windows
from sentiment.runtime import autocast
from sentiment.text.batches import EncodedCorpus

_MOST_REVIEWS = 300  # whose words, each among all of the vocabulary, take some seconds
_BATCH = 25


@torch.no_grad()
def measure_perplexity(
    model: LanguageModel,
    corpus: EncodedCorpus,
    *,
    window: int,
    is_repeated: bool,
    precision: torch.dtype,
) -> list[float]:
    """Perplexity over the whole vocabulary, by direction.

    Args:
        model: the language model.
        corpus: reviews it has not read, on its device; up to 300 of them, evenly spread, are taken.
        window: words of a window.
        is_repeated: whether each review is read twice, the second time to be foretold.
        precision: arithmetic of matrix products.

    Raises:
        ValueError: no review has two words, or a perplexity is beyond all numbers.
    """
    was_training = model.training
    model.eval()
    readable = (corpus.lengths >= 2).nonzero().squeeze(1)
    if len(readable) == 0:
        raise ValueError("no validation review has two words, the least to tell a perplexity on")
    places = torch.linspace(0, len(readable) - 1, min(len(readable), _MOST_REVIEWS))
    chosen = readable[places.long()]
    chosen = chosen[corpus.lengths[chosen].argsort(descending=True, stable=True)]
    sums = torch.zeros(model.directions, dtype=torch.float64)
    count = 0
    for indices in chosen.split(_BATCH):
        states = None
        batch = corpus.batch(indices)
        for each in stream_windows(batch, model.directions, window, is_repeated=is_repeated):
            with autocast(batch.tokens.device, precision):
                losses, states = model.exact_losses(each, states)
            sums += losses.cpu()
            count += len(each.rows)
    model.train(was_training)
    found = torch.exp(sums / count).tolist()
    if not all(map(math.isfinite, found)):
        raise ValueError(
            "pre-training has gone astray, its perplexity is no finite number: lower "
            "pretraining.learning_rate and begin again"
        )
    return found
