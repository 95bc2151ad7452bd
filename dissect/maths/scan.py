"""Plane kernels shared by the statistics: what one unit's map of one image holds.

Each kernel reads raw[start:stop], the bits of one (h*w) plane of float16 values. They run one after the other on
a plane that lies in the first-level cache.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from microtome.dissect.maths.jit import block_mask, count_ones, half_to_float, kernel, trailing_zeros
from microtome.dissect.maths.vector import STEP

LANES = 4
"""Interleaved copies of each histogram: equal neighbours then do not wait for each other's store."""
MAX_POSITIONS = 1 << 31
"""Most positions a unit may have in one kernel call, so that uint32 counters cannot overflow."""


@kernel
def is_plain(low: int, high: int) -> bool:
    """Whether extremes found by `scan_plane` show that every value is finite."""
    return low > 0x03FF and high < 0xFC00


@kernel
def fold_zero(pattern: int) -> int:
    """The ordered pattern with -0 folded onto +0."""
    return 0x8000 if pattern == 0x7FFF else pattern


@kernel
def can_scan(raw: NDArray[np.uint16], stop: int) -> bool:
    """Whether the vector scans may read the plane that ends at `stop` (they read a little further)."""
    return stop + STEP - 1 <= raw.size


@kernel
def careful_scan(raw: NDArray[np.uint16], start: int, stop: int) -> tuple[int, int, int, float, float]:
    """Value by value, leaving out NaN: lowest and highest ordered pattern, number of NaN, sum, sum of squares.

    The extremes are 0xFFFF and 0 where all are NaN. The sum is exact for up to 8,192 finite values.
    """
    low = 0xFFFF
    high = 0
    nans = 0
    total = 0.0
    squares = 0.0
    for i in range(start, stop):
        bits = int(raw[i])
        if (bits & 0x7FFF) > 0x7C00:
            nans += 1
            continue
        pattern = bits ^ 0xFFFF if bits & 0x8000 else bits | 0x8000
        low = min(low, pattern)
        high = max(high, pattern)
        value = np.float64(half_to_float(raw[i]))
        total += value
        squares += value * value
    return low, high, nans, total, squares


@kernel
def first_position(raw: NDArray[np.uint16], start: int, stop: int, pattern: int) -> int:
    """First flat position whose ordered pattern is `pattern` (folded: 0x8000 matches -0 as well); -1 if none."""
    low = 0x7FFF if pattern == 0x8000 else pattern
    for block in range(start, stop, 64):
        bits = block_mask(raw, block, min(block + 64, stop), low, pattern)
        if bits != np.uint64(0):
            return block - start + trailing_zeros(bits)
    return -1


@kernel
def count_between(raw: NDArray[np.uint16], start: int, stop: int, low: int, high: int) -> int:
    """Number of values of the plane with low <= ordered pattern <= high."""
    total = 0
    for block in range(start, stop, 64):
        total += count_ones(block_mask(raw, block, min(block + 64, stop), low, high))
    return total


@kernel
def add_high_bytes(
    raw: NDArray[np.uint16], start: int, stop: int, nans: int, local: NDArray[np.uint32], slot: int
) -> None:
    """Count the high byte of every value's bits into place `slot` of local (units, 4, 256), flat; NaN left out."""
    base = np.uint64(slot * LANES * 256)
    if nans:
        for i in range(start, stop):
            if (raw[i] & 0x7FFF) <= 0x7C00:
                local[base + np.uint64(raw[i] >> 8)] += np.uint32(1)
        return
    whole = start + (stop - start) // 4 * 4
    for i in range(start, whole, 4):
        local[base + np.uint64(raw[i] >> 8)] += np.uint32(1)
        local[base + np.uint64(256) + np.uint64(raw[i + 1] >> 8)] += np.uint32(1)
        local[base + np.uint64(512) + np.uint64(raw[i + 2] >> 8)] += np.uint32(1)
        local[base + np.uint64(768) + np.uint64(raw[i + 3] >> 8)] += np.uint32(1)
    for i in range(whole, stop):
        local[base + np.uint64(raw[i] >> 8)] += np.uint32(1)


@kernel
def flush_high_bytes(local: NDArray[np.uint32], slot: int, counts: NDArray[np.int64], unit: int) -> None:
    """Add place `slot` of `local`, by high byte of the bits, to counts[unit], by high byte of the pattern; clear it."""
    base = slot * LANES * 256
    for high_byte in range(256):
        total = np.int64(0)
        for lane in range(LANES):
            total += np.int64(local[base + lane * 256 + high_byte])
            local[base + lane * 256 + high_byte] = 0
        counts[unit, high_byte | 0x80 if high_byte < 0x80 else 0xFF - high_byte] += total


@kernel
def move_negative_zeros(raw: NDArray[np.uint16], start: int, stop: int, counts: NDArray[np.int64], unit: int) -> None:
    """-0 has the high byte of small negative numbers: count it as the zero it is."""
    negative_zeros = count_between(raw, start, stop, 0x7FFF, 0x7FFF)
    counts[unit, 0x7F] -= negative_zeros
    counts[unit, 0x80] += negative_zeros


@kernel
def units_at_once(plane: int) -> int:
    """Number of neighbouring units to take together: long runs of memory, and histograms that stay in cache."""
    return min(8, max(1, 2048 // max(plane, 1)))
