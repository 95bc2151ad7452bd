"""Streaming moments of every unit, and the peak and mean of each of its maps.

Sums are kept exactly (as integers of 2^-24, the finest float16 step), so the mean does not depend on how samples
were split into shards. Squares are summed in float64, a plane at a time, and merged in the order given.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from microtome.dissect.maths import float16
from microtome.dissect.maths.jit import kernel
from microtome.dissect.maths.scan import (
    LANES,
    MAX_POSITIONS,
    add_high_bytes,
    can_scan,
    careful_scan,
    count_between,
    first_position,
    flush_high_bytes,
    fold_zero,
    is_plain,
    move_negative_zeros,
    units_at_once,
)
from microtome.dissect.maths.thresholds import CoarseHistogram
from microtome.dissect.maths.vector import scan_plane

STEP = 2.0**-24
"""The finest step between float16 values: every finite one is a whole multiple of it."""
EXACT = 8192
"""So many float16 values (below 2^16) add up in float64 without rounding."""

Ints = NDArray[np.int64]
Patterns = NDArray[np.uint16]
CoarseArrays = tuple[Ints, Ints, Patterns, Patterns]
WholeArrays = tuple[Ints, Ints, Ints, Ints, Ints]
RestArrays = tuple[NDArray[np.float64], Patterns, Patterns]
MapArrays = tuple[Patterns, NDArray[np.int32], NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class Peaks:
    """The maps of n samples and C units in three numbers each.

    peak: (n, C) float16 spatial maximum; peak_at: (n, C) int32 its first flat position; mean: (n, C) float32 over
    the positions that are not NaN. A map that is all NaN has NaN, -1, NaN.
    """

    peak: NDArray[np.float16]
    peak_at: NDArray[np.int32]
    mean: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class MomentsResult:
    """Per unit: positions, nan (C,) int64; mean, std (population), dead_share (share of values <= 0), minimum,
    maximum (C,) float64; NaN where a unit has no value."""

    positions: NDArray[np.int64]
    nan: NDArray[np.int64]
    mean: NDArray[np.float64]
    std: NDArray[np.float64]
    dead_share: NDArray[np.float64]
    minimum: NDArray[np.float64]
    maximum: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Moments:
    """Sums over every position seen of C units; updated in place.

    count, nan, not_positive: (C,) int64: values that are not NaN, NaN, values <= 0
    sum_high, sum_low: (C,) int64: the sum of the finite values in steps of 2^-24, as high * 2^32 + low,
        0 <= low < 2^32
    squares: (C,) float64: sum of squares (infinite once an infinity was seen)
    lowest, highest: (C,) uint16 ordered patterns (0xFFFF and 0 where nothing was seen)
    """

    count: NDArray[np.int64]
    nan: NDArray[np.int64]
    not_positive: NDArray[np.int64]
    sum_high: NDArray[np.int64]
    sum_low: NDArray[np.int64]
    squares: NDArray[np.float64]
    lowest: NDArray[np.uint16]
    highest: NDArray[np.uint16]

    @classmethod
    def empty(cls, units: int) -> Moments:
        """Nothing seen yet, for `units` units."""
        return cls(
            count=np.zeros(units, np.int64),
            nan=np.zeros(units, np.int64),
            not_positive=np.zeros(units, np.int64),
            sum_high=np.zeros(units, np.int64),
            sum_low=np.zeros(units, np.int64),
            squares=np.zeros(units, np.float64),
            lowest=np.full(units, 0xFFFF, np.uint16),
            highest=np.zeros(units, np.uint16),
        )

    def update(self, acts: NDArray[np.float16]) -> None:
        """Add (n, C, h, w) float16 activations. `observe` does this and more in one pass."""
        observe(acts, CoarseHistogram.empty(self.count.size), self)

    def merge(self, other: Moments) -> None:
        """Add what `other` has seen. Only `squares` depends on the order, in its last bits."""
        for name in ("count", "nan", "not_positive", "sum_high", "sum_low", "squares"):
            getattr(self, name)[...] += getattr(other, name)
        _carry(self.sum_high, self.sum_low)
        np.minimum(self.lowest, other.lowest, out=self.lowest)
        np.maximum(self.highest, other.highest, out=self.highest)

    def to_arrays(self) -> dict[str, NDArray[np.generic]]:
        """The state, as named arrays."""
        return {name: getattr(self, name) for name in self.__slots__}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[np.generic]]) -> Moments:
        """The state again, from copies of `to_arrays`."""
        like = cls.empty(0)
        return cls(**{name: arrays[name].astype(getattr(like, name).dtype) for name in cls.__slots__})

    def result(self) -> MomentsResult:
        """Mean, standard deviation and the rest."""
        empty = self.count == 0
        count = np.where(empty, np.nan, self.count.astype(np.float64))
        minimum = np.where(empty, np.nan, float16.values_of_patterns(self.lowest).astype(np.float64))
        maximum = np.where(empty, np.nan, float16.values_of_patterns(self.highest).astype(np.float64))
        total = (self.sum_high.astype(np.float64) * 2.0**32 + self.sum_low) * STEP
        with np.errstate(invalid="ignore"):
            mean = total / count
            bounds = minimum + maximum
            mean = np.where(np.isfinite(minimum) & np.isfinite(maximum) | empty, mean, bounds)
            variance = np.maximum(self.squares / count - mean * mean, 0.0)
            variance = np.where(self.lowest == self.highest, 0.0 * mean, variance)
        return MomentsResult(
            self.count.copy(), self.nan.copy(), mean, np.sqrt(variance), self.not_positive / count, minimum, maximum
        )


def observe(acts: NDArray[np.float16], coarse: CoarseHistogram, moments: Moments) -> Peaks:
    """One pass over (n, C, h, w) float16 activations that feeds both statistics and gives peaks and means."""
    raw, n, units, plane = float16.as_planes(acts)
    peak = np.empty((n, units), np.uint16)
    at = np.empty((n, units), np.int32)
    mean = np.empty((n, units), np.float32)
    step = max(1, MAX_POSITIONS // max(plane, 1))
    for first in range(0, n, step):
        last = min(first + step, n)
        _observe(
            raw[first * units * plane : last * units * plane],
            plane,
            (coarse.counts, coarse.nan, coarse.lowest, coarse.highest),
            (moments.count, moments.nan, moments.not_positive, moments.sum_high, moments.sum_low),
            (moments.squares, moments.lowest, moments.highest),
            (peak[first:last], at[first:last], mean[first:last]),
        )
    return Peaks(float16.values_of_patterns(peak), at, mean)


def peaks(acts: NDArray[np.float16]) -> Peaks:
    """Peak, its position and the mean of every map of (n, C, h, w) float16 activations."""
    units = acts.shape[1]
    return observe(acts, CoarseHistogram.empty(units), Moments.empty(units))


def _carry(high: NDArray[np.int64], low: NDArray[np.int64]) -> None:
    high += low >> 32
    low &= 0xFFFFFFFF


@kernel
def _observe(
    raw: NDArray[np.uint16], plane: int, coarse: CoarseArrays, whole: WholeArrays, rest: RestArrays, maps: MapArrays
) -> None:
    counts, coarse_nan, coarse_lowest, coarse_highest = coarse
    count, nan, not_positive, sum_high, sum_low = whole
    squares, lowest, highest = rest
    peak, at, mean = maps
    n, units = peak.shape
    together = units_at_once(plane)
    local = np.zeros(together * LANES * 256, np.uint32)
    for first in range(0, units, together):
        last = min(first + together, units)
        for sample in range(n):
            for unit in range(first, last):
                start = (sample * units + unit) * plane
                stop = start + plane
                low, high, nans, total, square, steps = _sum_plane(raw, start, stop)
                add_high_bytes(raw, start, stop, nans, local, unit - first)
                if low <= 0x7FFF <= high:
                    move_negative_zeros(raw, start, stop, counts, unit)
                low, high = fold_zero(low), fold_zero(high)
                size = plane - nans
                coarse_nan[unit] += nans
                coarse_lowest[unit] = lowest[unit] = min(int(lowest[unit]), low)
                coarse_highest[unit] = highest[unit] = max(int(highest[unit]), high)
                nan[unit] += nans
                count[unit] += size
                squares[unit] += square
                sum_low[unit] += steps & 0xFFFFFFFF
                sum_high[unit] += (steps >> 32) + (sum_low[unit] >> 32)
                sum_low[unit] &= 0xFFFFFFFF
                if size == 0:
                    peak[sample, unit], at[sample, unit], mean[sample, unit] = 0xFFFF, -1, np.float32(np.nan)
                    continue
                if low <= 0x8000:
                    not_positive[unit] += count_between(raw, start, stop, 0x03FF, 0x8000)
                peak[sample, unit] = high
                at[sample, unit] = first_position(raw, start, stop, high)
                mean[sample, unit] = np.float32(total / size)
        for unit in range(first, last):
            flush_high_bytes(local, unit - first, counts, unit)


@kernel
def _sum_plane(raw: NDArray[np.uint16], start: int, stop: int) -> tuple[int, int, int, float, float, int]:
    """Extremes, number of NaN, sum, sum of squares, and the finite part of the sum in steps of 2^-24."""
    lowest, highest, nans, steps = 0xFFFF, 0, 0, 0
    total, squares = 0.0, 0.0
    for first in range(start, stop, EXACT):
        last = min(first + EXACT, stop)
        low, high, missing = 0, 0xFFFF, 0
        some, square = 0.0, 0.0
        if can_scan(raw, last):
            low, high, some, square = scan_plane(raw, first, last - first)
        if not is_plain(low, high):
            low, high, missing, some, square = careful_scan(raw, first, last)
        lowest, highest = min(lowest, low), max(highest, high)
        nans += missing
        total += some
        squares += square
        if np.isfinite(some):
            steps += int(some * 16777216.0)
    return lowest, highest, nans, total, squares, steps
