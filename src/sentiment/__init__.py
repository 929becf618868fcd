"""LSTM sentiment classifiers: train, evaluate, predict, explain.

>>> from sentiment import load
>>> load("runs/imdb").predict(["A lovely film."])  # doctest: +SKIP
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sentiment.inference.predictor import Prediction, Predictor, load


__all__ = ["Prediction", "Predictor", "load"]


def __getattr__(name: str) -> Any:
    # Only when asked for: torch, which it needs, takes seconds that --help must not.
    if name in __all__:
        from sentiment.inference import predictor

        return getattr(predictor, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
