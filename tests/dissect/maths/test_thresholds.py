from __future__ import annotations

import numpy as np
import pytest
from helpers import reference
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from microtome.dissect.maths.thresholds import (
    CoarseHistogram,
    FineHistogram,
    Thresholds,
    exact_thresholds,
    most_above,
    plan_fine,
)
from microtome.storage.errors import UsageError

Acts = NDArray[np.float16]


def measure(shards: list[Acts], taus: list[float]) -> Thresholds:
    """Both passes over the shards, each with a state of its own, merged and sent through arrays."""
    units = shards[0].shape[1]
    coarse = CoarseHistogram.empty(units)
    for shard in shards:
        part = CoarseHistogram.empty(units)
        part.update(shard)
        coarse.merge(CoarseHistogram.from_arrays(part.to_arrays()))
    fine = FineHistogram.empty(plan_fine(coarse, taus))
    for shard in reversed(shards):
        piece = FineHistogram.empty(plan_fine(coarse, taus))
        piece.update(shard)
        fine.merge(FineHistogram.from_arrays(piece.to_arrays()))
    return exact_thresholds(coarse, fine, taus)


def random_acts(seed: int) -> Acts:
    rng = np.random.default_rng(seed)
    shape = (int(rng.integers(1, 6)), int(rng.integers(1, 5)), int(rng.integers(1, 12)), int(rng.integers(1, 12)))
    values = rng.standard_normal(shape) * 10.0 ** rng.integers(-8, 4)
    if rng.random() < 0.5:
        values = np.maximum(values, 0)
    if rng.random() < 0.3:
        values = np.minimum(values, np.quantile(values, 0.7))
    if rng.random() < 0.3:
        values = np.round(values)
    acts = values.astype(np.float16)
    for value in (np.nan, -np.nan, np.inf, -np.inf, -0.0, 0.0):
        if rng.random() < 0.3:
            acts[rng.random(shape) < rng.choice([0.05, 0.9])] = value
    if rng.random() < 0.2:
        acts[:, 0] = rng.choice([0.0, -0.0, np.nan, 3.0, -2.0])
    return acts


@settings(deadline=None, max_examples=150)
@given(
    seed=st.integers(0, 2**32 - 1),
    taus=st.lists(st.sampled_from([0.001, 0.005, 0.05, 0.25, 0.5, 0.9]), min_size=1, max_size=3),
)
def test_equal_the_definition(seed: int, taus: list[float]) -> None:
    acts = random_acts(seed)
    found = measure(np.array_split(acts, min(3, len(acts))), taus)
    for unit in range(acts.shape[1]):
        values = acts[:, unit].ravel()
        kept = values[~np.isnan(values)].astype(np.float64)
        assert found.positions[unit] == kept.size
        assert found.nan[unit] == values.size - kept.size
        assert found.state[unit] == reference.state(values, taus[0])
        for column, tau in enumerate(taus):
            threshold = reference.threshold(values, tau)
            np.testing.assert_array_equal(found.value[unit, column], threshold)
            if kept.size:
                assert found.count_above[unit, column] == np.count_nonzero(kept > threshold)
                assert found.realised[unit, column] == np.count_nonzero(kept > threshold) / kept.size
                assert found.saturated[unit, column] == (reference.state(values, tau) == "saturated")
        if kept.size:
            assert (found.minimum[unit], found.maximum[unit]) == (kept.min(), kept.max())


def test_dead_and_constant_units_have_no_threshold_for_masks() -> None:
    acts = np.zeros((2, 4, 3, 3), np.float16)
    acts[:, 1] = 2.5
    acts[:, 2] = np.nan
    acts[:, 3] = np.arange(18).reshape(2, 3, 3)
    found = measure([acts], [0.25])
    assert found.state.tolist() == ["dead", "constant", "dead", "ok"]
    assert np.isnan(found.for_masks[:3]).all()
    assert found.for_masks[3, 0] == found.value[3, 0] == 13


def test_a_clipped_unit_is_saturated_only_where_the_ties_exceed_tau() -> None:
    acts = np.linspace(0, 10, 1000, dtype=np.float16).reshape(10, 1, 10, 10)
    acts[acts > 6] = 6
    found = measure([acts], [0.005, 0.5])
    assert found.state.tolist() == ["saturated"]
    assert found.saturated.tolist() == [[True, False]]
    assert found.realised[0, 0] == 0


def test_counts_beyond_32_bits_stay_exact() -> None:
    coarse = CoarseHistogram.empty(1)
    coarse.update(np.array([[[[0.0, 1.0, 2.0, 3.0]]]], np.float16))
    fine = FineHistogram.empty(plan_fine(coarse, [0.3]))
    fine.update(np.array([[[[0.0, 1.0, 2.0, 3.0]]]], np.float16))
    for _ in range(33):
        coarse.merge(CoarseHistogram.from_arrays(coarse.to_arrays()))
        fine.merge(FineHistogram.from_arrays(fine.to_arrays()))
    found = exact_thresholds(coarse, fine, [0.3])
    assert found.positions.tolist() == [2**35]
    assert (float(found.value[0, 0]), int(found.count_above[0, 0])) == (2.0, 2**33)


@pytest.mark.parametrize("tau", [0.005, 0.1, 1 / 3, 0.7])
def test_most_above_is_exact_in_float64(tau: float) -> None:
    total = np.array([1, 3, 7, 10, 100, 1000, 12345, 2**24 + 1, 2**40 + 7], np.int64)
    most = most_above(total, tau)
    assert np.all(most / total <= tau)
    assert np.all((most + 1) / total > tau)


@pytest.mark.parametrize("taus", [[], [0.0], [1.0], [0.5, 2.0], [float("nan")]])
def test_taus_outside_of_0_and_1_are_refused(taus: list[float]) -> None:
    with pytest.raises(UsageError, match="between 0 and 1"):
        plan_fine(CoarseHistogram.empty(1), taus)


def test_histograms_of_different_data_are_refused() -> None:
    first, second = np.random.default_rng(0).standard_normal((2, 4, 2, 5, 5)).astype(np.float16)
    coarse = CoarseHistogram.empty(2)
    coarse.update(first)
    fine = FineHistogram.empty(plan_fine(coarse, [0.05]))
    fine.update(second * np.float16(0.001))
    with pytest.raises(UsageError, match="same samples"):
        exact_thresholds(coarse, fine, [0.05])
    with pytest.raises(UsageError, match="other taus"):
        exact_thresholds(coarse, fine, [0.05, 0.5])
    with pytest.raises(UsageError, match="different plans"):
        fine.merge(FineHistogram.empty(plan_fine(coarse, [0.5])))
