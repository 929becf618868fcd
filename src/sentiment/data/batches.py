"""The encoded corpus, its batches on the device, and endless sequences of batches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torchtext.vocab import Vocab

from sentiment.data.sampler import BatchUnit, BucketSampler
from sentiment.data.tokenizer import TOKENS_AT_ONCE, TokenizedTexts, Tokenizer
from sentiment.data.vocabulary import PAD_ID, UNK_ID, number_lexicon

# Which tokens of a review longer than the maximum are kept.
Keep = Literal["head", "tail", "head+tail"]


@dataclass(frozen=True)
class Batch:
    """Reviews of nearly equal lengths.

    Attributes:
        tokens: (batch, time) int32 on the device, padded with ``<pad>``.
        lengths: (batch,) int64 on the CPU, where packing needs them.
        labels: (batch,) int64 on the device.
        indices: (batch,) int64 on the CPU, indices of the reviews in the corpus.
    """

    tokens: torch.Tensor
    lengths: torch.Tensor
    labels: torch.Tensor
    indices: torch.Tensor


@dataclass(frozen=True)
class EncodedCorpus:
    """The tokens of all reviews of a split as one flat array, and the truncation of each review.

    Attributes:
        tokens: (num_tokens,) int32 indices into ``ids``, on the device.
        ids: (num_distinct,) int32 ids in the vocabulary, on the device.
        starts: (num_reviews,) int64, start of each review in ``tokens``, on the device.
        lengths: (num_reviews,) int64, number of tokens kept of each review, at least 1, on the CPU.
        full_lengths: (num_reviews,) int64, number of tokens before truncation, on the CPU.
        labels: (num_reviews,) int64, on the device.
        heads: (num_reviews,) int64 on the CPU, how many of the kept tokens come from a review's
            start, while the others come from its end; None if all come from its start.
    """

    tokens: torch.Tensor
    ids: torch.Tensor
    starts: torch.Tensor
    lengths: torch.Tensor
    full_lengths: torch.Tensor
    labels: torch.Tensor
    heads: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self.lengths)

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
            tokens[to_device(is_empty, device), 0] = UNK_ID
        return Batch(tokens, lengths, self.labels[on_device], indices)

    def batches(self, sampler: BucketSampler | Iterable[torch.Tensor]) -> Iterator[Batch]:
        """The batches whose indices a sampler yields."""
        return map(self.batch, sampler)

    def was_cut(self) -> torch.Tensor:
        """(num_reviews,) bool on the CPU: whether each review was truncated."""
        return self.full_lengths > self.lengths

    def unknown_share(self) -> float:
        """Share of ``<unk>`` among all tokens before truncation."""
        is_unknown = self.ids == UNK_ID
        parts = self.tokens.split(TOKENS_AT_ONCE)
        return sum(int(is_unknown[part].sum()) for part in parts) / max(1, len(self.tokens))


def to_device(values: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Copy to a device without making the host wait for it."""
    if device.type == "cuda":
        values = values.pin_memory()
    return values.to(device, non_blocking=True)


def encode(
    tokenized: TokenizedTexts,
    ids: np.ndarray,
    labels: np.ndarray,
    *,
    max_length: int,
    keep: Keep = "head",
) -> EncodedCorpus:
    """Combine tokens, their ids and labels to a corpus.

    An empty review becomes one ``<unk>``: a recurrence needs at least one step.

    Args:
        tokenized: the reviews' tokens, which may be mapped from a file.
        ids: (len(tokenized.lexicon),) int32, the id of each token of the lexicon.
        labels: (num_reviews,) class indices.
        max_length: number of tokens to keep of a review.
        keep: which tokens to keep of a longer review: the first, the last, or half of each.
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


# The tokenizer's memory: as many distinct pieces as 25,000 IMDB reviews have. Tokenizing them again
# takes a sixth of the time that the model needs for as many reviews.
_MAX_PIECES = 250_000
_MAX_CHARACTERS = 20_000_000

_MAX_WINDOW_CHARACTERS = 50_000_000  # texts may be whole books


class TextEncoder:
    """Encodes texts as a run does, with bounded memory.

    Only tokens that earlier texts did not have are looked up in the vocabulary.

    Args:
        vocabulary: the run's vocabulary.
        max_length: number of tokens to keep of a text.
        keep: which tokens to keep of a longer text.
        lower_case: whether tokens are lower-cased.
        max_pieces, max_characters: how much text the tokenizer may remember between two calls.
    """

    def __init__(
        self,
        vocabulary: Vocab,
        *,
        max_length: int,
        keep: Keep,
        lower_case: bool,
        max_pieces: int = _MAX_PIECES,
        max_characters: int = _MAX_CHARACTERS,
    ) -> None:
        self._vocabulary = vocabulary
        self._max_length = max_length
        self._keep: Keep = keep
        self._max_pieces = max_pieces
        self._max_characters = max_characters
        self._tokenizer = Tokenizer(lower_case=lower_case)
        self._ids = np.empty(0, dtype=np.int32)  # ids of the tokenizer's lexicon

    def __call__(self, texts: Sequence[str]) -> EncodedCorpus:
        """Encode texts, all with label 0."""
        tokenizer = self._tokenizer
        if (
            tokenizer.num_pieces > self._max_pieces
            or tokenizer.num_characters > self._max_characters
        ):
            tokenizer.forget()
            self._ids = self._ids[:0]
        tokenized = tokenizer(texts)
        new = number_lexicon(self._vocabulary, tokenized.lexicon[len(self._ids) :])
        self._ids = np.concatenate((self._ids, new))
        return encode(
            tokenized,
            self._ids,
            np.zeros(len(texts), dtype=np.int64),
            max_length=self._max_length,
            keep=self._keep,
        )


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


class EndlessBatches:
    """An endless sequence of batches: pass after pass over the reviews, each in another order.

    Batches are addressed by number, so a resumed training needs no saved position.

    Args:
        lengths: (num_reviews,) number of tokens of each review; at least one review.
        batch_size: size of a batch in ``unit``.
        unit: what ``batch_size`` counts.
        seed: determines the order.
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
        """Plan a pass whose first batch has the number ``first``."""
        self._pass, self._first = number, first
        self._sampler.set_epoch(number)
        self._batches = list(self._sampler)
