"""Histograms: counts are kept when they are spread, and every filled bin shows."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from microtome.reports.histograms import BINS, LEVELS, encode_heights, encode_histograms, spread_counts


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.floats(-8, 8), st.floats(0, 3), st.integers(0, 10**9)), min_size=1, max_size=20))
def test_spreading_keeps_the_counts(bins: list[tuple[float, float, int]]) -> None:
    low = np.array([b[0] for b in bins])
    high = low + np.array([b[1] for b in bins])
    count = np.array([float(b[2]) for b in bins])
    spread = spread_counts(low, high, count, float(low.min()), float(high.max()))
    assert spread.sum() == pytest.approx(count.sum(), rel=1e-6, abs=1e-6)


def test_a_wide_bin_is_shared_evenly() -> None:
    spread = spread_counts(np.array([0.0]), np.array([4.0]), np.array([480.0]), 0.0, 8.0)
    np.testing.assert_allclose(spread, [20.0] * 24 + [0.0] * 24)


def test_a_bin_is_cut_to_the_range_of_values() -> None:
    spread = spread_counts(np.array([6.0]), np.array([7.0]), np.array([9.0]), 0.0, 6.0)
    assert spread[-1] == pytest.approx(9)


def test_one_position_shows_beside_a_billion() -> None:
    counts = np.zeros(BINS)
    counts[0], counts[3] = 1e9, 1
    text = encode_heights(counts)
    assert text[0] == LEVELS[-1]
    assert LEVELS.index(text[3]) >= 1
    assert set(text[4:]) == {LEVELS[0]}


def test_units_without_bins_or_range() -> None:
    units = pd.DataFrame({"unit": [0, 1, 2], "minimum": [0.0, 1.5, np.nan], "maximum": [2.0, 1.5, np.nan]})
    table = pd.DataFrame({"unit": [1, 0], "low": [1.5, 0.0], "high": [1.75, 2.0], "count": [7, 5]})
    first, second, third = encode_histograms(units, table)
    assert first == LEVELS[-1] * BINS
    assert second == LEVELS[-1] + LEVELS[0] * (BINS - 1)
    assert third == ""
