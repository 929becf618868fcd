"""Stretches of neighbouring rows, in files sorted by class too."""

import numpy as np
import pytest

from sentiment.data.stretches import (
    align,
    describe_stretches,
    find_names,
    find_parts,
    number_stretches,
)

NUM_FILMS = 150  # with reviews of both classes


def write_halves(
    seed: int = 0, *, in_order: bool = True, num_names: int = 2, name: str = "Hero"
) -> tuple[list[str], np.ndarray, np.ndarray]:
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
            names = " and ".join(f"{name}{film}x{number}" for number in range(num_names))
            for _ in range(rng.integers(2, 5) if label == 0 else rng.integers(3, 10)):
                texts.append(f"What {names} do, Everyone knows")
                labels.append(label)
                films.append(int(film))
    return texts, np.array(labels), np.array(films)


def share_cut(texts: list[str], labels: np.ndarray, films: np.ndarray) -> float:
    """The share of films of which no stretch has reviews of both classes."""
    stretches = number_stretches(texts, labels, np.arange(len(texts)), 30)
    assert set(np.bincount(stretches)[:-1]) == {30}
    cut = []
    for film in range(NUM_FILMS):
        sides = (set(stretches[(films == film) & (labels == label)]) for label in (0, 1))
        cut.append(not set.intersection(*sides))
    return float(np.mean(cut))


@pytest.mark.parametrize("num_names", [2, 12])
@pytest.mark.parametrize("name", ["Hero", "Émile", "Князь"])
def test_both_classes_reviews_of_a_film_are_neighbours(num_names, name):
    cut = share_cut(*write_halves(num_names=num_names, name=name))
    assert cut < 0.1, "where a stretch ends, a film may be cut"


def test_a_few_labels_may_differ_from_their_part_of_the_file():
    texts, labels, _ = write_halves()
    flipped = np.random.default_rng(1).choice(len(labels), size=len(labels) // 50, replace=False)
    flipped = np.append(flipped, [0, len(labels) - 1])
    changed = labels.copy()
    changed[flipped] = 1 - changed[flipped]
    assert len(find_parts(changed)) == 2
    expected = number_stretches(texts, labels, np.arange(len(texts)), 30)
    moved = number_stretches(texts, changed, np.arange(len(texts)), 30)
    assert np.abs(moved - expected).max() <= 1, "the border may be off by a few rows"


def test_films_are_found_in_any_part_of_the_file():
    texts, labels, films = write_halves()
    border = int((labels == 0).sum())
    between = [f"Neutral{number}" for number in range(200)]
    texts = texts[:border] + between + texts[border:]
    labels, films = (np.insert(each, border, np.full(200, 2)) for each in (labels, films + 3))
    more, more_labels, more_films = write_halves(seed=1, name="Other")
    all_labels = np.append(labels, more_labels)
    assert len(find_parts(all_labels)) == 5
    stretches = number_stretches(texts + more, all_labels, np.arange(len(all_labels)), 30)
    halves = [(films, labels, stretches[: len(texts)])]
    halves.append((more_films + 3, more_labels, stretches[len(texts) :]))
    for films_of, labels_of, stretches_of in halves:
        cut = 0
        for film in range(3, 3 + NUM_FILMS):
            mine = films_of == film
            sides = (set(stretches_of[mine & (labels_of == label)]) for label in (0, 1))
            cut += not set.intersection(*sides)
        assert cut < 0.1 * NUM_FILMS


def test_places_are_those_of_the_same_films():
    texts, labels, films = write_halves()
    border = int((labels == 0).sum())
    first, second = align(find_names(texts[:border]), find_names(texts[border:]))
    assert (np.diff(first) >= 0).all() and (np.diff(second) >= 0).all()
    named = [films[round(place)] for place in first]
    assert named == [films[border + round(place)] for place in second]
    assert len(set(named)) == NUM_FILMS


@pytest.mark.parametrize("num_names", [2, 8])
@pytest.mark.parametrize("seed", range(3))
def test_another_order_of_films_is_not_aligned(num_names, seed):
    texts, labels, _ = write_halves(seed, in_order=False, num_names=num_names)
    rows = np.arange(len(texts)) * 3  # rows between them have no label
    assert number_stretches(texts, labels, rows, 50).tolist() == (rows // 50).tolist()


def test_the_log_says_whether_films_were_recognized():
    for in_order, expected in ((True, "films recognized"), (False, "no films recognized")):
        texts, labels, _ = write_halves(in_order=in_order)
        rows = np.arange(len(texts)) * 3
        stretches = number_stretches(texts, labels, rows, 30)
        shuffled = np.random.default_rng(0).permutation(len(texts))
        arrays = labels[shuffled], rows[shuffled], stretches[shuffled]
        assert expected in (describe_stretches(*arrays, 30) or "")
    mixed = np.arange(len(labels)) % 2
    assert describe_stretches(mixed, rows, rows // 30, 30) is None


@pytest.mark.parametrize("case", ["mixed", "one class", "empty"])
def test_files_that_are_not_sorted_have_stretches_of_their_rows(case):
    texts, labels, _ = write_halves()
    if case == "mixed":
        labels = np.arange(len(labels)) % 2
    elif case == "one class":
        labels[:] = 0
    else:
        texts, labels = [], labels[:0]
    rows = np.arange(len(texts)) * 3
    assert len(find_parts(labels)) == 1
    assert number_stretches(texts, labels, rows, 50).tolist() == (rows // 50).tolist()


def test_a_stray_pair_far_behind_the_others_is_left_out():
    texts, labels, _ = write_halves()
    border = int((labels == 0).sum())
    for index in (border - 2, border - 1, len(texts) - 2, len(texts) - 1):
        texts[index] += " Sequel"
    first, _ = align(find_names(texts[:border]), find_names(texts[border:]))
    assert first[-1] < border - 100


def test_a_passage_without_names_does_not_end_the_alignment():
    texts, labels, films = write_halves()
    for index in np.flatnonzero((films >= 30) & (films < 60)):
        texts[index] = "a film"
    border = int((labels == 0).sum())
    first, _ = align(find_names(texts[:border]), find_names(texts[border:]))
    assert films[round(first[-1])] == NUM_FILMS - 1
