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
    count_between,
    first_position,
    flush_high_bytes,
    plane_sums,
    plane_sums_without_nan,
    units_at_once,
)
from microtome.dissect.maths.thresholds import CoarseHistogram, coarse_plane

STEP = 2.0**-24
"""The finest step between float16 values: every finite one is a whole multiple of it."""


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
        whole = [np.zeros(units, np.int64) for _ in range(5)]
        squares = np.zeros(units, np.float64)
        return cls(*whole, squares, np.full(units, 0xFFFF, np.uint16), np.zeros(units, np.uint16))

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
    raw: NDArray[np.uint16],
    plane: int,
    coarse: tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.uint16], NDArray[np.uint16]],
    whole: tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]],
    others: tuple[NDArray[np.float64], NDArray[np.uint16], NDArray[np.uint16]],
    maps: tuple[NDArray[np.uint16], NDArray[np.int32], NDArray[np.float32]],
) -> None:
    counts, nan, lowest, highest = coarse
    n, units = maps[0].shape
    together = units_at_once(plane)
    local = np.zeros((together, LANES, 256), np.uint32)
    for first in range(0, units, together):
        last = min(first + together, units)
        for sample in range(n):
            for unit in range(first, last):
                start = (sample * units + unit) * plane
                low, high, nans = coarse_plane(
                    raw, start, start + plane, unit, local[unit - first], counts, nan, lowest, highest
                )
                _describe_plane(raw, start, start + plane, low, high, nans, sample, unit, whole, others, maps)
        for unit in range(first, last):
            flush_high_bytes(local[unit - first], counts[unit])


@kernel
def _describe_plane(
    raw: NDArray[np.uint16],
    start: int,
    stop: int,
    low: int,
    high: int,
    nans: int,
    sample: int,
    unit: int,
    whole: tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]],
    others: tuple[NDArray[np.float64], NDArray[np.uint16], NDArray[np.uint16]],
    maps: tuple[NDArray[np.uint16], NDArray[np.int32], NDArray[np.float32]],
) -> None:
    count, nan, not_positive, sum_high, sum_low = whole
    squares, lowest, highest = others
    peak, at, mean = maps
    size = stop - start - nans
    nan[unit] += nans
    if size == 0:
        peak[sample, unit], at[sample, unit], mean[sample, unit] = 0xFFFF, -1, np.float32(np.nan)
        return
    lowest[unit] = min(np.int64(lowest[unit]), low)
    highest[unit] = max(np.int64(highest[unit]), high)
    peak[sample, unit] = high
    at[sample, unit] = first_position(raw, start, stop, high)
    count[unit] += size
    if low <= 0x8000:
        not_positive[unit] += count_between(raw, start, stop, 0x03FF, 0x8000)
    total, square = 0.0, 0.0
    exact = np.int64(0)
    for part in range(start, stop, 8192):
        end = min(part + 8192, stop)
        if nans:
            some, its_square = plane_sums_without_nan(raw, part, end)
        else:
            some, its_square = plane_sums(raw, part, end)
        total += some
        square += its_square
        if np.isfinite(some):
            exact += np.int64(some * 16777216.0)
    mean[sample, unit] = np.float32(total / size)
    squares[unit] += square
    sum_low[unit] += exact & 0xFFFFFFFF
    sum_high[unit] += exact >> 32
    if sum_low[unit] > 0xFFFFFFFF:
        sum_low[unit] -= 0x100000000
        sum_high[unit] += 1
