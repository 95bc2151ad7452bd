"""Which unit of one layer is which of another, from their correlations, and how good a match chance alone would give.

Y. Li, J. Yosinski, J. Clune, H. Lipson, J. Hopcroft: Convergent Learning: Do different neural networks learn the same
representations?, ICLR 2016, section 3: each unit's best match (semi-matching), and the one-to-one assignment of highest
total correlation (bipartite matching; here by scipy's linear_sum_assignment).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

DRAWS = 5
QUANTILE = 0.99
_ROWS = 512
_NEVER = -2.0
"""Below any correlation: the assignment takes such a pair only where nothing else is left."""


@dataclass(frozen=True, slots=True)
class Best:
    """For each of n units the other layer's unit of highest correlation: unit (n,) int64, -1 where there is none;
    value (n,) float64, NaN where there is none."""

    unit: Ints
    value: Floats


@dataclass(frozen=True, slots=True)
class Chance:
    """The best correlation that a unit finds among units that have nothing to do with it, from `samples` samples.

    median, high: of all units and draws, and their QUANTILE; both None where there is no unit to be matched
    """

    samples: int
    draws: int
    median: float | None
    high: float | None


def best_matches(correlation: Floats) -> Best:
    """The best match of each row of (A, B) correlations; of equal ones the lowest unit."""
    if 0 in correlation.shape:
        return Best(np.full(len(correlation), -1, np.int64), np.full(len(correlation), np.nan))
    known = np.where(np.isnan(correlation), -np.inf, correlation)
    unit = known.argmax(axis=1).astype(np.int64)
    value = known[np.arange(len(known)), unit]
    none = np.isinf(value)
    return Best(np.where(none, -1, unit), np.where(none, np.nan, value))


def one_to_one(correlation: Floats) -> Best:
    """The partner of each row of (A, B) correlations, each column being partner of one row at most, such that the sum
    of their correlations is highest."""
    units = np.full(len(correlation), -1, np.int64)
    values = np.full(len(correlation), np.nan)
    rows, columns = linear_sum_assignment(np.where(np.isnan(correlation), _NEVER, correlation), maximize=True)
    found = correlation[rows, columns]
    known = ~np.isnan(found)
    units[rows[known]], values[rows[known]] = columns[known], found[known]
    return Best(units, values)


def chance_of_best(a: NDArray[np.float32], b: NDArray[np.float32], *, draws: int = DRAWS, seed: int = 0) -> Chance:
    """What best matches come to where the samples of one layer are permuted, so that no unit has a counterpart.

    a: (n, A), b: (n, B), values of the same n samples. Units that are constant or not finite there are left out. As the
    best of many, chance is larger the more units there are, and the fewer samples.
    """
    left, right = _standardised(a), _standardised(b)
    if 0 in (*left.shape, *right.shape):
        return Chance(len(a), draws, None, None)
    rng = np.random.default_rng(seed)
    best = [_best_products(left, right[rng.permutation(len(right))]) for _ in range(draws)]
    values = np.concatenate(best)
    return Chance(len(a), draws, float(np.median(values)), float(np.quantile(values, QUANTILE)))


def _best_products(left: NDArray[np.float32], right: NDArray[np.float32]) -> Floats:
    """The highest product of each column of `left` with any of `right`."""
    parts = [(left[:, start : start + _ROWS].T @ right).max(axis=1) for start in range(0, left.shape[1], _ROWS)]
    return np.concatenate(parts).astype(np.float64)


def _standardised(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """The columns that have a correlation, less their mean, of length 1."""
    usable = values[:, np.isfinite(values).all(axis=0)].astype(np.float64)
    if not usable.size:
        return usable.astype(np.float32)
    usable = usable[:, usable.max(axis=0) > usable.min(axis=0)]
    usable -= usable.mean(axis=0)
    lengths = np.sqrt(np.einsum("nc,nc->c", usable, usable))
    scaled: NDArray[np.float32] = (usable / np.where(lengths > 0, lengths, np.inf)).astype(np.float32)
    return scaled
