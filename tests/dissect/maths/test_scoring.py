from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from microtome.dissect.maths.scoring import best_labels, iou_for_rows, iou_table, unique_detectors

CATEGORY_OF = [-1, 0, 0, 1]


def small_table() -> dict[str, np.ndarray]:
    intersection = np.zeros((1, 4, 4), np.int64)
    intersection[0, 0] = [0, 50, 50, 10]
    intersection[0, 1] = [0, 0, 80, 0]
    intersection[0, 2] = [0, 1, 0, 60]
    unit_pixels = np.full((1, 4, 2), 100, np.int64)
    concept_pixels = np.array([0, 100, 100, 1000], np.int64)
    return iou_table(intersection, unit_pixels, concept_pixels, CATEGORY_OF, [0.005])


def test_rows_hold_the_parts_of_every_score() -> None:
    table = small_table()
    assert table["unit"].tolist() == [0, 0, 0, 1, 2, 2]
    assert table["concept"].tolist() == [1, 2, 3, 2, 1, 3]
    assert table["iou"].tolist() == [50 / 150, 50 / 150, 10 / 1090, 80 / 120, 1 / 199, 60 / 1040]
    assert table["ceiling"].tolist() == [1.0, 1.0, 0.1, 1.0, 1.0, 0.1]
    assert set(table["tau"].tolist()) == {0.005}
    assert table["intersection"].dtype == table["concept_pixels"].dtype == np.int64


def test_labels_take_the_lowest_id_of_equals_and_detectors_must_pass() -> None:
    labels = best_labels(small_table(), 4, 0.005)
    assert labels.concept.tolist() == [1, 2, 3, 0]
    assert labels.row.tolist() == [0, 3, 5, -1]
    assert labels.is_detector.tolist() == [True, True, True, False]
    assert labels.ceiling.tolist() == [1.0, 1.0, 0.1, 0.0]
    exactly = best_labels(small_table(), 4, 0.005, min_iou=80 / 120)
    assert not exactly.is_detector.any()


def test_both_meanings_of_unique_detectors() -> None:
    found = unique_detectors(small_table(), 4, CATEGORY_OF, 2, 0.005)
    assert (found.detectors, found.unique_labels, found.unique_by_category) == (3, 3, 3)
    assert found.category_detectors.tolist() == [2, 1]
    assert found.category_unique.tolist() == [2, 1]
    low = unique_detectors(small_table(), 4, CATEGORY_OF, 2, 0.005, min_iou=0.004)
    assert (low.detectors, low.unique_labels, low.unique_by_category) == (3, 3, 3)
    assert low.category_top_detectors.tolist() == [3, 2]


def test_the_label_is_chosen_on_the_split_asked_for() -> None:
    table = small_table()
    table["iou_train"] = np.array([0.1, 0.5, 0.0, 0.0, 0.2, 0.03])
    labels = best_labels(table, 4, 0.005, by="iou_train")
    assert labels.concept.tolist() == [2, 0, 1, 0]
    assert labels.iou.tolist() == [table["iou"][1], 0.0, table["iou"][4], 0.0]  # over all samples


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 2**32 - 1), units=st.integers(1, 5), concepts=st.integers(1, 8), taus=st.integers(1, 3))
def test_equal_a_loop_over_pairs(seed: int, units: int, concepts: int, taus: int) -> None:
    rng = np.random.default_rng(seed)
    category_of = np.concatenate([[-1], rng.integers(0, 3, concepts)])
    intersection = rng.integers(0, 4, (taus, units, concepts + 1)) * 2**33
    unit_pixels = rng.integers(4, 9, (taus, units, 3)) * 2**33
    concept_pixels = rng.integers(4, 9, concepts + 1) * 2**33
    levels = [0.005, 0.05, 0.5][:taus]
    table = iou_table(intersection, unit_pixels, concept_pixels, category_of, levels)
    expected = [
        (levels[t], u, c, both / (int(unit_pixels[t, u, category_of[c]]) + int(concept_pixels[c]) - both))
        for t in range(taus)
        for u in range(units)
        for c in range(1, concepts + 1)
        if (both := int(intersection[t, u, c])) > 0
    ]
    found = list(zip(*(table[name].tolist() for name in ("tau", "unit", "concept", "iou")), strict=True))
    assert found == expected
    again = iou_for_rows(table, intersection, unit_pixels, concept_pixels, category_of, levels)
    np.testing.assert_array_equal(again, table["iou"])
    for level in levels:
        labels = best_labels(table, units, level)
        summary = unique_detectors(table, units, category_of, 3, level, min_iou=0.3)
        tops: list[set[int]] = [set(), set(), set()]
        for unit in range(units):
            rows = [(-iou, c) for tau, u, c, iou in expected if tau == level and u == unit]
            assert labels.concept[unit] == (min(rows)[1] if rows else 0)
            for category in range(3):
                own = [row for row in rows if category_of[row[1]] == category]
                if own and -min(own)[0] > 0.3:
                    tops[category].add(min(own)[1])
        assert summary.category_unique.tolist() == [len(top) for top in tops]
        assert summary.unique_by_category == sum(len(top) for top in tops)
        assert summary.category_detectors.sum() == summary.detectors
        assert summary.category_unique_labels.sum() == summary.unique_labels


def test_nothing_counted_gives_an_empty_table_and_no_labels() -> None:
    table = iou_table(
        np.zeros((1, 2, 3), np.int64), np.zeros((1, 2, 1), np.int64), np.zeros(3, np.int64), [-1, 0, 0], [0.1]
    )
    assert all(column.size == 0 for column in table.values())
    assert best_labels(table, 2, 0.1).concept.tolist() == [0, 0]
    assert unique_detectors(table, 2, [-1, 0, 0], 1, 0.1).detectors == 0


def test_an_unknown_tau_labels_nothing() -> None:
    assert best_labels(small_table(), 4, 0.05).row.tolist() == [-1] * 4


@pytest.mark.parametrize("name", ["unit", "concept", "intersection", "unit_pixels", "concept_pixels"])
def test_integer_columns_are_int64(name: str) -> None:
    assert small_table()[name].dtype == np.int64
