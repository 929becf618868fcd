"""Excerpts of reviews, a few sentences long, that are trained on as texts of their own."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from sentiment.data.batches import EncodedCorpus
from sentiment.data.tokenizer import TokenizedTexts

_ENDS = frozenset({".", "!", "?", "...", "…", "。", "！", "？"})
_SHORTEST = 3  # tokens; a shorter excerpt hardly has a class


def add_pieces(
    corpus: EncodedCorpus, tokenized: TokenizedTexts, *, per_review: int, max_length: int, seed: int
) -> EncodedCorpus:
    """A corpus with random excerpts of its reviews as further rows, labelled like the reviews.

    Without them, a model learns from whole reviews only, which are far longer than the sentences
    that it may be asked to classify. An excerpt is one sentence with probability 1/2, two with 1/4
    and so on, never a whole review, cut to ``max_length`` tokens. One-sentence reviews have none.

    Args:
        corpus: on the CPU, without excerpts.
        tokenized: its reviews' tokens.
        per_review: number of excerpts of each review.
        seed: decides which.
    """
    reviews, starts, lengths = _draw(tokenized, per_review, np.random.default_rng(seed))
    lengths = lengths.clamp(max=max_length)
    heads = None if corpus.heads is None else torch.cat((corpus.heads, lengths))
    return replace(
        corpus,
        starts=torch.cat((corpus.starts, starts)),
        lengths=torch.cat((corpus.lengths, lengths)),
        full_lengths=torch.cat((corpus.full_lengths, lengths)),
        labels=torch.cat((corpus.labels, corpus.labels[reviews])),
        heads=heads,
        reviews=torch.cat((torch.arange(len(corpus)), reviews)),
    )


def _draw(
    tokenized: TokenizedTexts, per_review: int, generator: np.random.Generator
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Each excerpt's review, the start of its tokens and their number, (num_excerpts,) int64."""
    offsets = tokenized.offsets.astype(np.int64)
    is_end = np.fromiter((word in _ENDS for word in tokenized.lexicon), bool)[tokenized.tokens]
    is_end[:-1] &= ~is_end[1:]  # of several ends in a row, the last
    starts = np.union1d(np.flatnonzero(is_end) + 1, offsets)  # of sentences, and where all end
    first = np.searchsorted(starts, offsets[:-1])
    num_sentences = np.searchsorted(starts, offsets[1:]) - first
    reviews = np.repeat(np.flatnonzero(num_sentences > 1), per_review)
    first, num_sentences = first[reviews], num_sentences[reviews]
    sizes = np.minimum(generator.geometric(0.5, len(reviews)), num_sentences - 1)
    first += generator.integers(0, num_sentences - sizes + 1)
    begins, ends = starts[first], starts[first + sizes]
    is_long = ends - begins >= _SHORTEST
    return (
        torch.from_numpy(reviews[is_long]),
        torch.from_numpy(begins[is_long]),
        torch.from_numpy((ends - begins)[is_long]),
    )
