"""Density clusters of a map: hills of its density that a valley parts from every higher one.

The density is a histogram on a grid, smoothed by a Gaussian. Cells join the hill of their neighbours, from the highest
cell to the lowest; where two hills meet, the lower one stays a hill of its own if it rises far enough over the pass
between them and holds enough points (mode seeking by persistence: Chazal, Guibas, Oudot and Skraba, 2013). The cost is
O(N + grid), nothing is drawn by lot, and the number of clusters is not asked for.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from microtome.dissect.maths.jit import kernel
from microtome.storage.errors import UsageError

NOISE = -1
"""The cluster of points that are in none."""
CELLS = 512
"""Cells along the longer side of the map."""
FINEST = 2.0
"""The least width (standard deviation) of the smoothing, in cells."""
IN_KERNEL = 30.0
"""The smoothing widens until at the median point so many points stand under it (4 pi s² times the density), so that
chance moves the density there by about a fifth."""
PROMINENCE = 2.0
"""How many times higher than the pass to a higher hill a hill must be."""
EVIDENCE = 3.5
"""And by how many standard deviations of the density, whose square root has the same one everywhere."""
EDGE = 0.05
"""Points where the density is below this share of their hill's top are noise."""
LEAST_SAMPLES = 10
LEAST_SHARE = 0.001
"""Points of the smallest cluster, whichever is more: in number, and as a share of all."""
_OUTLIERS = 0.1
"""Percent of the points on each side that may lie outside of the grid, and are noise there, if they lie far out."""

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Clusters:
    """labels: (N,) int32, cluster of each point, 0 = the largest, NOISE = none; samples: (K,) int64 points of each;
    centers: (K, 2) float64 the densest place of each; width: of the smoothing (one standard deviation) on the map."""

    labels: NDArray[np.int32]
    samples: Ints
    centers: Floats
    width: float

    @property
    def count(self) -> int:
        """How many clusters there are, K."""
        return len(self.samples)


def density_clusters(
    positions: NDArray[np.floating],
    *,
    prominence: float = PROMINENCE,
    least: int | None = None,
    in_kernel: float = IN_KERNEL,
) -> Clusters:
    """The clusters of the map `positions` (N, 2), finite.

    prominence: see PROMINENCE; least: points of the smallest cluster, None = LEAST_SAMPLES or LEAST_SHARE of all.
    Raises UsageError for positions of another shape or that are not finite.
    """
    if positions.ndim != 2 or positions.shape[1] != 2 or not np.isfinite(positions).all():
        raise UsageError(f"clusters are found on finite positions of shape (N, 2); these have shape {positions.shape}")
    n = len(positions)
    if least is None:
        least = max(LEAST_SAMPLES, math.ceil(LEAST_SHARE * n))
    if n < least:
        return Clusters(np.full(n, NOISE, np.int32), np.zeros(0, np.int64), np.zeros((0, 2)), 0.0)
    low, step = _frame(positions)
    cells = _cells(positions, low, step)
    shape = (CELLS, CELLS)
    counts = np.bincount(cells[cells >= 0], minlength=CELLS * CELLS).reshape(shape).astype(np.float64)
    density, width = _smoothed(counts, in_kernel)
    hill = np.full(CELLS * CELLS, NOISE, np.int64)
    order = np.argsort(-density.ravel(), kind="stable")
    _climb(density.ravel(), counts.ravel(), order, CELLS, 4 * math.pi * width**2, prominence, least, hill)
    top = np.zeros(CELLS * CELLS)
    np.maximum.at(top, hill[hill >= 0], density.ravel()[hill >= 0])
    held = hill >= 0
    held[held] = density.ravel()[held] >= EDGE * top[hill[held]]
    hill[~held] = NOISE
    labels = np.where(cells >= 0, hill[cells], NOISE)
    return _numbered(labels, least, low, step, width)


def _frame(positions: NDArray[np.floating]) -> tuple[Floats, float]:
    """The corner of the grid (x, y) and the side of its cells: square ones, over all but what lies far out."""
    inner = np.percentile(positions.astype(np.float64), (_OUTLIERS, 100 - _OUTLIERS), axis=0)
    spare = 0.25 * (inner[1] - inner[0])
    low = np.maximum(positions.min(axis=0), inner[0] - spare)
    high = np.minimum(positions.max(axis=0), inner[1] + spare)
    side = float((high - low).max()) or 1.0
    margin = 0.05 * side
    side += 2 * margin
    return np.asarray((low + high) / 2 - side / 2, np.float64), side / CELLS


def _cells(positions: NDArray[np.floating], low: Floats, step: float) -> Ints:
    """The number of each point's cell, row by row; NOISE outside of the grid."""
    at = np.floor((positions - low) / step).astype(np.int64)
    inside = ((at >= 0) & (at < CELLS)).all(axis=1)
    return np.where(inside, at[:, 1] * CELLS + at[:, 0], NOISE)


def _smoothed(counts: Floats, in_kernel: float) -> tuple[Floats, float]:
    """The density in points a cell, and the width of the smoothing in cells."""
    held = counts > 0
    rows, columns = (np.asarray(held.any(axis=axis)) for axis in (1, 0))
    inside = held[rows]
    weights = counts[held]
    width = FINEST
    while True:
        density = _blurred(counts, width, rows, columns)[inside]
        order = np.argsort(density, kind="stable")
        passed = np.cumsum(weights[order])
        median = density[order][np.searchsorted(passed, passed[-1] / 2)]
        if 4 * math.pi * width**2 * median >= in_kernel or width > CELLS / 8:
            return _blurred(counts, width, np.ones_like(rows), columns), width
        width *= math.sqrt(2)


def _blurred(counts: Floats, width: float, rows: NDArray[np.bool_], columns: NDArray[np.bool_]) -> Floats:
    """These rows of the counts under a Gaussian of this width, where all columns but `columns` are empty: to the bit
    those of a filter over all of it, since each line is filtered for itself."""
    upright = ndimage.gaussian_filter1d(counts[:, columns], width, axis=0, mode="constant")
    level = np.zeros((np.count_nonzero(rows), counts.shape[1]))
    level[:, columns] = upright[rows]
    return np.maximum(ndimage.gaussian_filter1d(level, width, axis=1, mode="constant"), 0.0)


@kernel
def _climb(
    density: Any, counts: Any, order: Any, side: int, area: float, prominence: float, least: int, hill: Any
) -> None:
    """Give every cell with some density the number of its hill: that of the hill's highest cell.

    density, counts, hill: (side * side,); order: cells from the highest to the lowest; area: cells under the kernel.
    """
    parent = np.full(density.size, -1, np.int64)  # of the forest of cells; a root is its hill's highest cell
    mass = counts.copy()
    for cell in order:
        height = density[cell]
        if height <= 0:
            break
        row, column = cell // side, cell % side
        best = -1
        for down in range(-1, 2):
            for right in range(-1, 2):
                r, c = row + down, column + right
                if (down == 0 and right == 0) or r < 0 or c < 0 or r >= side or c >= side:
                    continue
                other = r * side + c
                if parent[other] < 0:
                    continue
                root = _root(parent, other)
                if best < 0:
                    best = root
                    continue
                if root == best:
                    continue
                higher, lower = best, root
                if density[root] > density[best] or (density[root] == density[best] and root < best):
                    higher, lower = root, best
                rise = 2 * (np.sqrt(area * density[lower]) - np.sqrt(area * height))
                if density[lower] < prominence * height or rise < EVIDENCE or mass[lower] < least:
                    parent[lower] = higher
                    mass[higher] += mass[lower]
                best = higher
        parent[cell] = cell if best < 0 else best
        if best >= 0:
            mass[best] += counts[cell]
    for cell in range(density.size):
        if parent[cell] >= 0:
            hill[cell] = _root(parent, cell)


@kernel
def _root(parent: Any, cell: int) -> int:
    while parent[cell] != cell:
        parent[cell] = parent[parent[cell]]
        cell = parent[cell]
    return cell


def _numbered(labels: Ints, least: int, low: Floats, step: float, width: float) -> Clusters:
    """Hills of `least` points and more, numbered from the largest; of equally large ones the lower cell comes first."""
    tops, samples = np.unique(labels[labels >= 0], return_counts=True)
    order = np.lexsort((tops, -samples))
    order = order[samples[order] >= least]
    number = np.full(CELLS * CELLS + 1, NOISE, np.int32)  # the last one is that of NOISE
    number[tops[order]] = np.arange(len(order), dtype=np.int32)
    at = np.stack([tops[order] % CELLS, tops[order] // CELLS], axis=1)
    return Clusters(number[labels], samples[order], low + (at + 0.5) * step, width * step)
