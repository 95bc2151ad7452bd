"""Correlations from mergeable moments, beside numpy's; and what has none."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from microtome.dissect.comparing.correlation import PairMoments, without_correlation


def answers(seed: int, samples: int, units: int) -> NDArray[np.float32]:
    """Skewed and sparse, with one large mean, as activations have it."""
    rng = np.random.default_rng(seed)
    values = np.maximum(rng.normal(-0.5, 1.0, (samples, units)), 0) ** 2
    values[:, 0] += 1e4
    return values.astype(np.float32)


def slow(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float64]:
    both = np.concatenate([a, b], axis=1).astype(np.float64)
    return np.asarray(np.corrcoef(both, rowvar=False)[: a.shape[1], a.shape[1] :])


@given(st.integers(3, 60), st.integers(1, 7), st.integers(1, 7), st.lists(st.integers(0, 60), max_size=4))
def test_any_split_into_blocks_gives_what_numpy_gives(
    samples: int, units_a: int, units_b: int, cuts: list[int]
) -> None:
    a, b = answers(samples, samples, units_a), answers(samples + 1, samples, units_b)
    a[0], b[0] = 30.0, 20.0  # no unit is constant
    moments = PairMoments.empty(units_a, units_b)
    for left, right in zip(np.split(a, sorted(cuts)), np.split(b, sorted(cuts)), strict=True):
        moments.update(left, right)
    assert int(moments.count[0]) == samples
    np.testing.assert_allclose(moments.correlation(), slow(a, b), atol=1e-9)


def test_merging_states_and_storing_them() -> None:
    a, b = answers(1, 90, 5), answers(2, 90, 600)
    parts = []
    for rows in (slice(0, 10), slice(10, 11), slice(11, 90)):
        part = PairMoments.empty(5, 600)
        part.update(a[rows], b[rows])
        parts.append(PairMoments.from_arrays(part.to_arrays()))
    merged = PairMoments.empty(5, 600)
    for part in parts:
        merged.merge(part)
    merged.merge(PairMoments.empty(5, 600))
    whole = PairMoments.empty(600, 5)
    whole.update(b, a)
    np.testing.assert_allclose(merged.correlation(), slow(a, b), atol=1e-9)
    np.testing.assert_allclose(whole.correlation().T, merged.correlation(), atol=1e-9)


def test_large_means_cost_no_digits() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(0, 1e-3, (400, 2)), rng.normal(0, 1e-3, (400, 3))
    b[:, 0] = 3 * a[:, 1]
    moments = PairMoments.empty(2, 3)
    for start in range(0, 400, 7):
        moments.update(a[start : start + 7] + 1e6, b[start : start + 7] - 1e6)
    expected = np.corrcoef((a + 1e6).T, (b - 1e6).T)[:2, 2:]
    np.testing.assert_allclose(moments.correlation(), expected, atol=1e-6)
    assert moments.correlation()[1, 0] == pytest.approx(1.0, abs=1e-6)


def test_units_without_a_correlation_say_why() -> None:
    a, b = answers(1, 40, 5), answers(2, 40, 2)
    a[:, 1] = 0.0
    a[:, 2] = 0.1  # no whole multiple of a power of two: its mean is rounded
    a[3, 3] = np.nan
    a[[4, 9], 4] = np.inf
    moments = PairMoments.empty(5, 2)
    for start in range(0, 40, 11):
        moments.update(a[start : start + 11], b[start : start + 11])
    found = moments.correlation()
    assert np.isnan(found[1:]).all()
    np.testing.assert_allclose(found[:1], slow(a[:, :1], b), atol=1e-9)
    reasons = ["", "constant", "constant", "not finite in 1 sample", "not finite in 2 samples"]
    assert without_correlation(moments.a) == reasons
    assert without_correlation(moments.b) == ["", ""]
    assert without_correlation(PairMoments.empty(1, 1).a) == ["constant"]


def test_blocks_of_different_samples_are_refused() -> None:
    with pytest.raises(ValueError, match="3 samples of one layer and 4 of the other"):
        PairMoments.empty(1, 1).update(np.zeros((3, 1)), np.zeros((4, 1)))
