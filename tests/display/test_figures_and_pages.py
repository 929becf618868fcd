"""Figures can share a page, and equal ones give equal files."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from sentiment.display.plots import as_svg, new_figure, save_figure


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
