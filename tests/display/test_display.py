"""Text for terminals and pages: visible and harmless; figures share a page, equal ones a file."""

import re
import unicodedata
from xml.etree import ElementTree

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sentiment.display.console import (
    format_table,
    pad,
    sanitize,
    truncate,
    visible,
    width,
    wrap_text,
)
from sentiment.display.plots import as_svg, new_figure, save_figure, write_page

FAMILY = "👩\N{ZERO WIDTH JOINER}👧"
PERSIAN = "می\N{ZERO WIDTH NON-JOINER}خواهم"
# Letters of every width, and what acts on a terminal.
LETTERS = st.text(st.sampled_from("ab é良🎬\u0301\u200d\x1b\x08\n\u202e"), max_size=30)


@given(st.text(st.characters(codec=None), max_size=20))
@example("\x00\x1b[31m\x7f\x9b\r\n\t\u2028\u202e\u2066\ud800\ufeff\xa0\u3000")
def test_sanitized_text_is_one_line_without_control_characters(text):
    shown = sanitize(text)
    assert len(shown) == len(text)
    for character, before in zip(shown, text, strict=True):
        assert character.isprintable() or character in "\u200c\u200d"
        assert character == before or not before.isprintable()
    assert sanitize(shown) == shown


def test_sanitizing_by_example():
    assert sanitize("a\x1b[1m\r\n\t\x7f\x9b\u202eb\ud800") == "a␛[1m␍␊␉␡��b�"
    assert sanitize("as\xa0one\u3000word") == "as one word"
    for text in ("plain", "良い", "e\u0301", FAMILY, PERSIAN):
        assert sanitize(text) == visible(text) == text


@given(st.text(st.characters(codec=None), max_size=20))
@example("\x00\x1b[31m\x7f\x9b\r\n\t\ud800")
def test_text_for_pages_is_allowed_in_html_and_otherwise_unchanged(text):
    shown = visible(text)
    assert len(shown) == len(text)
    for character, before in zip(shown, text, strict=True):
        assert character in "\t\n\r" or unicodedata.category(character) not in ("Cc", "Cs")
        assert character == before or unicodedata.category(before) in ("Cc", "Cs")


@pytest.mark.parametrize(
    ("text", "columns"),
    [("", 0), ("plain", 5), ("良い", 4), ("🎬", 2), ("é", 1), ("e\u0301", 1), (PERSIAN, 7)],
)
def test_width_is_that_of_terminals(text, columns):
    assert width(text) == columns
    assert pad(text, 9) == text + " " * (9 - columns)
    assert pad(text, 9, right=True) == " " * (9 - columns) + text
    assert pad(text, 0) == text


@given(LETTERS, st.integers(1, 40), st.booleans())
def test_truncated_text_fits_and_is_as_long_as_possible(text, columns, keep_end):
    shown, whole = truncate(text, columns, keep_end=keep_end), sanitize(text)
    assert width(shown) <= columns
    if width(whole) <= columns:
        assert shown == whole
        return
    kept = shown.removeprefix("…") if keep_end else shown.removesuffix("…")
    assert kept != shown
    assert whole.endswith(kept) if keep_end else whole.startswith(kept)
    rest = whole.removesuffix(kept) if keep_end else whole.removeprefix(kept)
    following = rest[-1] if keep_end else rest.lstrip()[0]  # spaces before an ellipsis go
    spaces = 0 if keep_end else len(rest) - len(rest.lstrip())
    assert width(kept) + spaces + width(following) >= columns


def test_a_table_aligns_its_columns():
    rows = [("run", "reviews", "NLL"), ("良い", "1,000", "0.2"), (), ("b\n", "7")]
    assert format_table(rows) == "  run   reviews  NLL\n  良い    1,000  0.2\n\n  b␊          7"
    assert format_table(rows[:1], align="><", min_widths=[5], indent=0) == "  run  reviews  NLL"


@pytest.mark.parametrize("options", [{}, {"keep_end": True}, {"wrap": True}])
def test_a_table_fits_80_columns(options):
    row = ("the first column " * 5, "1.0 to 2.0", "second " * 4)
    lines = format_table([row, ("short", "", "end")], **options).split("\n")
    assert max(map(width, lines)) == 80
    assert {line[-len("second") :] for line in lines[:1]} == {"second"}
    if options.get("wrap"):
        assert len(lines) > 2 and sum(line.count("first") for line in lines) == 5
    else:
        assert len(lines) == 2 and "…" in lines[0]


def test_wrapped_text_fits_80_columns():
    lines = wrap_text("a word " * 30, indent="    ").split("\n")
    assert all(len(line) <= 80 for line in lines) and len(lines) == 3
    assert [line[:4].isspace() for line in lines] == [False, True, True]


def test_pages_escape_texts_but_not_markup(tmp_path, monkeypatch):
    (tmp_path / "templates").mkdir()
    template = (
        "{% macro cell(text) %}<td>{{ text }}</td>{% endmacro %}"
        "{{ text }}{{ cell(text) }}{{ texts | join(', ') }}{{ svg | safe }}{{ 3 }}"
    )
    (tmp_path / "templates" / "page.html").write_text(template)
    from jinja2 import FileSystemLoader

    monkeypatch.setattr("jinja2.PackageLoader", lambda *_: FileSystemLoader(tmp_path / "templates"))
    svg = '<svg><path d="M 0 0\nL 1 1"/></svg>'
    write_page(tmp_path / "page.html", "page.html", text="<\x1b\n", texts=["a\x08", "b"], svg=svg)
    text = (tmp_path / "page.html").read_bytes().decode()
    assert text == f"&lt;␛\n<td>&lt;␛\n</td>a␈, b{svg}3"


def draw(height: float):
    figure, axes = new_figure()
    axes.plot([0, 1], [0, height], label="rising")
    axes.legend()
    return figure


def test_svg_elements_refer_only_to_their_own_ids():
    first, second = as_svg(draw(1)), as_svg(draw(2))
    assert as_svg(draw(1)) == first
    ElementTree.fromstring(first)
    ids = [set(re.findall(r'\bid="([^"]+)"', text)) for text in (first, second)]
    assert not ids[0] & ids[1]
    for text, known in zip((first, second), ids, strict=True):
        references = re.findall(r'(?:url\(#|xlink:href="#)([^)"]+)', text)
        assert references and set(references) <= known


@pytest.mark.parametrize(("name", "start"), [("a.png", b"\x89PNG"), ("a.svg", b"<?xml")])
def test_a_figure_is_saved_in_the_format_of_its_suffix(name, start, tmp_path):
    save_figure(draw(1), tmp_path / "new" / name)
    content = (tmp_path / "new" / name).read_bytes()
    assert content.startswith(start)
    save_figure(draw(1), tmp_path / "new" / name)
    assert (tmp_path / "new" / name).read_bytes() == content
    assert len(list((tmp_path / "new").iterdir())) == 1
