"""spaCy, TensorBoard and the embedded corpus: not only there, but doing what is asked of them."""

from __future__ import annotations

import tempfile

from sentiment.doctoring.findings import Finding

_SENTENCE = "It isn't Dr. Strange's best (8/10), but I didn't leave."
_TOKENS = ["it", "is", "n't", "dr.", "strange", "'s", "best", "(", "8/10", ")", ",", "but", "i",
           "did", "n't", "leave", "."]  # fmt: skip
_NUM_REVIEWS = {"train": 4_000, "validation": 500, "test": 1_000}


def check_tokenizer() -> Finding:
    """Whether spaCy's rules load and cut a sentence as they should."""
    from sentiment.text.tokenizer import tokenize

    cut = tokenize([_SENTENCE], num_processes=1)
    tokens = [cut.lexicon[token] for token in cut.tokens.tolist()]
    if tokens != _TOKENS:
        return Finding(
            f"cuts otherwise than it should: {' '.join(tokens)}",
            "mend",
            "words would not be those that runs were trained on: pip install --force-reinstall "
            '"spacy>=3.7,<4"',
        )
    return Finding(f"spaCy cuts a sentence into {len(tokens)} tokens")


def check_tensorboard() -> Finding:
    """Whether TensorBoard can be started, and reads back what training writes."""
    try:
        import tensorboard.main  # noqa: F401 - what the command imports
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        return Finding(
            f"can't be imported: {error}",
            "mend",
            'pip install --upgrade "tensorboard>=2.17" (one before 2.20 also needs '
            '"setuptools<81")',
        )
    with tempfile.TemporaryDirectory() as folder:
        with SummaryWriter(folder) as writer:
            writer.add_scalar("loss/by_epoch", 0.5, 1)
        events = EventAccumulator(folder).Reload()
        values = [event.value for event in events.Scalars("loss/by_epoch")]
    if values != [0.5]:
        return Finding(
            f"wrote 0.5 and read {values}", "mend", 'pip install --upgrade "tensorboard>=2.17"'
        )
    return Finding("starts, and reads back what is written")


def check_corpus() -> Finding:
    """Whether the embedded corpus is there, whole."""
    from sentiment.config import DataConfig
    from sentiment.text.reviews import load_split

    try:
        counts = {
            split: len(load_split(DataConfig(), split)) for split in ("train", "validation", "test")
        }
    except (OSError, ValueError) as error:
        return Finding("can't be read", "mend", str(error))
    found = " + ".join(f"{count:,}" for count in counts.values()) + " reviews"
    if counts != _NUM_REVIEWS:
        wanted = " + ".join(f"{count:,}" for count in _NUM_REVIEWS.values())
        return Finding(
            f"{found}, but {wanted} belong to it",
            "mend",
            "write it again: python data/mini/generate.py",
        )
    return Finding(found)
