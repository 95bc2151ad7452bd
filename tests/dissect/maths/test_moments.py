from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from microtome.dissect.maths.moments import Moments, observe, peaks
from microtome.dissect.maths.thresholds import CoarseHistogram


def random_acts(seed: int) -> NDArray[np.float16]:
    rng = np.random.default_rng(seed)
    shape = (int(rng.integers(1, 6)), int(rng.integers(1, 12)), int(rng.integers(1, 12)), int(rng.integers(1, 12)))
    acts = (rng.standard_normal(shape) * 10.0 ** rng.integers(-6, 3)).astype(np.float16)
    if rng.random() < 0.5:
        acts = np.maximum(acts, np.float16(0))
    for value in (np.nan, -0.0, 0.0):
        if rng.random() < 0.4:
            acts[rng.random(shape) < rng.choice([0.1, 0.9])] = value
    return acts


@settings(deadline=None, max_examples=120)
@given(seed=st.integers(0, 2**32 - 1))
def test_peaks_and_means_equal_numpy(seed: int) -> None:
    acts = random_acts(seed)
    found = peaks(acts)
    for sample in range(acts.shape[0]):
        for unit in range(acts.shape[1]):
            plane = acts[sample, unit].ravel().astype(np.float64)
            if np.isnan(plane).all():
                assert np.isnan(found.peak[sample, unit])
                assert np.isnan(found.mean[sample, unit])
                assert found.peak_at[sample, unit] == -1
                continue
            assert found.peak[sample, unit] == np.nanmax(plane)
            assert not (found.peak[sample, unit] == 0 and np.signbit(found.peak[sample, unit]))
            assert found.peak_at[sample, unit] == np.nanargmax(plane)
            kept = plane[~np.isnan(plane)]
            assert found.mean[sample, unit] == np.float32(np.sum(kept) / kept.size)


@settings(deadline=None, max_examples=80)
@given(seed=st.integers(0, 2**32 - 1))
def test_moments_equal_numpy_whatever_the_split(seed: int) -> None:
    acts = random_acts(seed)
    whole, parts = Moments.empty(acts.shape[1]), Moments.empty(acts.shape[1])
    whole.update(acts)
    for shard in np.array_split(acts, min(3, len(acts)))[::-1]:
        part = Moments.empty(acts.shape[1])
        part.update(shard)
        parts.merge(Moments.from_arrays(part.to_arrays()))
    found, other = whole.result(), parts.result()
    np.testing.assert_array_equal(found.mean, other.mean)
    np.testing.assert_allclose(found.std, other.std, rtol=1e-6, atol=1e-12)
    for unit in range(acts.shape[1]):
        values = acts[:, unit].ravel().astype(np.float64)
        kept = values[~np.isnan(values)]
        assert (found.positions[unit], found.nan[unit]) == (kept.size, values.size - kept.size)
        if kept.size:
            assert found.mean[unit] == np.sum(np.round(kept * 2.0**24)) * 2.0**-24 / kept.size
            np.testing.assert_allclose(found.std[unit], kept.std(), rtol=1e-6, atol=1e-7 * np.abs(kept).max())
            assert found.dead_share[unit] == np.count_nonzero(kept <= 0) / kept.size
            assert (found.minimum[unit], found.maximum[unit]) == (kept.min(), kept.max())
        else:
            assert np.isnan([found.mean[unit], found.std[unit], found.dead_share[unit]]).all()


def test_one_pass_counts_the_histogram_as_well() -> None:
    acts = np.concatenate([random_acts(seed)[:1, :1, :1, :1] for seed in range(40)])
    coarse, alone, moments = CoarseHistogram.empty(1), CoarseHistogram.empty(1), Moments.empty(1)
    observe(acts, coarse, moments)
    alone.update(acts)
    for name, array in coarse.to_arrays().items():
        np.testing.assert_array_equal(array, alone.to_arrays()[name])


def test_large_maps_and_sums_beyond_53_bits_stay_exact() -> None:
    acts = np.full((2, 1, 150, 150), 65504.0, np.float16)
    acts[0, 0, 0, 0] = 2.0**-24
    moments = Moments.empty(1)
    moments.update(acts)
    for _ in range(20):
        moments.merge(Moments.from_arrays(moments.to_arrays()))
    exact = (65504 * 2**24 * (2 * 150 * 150 - 1) + 1) * 2**20
    assert int(moments.sum_high[0]) * 2**32 + int(moments.sum_low[0]) == exact
    assert moments.result().positions.tolist() == [2 * 150 * 150 * 2**20]


def test_infinities_are_values() -> None:
    acts = np.array([[[[1.0, np.inf]], [[-np.inf, 3.0]], [[np.inf, -np.inf]]]], np.float16)
    moments = Moments.empty(3)
    observed = observe(acts, CoarseHistogram.empty(3), moments)
    found = moments.result()
    assert found.mean[:2].tolist() == [np.inf, -np.inf]
    assert np.isnan(found.mean[2])
    assert observed.peak_at.tolist() == [[1, 1, 0]]
    assert observed.peak.tolist() == [[np.inf, 3.0, np.inf]]


def test_a_constant_unit_has_no_spread() -> None:
    moments = Moments.empty(1)
    moments.update(np.full((3, 1, 7, 7), 0.1, np.float16))
    assert moments.result().std.tolist() == [0.0]
