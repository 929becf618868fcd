"""Whether an exported file says what the run's model says."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch

from sentiment.runs import Run
from sentiment.runtime import exact_fp32
from sentiment.text.vocabulary import token_counts

# Apart from rounding, which of the order of additions alone is some millionths.
TOLERANCE = 1e-4
_LONGEST = 400

Classifier = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def largest_difference(run: Run, exported: Classifier) -> float:
    """The largest difference between logits of the run's model and of an exported file.

    Args:
        run: on the CPU.
        exported: (batch, time) ids and (batch,) lengths, int64, to (batch, num_classes) logits.
    """
    model = run.model.eval()
    differences = []
    with torch.inference_mode(), exact_fp32():
        for tokens, lengths in _batches(run):
            found = exported(tokens, lengths)
            expected = model(tokens, lengths)
            if found.shape != expected.shape or not found.isfinite().all():
                return float("inf")
            differences.append(float((found - expected).abs().max()))
    return max(differences)


def _batches(run: Run) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Reviews of 1 to 400 words: as frequent as in training, and any of the vocabulary."""
    generator = np.random.default_rng(0)
    counts = np.array(token_counts(run.vocabulary), dtype=np.float64)
    size = len(counts)
    for shares in (counts / counts.sum(), np.full(size, 1 / size)):
        for batch, time in ((1, 1), (1, _LONGEST), (17, _LONGEST), (17, 2)):
            lengths = generator.integers(1, time + 1, batch)
            lengths[-1] = time
            tokens = generator.choice(size, (batch, time), p=shares)
            tokens[np.arange(time) >= lengths[:, None]] = 0
            yield torch.from_numpy(tokens), torch.from_numpy(lengths)
