"""Reviews in TensorBoard, as it renders their Markdown."""

from __future__ import annotations

import re
from html import unescape

import markdown
import pytest
from helpers.trainings import read_events

from sentiment.data.tokenizer import clean
from sentiment.training.logger import RunLogger

# As in TensorBoard's text plugin.
EXTENSIONS = ["markdown.extensions.tables", "markdown.extensions.fenced_code"]


def render(path, *rows) -> str:
    """The HTML that TensorBoard makes of reviews."""
    run_logger = RunLogger(path)
    run_logger.reviews(list(rows), 1)
    run_logger.close()
    (event,) = read_events(path, "validation").Tensors("reviews/text_summary")
    (text,) = event.tensor_proto.string_val
    return markdown.markdown(text.decode(), extensions=EXTENSIONS)


@pytest.mark.parametrize(
    "text",
    [
        "- a point", "+ another", "1. one", "# of stars: 5", "===", "~~~ code ~~~", "| a | b |",
        "*bold* __more__ `code` \\* [a](b) ![c](d)", "[a]: http://b", "> said & done",
        "AT&T &amp; <b>bold</b> <!-- gone -->",
    ],
)  # fmt: skip
def test_reviews_and_names_are_shown_literally(text, tmp_path):
    page = render(tmp_path, (text, f"right {text}", text, 0.9))
    assert set(re.findall(r"</?(\w+)", page)) == {"p", "strong"}
    head, review = (unescape(re.sub("</?(p|strong)>", "", line)) for line in page.splitlines())
    assert head == f"{text}, 90.0%: wrong, it is right {text}"
    assert review == clean(text).strip()


def test_long_reviews_are_cut_and_control_characters_visible(tmp_path):
    long = "word\x1b " * 100_000
    page = render(tmp_path, (long, "neg", "neg", 0.9), ("short", "a\x1bb", "neg", 0.8))
    first, second = page.split("<hr />")
    assert "\x1b" not in page and "a␛b" in second and "short</p>" in second
    review = first.splitlines()[1]
    assert review.endswith(" …</p>") and 2_000 <= len(review) < 2_020
