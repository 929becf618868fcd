"""The encoded corpus, its batches on the device, and endless streams of both."""

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

# Which tokens of a review that is too long are kept.
Keep = Literal["head", "tail", "head+tail"]


@dataclass(frozen=True)
class Batch:
    """Reviews of nearly equal lengths, longest first where a sampler made them.

    Attributes:
        tokens: (batch, time) int32 on the device, ``<pad>`` past each length.
        lengths: (batch,) int64 on the CPU, where packing needs them.
        labels: (batch,) int64 on the device.
        indices: (batch,) int64 on the CPU, the reviews' places in the corpus.
    """

    tokens: torch.Tensor
    lengths: torch.Tensor
    labels: torch.Tensor
    indices: torch.Tensor


@dataclass(frozen=True)
class EncodedCorpus:
    """Tokens of all reviews of a split, end to end, and how much of each review is kept.

    Attributes:
        tokens: (num_tokens,) int32 places in ``ids``, on the device.
        ids: (num_different,) int32 ids in the vocabulary, on the device.
        starts: (num_reviews,) int64, where each review begins in ``tokens``, on the device.
        lengths: (num_reviews,) int64, tokens kept of each review, at least 1, on the CPU.
        full_lengths: (num_reviews,) int64, tokens before cutting, on the CPU.
        labels: (num_reviews,) int64, on the device.
        heads: (num_reviews,) int64 on the CPU, how many of the tokens kept are a review's first
            ones, where the others are its last; None where all are its first.
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
        """The same reviews with other tokens kept of those longer than ``max_length``."""
        lengths = self.full_lengths.clamp(1, max_length)
        heads = None
        if keep == "tail":
            heads = torch.zeros_like(lengths)
        elif keep == "head+tail":
            heads = (lengths + 1) // 2
        return replace(self, lengths=lengths, heads=heads)

    def select(self, indices: torch.Tensor) -> EncodedCorpus:
        """The reviews at ``indices`` (num,), on the CPU, alone; their tokens are not copied."""
        return replace(
            self,
            starts=self.starts[to_device(indices, self.starts.device)],
            lengths=self.lengths[indices],
            full_lengths=self.full_lengths[indices],
            labels=self.labels[to_device(indices, self.labels.device)],
            heads=None if self.heads is None else self.heads[indices],
        )

    def to(self, device: torch.device) -> EncodedCorpus:
        """The corpus with what batches are cut from on the device; lengths stay on the CPU."""
        return replace(
            self,
            tokens=self.tokens.to(device),
            ids=self.ids.to(device),
            starts=self.starts.to(device),
            labels=self.labels.to(device),
        )

    def batch(self, indices: torch.Tensor) -> Batch:
        """Cut one batch.

        Args:
            indices: (batch,) int64 on the CPU.
        """
        device = self.tokens.device
        lengths = self.lengths[indices]
        places = to_device(indices, device)
        steps = torch.arange(int(lengths.max()), device=device)  # (time,)
        positions = self.starts[places].unsqueeze(1) + steps  # (batch, time)
        if self.heads is not None:
            skipped = (self.full_lengths[indices] - lengths).clamp_(min=0)
            is_tail = steps >= to_device(self.heads[indices], device).unsqueeze(1)
            positions += is_tail * to_device(skipped, device).unsqueeze(1)
        padding = steps >= to_device(lengths, device).unsqueeze(1)  # (batch, time)
        # Positions past the end of a review belong to the next one, or past the last to nobody.
        tokens = self.ids[self.tokens[positions.clamp_(max=len(self.tokens) - 1)]]
        tokens.masked_fill_(padding, PAD_ID)
        is_empty = self.full_lengths[indices] == 0
        if is_empty.any():
            tokens[to_device(is_empty, device), 0] = UNK_ID
        return Batch(tokens, lengths, self.labels[places], indices)

    def batches(self, sampler: BucketSampler | Iterable[torch.Tensor]) -> Iterator[Batch]:
        """Cut the batches whose indices a sampler yields."""
        return map(self.batch, sampler)

    def was_cut(self) -> torch.Tensor:
        """(num_reviews,) bool on the CPU: whether a review has tokens that are not kept."""
        return self.full_lengths > self.lengths

    def unknown_share(self) -> float:
        """Share of ``<unk>`` among the tokens, cut-off ones included."""
        is_unknown = self.ids == UNK_ID
        parts = self.tokens.split(TOKENS_AT_ONCE)
        return sum(int(is_unknown[part].sum()) for part in parts) / max(1, len(self.tokens))


def to_device(values: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A copy that does not make the host wait for the device."""
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
    """Give tokens their ids and reviews their labels.

    A review of no tokens becomes one ``<unk>``: a recurrence needs a step to stand on.

    Args:
        tokenized: the reviews' tokens, which may lie in a file.
        ids: (len(tokenized.lexicon),) int32, the id of each token of the lexicon.
        labels: (num_reviews,) class indices.
        max_length: tokens kept of a review.
        keep: which they are of a longer one: the first, the last, or half of them each.
    """
    tokens, starts = tokenized.tokens, tokenized.offsets[:-1]
    full_lengths = torch.from_numpy(np.diff(tokenized.offsets))
    if len(tokens) == 0:
        tokens = np.zeros(1, dtype=np.int32)  # for the positions that are not read to lie in
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


# What the tokenizer may remember: as many different pieces as 25,000 reviews of IMDB have. Cutting
# them anew takes a sixth of the time that the model takes for so many reviews.
_MOST_PIECES = 250_000
_MOST_CHARACTERS = 20_000_000

# Where a window ends before it has its number of texts: these may be books.
MOST_CHARACTERS_OF_A_WINDOW = 50_000_000


class TextEncoder:
    """Encodes texts as a run reads them, and forgets pieces of text when there are too many.

    Tokens get their ids once: a few texts cost little however many came before them.

    Args:
        vocabulary: the run's.
        max_length: tokens kept of a text.
        keep: which they are of a longer one.
        lower_case: whether tokens are lower-cased.
        max_pieces, max_characters: of text between white space, remembered at most between two
            calls.
    """

    def __init__(
        self,
        vocabulary: Vocab,
        *,
        max_length: int,
        keep: Keep,
        lower_case: bool,
        max_pieces: int = _MOST_PIECES,
        max_characters: int = _MOST_CHARACTERS,
    ) -> None:
        self._vocabulary = vocabulary
        self._max_length = max_length
        self._keep: Keep = keep
        self._max_pieces = max_pieces
        self._max_characters = max_characters
        self._tokenizer = Tokenizer(lower_case=lower_case)
        self._ids = np.empty(0, dtype=np.int32)  # of the tokenizer's lexicon

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
    """Cut texts without end into lists of ``size``, of fewer where texts are very long."""
    window: list[str] = []
    num_characters = 0
    for text in texts:
        window.append(text)
        num_characters += len(text)
        if len(window) == size or num_characters >= MOST_CHARACTERS_OF_A_WINDOW:
            yield window
            window, num_characters = [], 0
    if window:
        yield window


class EndlessBatches:
    """One pass over the reviews after another, each in an order of its own.

    A training that is resumed asks for the next number: there is no place in the sequence to keep.

    Args:
        lengths: (num_reviews,) tokens of each review; at least one review.
        batch_size: size of a batch in ``unit``.
        unit: what ``batch_size`` counts.
        seed: decides the order.
    """

    def __init__(
        self, lengths: torch.Tensor, *, batch_size: int, unit: BatchUnit, seed: int
    ) -> None:
        assert len(lengths) > 0
        self._sampler = BucketSampler(lengths, batch_size=batch_size, unit=unit, seed=seed)
        self._begin(0, 0)

    def batch(self, number: int) -> torch.Tensor:
        """(batch,) indices of the reviews of a batch, longest first; numbers count from 0."""
        if number < self._first:
            self._begin(0, 0)
        while number >= self._first + len(self._batches):  # by tokens, passes differ in batches
            self._begin(self._pass + 1, self._first + len(self._batches))
        return self._batches[number - self._first]

    def _begin(self, number: int, first: int) -> None:
        """Plan a pass, whose first batch has the number ``first``."""
        self._pass, self._first = number, first
        self._sampler.set_epoch(number)
        self._batches = list(self._sampler)
