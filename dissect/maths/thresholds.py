"""Exact quantiles of every unit's activations, by radix selection in two passes.

The threshold of a unit is the smallest stored value t with P(a > t) <= tau over every position of every sample
(Bau, Zhou, Khosla, Oliva and Torralba, Network Dissection, 2017, section 2.3). Float16 has 65,536 patterns: the
first pass counts their high bytes (256 bins: also the histogram that the pages draw), the second counts the 256
patterns inside the one bin that holds the answer for each tau. Nothing is sampled, and no order of shards matters.

    coarse = CoarseHistogram.empty(units);            coarse.update(acts) for every shard; merge
    fine = FineHistogram.empty(plan_fine(coarse, taus));  fine.update(acts) for every shard; merge
    thresholds = exact_thresholds(coarse, fine, taus)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from microtome.dissect.maths import float16
from microtome.dissect.maths.jit import block_mask, kernel, trailing_zeros
from microtome.dissect.maths.scan import (
    LANES,
    MAX_POSITIONS,
    add_high_bytes,
    can_scan,
    careful_scan,
    flush_high_bytes,
    fold_zero,
    is_plain,
    move_negative_zeros,
    units_at_once,
)
from microtome.dissect.maths.vector import scan_extremes
from microtome.storage.errors import UsageError

Arrays = Mapping[str, NDArray[np.generic]]

NO_PREFIX = -1
"""In the plan: nothing to look for (the unit has no value, or one value only)."""


@dataclass(frozen=True, slots=True)
class CoarseHistogram:
    """How often each high byte of the ordered pattern occurs in each unit.

    counts: (C, 256) int64, NaN left out; nan: (C,) int64; lowest, highest: (C,) uint16 ordered patterns of the
    extremes (0xFFFF and 0 where a unit has no value yet). Updated in place.
    """

    counts: NDArray[np.int64]
    nan: NDArray[np.int64]
    lowest: NDArray[np.uint16]
    highest: NDArray[np.uint16]

    @classmethod
    def empty(cls, units: int) -> CoarseHistogram:
        """Nothing seen yet, for `units` units."""
        return cls(
            np.zeros((units, 256), np.int64),
            np.zeros(units, np.int64),
            np.full(units, 0xFFFF, np.uint16),
            np.zeros(units, np.uint16),
        )

    @property
    def positions(self) -> NDArray[np.int64]:
        """(C,) int64: values seen that are not NaN."""
        return np.asarray(self.counts.sum(axis=1), dtype=np.int64)

    def update(self, acts: NDArray[np.float16]) -> None:
        """Add (n, C, h, w) float16 activations."""
        raw, n, units, plane = float16.as_planes(acts)
        step = max(1, MAX_POSITIONS // max(plane, 1))
        for first in range(0, n, step):
            part = raw[first * units * plane : (first + step) * units * plane]
            _coarse(part, min(step, n - first), units, plane, self.counts, self.nan, self.lowest, self.highest)

    def merge(self, other: CoarseHistogram) -> None:
        """Add what `other` has seen."""
        self.counts[...] += other.counts
        self.nan[...] += other.nan
        np.minimum(self.lowest, other.lowest, out=self.lowest)
        np.maximum(self.highest, other.highest, out=self.highest)

    def to_arrays(self) -> dict[str, NDArray[np.generic]]:
        """The state, as named arrays."""
        return {"counts": self.counts, "nan": self.nan, "lowest": self.lowest, "highest": self.highest}

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> CoarseHistogram:
        """The state again, from copies of `to_arrays`."""
        return cls(
            arrays["counts"].astype(np.int64),
            arrays["nan"].astype(np.int64),
            arrays["lowest"].astype(np.uint16),
            arrays["highest"].astype(np.uint16),
        )


@dataclass(frozen=True, slots=True)
class FineHistogram:
    """How often each pattern occurs inside the coarse bins that hold the answers.

    prefixes: (C, T) int16, the high byte to look into, or -1; counts: (C, T, 256) int64, by low byte of the ordered
    pattern. Zeros are left out (they are the bin's remainder, and there may be very many). Where several taus of a
    unit share a prefix only the first of them is counted. Updated in place.
    """

    prefixes: NDArray[np.int16]
    counts: NDArray[np.int64]

    @classmethod
    def empty(cls, prefixes: NDArray[np.int16]) -> FineHistogram:
        """Nothing seen yet, for a plan made by `plan_fine`."""
        return cls(prefixes.astype(np.int16), np.zeros((*prefixes.shape, 256), np.int64))

    def update(self, acts: NDArray[np.float16]) -> None:
        """Add (n, C, h, w) float16 activations."""
        raw, n, units, plane = float16.as_planes(acts)
        _fine(raw, n, units, plane, self.prefixes.astype(np.int64), self.counts)

    def merge(self, other: FineHistogram) -> None:
        """Add what `other` has seen. Raises UsageError where it followed another plan."""
        if not np.array_equal(self.prefixes, other.prefixes):
            raise UsageError("fine histograms of different plans cannot be merged; count all shards with one plan")
        self.counts[...] += other.counts

    def to_arrays(self) -> dict[str, NDArray[np.generic]]:
        """The state, as named arrays."""
        return {"prefixes": self.prefixes, "counts": self.counts}

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> FineHistogram:
        """The state again, from copies of `to_arrays`."""
        return cls(arrays["prefixes"].astype(np.int16), arrays["counts"].astype(np.int64))


@dataclass(frozen=True, slots=True)
class Thresholds:
    """What `exact_thresholds` finds, for C units and T taus.

    taus: (T,) float64 as given
    value: (C, T) float16, the thresholds; NaN where a unit has no value at all
    count_above: (C, T) int64, positions with a > T; realised: (C, T) float64, their share (NaN without positions)
    positions, nan: (C,) int64
    minimum, maximum: (C,) float16
    state: (C,) str: "dead", "constant", "saturated" (at the first tau) or "ok"
    saturated: (C, T) bool: T is the maximum, though the unit is neither dead nor constant
    """

    taus: NDArray[np.float64]
    value: NDArray[np.float16]
    count_above: NDArray[np.int64]
    realised: NDArray[np.float64]
    positions: NDArray[np.int64]
    nan: NDArray[np.int64]
    minimum: NDArray[np.float16]
    maximum: NDArray[np.float16]
    state: NDArray[np.str_]
    saturated: NDArray[np.bool_]

    @property
    def for_masks(self) -> NDArray[np.float16]:
        """(C, T) float16: `value`, but NaN for dead and constant units, whose masks are empty. What `tally` takes."""
        silent = (self.state == "dead") | (self.state == "constant")
        return np.where(silent[:, None], np.float16(np.nan), self.value).astype(np.float16)


def check_taus(taus: Sequence[float]) -> NDArray[np.float64]:
    """The taus as (T,) float64. Raises UsageError unless there is at least one and all lie inside (0, 1)."""
    values = np.asarray(taus, dtype=np.float64)
    if values.ndim != 1 or values.size == 0 or not bool(np.all((values > 0) & (values < 1))):
        raise UsageError(f"tau must be one or more numbers between 0 and 1, not {list(taus)!r}; the usual is 0.005")
    return values


def most_above(positions: NDArray[np.int64], tau: float) -> NDArray[np.int64]:
    """(C,) int64: the largest count k with k / positions <= tau in float64 division."""
    total = np.maximum(positions, 1)
    count = np.floor(total.astype(np.float64) * tau).astype(np.int64)
    count = np.where((count + 1) / total <= tau, count + 1, count)
    return np.where(count / total > tau, count - 1, count).astype(np.int64)


def plan_fine(coarse: CoarseHistogram, taus: Sequence[float]) -> NDArray[np.int16]:
    """(C, T) int16: the coarse bin that holds each threshold; -1 where the extremes say it already."""
    counts = coarse.counts
    at_or_above = np.cumsum(counts[:, ::-1], axis=1)[:, ::-1]
    above = at_or_above - counts
    known = (coarse.positions == 0) | (coarse.lowest == coarse.highest)
    prefixes = np.empty((counts.shape[0], len(taus)), np.int16)
    for column, tau in enumerate(check_taus(taus)):
        fits = (counts > 0) & (above <= most_above(coarse.positions, float(tau))[:, None])
        prefixes[:, column] = np.where(known, NO_PREFIX, np.argmax(fits, axis=1))
    return prefixes


def exact_thresholds(coarse: CoarseHistogram, fine: FineHistogram, taus: Sequence[float]) -> Thresholds:
    """The thresholds, from both histograms over the same samples. `fine` must follow plan_fine(coarse, taus)."""
    levels = check_taus(taus)
    if not np.array_equal(fine.prefixes, plan_fine(coarse, taus)):
        raise UsageError("the fine histogram was counted for other data or other taus; plan and count it again")
    units, positions = coarse.nan.size, coarse.positions
    pattern = np.repeat(coarse.highest[:, None], levels.size, axis=1)
    above = np.zeros((units, levels.size), np.int64)
    for column, tau in enumerate(levels):
        unit = np.flatnonzero(fine.prefixes[:, column] != NO_PREFIX)
        prefix = fine.prefixes[unit, column].astype(np.int64)
        counts = _complete(coarse, fine, unit, prefix)
        higher_bins = np.where(np.arange(256) > prefix[:, None], coarse.counts[unit], 0).sum(axis=1)
        over = (higher_bins + counts.sum(axis=1))[:, None] - np.cumsum(counts, axis=1)
        allowed = most_above(positions[unit], float(tau))
        low_byte = np.argmax((counts > 0) & (over <= allowed[:, None]), axis=1)
        pattern[unit, column] = prefix << 8 | low_byte
        above[unit, column] = over[np.arange(unit.size), low_byte]
    state, saturated = _states(coarse, pattern)
    empty = positions == 0
    minimum = float16.values_of_patterns(coarse.lowest)
    maximum = float16.values_of_patterns(coarse.highest)
    nothing = np.float16(np.nan)
    return Thresholds(
        taus=levels,
        value=np.where(empty[:, None], nothing, float16.values_of_patterns(pattern)).astype(np.float16),
        count_above=above,
        realised=np.where(empty[:, None], np.nan, above / np.maximum(positions, 1)[:, None]),
        positions=positions,
        nan=coarse.nan.copy(),
        minimum=np.where(empty, nothing, minimum).astype(np.float16),
        maximum=np.where(empty, nothing, maximum).astype(np.float16),
        state=state,
        saturated=saturated,
    )


def _complete(
    coarse: CoarseHistogram, fine: FineHistogram, unit: NDArray[np.int64], prefix: NDArray[np.int64]
) -> NDArray[np.int64]:
    """(len(unit), 256) counts inside one bin of each of these units, zeros included."""
    first = np.argmax(fine.prefixes[unit] == prefix[:, None], axis=1)
    counts: NDArray[np.int64] = fine.counts[unit, first]
    missing = coarse.counts[unit, prefix] - counts.sum(axis=1)
    if np.any(missing < 0) or np.any((missing > 0) & (prefix != float16.ZERO >> 8)):
        raise UsageError("the two histograms did not see the same samples; count both again")
    counts[:, 0] += missing
    return counts


def _states(coarse: CoarseHistogram, pattern: NDArray[np.uint16]) -> tuple[NDArray[np.str_], NDArray[np.bool_]]:
    dead = (coarse.positions == 0) | (coarse.highest == float16.ZERO)
    constant = coarse.lowest == coarse.highest
    saturated = (pattern == coarse.highest[:, None]) & ~(dead | constant)[:, None]
    state = np.select([dead, constant, saturated[:, 0]], ["dead", "constant", "saturated"], "ok")
    return state.astype(np.str_), saturated


@kernel
def _coarse(
    raw: NDArray[np.uint16],
    n: int,
    units: int,
    plane: int,
    counts: NDArray[np.int64],
    nan: NDArray[np.int64],
    lowest: NDArray[np.uint16],
    highest: NDArray[np.uint16],
) -> None:
    together = units_at_once(plane)
    local = np.zeros(together * LANES * 256, np.uint32)
    for first in range(0, units, together):
        last = min(first + together, units)
        for sample in range(n):
            for unit in range(first, last):
                start = (sample * units + unit) * plane
                stop = start + plane
                nans = 0
                low, high = 0, 0xFFFF
                if can_scan(raw, stop):
                    low, high = scan_extremes(raw, start, plane)
                if not is_plain(low, high):
                    low, high, nans, _, _ = careful_scan(raw, start, stop)
                add_high_bytes(raw, start, stop, nans, local, unit - first)
                if low <= 0x7FFF <= high:
                    move_negative_zeros(raw, start, stop, counts, unit)
                nan[unit] += nans
                lowest[unit] = min(int(lowest[unit]), fold_zero(low))
                highest[unit] = max(int(highest[unit]), fold_zero(high))
        for unit in range(first, last):
            flush_high_bytes(local, unit - first, counts, unit)


@kernel
def _fine(
    raw: NDArray[np.uint16],
    n: int,
    units: int,
    plane: int,
    prefixes: NDArray[np.int64],
    counts: NDArray[np.int64],
) -> None:
    for sample in range(n):
        for unit in range(units):
            start = (sample * units + unit) * plane
            for column in range(prefixes.shape[1]):
                prefix = prefixes[unit, column]
                counted = prefix < 0
                for earlier in range(column):
                    counted |= prefixes[unit, earlier] == prefix
                if not counted:
                    _fine_plane(raw, start, start + plane, prefix << 8, counts[unit, column])


@kernel
def _fine_plane(raw: NDArray[np.uint16], start: int, stop: int, base: int, counts: NDArray[np.int64]) -> None:
    low = max(base, 0x03FF)
    high = min(base + 255, 0xFC00)
    if low == 0x8000:
        low = 0x8001
    if high == 0x7FFF:
        high = 0x7FFE
    flip = 0 if base >= 0x8000 else 0xFF
    for block in range(start, stop, 64):
        bits = block_mask(raw, block, min(block + 64, stop), low, high)
        while bits != np.uint64(0):
            counts[(np.int64(raw[block + trailing_zeros(bits)]) & 0xFF) ^ flip] += 1
            bits &= bits - np.uint64(1)
