"""The classifier and its parts, usable on their own."""

from sentiment.model.classifier import SentimentClassifier
from sentiment.model.packed_lstm import PackedLSTM

__all__ = ["PackedLSTM", "SentimentClassifier"]
