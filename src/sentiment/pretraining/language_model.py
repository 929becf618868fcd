"""A language model in both directions round a classifier's own embedding and recurrence."""

from __future__ import annotations

import torch
from torch import nn

from sentiment.model import SentimentClassifier
from sentiment.model.dropout import dropout
from sentiment.model.packed_lstm import PackedLSTM, States
from sentiment.model.ragged import multiplied_in
from sentiment.pretraining.candidates import IMPOSSIBLE, log_likelihood
from sentiment.pretraining.reading import read_streams
from sentiment.pretraining.windows import Window
from sentiment.text.vocabulary import PAD_ID

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
        ValueError: the recurrence is none that can read streams.
    """

    def __init__(
        self, classifier: SentimentClassifier, counts: torch.Tensor, drop_share: float
    ) -> None:
        super().__init__()
        lstm = classifier.recurrence
        if not isinstance(lstm, PackedLSTM):
            raise ValueError(
                "pre-training knows the packed lstm alone: set model.cell to lstm and "
                "model.implementation to packed"
            )
        if lstm.bidirectional and lstm.num_layers > 1:
            raise ValueError(
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
        embedded = dropout(embedded.to(multiplied_in(embedded)), self._drop_share, self.training)
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
