"""The public name of :mod:`sentiment.runtime.environment`."""

from sentiment.runtime.environment import prepare_environment

__all__ = ["prepare_environment"]
