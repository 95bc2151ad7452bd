"""Guessed bins: what they hold is exact, what they lack is named, and a fair sample hardly misses."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from microtome.dissect.maths.guesses import BINS, add_missed, guess_fine, merge_common, take_guessed
from microtome.dissect.maths.thresholds import CoarseHistogram, FineHistogram, exact_thresholds, plan_fine

TAUS = (0.005, 0.02, 0.3, 0.9)


def coarse_of(acts: NDArray[np.float16]) -> CoarseHistogram:
    coarse = CoarseHistogram.empty(acts.shape[1])
    coarse.update(acts)
    return coarse


def fine_of(acts: NDArray[np.float16], prefixes: NDArray[np.int16]) -> FineHistogram:
    fine = FineHistogram.empty(prefixes)
    fine.update(acts)
    return fine


def activations(seed: int, images: int = 64) -> NDArray[np.float16]:
    """Units of many kinds: normal, sparse, dead, constant, all NaN, with infinities, tiny, cut off."""
    dice = np.random.default_rng(seed)
    normal = dice.standard_normal((images, 8, 6, 6)) * dice.exponential(2, (images, 8, 1, 1))
    normal[:, 1] = np.maximum(normal[:, 1] - 3, 0)
    normal[:, 2] = 0
    normal[:, 3] = -0.25
    normal[:, 4] = np.nan
    normal[:, 5, 0, 0] = np.where(dice.random(images) < 0.5, np.inf, -np.inf)
    normal[:, 6] *= 1e-6
    normal[:, 7] = np.clip(normal[:, 7], -1, 1)
    return normal.astype(np.float16)


def assert_same(one: FineHistogram, other: FineHistogram) -> None:
    np.testing.assert_array_equal(one.prefixes, other.prefixes)
    np.testing.assert_array_equal(one.counts, other.counts)


@pytest.mark.parametrize("taus", [(0.005,), TAUS])
@pytest.mark.parametrize("sample", [1, 3, 64])
def test_guessed_and_missed_bins_together_are_the_plan(taus: tuple[float, ...], sample: int) -> None:
    acts = activations(1)
    coarse = coarse_of(acts)
    planned = plan_fine(coarse, taus)
    guessed = guess_fine(coarse_of(acts[:sample]), taus)
    fine, missed = take_guessed(fine_of(acts, guessed), planned)
    add_missed(fine, fine_of(acts, missed))
    assert_same(fine, fine_of(acts, planned))
    found, expected = exact_thresholds(coarse, fine, taus), exact_thresholds(coarse, fine_of(acts, planned), taus)
    np.testing.assert_array_equal(found.value, expected.value)
    np.testing.assert_array_equal(found.count_above, expected.count_above)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), start=st.integers(0, 60), tau=st.floats(0.001, 0.999))
def test_any_sample_gives_the_same_histogram_in_the_end(seed: int, start: int, tau: float) -> None:
    acts = activations(seed)
    planned = plan_fine(coarse_of(acts), [tau])
    fine, missed = take_guessed(fine_of(acts, guess_fine(coarse_of(acts[start : start + 2]), [tau])), planned)
    add_missed(fine, fine_of(acts, missed))
    assert_same(fine, fine_of(acts, planned))


@pytest.mark.parametrize("taus", [(0.005,), TAUS])
def test_the_whole_as_its_own_sample_misses_nothing(taus: tuple[float, ...]) -> None:
    acts = activations(2)
    coarse = coarse_of(acts)
    guessed = guess_fine(coarse, taus)
    assert guessed.shape == (8, BINS * len(taus))
    assert (take_guessed(fine_of(acts, guessed), plan_fine(coarse, taus))[1] == -1).all()


@pytest.mark.parametrize("second", [slice(0, 3), slice(40, 43)])
def test_parts_with_different_guesses_have_what_both_have_counted(second: slice) -> None:
    acts = activations(4)
    guesses = guess_fine(coarse_of(acts[:3]), TAUS), guess_fine(coarse_of(acts[second]), TAUS)
    merged = merge_common(fine_of(acts[:20], guesses[0]), fine_of(acts[20:], guesses[1]))
    for unit in range(8):
        common = (set(guesses[0][unit].tolist()) & set(guesses[1][unit].tolist())) - {-1}
        assert set(merged.prefixes[unit].tolist()) - {-1} == common
    assert_same(merged, fine_of(acts, merged.prefixes))


def test_no_bin_is_guessed_twice() -> None:
    for unit in guess_fine(coarse_of(activations(6)), TAUS).tolist():
        bins = [bin_ for bin_ in unit if bin_ != -1]
        assert len(bins) == len(set(bins)) > 2
        assert min(bins) >= 3, "below lies nothing but NaN"
        assert max(bins) <= 252, "above lies nothing but NaN"


def test_a_unit_that_is_silent_in_the_sample_is_looked_for_at_zero() -> None:
    acts = np.zeros((100, 2, 4, 4), np.float16)
    acts[7, 0] = 3.0
    acts[:50, 1] = np.nan
    guessed = guess_fine(coarse_of(acts[:4]), [0.05])
    planned = plan_fine(coarse_of(acts), [0.05])
    assert (take_guessed(fine_of(acts, guessed), planned)[1] == -1).all()


def test_a_sample_of_another_kind_is_noticed() -> None:
    acts = np.concatenate([activations(3)[:4], activations(3) * np.float16(100)])
    missed = take_guessed(fine_of(acts, guess_fine(coarse_of(acts[:4]), [0.005])), plan_fine(coarse_of(acts), [0.005]))[
        1
    ]
    assert missed[0, 0] >= 0
    assert missed[2, 0] == -1, "a unit that is dead in both needs no other look"


def test_a_fair_sample_of_many_units_hardly_misses() -> None:
    dice = np.random.default_rng(5)
    acts = np.maximum(dice.standard_normal((1024, 256, 7, 7)) * dice.exponential(1, (1024, 256, 1, 1)) - 0.5, 0)
    acts = acts.astype(np.float16)
    guessed = guess_fine(coarse_of(acts[::8]), [0.005])
    missed = take_guessed(fine_of(acts, guessed), plan_fine(coarse_of(acts), [0.005]))[1]
    assert np.count_nonzero(missed >= 0) == 0
