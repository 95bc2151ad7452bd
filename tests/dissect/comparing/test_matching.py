"""Matches of units: beside every possible assignment, beside planted truth, and beside chance."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from microtome.dissect.comparing.correlation import PairMoments
from microtome.dissect.comparing.matching import QUANTILE, best_matches, chance_of_best, one_to_one


def correlation(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float64]:
    moments = PairMoments.empty(a.shape[1], b.shape[1])
    moments.update(a, b)
    return moments.correlation()


def sparse(seed: int, samples: int, units: int) -> NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    return (np.maximum(rng.normal(-1, 1, (samples, units)), 0) ** 2).astype(np.float32)


@given(st.integers(1, 5), st.integers(1, 5), st.integers(0, 10_000))
def test_the_assignment_is_the_best_of_all(rows: int, columns: int, seed: int) -> None:
    found = np.random.default_rng(seed).uniform(-1, 1, (rows, columns))
    match = one_to_one(found)
    wide = found if rows <= columns else found.T
    best = max(
        sum(wide[row, column] for row, column in enumerate(chosen))
        for chosen in permutations(range(wide.shape[1]), wide.shape[0])
    )
    taken = match.unit[match.unit >= 0]
    assert len(taken) == min(rows, columns) == len(set(taken.tolist()))
    assert np.nansum(match.value) == pytest.approx(best)


def test_a_permuted_scaled_layer_is_found_again() -> None:
    a = sparse(0, 300, 40)
    order = np.random.default_rng(1).permutation(40)
    b = a[:, order] * np.linspace(0.01, 30, 40, dtype=np.float32) + 5
    found = correlation(a, b.astype(np.float32))
    for match in (one_to_one(found), best_matches(found)):
        assert match.unit.tolist() == np.argsort(order).tolist()
        np.testing.assert_allclose(match.value, 1.0, atol=1e-5)


def test_units_without_a_correlation_have_no_match() -> None:
    found = np.array([[0.2, np.nan, 0.9], [np.nan, np.nan, np.nan], [0.1, np.nan, 0.8]])
    match, best = one_to_one(found), best_matches(found)
    assert match.unit.tolist() == [2, -1, 0]
    assert best.unit.tolist() == [2, -1, 2]
    assert np.isnan(match.value[1])
    assert np.isnan(best.value[1])
    assert best_matches(np.zeros((2, 0))).unit.tolist() == [-1, -1]


def test_chance_is_what_unrelated_units_come_to() -> None:
    a, b = sparse(0, 200, 60), sparse(1, 200, 80)
    chance = chance_of_best(a, b)
    assert chance.median is not None
    assert chance.high is not None
    found = best_matches(correlation(a, b)).value
    assert np.median(found) == pytest.approx(chance.median, rel=0.15)
    assert (found > chance.high).mean() < 0.06
    b[:, :30] = a[:, :30] + 0.2 * b[:, :30]
    matched = one_to_one(correlation(a, b)).value > chance_of_best(a, b).high
    assert matched[:30].all()
    assert matched[30:].mean() < 0.1


def test_chance_beside_a_slow_reference() -> None:
    a, b = sparse(3, 50, 4), sparse(4, 50, 6)
    a[:, 2] = 7
    b[5, 3] = np.nan
    chance = chance_of_best(a, b, draws=2, seed=5)
    rng = np.random.default_rng(5)
    best = []
    for _ in range(2):
        moved = b[rng.permutation(50)]
        best += [max(np.corrcoef(a[:, unit], moved[:, other])[0, 1] for other in (0, 1, 2, 4, 5)) for unit in (0, 1, 3)]
    assert chance.median == pytest.approx(np.median(best), abs=1e-5)
    assert chance.high == pytest.approx(np.quantile(best, QUANTILE), abs=1e-5)
    assert (chance.samples, chance.draws) == (50, 2)


def test_nothing_to_match_is_no_chance() -> None:
    still = np.ones((9, 3), np.float32)
    assert chance_of_best(still, sparse(0, 9, 2)).high is None
    assert chance_of_best(np.full((9, 2), np.nan, np.float32), still).median is None
