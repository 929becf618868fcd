"""Random predictions, and a parser that checks the pages that show them."""

from html.parser import HTMLParser

import numpy as np

from sentiment.evaluation.evaluate import Predictions


def random_predictions(
    num_reviews: int, num_classes: int, *, margin: float = 1.0, seed: int = 0
) -> Predictions:
    """Random logits, plus a margin for the right class."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, num_classes, num_reviews)
    logits = generator.normal(size=(num_reviews, num_classes))
    logits[np.arange(num_reviews), labels] += margin
    return Predictions(logits - np.log(np.exp(logits).sum(axis=1, keepdims=True)), labels)


class Page(HTMLParser):
    """A page's unclosed elements, those that run or load something, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.unclosed: list[str] = []
        self.active: list[str] = []
        self.text = ""
        self.feed(text)
        self.words = " ".join(self.text.split())

    def handle_starttag(self, tag, attributes):
        loads = any(
            name.startswith("on") or (name in ("src", "href") and str(value).startswith("http"))
            for name, value in attributes
        )
        if tag in ("script", "iframe", "link", "object") or loads:
            self.active.append(tag)
        if tag not in ("meta", "br", "img"):
            self.unclosed.append(tag)

    def handle_startendtag(self, tag, attributes):
        pass

    def handle_endtag(self, tag):
        assert self.unclosed.pop() == tag

    def handle_data(self, data):
        self.text += data
