"""Every pixel of an upsampled activation map sorted into bins between candidate thresholds, and counted by concept.

A mask at tau is true on few pixels (`cells.py`); here every pixel above the lowest candidate counts, so the values are
made, row by row, and never kept. They are those of `upsample`, bit for bit.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from microtome.dissect.maths.cells import IMAGE, MASK, Axis, Categories, Counts, Labels
from microtome.dissect.maths.jit import half_to_float, inlined_kernel, kernel

MAX_EDGES = 255
"""Most edges a unit may have, so that a byte holds the number of a bin."""
STEPS = 256
"""Equal steps from a unit's lowest edge to its highest, for each of which the bin is known where the search begins."""

Edges = tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.uint8], NDArray[np.float32]]
"""Ascending edges of each unit (C, B), how many are finite (C,), bins to begin at (C, STEPS), steps per value (C,)."""
Buffers = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64], NDArray[np.uint8]]
"""Two interpolated grid rows (W,), and columns and bins of the pixels of one output row that are above the lowest."""


def edge_search(edges: NDArray[np.float32]) -> Edges:
    """What the kernel needs to find bins. edges: (C, B) float32 ascending, filled up with +inf; B at most MAX_EDGES."""
    used = np.isfinite(edges).sum(axis=1).astype(np.int64)
    begin = np.zeros((len(edges), STEPS), np.uint8)
    rate = np.zeros(len(edges), np.float32)
    for unit, count in enumerate(used.tolist()):
        if count and edges[unit, count - 1] > edges[unit, 0]:
            low, high = edges[unit, 0], edges[unit, count - 1]
            starts = low + (high - low) * (np.arange(STEPS, dtype=np.float32) / STEPS)
            begin[unit] = np.searchsorted(edges[unit, :count], starts, side="left")
            rate[unit] = STEPS / (high - low)
    return np.ascontiguousarray(edges, np.float32), used, begin, rate


@inlined_kernel
def _bin_of(value: np.float32, unit: int, edges: Edges) -> int:
    """How many edges `value`, which is above the lowest, is above."""
    values, used, begin, rate = edges
    last = used[unit]
    if value > values[unit, last - 1]:
        return int(last)
    step = min(int((value - values[unit, 0]) * rate[unit]), STEPS - 1)
    found = int(begin[unit, step])
    while found < last and value > values[unit, found]:
        found += 1
    while found > 0 and not value > values[unit, found - 1]:
        found -= 1
    return found


@kernel
def count_levels(
    raw: NDArray[np.uint16],
    shape: tuple[int, int, int, int],
    edges: Edges,
    axes: tuple[tuple[Axis, NDArray[np.int64]], tuple[Axis, NDArray[np.int64]]],
    labels: Labels,
    labelled: NDArray[np.bool_],
    halves: NDArray[np.int64],
    categories: Categories,
    counts: Counts,
) -> None:
    """Add to counts = (intersection (C, 2, K+1, B), unit_pixels (C, 2, G+1, B)) pixels with edge b < value <= edge b+1.

    axes: for rows and columns the cells, and the second input of each output; labelled: (n, P), which planes hold any
    label; halves: (n,) 0 or 1. The last category counts every sample. Under "mask" what is above the highest pixel
    that is labelled with the category counts in that pixel's bin: there the mask touches it no more.
    """
    n, units, height, width = shape
    planes, image_labels = labels
    bins = counts[0].shape[3]
    grid = np.empty(height * width, np.float32)
    area = np.zeros(bins, np.int64)
    touched = np.empty(counts[1].shape[2], np.int64)
    size = planes.shape[3]
    buffers = (
        np.empty(size, np.float32),
        np.empty(size, np.float32),
        np.empty(size, np.int64),
        np.empty(size, np.uint8),
    )
    for sample in range(n):
        for unit in range(units):
            if edges[1][unit] == 0:
                continue
            start = (sample * units + unit) * height * width
            for i in range(height * width):
                grid[i] = half_to_float(raw[start + i])
            touched[:] = -1
            _count_map(
                grid, height, width, sample, unit, edges, axes, planes, labelled, halves, categories, counts[0], area,
                touched, buffers,
            )  # fmt: skip
            _flush(sample, unit, image_labels, halves[sample], categories, area, touched, counts)


@inlined_kernel
def _count_map(
    grid: NDArray[np.float32],
    height: int,
    width: int,
    sample: int,
    unit: int,
    edges: Edges,
    axes: tuple[tuple[Axis, NDArray[np.int64]], tuple[Axis, NDArray[np.int64]]],
    planes: NDArray[np.uint16],
    labelled: NDArray[np.bool_],
    halves: NDArray[np.int64],
    categories: Categories,
    intersection: NDArray[np.int64],
    area: NDArray[np.int64],
    touched: NDArray[np.int64],
    buffers: Buffers,
) -> None:
    """Count one map's pixels, strip by strip between two grid rows, leaving out columns that are nowhere above."""
    (first_y, down), _ = axes[0]
    (first_x, along), second = axes[1]
    upper, lower, at, found = buffers
    lowest = edges[0][unit, 0]
    by_concept = intersection[unit, halves[sample]]
    for y in range(height):
        if first_y[y] == first_y[y + 1]:
            continue
        above = y * width
        below = above + width if y + 1 < height else above
        left, right = _active(grid, above, below, width, lowest)
        if left < 0:
            continue
        begin, end = first_x[max(left - 1, 0)], first_x[right + 1]
        cell = max(left - 1, 0)
        for x in range(begin, end):
            while first_x[cell + 1] <= x:
                cell += 1
            upper[x] = _between(grid[above + cell], grid[above + second[x]], along[x])
            lower[x] = _between(grid[below + cell], grid[below + second[x]], along[x])
        for row in range(first_y[y], first_y[y + 1]):
            share = down[row]
            kept = 0
            for x in range(begin, end):
                value = _between(upper[x], lower[x], share)
                if value > lowest:
                    here = _bin_of(value, unit, edges) - 1
                    area[here] += 1
                    at[kept] = x
                    found[kept] = here
                    kept += 1
            for plane in range(planes.shape[1]):
                if labelled[sample, plane]:
                    _count_row(planes[sample, plane, row], kept, at, found, categories, by_concept, touched)


@inlined_kernel
def _active(grid: NDArray[np.float32], above: int, below: int, width: int, lowest: np.float32) -> tuple[int, int]:
    """The first and the last column of two grid rows that hold a value above `lowest`; -1, -1 where none does."""
    first = -1
    last = -1
    for x in range(width):
        if grid[above + x] > lowest or grid[below + x] > lowest:
            if first < 0:
                first = x
            last = x
    return first, last


@inlined_kernel
def _between(a: np.float32, b: np.float32, share: np.float32) -> np.float32:
    return a if share == np.float32(0) else a + share * (b - a)


@inlined_kernel
def _count_row(
    labels: NDArray[np.uint16],
    kept: int,
    at: NDArray[np.int64],
    found: NDArray[np.uint8],
    categories: Categories,
    by_concept: NDArray[np.int64],
    touched: NDArray[np.int64],
) -> None:
    """Count one row's pixels under the labels of one plane; label 0 is counted too, and cleared at the end."""
    if categories[2] != MASK:
        for i in range(kept):
            by_concept[labels[at[i]], found[i]] += 1
        return
    for i in range(kept):
        concept = labels[at[i]]
        by_concept[concept, found[i]] += 1
        category = categories[0][concept]
        if category >= 0:
            touched[category] = max(touched[category], np.int64(found[i]))


@inlined_kernel
def _flush(
    sample: int,
    unit: int,
    image_labels: NDArray[np.uint16],
    half: int,
    categories: Categories,
    area: NDArray[np.int64],
    touched: NDArray[np.int64],
    counts: Counts,
) -> None:
    """Add one map's area by convention, and under the labels of the whole image; clears it."""
    category_of, annotated, convention = categories
    intersection, unit_pixels = counts
    bins = area.size
    for slot in range(image_labels.shape[1]):
        concept = image_labels[sample, slot]
        if concept > 0:
            for b in range(bins):
                intersection[unit, half, concept, b] += area[b]
            if category_of[concept] >= 0:
                touched[category_of[concept]] = bins - 1
    every = unit_pixels.shape[2] - 1
    for category in range(every + 1):
        if category == every or convention > MASK or (convention == IMAGE and annotated[sample, category]):
            for b in range(bins):
                unit_pixels[unit, half, category, b] += area[b]
        elif convention == MASK:
            for b in range(bins if touched[category] >= 0 else 0):
                unit_pixels[unit, half, category, min(b, touched[category])] += area[b]
    area[:] = 0
