"""Language model over the classifier's LSTM: streams of tokens, sampled softmax, perplexity.

Legend: directions is 2 if reversed streams are read too, else 1.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn

from sentiment.data.batches import Batch, EncodedCorpus
from sentiment.data.vocabulary import PAD_ID
from sentiment.model import SentimentClassifier
from sentiment.model.layers import dropout, to_device
from sentiment.model.onednn import choose_dtype, count_parts, run_layer
from sentiment.model.packed_lstm import PackedLSTM, run_torch_layer
from sentiment.model.rnn_base import States, matmul_dtype, split_batch
from sentiment.runtime.device import autocast, mixed_seed
from sentiment.runtime.errors import UserError


def read_streams(
    lstm: PackedLSTM, x: torch.Tensor, states: States | None
) -> tuple[torch.Tensor, States]:
    """Run an LSTM, of one layer or in one direction, over token streams without padding.

    Args:
        lstm: the LSTM.
        x: (directions, time, batch, input_size).
        states: h and c (num_layers * directions, batch, hidden) to start from, None for zero.

    Returns:
        output (directions, time, batch, hidden), and h and c as above.
    """
    assert lstm.directions == 1 or lstm.num_layers == 1
    directions, time, batch, _ = x.shape
    dtype = matmul_dtype(x)
    onednn_dtype = choose_dtype(x.device, dtype)
    x = x.to(onednn_dtype or next(lstm.parameters()).dtype)
    parts = []
    if onednn_dtype is not None:
        lengths = torch.full((batch,), time)
        parts = split_batch(lengths, time, x.device, count_parts(batch, directions))
    finals: list[States] = []
    for layer in range(lstm.num_layers):
        if layer > 0:
            x = dropout(x, lstm.dropout, lstm.training)
        rows = slice(layer * directions, (layer + 1) * directions)
        start = None if states is None else (states[0][rows], states[1][rows])
        weights = lstm.layer_weights(layer)
        if parts:
            output, h, c = run_layer(x, parts, weights, start)
        else:
            output, h, c = run_torch_layer(x, None, weights, start, training=True)
        # (time, batch, directions * hidden) to (directions, time, batch, hidden)
        x = output.view(time, batch, directions, lstm.hidden_size).permute(2, 0, 1, 3)
        finals.append((h, c))
    h, c = (torch.cat(final) for final in zip(*finals, strict=True))
    return x.to(dtype), (h.to(dtype), c)


@dataclass(frozen=True)
class Window:
    """A section of the streams of some reviews."""

    words: torch.Tensor  # (directions, time, batch) ids to read
    targets: torch.Tensor  # (directions, time, batch), the word after each
    rows: torch.Tensor  # (num,) positions among (time * batch) whose targets are predicted
    batch_size: int  # its reviews are the first ones of the window before


def stream_windows(
    batch: Batch, directions: int, window: int, *, is_repeated: bool
) -> Iterator[Window]:
    """The windows, of ``window`` words, of a batch whose longest review is first.

    With ``is_repeated``, each review is read twice and predicted only the second time: the sequence
    autoencoder of Dai & Le (2015) with encoder and decoder in one.
    """
    lengths, tokens = batch.lengths, batch.tokens.long()
    (num_reviews, time), device = tokens.shape, tokens.device
    ends = to_device(lengths, device).unsqueeze(1)
    streams = tokens.unsqueeze(0)  # (directions, batch, time)
    if directions == 2:
        position = torch.arange(time, device=device)
        reversed_index = torch.where(position < ends, ends - 1 - position, position)
        streams = torch.stack((tokens, tokens.gather(1, reversed_index)))
    firsts = torch.zeros_like(lengths)  # of the predicted words
    if is_repeated:  # without padding in between: (directions, batch, 2 * time)
        position = torch.arange(2 * time, device=device)
        source = torch.where(position < ends, position, position - ends).clamp_(max=time - 1)
        streams = streams.gather(2, source.expand(directions, num_reviews, 2 * time))
        firsts, lengths = lengths, 2 * lengths
    for start in range(0, int(lengths[0]) - 1, window):
        count = int((lengths > start + 1).sum())
        stop = min(start + window, int(lengths[0]) - 1)
        part = streams[:, :count, start : stop + 1].transpose(1, 2)  # (directions, time + 1, batch)
        position = torch.arange(start + 1, stop + 1).unsqueeze(1)  # of the targets
        is_predicted = (position < lengths[:count]) & (position >= firsts[:count])  # (time, batch)
        rows = to_device(is_predicted.flatten().nonzero().squeeze(1), device)
        yield Window(part[:, :-1], part[:, 1:], rows, count)


def num_windows(longest: int, size: int) -> int:
    """Number of windows of a batch whose longest stream has ``longest`` words."""
    return -(-(longest - 1) // size)


_CPU = torch.device("cpu")
_SMOOTHING = 0.75  # exponent of the counts: rare words are drawn more often than they occur
IMPOSSIBLE = -1e4  # logit of a probability of 0, within every precision's range


class Candidates:
    """Draws different words for each update, by a seed.

    Words whose count in ``counts`` (vocabulary,) is 0 are never drawn.
    """

    def __init__(
        self,
        counts: torch.Tensor,
        num_candidates: int,
        seed: int,
        device: torch.device = _CPU,
    ) -> None:
        weights = counts.double() ** _SMOOTHING
        self._weights = weights / weights.sum()
        self._size = min(num_candidates, int((weights > 0).sum()))
        self._seed = seed
        chances = -torch.expm1(-self._weights * self._num_draws())
        # (vocabulary,) log of each word's chance to be drawn, on the device
        self.log_chances = chances.clamp(min=1e-30).log().float().to(device)
        # Drawn on a GPU, as the host would take milliseconds; MPS has no fp64.
        self._device = device
        draws_on = _CPU if device.type == "mps" else device
        self._weights = self._weights.to(draws_on)
        self._generator = torch.Generator(draws_on)

    def _num_draws(self) -> float:
        """Number of draws with replacement that give ``size`` different words on average."""
        low, high = 1.0, 1e18
        for _ in range(200):
            middle = math.sqrt(low * high)
            is_enough = float(-torch.expm1(-self._weights * middle).sum()) >= self._size
            low, high = (low, middle) if is_enough else (middle, high)
        return high

    def draw(self, update: int) -> torch.Tensor:
        """(num_candidates,) different words, on the device."""
        self._generator.manual_seed(mixed_seed(self._seed, update))
        # As torch.multinomial draws them, but that waits for a GPU to check the weights.
        races = torch.empty_like(self._weights).exponential_(generator=self._generator)
        return to_device((self._weights / races).topk(self._size).indices, self._device)


def log_likelihood(
    hidden: torch.Tensor,
    targets: torch.Tensor,
    target_rows: tuple[torch.Tensor, torch.Tensor],
    candidates: torch.Tensor,
    candidate_rows: tuple[torch.Tensor, torch.Tensor],
    log_chances: torch.Tensor,
) -> torch.Tensor:
    """(num,) log-likelihood in fp32 of target words in a softmax over them and the candidates.

    Args:
        hidden: (num, embedding) projected hidden states.
        targets: (num,) ids.
        target_rows, candidate_rows: embeddings (..., embedding) and biases (...) of the words.
        candidates: (num_candidates,) ids, the same for all positions.
        log_chances: (vocabulary,) as in :class:`Candidates`.
    """
    rows, biases = target_rows
    target_logits = (hidden.float() * rows).sum(dim=1) + biases  # (num,)
    rows, biases = candidate_rows
    biases = (biases - log_chances[candidates]).to(hidden.dtype)
    logits = torch.addmm(biases, hidden, rows.to(hidden.dtype).t())  # (num, num_candidates)
    # A candidate that is a position's target must not count twice.
    logits = logits.masked_fill(targets.unsqueeze(1) == candidates, IMPOSSIBLE)
    logits = torch.cat((target_logits.unsqueeze(1), logits.float()), dim=1)
    return -nn.functional.cross_entropy(logits, torch.zeros_like(targets), reduction="none")


_LOGITS_AT_ONCE = 2**22  # over the whole vocabulary: 17 MB in fp32, about what a cache holds


class LanguageModel(nn.Module):
    """Predicts each word from those before it, and in a second direction from those after it.

    It trains the classifier's embedding and recurrence. Both directions have a projection and share
    the embedding, which is also the softmax's weight matrix (Press & Wolf 2017).

    Args:
        classifier: with a packed LSTM.
        counts: (vocabulary,) occurrences of each word, which initialize the biases.
        drop_share: dropout of embedded words and of the recurrence's outputs.
    """

    def __init__(
        self, classifier: SentimentClassifier, counts: torch.Tensor, drop_share: float
    ) -> None:
        super().__init__()
        lstm = classifier.recurrence
        assert isinstance(lstm, PackedLSTM)  # as the settings require
        self.classifier = classifier
        lstm.runs_directions_apart = True  # each reads a stream of its own
        lstm.flatten_parameters()
        self._lstm = [lstm]  # in a list, so that it is not registered twice
        self._drop_share = drop_share
        size = classifier.embedding.embedding_dim
        self.projections = nn.ModuleList(
            nn.Linear(lstm.hidden_size, size) for _ in range(lstm.directions)
        )
        shares = (counts.float() + 1) / (counts.float() + 1).sum()
        self.biases = nn.Parameter(shares.log().unsqueeze(1))  # (vocabulary, 1)

    @property
    def directions(self) -> int:
        return len(self.projections)

    def losses(
        self,
        window: Window,
        states: States | None,
        candidates: torch.Tensor,
        log_chances: torch.Tensor,
    ) -> tuple[torch.Tensor, States]:
        """Losses of a window by the sampled softmax, and the LSTM's states after it.

        ``states`` are those before the window, None at the start of the streams; the losses
        (directions,) are sums in nats.
        """
        targets = _select(window.targets.flatten(1), window)  # (directions, num)
        # A single lookup, because the gradient of each lookup is as large as the table.
        ids = torch.cat((window.words.flatten(), targets.flatten(), candidates))
        sizes = window.words.numel(), targets.numel(), len(candidates)
        rows = nn.functional.embedding(ids, self.classifier.embedding_table())
        biases = nn.functional.embedding(ids[sizes[0] :], self.biases).squeeze(1)
        words, target_rows, candidate_rows = rows.split(sizes)
        target_biases, candidate_biases = biases.split(sizes[1:])
        hidden, states = self._read(words.view(*window.words.shape, -1), window, states)
        target_rows = target_rows.view(*targets.shape, -1)  # (directions, num, embedding)
        target_biases = target_biases.view(targets.shape)
        losses = [
            -log_likelihood(
                hidden[direction],
                targets[direction],
                (target_rows[direction], target_biases[direction]),
                candidates,
                (candidate_rows, candidate_biases),
                log_chances,
            ).sum()
            for direction in range(self.directions)
        ]
        return torch.stack(losses), states

    def exact_losses(self, window: Window, states: States | None) -> tuple[torch.Tensor, States]:
        """As :meth:`losses`, by the softmax over the whole vocabulary."""
        targets = _select(window.targets.flatten(1), window)
        table = self.classifier.embedding_table()
        hidden, states = self._read(nn.functional.embedding(window.words, table), window, states)
        at_once = max(1, _LOGITS_AT_ONCE // len(table))
        weights = table.t().to(hidden[0].dtype)
        totals = []
        for direction in range(self.directions):
            total = torch.zeros((), device=table.device)
            parts = zip(
                hidden[direction].split(at_once), targets[direction].split(at_once), strict=True
            )
            for part, labels in parts:
                logits = (part @ weights).float() + self.biases.squeeze(1)
                logits[:, PAD_ID] = IMPOSSIBLE
                total = total + nn.functional.cross_entropy(logits, labels, reduction="sum")
            totals.append(total)
        return torch.stack(totals), states

    def _read(
        self, embedded: torch.Tensor, window: Window, states: States | None
    ) -> tuple[list[torch.Tensor], States]:
        """(num, embedding) projected hidden states by direction; states after the window."""
        if states is not None:
            states = states[0][:, : window.batch_size], states[1][:, : window.batch_size]
        embedded = dropout(embedded.to(matmul_dtype(embedded)), self._drop_share, self.training)
        output, states = read_streams(self._lstm[0], embedded, states)
        rows = _select(output.flatten(1, 2), window)  # (directions, num, hidden)
        rows = dropout(rows, self._drop_share, self.training)
        hidden = [project(part) for project, part in zip(self.projections, rows, strict=True)]
        return hidden, states


def _select(values: torch.Tensor, window: Window) -> torch.Tensor:
    """The window's rows of values (directions, time * batch, ...), usually all of them."""
    if len(window.rows) == values.shape[1]:
        return values
    return values.index_select(1, window.rows)


_MAX_REVIEWS = 100  # takes seconds, as each word is predicted among the whole vocabulary
_BATCH_SIZE = 25


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

    Of the corpus, which is on the model's device, up to 100 evenly spread reviews are used. Window
    and repetition are those of :func:`stream_windows`.
    """
    was_training = model.training
    model.eval()
    readable = (corpus.lengths >= 2).nonzero().squeeze(1)
    if len(readable) == 0:
        raise UserError("every validation review has fewer than two words: give longer ones")
    positions = torch.linspace(0, len(readable) - 1, min(len(readable), _MAX_REVIEWS))
    chosen = readable[positions.long()]
    chosen = chosen[corpus.lengths[chosen].argsort(descending=True, stable=True)]
    sums = torch.zeros(model.directions, dtype=torch.float64)
    count = 0
    for indices in chosen.split(_BATCH_SIZE):
        states = None
        batch = corpus.batch(indices)
        for part in stream_windows(batch, model.directions, window, is_repeated=is_repeated):
            with autocast(batch.tokens.device, precision):
                losses, states = model.exact_losses(part, states)
            sums += losses.cpu()
            count += len(part.rows)
    model.train(was_training)
    perplexities = torch.exp(sums / count).tolist()
    if not all(map(math.isfinite, perplexities)):
        raise UserError(
            "pre-training has diverged (its perplexity is not finite): lower "
            "pretraining.learning_rate and start again"
        )
    return perplexities
