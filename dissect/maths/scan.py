"""Plane kernels shared by the statistics: what one unit's map of one image holds.

Each kernel reads raw[start:stop], the bits of one (h*w) plane of float16 values. They run one after the other on
a plane that lies in the first-level cache.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from microtome.dissect.maths.jit import block_mask, count_ones, half_to_float, kernel, reordering_kernel, trailing_zeros

LANES = 4
"""Interleaved copies of each histogram: equal neighbours then do not wait for each other's store."""
MAX_POSITIONS = 1 << 31
"""Most positions a unit may have in one kernel call, so that uint32 counters cannot overflow."""


@kernel
def plane_extremes(raw: NDArray[np.uint16], start: int, stop: int) -> tuple[int, int]:
    """Lowest and highest ordered pattern of the plane (-0 not folded); NaN lies outside 0x03FF ... 0xFC00."""
    low = np.int16(32767)
    high = np.int16(-32768)
    for i in range(start, stop):
        signed = np.int16(raw[i])
        key = np.int16(signed ^ np.int16(np.int16(signed >> 15) & 0x7FFF))
        low = min(low, key)
        high = max(high, key)
    return np.int64(low) + 0x8000, np.int64(high) + 0x8000  # type: ignore[return-value]


@kernel
def has_nan(low: int, high: int) -> bool:
    """Whether extremes found by `plane_extremes` show a NaN."""
    return low < 0x03FF or high > 0xFC00


@kernel
def fold_zero(pattern: int) -> int:
    """The ordered pattern with -0 folded onto +0."""
    return 0x8000 if pattern == 0x7FFF else pattern


@kernel
def plane_extremes_without_nan(raw: NDArray[np.uint16], start: int, stop: int) -> tuple[int, int, int]:
    """Lowest and highest ordered pattern that is no NaN (0xFFFF, 0 where all are), and the number of NaN."""
    low = 0xFFFF
    high = 0
    nans = 0
    for i in range(start, stop):
        value = np.int64(raw[i])
        if (value & 0x7FFF) > 0x7C00:
            nans += 1
            continue
        pattern = value ^ 0xFFFF if value & 0x8000 else value | 0x8000
        low = min(low, pattern)
        high = max(high, pattern)
    return low, high, nans


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
def add_high_bytes(raw: NDArray[np.uint16], start: int, stop: int, local: NDArray[np.uint32]) -> None:
    """Count the high byte of every value's bits into local (4, 256)."""
    whole = start + (stop - start) // 4 * 4
    for i in range(start, whole, 4):
        local[0, raw[i] >> 8] += np.uint32(1)
        local[1, raw[i + 1] >> 8] += np.uint32(1)
        local[2, raw[i + 2] >> 8] += np.uint32(1)
        local[3, raw[i + 3] >> 8] += np.uint32(1)
    for i in range(whole, stop):
        local[0, raw[i] >> 8] += np.uint32(1)


@kernel
def add_high_bytes_without_nan(raw: NDArray[np.uint16], start: int, stop: int, local: NDArray[np.uint32]) -> None:
    """As `add_high_bytes`, leaving out NaN."""
    for i in range(start, stop):
        if (raw[i] & 0x7FFF) <= 0x7C00:
            local[0, raw[i] >> 8] += np.uint32(1)


@kernel
def flush_high_bytes(local: NDArray[np.uint32], counts: NDArray[np.int64]) -> None:
    """Add local (4, 256), by high byte of the bits, to counts (256,), by high byte of the ordered pattern."""
    for high_byte in range(256):
        total = np.int64(0)
        for lane in range(LANES):
            total += np.int64(local[lane, high_byte])
            local[lane, high_byte] = 0
        counts[high_byte | 0x80 if high_byte < 0x80 else 0xFF - high_byte] += total


@reordering_kernel
def plane_sums(raw: NDArray[np.uint16], start: int, stop: int) -> tuple[float, float]:
    """Sum and sum of squares in float64. The sum is exact for up to 8,192 values (multiples of 2^-24 below 2^29)."""
    total = 0.0
    squares = 0.0
    for i in range(start, stop):
        value = np.float64(half_to_float(raw[i]))
        total += value
        squares += value * value
    return total, squares


@reordering_kernel
def plane_sums_without_nan(raw: NDArray[np.uint16], start: int, stop: int) -> tuple[float, float]:
    """As `plane_sums`, leaving out NaN."""
    total = 0.0
    squares = 0.0
    for i in range(start, stop):
        if (raw[i] & 0x7FFF) <= 0x7C00:
            value = np.float64(half_to_float(raw[i]))
            total += value
            squares += value * value
    return total, squares


@kernel
def units_at_once(plane: int) -> int:
    """Number of neighbouring units to take together: long runs of memory, and histograms that stay in cache."""
    return min(8, max(1, 2048 // max(plane, 1)))
