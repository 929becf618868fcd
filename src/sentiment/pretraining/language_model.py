"""Language model over the classifier's LSTM: sampled softmax, loss, perplexity."""

from __future__ import annotations

import math

import torch
from torch import nn

from sentiment.data.batches import EncodedCorpus
from sentiment.data.vocabulary import PAD_ID
from sentiment.model import SentimentClassifier
from sentiment.model.layers import dropout, to_device
from sentiment.model.packed_lstm import PackedLSTM, States
from sentiment.model.rnn_base import matmul_dtype
from sentiment.pretraining.streams import Window, read_streams, stream_windows
from sentiment.runtime.device import autocast, mixed_seed
from sentiment.runtime.errors import UserError

_CPU = torch.device("cpu")
_SMOOTHING = 0.75  # exponent of the counts: rare words are drawn more often than they occur
IMPOSSIBLE = -1e4  # logit of a probability of 0, within every precision's range


class Candidates:
    """Draws different words for each update, by a seed.

    Words whose count in ``counts`` (vocabulary,) is 0 are never drawn.

    Attributes:
        log_chances: (vocabulary,) log of each word's chance to be drawn, on the device.
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


_LOGITS_AT_ONCE = 2**25  # over the whole vocabulary: some 130 MB in fp32


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


_MAX_REVIEWS = 300  # takes seconds, as each word is predicted among the whole vocabulary
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

    Of the corpus, which is on the model's device, up to 300 evenly spread reviews are used. Window
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
