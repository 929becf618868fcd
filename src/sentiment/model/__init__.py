"""The classifier and its parts, usable on their own."""

from sentiment.model.classifier import SentimentClassifier
from sentiment.model.packed_cells import PackedGRU, PackedRNN
from sentiment.model.packed_lstm import PackedLSTM
from sentiment.model.reference_lstm import ReferenceLSTM

__all__ = ["PackedGRU", "PackedLSTM", "PackedRNN", "ReferenceLSTM", "SentimentClassifier"]
