"""LSTM sentiment classifiers: train, evaluate, predict, explain.

>>> import sentiment
>>> run = sentiment.train("configs/imdb.yaml")  # doctest: +SKIP
>>> run.predict(["A lovely film."])  # doctest: +SKIP
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from sentiment.environment import set_variables

if TYPE_CHECKING:
    from sentiment.api import EvaluatedRun, TrainedRun, evaluate, train
    from sentiment.inference.predictor import Prediction, Predictor, load
    from sentiment.runtime.errors import UserError

_MODULES = {
    "EvaluatedRun": "api",
    "Prediction": "inference.predictor",
    "Predictor": "inference.predictor",
    "TrainedRun": "api",
    "UserError": "runtime.errors",
    "evaluate": "api",
    "load": "inference.predictor",
    "train": "api",
}

__all__ = [
    "EvaluatedRun",
    "Prediction",
    "Predictor",
    "TrainedRun",
    "UserError",
    "evaluate",
    "load",
    "train",
]


def __getattr__(name: str) -> Any:
    # Only when asked for: torch, which most of them need, takes seconds that --help must not.
    if name in _MODULES:
        set_variables()
        return getattr(import_module(f"sentiment.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
