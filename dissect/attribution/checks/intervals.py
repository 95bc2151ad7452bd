"""How sure a mean over images is: the percentile bootstrap (Efron, 1979)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

DRAWS = 2000
COVERED = 0.95


@dataclass(frozen=True)
class Mean:
    """A mean over `count` images and its 95 % interval; NaN of none."""

    mean: float
    low: float
    high: float
    count: int

    @property
    def above_zero(self) -> bool:
        """Whether the whole interval is."""
        return self.low > 0

    def to_dict(self) -> dict[str, float | int | None]:
        """Ready for JSON; NaN becomes None."""
        numbers = {"mean": self.mean, "low": self.low, "high": self.high}
        return {**{key: None if np.isnan(value) else value for key, value in numbers.items()}, "images": self.count}


def bootstrap(values: NDArray[np.floating], seed: int = 0) -> Mean:
    """The mean of values (n,) and where it falls in 95 of 100 draws of n with replacement; NaN are left out."""
    known = np.asarray(values, np.float64)
    known = known[~np.isnan(known)]
    if not len(known):
        return Mean(float("nan"), float("nan"), float("nan"), 0)
    drawn = np.random.default_rng(seed).integers(0, len(known), (DRAWS, len(known)))
    means = known[drawn].mean(axis=1)
    low, high = np.quantile(means, [(1 - COVERED) / 2, (1 + COVERED) / 2])
    return Mean(float(known.mean()), float(low), float(high), len(known))
