"""What the capture stage learns of one layer's units: the coarse histogram and the moments, in stored units."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from microtome.dissect.maths.float16 import HIGHEST, LOWEST, coarse_edges
from microtome.dissect.maths.moments import Moments, Peaks, observe
from microtome.dissect.maths.thresholds import CoarseHistogram

Arrays = Mapping[str, NDArray[np.generic]]


@dataclass(frozen=True, slots=True)
class LayerSummary:
    """Both statistics of C units over the same samples; a stored value times the layer's scale is the true one."""

    coarse: CoarseHistogram
    moments: Moments

    @classmethod
    def empty(cls, units: int) -> LayerSummary:
        """Nothing seen yet."""
        return cls(CoarseHistogram.empty(units), Moments.empty(units))

    def update(self, maps: NDArray[np.float16]) -> Peaks:
        """Add (n, C, h, w) float16 activation maps; returns their peaks and means."""
        return observe(np.ascontiguousarray(maps), self.coarse, self.moments)

    def merge(self, other: LayerSummary) -> None:
        """Add what `other` has seen."""
        self.coarse.merge(other.coarse)
        self.moments.merge(other.moments)

    def to_arrays(self) -> dict[str, NDArray[np.generic]]:
        """The state, as named arrays."""
        parts = {"coarse": self.coarse.to_arrays(), "moments": self.moments.to_arrays()}
        return {f"{part}.{name}": array for part, arrays in parts.items() for name, array in arrays.items()}

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> LayerSummary:
        """The inverse of `to_arrays`."""
        return cls(CoarseHistogram.from_arrays(_part(arrays, "coarse")), Moments.from_arrays(_part(arrays, "moments")))

    @property
    def infinite(self) -> NDArray[np.int64]:
        """(C,) positions whose value is infinite."""
        return self.coarse.counts[:, LOWEST >> 8] + self.coarse.counts[:, HIGHEST >> 8]  # else only NaN lies there

    def bins(self) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
        """The non-empty bins of all units: unit, lowest and highest value of the bin (stored units), count."""
        low, high = coarse_edges()
        unit, column = np.nonzero(self.coarse.counts)
        return unit, low[column], high[column], self.coarse.counts[unit, column]


def _part(arrays: Arrays, name: str) -> dict[str, NDArray[np.generic]]:
    prefix = f"{name}."
    return {key.removeprefix(prefix): array for key, array in arrays.items() if key.startswith(prefix)}
