"""A run that nothing has trained, for what is done with finished runs."""

from collections import Counter

import torch

from sentiment.config.config import Config, DataConfig, ModelConfig
from sentiment.data.vocabulary import build_vocabulary
from sentiment.runs.run import build_model, create_run, load_run
from sentiment.runs.weights import WeightsInfo, save_weights

CLASSES = ("bad", "so, so", "good")
WORDS = Counter({f"word{n}": 50 - n for n in range(40)} | {"é\u2028": 1})
DATA = DataConfig(max_length=30, lower_case=False)


def make_run(path, classes=CLASSES, *, words=WORDS, data=DATA, seed=0, temperature=1.25, **model):
    """An untrained run whose weights, biases and states are all other than zero."""
    torch.manual_seed(seed)
    settings = ModelConfig(**{"embedding_size": 6, "hidden_size": 5, **model})
    vocabulary = build_vocabulary(words)
    config = Config(output_dir=str(path), seed=seed, model=settings, data=data)
    create_run(path, config, classes, vocabulary)
    classifier = build_model(settings, vocabulary, len(classes))
    with torch.no_grad():
        for parameter in classifier.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    save_weights(path, "best", classifier, WeightsInfo(1, 1, {}, temperature))
    return load_run(path)
