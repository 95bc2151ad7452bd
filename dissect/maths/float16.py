"""Float16 values as integers that sort alike.

The *ordered pattern* of a float16 is the uint16 that sorts as the value does: the sign bit set for values >= 0, all
bits inverted for values < 0. -0 is folded onto +0 (0x8000). Infinities are values like others (0x03FF, 0xFC00);
patterns outside of these two are NaN.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

ZERO = 0x8000
NEGATIVE_ZERO = 0x7FFF
LOWEST = 0x03FF
"""Ordered pattern of -inf; anything below is NaN."""
HIGHEST = 0xFC00
"""Ordered pattern of +inf; anything above is NaN."""


def ordered_patterns(values: NDArray[np.float16]) -> NDArray[np.uint16]:
    """values: any shape, float16 -> uint16 of the same shape; NaN stays outside LOWEST ... HIGHEST."""
    raw = np.ascontiguousarray(values, dtype=np.float16).view(np.uint16)
    ordered = np.where(raw & 0x8000, ~raw, raw | np.uint16(0x8000)).astype(np.uint16)
    return np.where(ordered == NEGATIVE_ZERO, np.uint16(ZERO), ordered).astype(np.uint16).reshape(np.shape(values))


def values_of_patterns(ordered: NDArray[np.uint16]) -> NDArray[np.float16]:
    """The inverse of `ordered_patterns`: uint16 of any shape -> float16."""
    patterns = np.ascontiguousarray(ordered, dtype=np.uint16)
    raw = np.where(patterns & 0x8000, patterns & np.uint16(0x7FFF), ~patterns).astype(np.uint16)
    return raw.view(np.float16).reshape(np.shape(ordered))


def is_nan_pattern(ordered: NDArray[np.uint16]) -> NDArray[np.bool_]:
    """Which ordered patterns are NaN."""
    return (ordered < LOWEST) | (ordered > HIGHEST)


def float32_table() -> NDArray[np.float32]:
    """(65536,) float32: the value of every float16, by its bits."""
    return np.arange(1 << 16, dtype=np.uint16).view(np.float16).astype(np.float32)


def coarse_edges() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Lowest and highest value of each of the 256 coarse bins, (256,) float64 each; NaN in bins that hold only NaN."""
    low = np.maximum(np.arange(256) << 8, LOWEST)
    high = np.minimum((np.arange(256) << 8) | 255, HIGHEST)
    edges = []
    for patterns in (low, high):
        values = values_of_patterns(patterns.astype(np.uint16)).astype(np.float64)
        edges.append(np.where(low <= high, values, np.nan))
    return edges[0], edges[1]


def as_planes(acts: NDArray[np.float16]) -> tuple[NDArray[np.uint16], int, int, int]:
    """The bits of (n, C, h, w) float16 activations, flat, with n, C and h*w. Copies only if not C-contiguous."""
    if acts.ndim != 4 or acts.dtype != np.float16:
        raise ValueError(f"activations must be (n, C, h, w) float16, not {acts.shape} {acts.dtype}")
    n, units, height, width = acts.shape
    return np.ascontiguousarray(acts).reshape(-1).view(np.uint16), n, units, height * width
