"""How every unit of one layer correlates with every unit of another, over samples that both have answered to.

Pearson's correlation of one number a sample: of spatial means, or of peaks. Moments are float64 and centred, and blocks
of samples merge into those of all (T. Chan, G. Golub, R. LeVeque: Updating formulae and a pairwise algorithm for
computing sample variances, 1982, equation 2.1), so that memory does not grow with the samples, and large means cost no
digits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
_ROWS = 512
"""Units of the first layer at a time, where a whole matrix would be made on the way."""


@dataclass(frozen=True, slots=True)
class Side:
    """What was seen of the C units of one layer; updated in place.

    mean, square: (C,) float64, mean and sum of squared deviations; lowest, highest: (C,) float64, infinite where
    nothing was seen; missing: (C,) int64, samples without a finite value, which count as 0 in the others
    """

    mean: Floats
    square: Floats
    lowest: Floats
    highest: Floats
    missing: NDArray[np.int64]

    @classmethod
    def empty(cls, units: int) -> Side:
        """Nothing seen yet."""
        return cls(
            np.zeros(units),
            np.zeros(units),
            np.full(units, np.inf),
            np.full(units, -np.inf),
            np.zeros(units, np.int64),
        )

    @classmethod
    def of(cls, values: Floats, missing: NDArray[np.bool_]) -> tuple[Side, Floats]:
        """Of (n, C) values, those that are missing being 0; and their deviations from their means."""
        mean = values.mean(axis=0)
        deviations = values - mean
        square = np.einsum("nc,nc->c", deviations, deviations)
        return cls(mean, square, values.min(axis=0), values.max(axis=0), missing.sum(axis=0)), deviations

    def merge(self, other: Side, shift: Floats, weight: float, share: float) -> None:
        """Add what `other` has seen. shift: its mean less ours; weight: n m / (n + m); share: m / (n + m)."""
        self.mean[...] += shift * share
        self.square[...] += other.square + shift * shift * weight
        np.minimum(self.lowest, other.lowest, out=self.lowest)
        np.maximum(self.highest, other.highest, out=self.highest)
        self.missing[...] += other.missing

    def constant(self) -> NDArray[np.bool_]:
        """(C,) which units gave the same value for every sample."""
        same: NDArray[np.bool_] = ~(self.highest > self.lowest)
        return same


@dataclass(frozen=True, slots=True)
class PairMoments:
    """Moments of A units beside those of B others, over the same samples; updated in place.

    count: (1,) int64, samples; product: (A, B) float64, sums of products of deviations
    """

    count: NDArray[np.int64]
    a: Side
    b: Side
    product: Floats

    @classmethod
    def empty(cls, units_a: int, units_b: int) -> PairMoments:
        """Nothing seen yet."""
        return cls(np.zeros(1, np.int64), Side.empty(units_a), Side.empty(units_b), np.zeros((units_a, units_b)))

    def update(self, a: NDArray[np.floating], b: NDArray[np.floating]) -> None:
        """Add (n, A) and (n, B) values of the same n samples. A unit that was not finite once has no correlation."""
        if len(a) != len(b):
            raise ValueError(f"{len(a)} samples of one layer and {len(b)} of the other; they must be the same")
        if len(a) == 0:
            return
        values_a, missing_a = _finite(a)
        values_b, missing_b = _finite(b)
        side_a, deviations_a = Side.of(values_a, missing_a)
        side_b, deviations_b = Side.of(values_b, missing_b)
        product = deviations_a.T @ deviations_b
        self.merge(PairMoments(np.array([len(a)], np.int64), side_a, side_b, product))

    def merge(self, other: PairMoments) -> None:
        """Add what `other` has seen; the order matters in the last bits alone."""
        mine, more = int(self.count[0]), int(other.count[0])
        if more == 0:
            return
        weight, share = mine * more / (mine + more), more / (mine + more)
        shift_a, shift_b = other.a.mean - self.a.mean, other.b.mean - self.b.mean
        for start in range(0, len(shift_a), _ROWS):
            rows = slice(start, start + _ROWS)
            self.product[rows] += other.product[rows] + np.outer(shift_a[rows] * weight, shift_b)
        self.a.merge(other.a, shift_a, weight, share)
        self.b.merge(other.b, shift_b, weight, share)
        self.count[...] += more

    def to_arrays(self) -> dict[str, NDArray[np.generic]]:
        """The state, as named arrays."""
        sides = {"a": self.a, "b": self.b}
        named = {f"{key}_{name}": getattr(side, name) for key, side in sides.items() for name in Side.__slots__}
        return {"count": self.count, "product": self.product, **named}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[np.generic]]) -> PairMoments:
        """The state again, from copies of `to_arrays`."""

        def side(key: str) -> Side:
            like = Side.empty(0)
            return Side(**{name: arrays[f"{key}_{name}"].astype(getattr(like, name).dtype) for name in Side.__slots__})

        count, product = arrays["count"].astype(np.int64), arrays["product"].astype(np.float64)
        return cls(count, side("a"), side("b"), product)

    def correlation(self) -> Floats:
        """(A, B) float64 in [-1, 1]; NaN where a unit is constant, or was not finite for a sample."""
        spread_a, spread_b = _spread(self.a), _spread(self.b)
        result = np.empty_like(self.product)
        for start in range(0, len(spread_a), _ROWS):
            rows = slice(start, start + _ROWS)
            np.divide(self.product[rows], np.outer(spread_a[rows], spread_b), out=result[rows])
        return np.clip(result, -1.0, 1.0, out=result)


def without_correlation(side: Side) -> list[str]:
    """Why each unit has no correlation: "constant", "not finite in 3 samples", or "" where it has one."""
    constant = side.constant()
    reasons = []
    for unit, missing in enumerate(side.missing.tolist()):
        words = f"not finite in {missing:,} sample{'' if missing == 1 else 's'}"
        reasons.append(words if missing else "constant" if constant[unit] else "")
    return reasons


def _finite(values: NDArray[np.floating]) -> tuple[Floats, NDArray[np.bool_]]:
    """The values as float64, with 0 for those that are not finite, and which those are."""
    missing = ~np.isfinite(values)
    return np.where(missing, 0.0, values.astype(np.float64)), missing


def _spread(side: Side) -> Floats:
    """(C,) square roots of the sums of squared deviations, NaN where there is no correlation."""
    none = side.constant() | (side.missing > 0) | (side.square <= 0)
    spread: Floats = np.where(none, np.nan, np.sqrt(side.square))
    return spread
