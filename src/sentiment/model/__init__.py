"""The classifier and its parts, usable on their own."""

from __future__ import annotations

from sentiment.model.classifier import SentimentClassifier
from sentiment.model.packed_gru import PackedGRU, PackedRNN
from sentiment.model.packed_lstm import PackedLSTM
from sentiment.model.reference_lstm import ReferenceLSTM

__all__ = ["PackedGRU", "PackedLSTM", "PackedRNN", "ReferenceLSTM", "SentimentClassifier"]
