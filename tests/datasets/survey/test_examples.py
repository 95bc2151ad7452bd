"""Examples cover the concepts with few samples."""

from __future__ import annotations

import numpy as np

from microtome.datasets.base import Entry
from microtome.datasets.survey.examples import Showcase
from microtome.datasets.survey.reading import Record


def record(index: int, **pixels: int) -> Record:
    """A sample of 1000 pixels: c3=20 gives concept 3 twenty of them."""
    ids = np.array([int(name[1:]) for name in pixels], np.int64)
    return Record(index, Entry(str(index)), ids=ids, pixels=np.array(list(pixels.values()), np.int64), area=1000)


def showcase(*records: Record, concepts: int = 6) -> Showcase:
    made = Showcase(concepts)
    for one in records:
        made.add(one)
    return made


def test_one_sample_that_shows_all_comes_first() -> None:
    made = showcase(record(0, c1=500), record(1, c1=100, c2=100, c3=100), record(2, c2=400))
    assert made.choose(1) == [1]


def test_a_rare_concept_gets_its_own_sample() -> None:
    made = showcase(record(0, c1=300, c2=300), record(1, c1=300, c2=300), record(2, c3=1), record(3))
    assert made.choose(5) == [0, 2]


def test_visible_is_better_than_a_speck_beside_many_others() -> None:
    made = showcase(record(0, c1=300, c2=300, c3=2), record(1, c3=50))
    assert made.choose(5) == [0, 1]


def test_fewest_samples_for_most_concepts() -> None:
    made = showcase(record(0, c1=100), record(1, c2=100, c3=100), record(2, c4=100, c5=100, c6=100))
    assert made.choose(2) == [1, 2]
    assert made.choose(1) == [2]
    assert made.choose(0) == []


def test_memory_does_not_grow_with_the_samples() -> None:
    made = Showcase(3)
    for index in range(5000):
        made.add(record(index, c1=1 + index % 10, c2=index % 13 + 1, c3=1000 * index // 5000 + 1))
    assert len(made._shown) <= 2 * 4 + 101
    assert made.choose(9)


def test_no_labels_no_choice() -> None:
    assert showcase(record(0), record(1)).choose(3) == []
