"""Rank correlation and structural similarity of maps, against what they are by definition."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr
from skimage.metrics import structural_similarity

from microtome.dissect.attribution.checks.similarity import rank_correlation, structural

RNG = np.random.default_rng(0)


def test_rank_correlation_is_spearmans() -> None:
    one, other = RNG.random((3, 9, 11)), RNG.random((3, 9, 11))
    other[1] = one[1] ** 3
    one[2] = one[2].round(1)  # ties
    expected = [spearmanr(a.ravel(), b.ravel())[0] for a, b in zip(one, other, strict=True)]
    assert rank_correlation(one, other) == pytest.approx(expected, abs=1e-12)
    assert rank_correlation(one, other)[1] == pytest.approx(1)


def test_a_constant_map_resembles_nothing() -> None:
    maps = RNG.random((2, 8, 8)).astype(np.float32)
    assert rank_correlation(maps, np.zeros_like(maps)).tolist() == [0, 0]


def test_structural_is_of_the_maps_as_shown() -> None:
    one, other = RNG.random((2, 20, 20)), RNG.random((2, 20, 20))
    shown = [np.clip(each / np.percentile(each, 99), 0, 1) for each in (one[0], other[0])]
    expected = structural_similarity(*shown, win_size=7, data_range=1.0)
    assert structural(one, other)[0] == pytest.approx(expected)
    assert structural(one, one * 1000) == pytest.approx([1, 1])


def test_structural_of_small_and_empty_maps() -> None:
    small = RNG.random((1, 4, 5))
    assert structural(small, small) == pytest.approx([1])
    sparse = np.zeros((1, 30, 30))
    sparse[0, 3, 3] = 2  # less than a percentile
    assert np.isfinite(structural(sparse, np.zeros((1, 30, 30)))).all()
