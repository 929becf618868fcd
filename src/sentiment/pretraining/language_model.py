"""Language models over the classifier's LSTM: sampled softmax, loss, perplexity."""

from __future__ import annotations

import math

import torch
from torch import nn

from sentiment.data.batches import EncodedCorpus
from sentiment.data.vocabulary import PAD_ID
from sentiment.model import SentimentClassifier
from sentiment.model.layers import dropout
from sentiment.model.packed_lstm import PackedLSTM, States
from sentiment.model.rnn_base import matmul_dtype
from sentiment.pretraining.streams import Window, read_streams, stream_windows
from sentiment.runtime.device import autocast, mixed_seed
from sentiment.runtime.errors import UserError

_SMOOTHING = 0.75  # exponent of the counts: rare words are drawn more often than they occur
IMPOSSIBLE = -1e4  # a logit of no weight, within every precision's range


class Candidates:
    """Draws words, none of them twice.

    Args:
        counts: (vocabulary,) how often each word occurs; one that never does is never drawn.
        num_candidates: words to draw; all there are, where these are fewer.
        seed: what is drawn for an update depends on it and the update's number alone.
    """

    def __init__(self, counts: torch.Tensor, num_candidates: int, seed: int) -> None:
        weights = counts.double() ** _SMOOTHING
        self._weights = weights / weights.sum()
        self._size = min(num_candidates, int((weights > 0).sum()))
        self._seed = seed
        chances = -torch.expm1(-self._weights * self._num_draws())
        self.log_chances = chances.clamp(min=1e-30).log().float()

    def _num_draws(self) -> float:
        """The draws, were each from all words again, that meet ``size`` words on average."""
        low, high = 1.0, 1e18
        for _ in range(200):
            middle = math.sqrt(low * high)
            is_enough = float(-torch.expm1(-self._weights * middle).sum()) >= self._size
            low, high = (low, middle) if is_enough else (middle, high)
        return high

    def draw(self, update: int) -> torch.Tensor:
        """(num_candidates,) different words on the CPU."""
        generator = torch.Generator().manual_seed(mixed_seed(self._seed, update))
        return torch.multinomial(self._weights, self._size, generator=generator)


def log_likelihood(
    hidden: torch.Tensor,
    targets: torch.Tensor,
    target_rows: tuple[torch.Tensor, torch.Tensor],
    candidates: torch.Tensor,
    candidate_rows: tuple[torch.Tensor, torch.Tensor],
    log_chances: torch.Tensor,
) -> torch.Tensor:
    """Log of the right words' shares among themselves and the candidates.

    Legend: num is the number of positions.

    Args:
        hidden: (num, embedding) what each word is predicted from.
        targets: (num,) the right words.
        target_rows: their embeddings (num, embedding) and biases (num,).
        candidates: (num_candidates,) the others, the same for all positions.
        candidate_rows: their embeddings (num_candidates, embedding) and biases (num_candidates,).
        log_chances: (vocabulary,) logs of each word's chance to be a candidate.

    Returns:
        (num,) in fp32.
    """
    rows, biases = target_rows
    right = (hidden.float() * rows).sum(dim=1) + biases  # (num,)
    rows, biases = candidate_rows
    biases = (biases - log_chances[candidates]).to(hidden.dtype)
    wrong = torch.addmm(biases, hidden, rows.to(hidden.dtype).t())  # (num, num_candidates)
    # A candidate that is a position's right word is none of its wrong ones.
    wrong = wrong.masked_fill(targets.unsqueeze(1) == candidates, IMPOSSIBLE)
    logits = torch.cat((right.unsqueeze(1), wrong.float()), dim=1)
    return -nn.functional.cross_entropy(logits, torch.zeros_like(targets), reduction="none")


_LOGITS_AT_ONCE = 2**25  # over the whole vocabulary: some 130 MB in fp32


class LanguageModel(nn.Module):
    """Predicts each word from those before it, and in a second direction from those after it.

    Both directions share the embedding, which is also the matrix of the softmax (Press & Wolf
    2017), behind a projection each.

    Legend: directions is 2 if the recurrence is bidirectional, else 1.

    Args:
        classifier: whose embedding and recurrence are trained; its other parts are not touched.
        counts: (vocabulary,) how often each word occurs, for the biases to start from.
        drop_share: share of embedded words' values and of the recurrence's outputs dropped.

    Raises:
        UserError: the recurrence is none that can read streams.
    """

    def __init__(
        self, classifier: SentimentClassifier, counts: torch.Tensor, drop_share: float
    ) -> None:
        super().__init__()
        lstm = classifier.recurrence
        if not isinstance(lstm, PackedLSTM):
            raise UserError(
                "pre-training knows the packed lstm alone: set model.cell to lstm and "
                "model.implementation to packed"
            )
        if lstm.bidirectional and lstm.num_layers > 1:
            raise UserError(
                f"model.num_layers is {lstm.num_layers} and model.bidirectional is true, but the "
                "second layer would see the words to be predicted: pre-train one layer, or more in "
                "one direction"
            )
        self.classifier = classifier
        self._lstm = [lstm]  # in a list, as it is the classifier's and not to be listed twice
        self._drop_share = drop_share
        size = classifier.embedding.embedding_dim
        self.projections = nn.ModuleList(
            nn.Linear(lstm.hidden_size, size) for _ in range(lstm.directions)
        )
        shares = (counts.float() + 1) / (counts.float() + 1).sum()
        self.biases = nn.Parameter(shares.log().unsqueeze(1))  # (vocabulary, 1)

    @property
    def directions(self) -> int:
        """2 if the recurrence is bidirectional, else 1."""
        return len(self.projections)

    def losses(
        self,
        window: Window,
        states: States | None,
        candidates: torch.Tensor,
        log_chances: torch.Tensor,
    ) -> tuple[torch.Tensor, States]:
        """What the window's words cost by the sampled softmax.

        Args:
            window: what to read and to predict.
            states: where each stream's reader stands, None at its beginning.
            candidates: (num_candidates,) words that the right ones are told from.
            log_chances: (vocabulary,) logs of each word's chance to be one of them.

        Returns:
            (directions,) sums of the losses in nats, and the states after the window.
        """
        targets = _select(window.targets.flatten(1), window)  # (directions, num)
        # One look-up for all: its gradient is as large as the table, whatever is looked up.
        ids = torch.cat((window.words.flatten(), targets.flatten(), candidates))
        sizes = window.words.numel(), targets.numel(), len(candidates)
        rows = nn.functional.embedding(ids, self.classifier.embedding_table())
        biases = nn.functional.embedding(ids[sizes[0] :], self.biases).squeeze(1)
        of_words, of_targets, of_candidates = rows.split(sizes)
        own_biases, other_biases = biases.split(sizes[1:])
        hidden, states = self._read(of_words.view(*window.words.shape, -1), window, states)
        direction_rows = of_targets.view(*targets.shape, of_targets.shape[1])
        direction_biases = own_biases.view(targets.shape)
        losses = [
            -log_likelihood(
                hidden[direction],
                targets[direction],
                (direction_rows[direction], direction_biases[direction]),
                candidates,
                (of_candidates, other_biases),
                log_chances,
            ).sum()
            for direction in range(self.directions)
        ]
        return torch.stack(losses), states

    def exact_losses(self, window: Window, states: States | None) -> tuple[torch.Tensor, States]:
        """What the window's words cost among all words of the vocabulary; as :meth:`losses`."""
        targets = _select(window.targets.flatten(1), window)
        table = self.classifier.embedding_table()
        hidden, states = self._read(nn.functional.embedding(window.words, table), window, states)
        at_once = max(1, _LOGITS_AT_ONCE // len(table))
        factors = table.t().to(hidden[0].dtype)
        totals = []
        for direction in range(self.directions):
            total = torch.zeros((), device=table.device)
            parts = zip(
                hidden[direction].split(at_once), targets[direction].split(at_once), strict=True
            )
            for each, wanted in parts:
                logits = (each @ factors).float() + self.biases.squeeze(1)
                logits[:, PAD_ID] = IMPOSSIBLE
                total = total + nn.functional.cross_entropy(logits, wanted, reduction="sum")
            totals.append(total)
        return torch.stack(totals), states

    def _read(
        self, embedded: torch.Tensor, window: Window, states: States | None
    ) -> tuple[list[torch.Tensor], States]:
        """(num, embedding) for each direction, to predict from; the states after the window."""
        if states is not None:
            states = states[0][:, : window.batch_size], states[1][:, : window.batch_size]
        embedded = dropout(embedded.to(matmul_dtype(embedded)), self._drop_share, self.training)
        output, states = read_streams(self._lstm[0], embedded, states)
        rows = _select(output.flatten(1, 2), window)  # (directions, num, hidden)
        rows = dropout(rows, self._drop_share, self.training)
        found = [project(own) for project, own in zip(self.projections, rows, strict=True)]
        return found, states


def _select(values: torch.Tensor, window: Window) -> torch.Tensor:
    """Of values (directions, time * batch, ...) those of a window's rows; as a rule all of them."""
    if len(window.rows) == values.shape[1]:
        return values
    return values.index_select(1, window.rows)


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
        UserError: no review has two words, or a perplexity is beyond all numbers.
    """
    was_training = model.training
    model.eval()
    readable = (corpus.lengths >= 2).nonzero().squeeze(1)
    if len(readable) == 0:
        raise UserError("no validation review has two words, the least to tell a perplexity on")
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
        raise UserError(
            "pre-training has gone astray, its perplexity is no finite number: lower "
            "pretraining.learning_rate and begin again"
        )
    return found
