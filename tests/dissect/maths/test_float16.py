from __future__ import annotations

import numpy as np

from microtome.dissect.maths import float16

EVERY = np.arange(1 << 16, dtype=np.uint16).view(np.float16)


def test_patterns_sort_as_the_values_do() -> None:
    patterns = float16.ordered_patterns(EVERY)
    numbers = ~np.isnan(EVERY)
    order = np.argsort(patterns[numbers], kind="stable")
    assert np.all(np.diff(EVERY[numbers][order].astype(np.float64)) >= 0)


def test_patterns_go_back_to_the_values_and_zeros_are_one() -> None:
    patterns = float16.ordered_patterns(EVERY)
    np.testing.assert_array_equal(float16.values_of_patterns(patterns), EVERY)
    np.testing.assert_array_equal(float16.is_nan_pattern(patterns), np.isnan(EVERY))
    zeros = float16.ordered_patterns(np.array([0.0, -0.0], np.float16))
    assert zeros.tolist() == [float16.ZERO, float16.ZERO]


def test_infinities_are_the_outermost_values() -> None:
    patterns = float16.ordered_patterns(np.array([-np.inf, np.inf], np.float16))
    assert patterns.tolist() == [float16.LOWEST, float16.HIGHEST]


def test_the_table_holds_every_value() -> None:
    np.testing.assert_array_equal(float16.float32_table(), EVERY.astype(np.float32))


def test_coarse_edges_enclose_each_bin() -> None:
    low, high = float16.coarse_edges()
    values = EVERY[~np.isnan(EVERY)]
    bins = float16.ordered_patterns(values) >> 8
    assert np.all(values >= low[bins])
    assert np.all(values <= high[bins])
    assert np.all(np.isnan(low) == np.isnan(high))
