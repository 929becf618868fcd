"""The encoded corpus, excerpts of reviews, the sampler of batches, and batches on the device."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch.utils.data import Sampler
from torchtext.vocab import Vocab

from sentiment.config.config import DataConfig
from sentiment.data.tokenizer import TOKENS_AT_ONCE, TokenizedTexts, Tokenizer
from sentiment.data.vocabulary import PAD_ID, UNK_ID, number_lexicon
from sentiment.model.layers import to_device

# Which tokens of a review longer than the maximum are kept.
Keep = Literal["head", "tail", "head+tail"]


@dataclass(frozen=True)
class Batch:
    """Reviews of nearly equal lengths."""

    tokens: torch.Tensor  # (batch, time) int32 on the device, padded with <pad>
    lengths: torch.Tensor  # (batch,) int64 on the CPU, where packing needs them
    labels: torch.Tensor  # (batch,) int64 on the device
    indices: torch.Tensor  # (batch,) int64 on the CPU, indices of the reviews in the corpus


@dataclass(frozen=True)
class EncodedCorpus:
    """The tokens of all reviews of a split as one flat array, and the truncation of each review.

    ``tokens``, ``ids``, ``starts`` and ``labels`` are on the device, the others on the CPU.
    """

    tokens: torch.Tensor  # (num_tokens,) int32 indices into ids
    ids: torch.Tensor  # (num_distinct,) int32 ids in the vocabulary
    starts: torch.Tensor  # (num_reviews,) int64, start of each review in tokens
    lengths: torch.Tensor  # (num_reviews,) int64, number of tokens kept of each review, at least 1
    full_lengths: torch.Tensor  # (num_reviews,) int64, number of tokens before truncation
    labels: torch.Tensor  # (num_reviews,) int64
    # (num_reviews,) int64, how many of the kept tokens come from a review's start, while the others
    # come from its end; None if all come from its start.
    heads: torch.Tensor | None = None
    # (num_rows,) int64, the review that each row is or is an excerpt of, -1 for a text that belongs
    # to none; None if each row is a review.
    reviews: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def num_reviews(self) -> int:
        return len(self) if self.reviews is None else int(self.reviews.max()) + 1

    def reviews_of(self, rows: torch.Tensor) -> torch.Tensor:
        """The review that each row is or is an excerpt of, -1 for none, (num,) both on the CPU."""
        return rows if self.reviews is None else self.reviews[rows]

    def cut(self, max_length: int, keep: Keep = "head") -> EncodedCorpus:
        """The same reviews, truncated to ``max_length`` tokens."""
        lengths = self.full_lengths.clamp(1, max_length)
        heads = None
        if keep == "tail":
            heads = torch.zeros_like(lengths)
        elif keep == "head+tail":
            heads = (lengths + 1) // 2
        return replace(self, lengths=lengths, heads=heads)

    def select(self, indices: torch.Tensor) -> EncodedCorpus:
        """The reviews at ``indices`` (num,) on the CPU; their tokens are not copied."""
        return replace(
            self,
            starts=self.starts[to_device(indices, self.starts.device)],
            lengths=self.lengths[indices],
            full_lengths=self.full_lengths[indices],
            labels=self.labels[to_device(indices, self.labels.device)],
            heads=None if self.heads is None else self.heads[indices],
            reviews=None if self.reviews is None else self.reviews[indices],
        )

    def append(
        self, texts: Sequence[np.ndarray], ids: np.ndarray, labels: Sequence[int]
    ) -> EncodedCorpus:
        """Append texts that belong to no review; the corpus must be on the CPU.

        Args:
            texts: of tokens, int32 arrays; a number from ``len(self.ids)`` on is one of ``ids``.
            ids: further int32 ids in the vocabulary.
            labels: of the texts.
        """
        lengths = torch.tensor([len(text) for text in texts])
        starts = len(self.tokens) + lengths.cumsum(dim=0) - lengths
        corpus = replace(
            self,
            tokens=torch.cat((self.tokens, torch.from_numpy(np.concatenate(texts)))),
            ids=torch.cat((self.ids, torch.from_numpy(ids))),
        )
        of_none = torch.full_like(lengths, -1)
        return corpus.add_rows(starts, lengths, torch.tensor(labels), of_none)

    def add_rows(
        self,
        starts: torch.Tensor,
        lengths: torch.Tensor,
        labels: torch.Tensor,
        reviews: torch.Tensor,
    ) -> EncodedCorpus:
        """Add spans of the tokens as further rows; the corpus must be on the CPU.

        All arguments are (num_rows,) int64; ``reviews`` are those that the spans belong to.
        """
        known = torch.arange(len(self)) if self.reviews is None else self.reviews
        return replace(
            self,
            starts=torch.cat((self.starts, starts)),
            lengths=torch.cat((self.lengths, lengths)),
            full_lengths=torch.cat((self.full_lengths, lengths)),
            labels=torch.cat((self.labels, labels)),
            heads=None if self.heads is None else torch.cat((self.heads, lengths)),
            reviews=torch.cat((known, reviews)),
        )

    def to(self, device: torch.device) -> EncodedCorpus:
        """The corpus on a device; lengths stay on the CPU."""
        return replace(
            self,
            tokens=self.tokens.to(device),
            ids=self.ids.to(device),
            starts=self.starts.to(device),
            labels=self.labels.to(device),
        )

    def batch(self, indices: torch.Tensor) -> Batch:
        """The batch of the reviews at ``indices``, (batch,) int64 on the CPU."""
        device = self.tokens.device
        lengths = self.lengths[indices]
        on_device = to_device(indices, device)
        steps = torch.arange(int(lengths.max()), device=device)  # (time,)
        positions = self.starts[on_device].unsqueeze(1) + steps  # (batch, time)
        if self.heads is not None:
            skipped = (self.full_lengths[indices] - lengths).clamp_(min=0)
            is_tail = steps >= to_device(self.heads[indices], device).unsqueeze(1)
            positions += is_tail * to_device(skipped, device).unsqueeze(1)
        padding = steps >= to_device(lengths, device).unsqueeze(1)  # (batch, time)
        # Positions past the end of a review belong to the next one; the last has none after it.
        tokens = self.ids[self.tokens[positions.clamp_(max=len(self.tokens) - 1)]]
        tokens.masked_fill_(padding, PAD_ID)
        is_empty = self.full_lengths[indices] == 0
        if is_empty.any():
            tokens[:, 0].masked_fill_(to_device(is_empty, device), UNK_ID)
        return Batch(tokens, lengths, self.labels[on_device], indices)

    def was_cut(self) -> torch.Tensor:
        """(num_reviews,) bool on the CPU: whether each review was truncated."""
        return self.full_lengths > self.lengths

    def unknown_share(self) -> float:
        """Share of ``<unk>`` among all tokens before truncation."""
        is_unknown = self.ids == UNK_ID
        parts = self.tokens.split(TOKENS_AT_ONCE)
        return sum(int(is_unknown[part].sum()) for part in parts) / max(1, len(self.tokens))


def encode(
    tokenized: TokenizedTexts,
    ids: np.ndarray,
    labels: np.ndarray,
    *,
    max_length: int,
    keep: Keep = "head",
) -> EncodedCorpus:
    """Combine tokens, the ids (len(lexicon),) int32 of their lexicon, and labels into a corpus.

    An empty review becomes one ``<unk>``: a recurrence needs at least one step.
    """
    tokens, starts = tokenized.tokens, tokenized.offsets[:-1]
    full_lengths = torch.from_numpy(np.diff(tokenized.offsets))
    if len(tokens) == 0:
        tokens = np.zeros(1, dtype=np.int32)  # batches index it even if they mask the result
        ids = np.full(1, UNK_ID, dtype=np.int32)
    corpus = EncodedCorpus(
        tokens=torch.from_numpy(tokens),
        ids=torch.from_numpy(ids),
        starts=torch.from_numpy(np.array(starts)),
        lengths=full_lengths,
        full_lengths=full_lengths,
        labels=torch.from_numpy(np.asarray(labels, dtype=np.int64)),
    )
    return corpus.cut(max_length, keep)


_ENDS = frozenset({".", "!", "?", "...", "…", "。", "！", "？"})  # of sentences
_SHORTEST_EXCERPT = 3  # tokens; a shorter excerpt hardly has a class


def add_excerpts(
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
    reviews, starts, lengths = _draw_excerpts(tokenized, per_review, np.random.default_rng(seed))
    lengths = lengths.clamp(max=max_length)
    return corpus.add_rows(starts, lengths, corpus.labels[reviews], reviews)


def _draw_excerpts(
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
    is_long = ends - begins >= _SHORTEST_EXCERPT
    return (
        torch.from_numpy(reviews[is_long]),
        torch.from_numpy(begins[is_long]),
        torch.from_numpy((ends - begins)[is_long]),
    )


# The tokenizer's memory: as many distinct pieces as 25,000 IMDB reviews have. Tokenizing them again
# takes a sixth of the time that the model needs for as many reviews.
_MAX_PIECES = 250_000
_MAX_CHARACTERS = 20_000_000

_MAX_WINDOW_CHARACTERS = 50_000_000  # texts may be whole books


class TextEncoder:
    """Encodes texts as a run with the settings does, with bounded memory.

    Only tokens that earlier texts did not have are looked up in the vocabulary.
    """

    def __init__(self, vocabulary: Vocab, data: DataConfig) -> None:
        self._vocabulary, self._data = vocabulary, data
        self._tokenizer = Tokenizer(lower_case=data.lower_case, language=data.language)
        self._ids = np.empty(0, dtype=np.int32)  # ids of the tokenizer's lexicon

    def __call__(self, texts: Sequence[str]) -> EncodedCorpus:
        """Encode texts, all with label 0."""
        tokenizer, data = self._tokenizer, self._data
        if tokenizer.num_pieces > _MAX_PIECES or tokenizer.num_characters > _MAX_CHARACTERS:
            tokenizer.forget()
            self._ids = self._ids[:0]
        tokenized = tokenizer(texts)
        new = number_lexicon(self._vocabulary, tokenized.lexicon[len(self._ids) :])
        self._ids = np.concatenate((self._ids, new))
        labels = np.zeros(len(texts), dtype=np.int64)
        return encode(tokenized, self._ids, labels, max_length=data.max_length, keep=data.keep)


def windows(texts: Iterable[str], size: int) -> Iterator[list[str]]:
    """Group texts into lists of ``size``, or fewer if texts are very long."""
    window: list[str] = []
    num_characters = 0
    for text in texts:
        window.append(text)
        num_characters += len(text)
        if len(window) == size or num_characters >= _MAX_WINDOW_CHARACTERS:
            yield window
            window, num_characters = [], 0
    if window:
        yield window


BatchUnit = Literal["reviews", "tokens"]
# Reviews are shuffled, then sorted by length within pools of this many batches: enough that the
# reviews of a batch have similar lengths, few enough that batches differ between epochs.
_BATCHES_PER_POOL = 50


class BucketSampler(Sampler[torch.Tensor]):
    """Yields the indices of the reviews of each batch, longest first.

    ``lengths`` (num_reviews,) are numbers of tokens, at least 1. In ``unit`` tokens, which include
    padding, a review longer than ``batch_size`` is a batch by itself. Seed and epoch determine the
    order; without ``shuffle`` all reviews are sorted by length, for evaluation.
    """

    def __init__(
        self,
        lengths: torch.Tensor,
        *,
        batch_size: int,
        unit: BatchUnit = "reviews",
        seed: int = 0,
        shuffle: bool = True,
    ) -> None:
        self._lengths = lengths.numpy().astype(np.int64)
        self._batch_size = batch_size
        self._unit = unit
        self._seed = seed
        self._shuffle = shuffle
        self._epoch = 0
        self._planned: tuple[int, list[np.ndarray]] | None = None

    def set_epoch(self, epoch: int) -> None:
        self._epoch = epoch

    def __len__(self) -> int:
        return len(self._batches())

    def __iter__(self) -> Iterator[torch.Tensor]:
        for batch in self._batches():
            yield torch.from_numpy(batch)

    def padding_share(self) -> float:
        """Share of padding in this epoch's batches, between 0 and 1."""
        cells = sum(len(batch) * int(self._lengths[batch[0]]) for batch in self._batches())
        return 1 - int(self._lengths.sum()) / cells if cells else 0.0

    def _batches(self) -> list[np.ndarray]:
        if self._planned is None or self._planned[0] != self._epoch:
            self._planned = (self._epoch, self._plan())
        return self._planned[1]

    def _plan(self) -> list[np.ndarray]:
        if not self._shuffle:
            return self._cut(np.argsort(-self._lengths, kind="stable"))
        if len(self._lengths) == 0:
            return []
        generator = np.random.default_rng((self._seed, self._epoch))
        order = generator.permutation(len(self._lengths))
        batches: list[np.ndarray] = []
        for pool in np.split(order, range(self._pool_size(), len(order), self._pool_size())):
            batches += self._cut(pool[np.argsort(-self._lengths[pool], kind="stable")])
        return [batches[position] for position in generator.permutation(len(batches))]

    def _pool_size(self) -> int:
        reviews = self._batch_size
        if self._unit == "tokens":
            reviews = max(1, round(self._batch_size / max(1.0, float(self._lengths.mean()))))
        return reviews * _BATCHES_PER_POOL

    def _cut(self, order: np.ndarray) -> list[np.ndarray]:
        batches = []
        start = 0
        while start < len(order):
            count = self._batch_size
            if self._unit == "tokens":
                count = max(1, count // int(self._lengths[order[start]]))
            batches.append(order[start : start + count])
            start += count
        return batches


def by_update(sampler: BucketSampler, accumulation_steps: int) -> Iterator[list[torch.Tensor]]:
    """Group the batches of an epoch by the update of the weights that accumulates them."""
    batches = iter(sampler)
    while group := list(itertools.islice(batches, accumulation_steps)):
        yield group


def shard(batch: torch.Tensor, rank: int, size: int) -> torch.Tensor:
    """The part of a batch (indices, longest review first) for one of ``size`` ranks.

    Neighbours have similar lengths and go to different ranks, so that all finish together.
    """
    return batch[rank::size]


class EndlessBatches:
    """An endless sequence of batches: pass after pass over the reviews, each in another order.

    Batches are addressed by number, so a resumed training needs no saved position. The arguments
    are those of :class:`BucketSampler`.
    """

    def __init__(
        self, lengths: torch.Tensor, *, batch_size: int, unit: BatchUnit, seed: int
    ) -> None:
        assert len(lengths) > 0
        self._sampler = BucketSampler(lengths, batch_size=batch_size, unit=unit, seed=seed)
        self._begin(0, 0)

    def batch(self, number: int) -> torch.Tensor:
        """(batch,) indices of the reviews of batch ``number`` (from 0), longest first."""
        if number < self._first:
            self._begin(0, 0)
        while number >= self._first + len(self._batches):  # passes may differ in length
            self._begin(self._pass + 1, self._first + len(self._batches))
        return self._batches[number - self._first]

    def _begin(self, number: int, first: int) -> None:
        self._pass, self._first = number, first
        self._sampler.set_epoch(number)
        self._batches = list(self._sampler)
