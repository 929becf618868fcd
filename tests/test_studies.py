"""docs/lstm.md shows the figures of its studies, and the studies' task is fair."""

from __future__ import annotations

import json

import torch
from helpers.corpus import ROOT

from studies.lstm import FIGURES, FOLDER, PAGE, STUDIES, filled
from studies.task import draw_sentences, make_classifier, measure_accuracy, train


def test_the_page_holds_the_figures_of_its_studies():
    figures = json.loads(FIGURES.read_text(encoding="utf-8"))
    assert set(figures) == set(STUDIES)
    page = PAGE.read_text(encoding="utf-8")
    assert filled(page, figures) == page
    for picture in FOLDER.glob("*.svg"):
        assert f"{FOLDER.name}/{picture.name}" in page
        assert str(ROOT) not in picture.read_text(encoding="utf-8")


def test_one_word_decides_the_class_at_the_given_distance_from_the_end():
    sentences = draw_sentences(500, 10, torch.Generator().manual_seed(0))
    position = sentences.lengths - 1 - 10
    words = sentences.tokens[torch.arange(500), position]
    assert ((words >= 6) == sentences.labels.bool()).all() and (words < 10).all()
    others = sentences.tokens.clone()
    others[torch.arange(500), position] = 0
    assert not ((others >= 2) & (others < 10)).any(), "no other word tells the class"
    assert 200 < sentences.labels.sum() < 300


def test_a_short_distance_is_learned_quickly():
    model = make_classifier(0)
    before = measure_accuracy(model, 3)
    curve = train(model, 3, num_updates=150, seed=0)
    assert before < 0.7 and measure_accuracy(model, 3) > 0.95
    assert curve[-1][0] < curve[0][0]
