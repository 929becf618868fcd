"""Stretches of neighbouring rows, in files sorted by class too."""

import numpy as np
import pytest

from sentiment.data.stretches import align_classes, number_stretches

NUM_FILMS = 150  # with reviews of both classes


def write_halves(seed: int = 0, *, in_order: bool = True) -> tuple[list[str], np.ndarray, list]:
    """Reviews sorted by class, their labels and films; the last 50 films have negative ones only.

    A film has two to four negative and three to nine positive reviews, which name its characters.
    """
    rng = np.random.default_rng(seed)
    texts, labels, films = [], [], []
    for label in (0, 1):
        order = np.arange(NUM_FILMS + (50 if label == 0 else 0))
        if label == 1 and not in_order:
            order = rng.permutation(order)
        for film in order:
            for _ in range(rng.integers(2, 5) if label == 0 else rng.integers(3, 10)):
                texts.append(f"What Hero{film} does to Rival{film}, Everyone knows")
                labels.append(label)
                films.append(int(film))
    return texts, np.array(labels), films


def test_both_classes_reviews_of_a_film_are_neighbours():
    texts, labels, films = write_halves()
    stretches = number_stretches(texts, labels, np.arange(len(texts)), 30)
    sizes = np.bincount(stretches)
    assert set(sizes[:-1]) == {30}
    apart = []
    for film in range(NUM_FILMS):
        mine = np.array(films) == film
        sides = (set(stretches[mine & (labels == label)]) for label in (0, 1))
        apart.append(not set.intersection(*sides))
    assert np.mean(apart) < 0.1, "where a stretch ends, a film may be cut"


def test_places_are_those_of_the_same_films():
    texts, labels, films = write_halves()
    first, second = align_classes(texts, labels)
    num_first = int((labels == 0).sum())
    assert (np.diff(first) >= 0).all() and (np.diff(second) >= 0).all()
    named = [films[round(place)] for place in first]
    assert named == [films[num_first + round(place)] for place in second]
    assert len(set(named)) == NUM_FILMS


@pytest.mark.parametrize("case", ["other order", "mixed", "one class", "three classes", "empty"])
def test_other_files_have_stretches_of_their_rows(case):
    texts, labels, _ = write_halves(in_order=case != "other order")
    if case == "mixed":
        labels = np.arange(len(labels)) % 2
    elif case == "one class":
        labels[:] = 0
    elif case == "three classes":
        labels[-10:] = 2
    elif case == "empty":
        texts, labels = [], labels[:0]
    rows = np.arange(len(texts)) * 3  # rows between them have no label
    assert align_classes(texts, labels) is None
    assert number_stretches(texts, labels, rows, 50).tolist() == (rows // 50).tolist()


def test_a_stray_pair_far_behind_the_others_is_left_out():
    texts, labels, _ = write_halves()
    border = int((labels == 0).sum())
    for index in (border - 2, border - 1, len(texts) - 2, len(texts) - 1):
        texts[index] += " Sequel"
    first, _ = align_classes(texts, labels)
    assert first[-1] < border - 100
