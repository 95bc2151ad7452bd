"""Bilinear upsampling from the activation grid to the label grid, plateaus kept exact.

Half-pixel centres, clamped at the borders: what torch calls align_corners=False. A value between a and b is
a + l * (b - a) in float32, first along the rows, then down the columns; where l is 0 it is a alone, so that a NaN
or infinity of no weight does no harm. Otherwise those spread as float32 arithmetic has it (inf - inf is NaN), and a
comparison with NaN is false.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def axis_weights(src: int, dst: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """For each of `dst` outputs along an axis of `src` inputs: (i0, i1, l), (dst,) each.

    Output j is input[i0] + l * (input[i1] - input[i0]); i0 never decreases, l (float32, in [0, 1)) never decreases
    while i0 stays the same, and l is 0 where i1 equals i0.
    """
    halves = (2 * np.arange(dst, dtype=np.int64) + 1) * src - dst  # the centre in steps of 1 / (2 dst): exact
    halves = np.clip(halves, 0, (src - 1) * 2 * dst)
    i0, rest = np.divmod(halves, 2 * dst)
    i1 = np.minimum(i0 + 1, src - 1)
    share = (rest / (2 * dst)).astype(np.float32)
    share = np.minimum(share, np.nextafter(np.float32(1.0), np.float32(0.0)))
    return i0, i1, np.where(i0 == i1, np.float32(0.0), share).astype(np.float32)


def upsample(grid: NDArray[np.floating], size: tuple[int, int]) -> NDArray[np.float32]:
    """grid: (h, w) -> (H, W) float32, H and W at least 1."""
    values = np.asarray(grid, dtype=np.float32)
    top, bottom, down = axis_weights(values.shape[0], size[0])
    left, right, along = axis_weights(values.shape[1], size[1])
    with np.errstate(invalid="ignore"):
        rows = _between(values[:, left], values[:, right], along[None, :])
        return _between(rows[top], rows[bottom], down[:, None])


def _between(a: NDArray[np.float32], b: NDArray[np.float32], share: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.where(share == 0, a, a + share * (b - a)).astype(np.float32)
