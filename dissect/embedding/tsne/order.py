"""The Z-order curve (Morton 1966): points that are near in the plane come near each other in a list."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

BITS = 16
_SPREAD = ((8, 0x00FF00FF), (4, 0x0F0F0F0F), (2, 0x33333333), (1, 0x55555555))


def morton_order(positions: NDArray[np.float32]) -> NDArray[np.int64]:
    """(N,) the rows of `positions` (N, 2) along the curve over their bounding square; ties keep their order."""
    low = positions.min(axis=0)
    span = float((positions.max(axis=0) - low).max()) or 1.0
    cells = ((positions - low) * np.float32((2**BITS - 1) / span)).astype(np.uint32)
    return np.argsort(_spread(cells[:, 0]) | (_spread(cells[:, 1]) << np.uint32(1)), kind="stable")


def _spread(values: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """The low 16 bits of each value, with a zero between any two."""
    for shift, mask in _SPREAD:
        values = (values | (values << np.uint32(shift))) & np.uint32(mask)
    return values
