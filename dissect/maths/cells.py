"""The kernel of the tally: the grid cells that a mask can touch, and the labels under them.

A cell is one pair of neighbouring grid rows and one of columns; the output pixels between them belong to it.
See `microtome.dissect.maths.tally` for what is counted and why runs in a column suffice.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from microtome.dissect.maths.jit import block_mask, half_to_float, kernel, trailing_zeros
from microtome.dissect.maths.upsample import axis_weights

Axis = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]
"""For an axis of `src` inputs: first output of each cell (src+1,), how many of a cell's first outputs have weight 0
for the second input (src,), and that weight for each output (dst,)."""

Thresholds = tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.int64]]
Labels = tuple[NDArray[np.uint16], NDArray[np.uint16]]
Categories = tuple[NDArray[np.int64], NDArray[np.bool_], int]
Counts = tuple[NDArray[np.int64], NDArray[np.int64]]

IMAGE, MASK = 0, 1
"""Positions of these conventions in `tally.CONVENTIONS`."""


def axis_cells(src: int, dst: int) -> Axis:
    """The cells along an axis of `src` inputs and `dst` outputs."""
    i0, _, share = axis_weights(src, dst)
    first = np.searchsorted(i0, np.arange(src + 1)).astype(np.int64)
    at_zero = np.bincount(i0[share == 0], minlength=src).astype(np.int64)
    return first, at_zero, share


@kernel
def tally_kernel(
    raw: NDArray[np.uint16],
    shape: tuple[int, int, int, int],
    thresholds: Thresholds,
    axes: tuple[Axis, Axis],
    labels: Labels,
    categories: Categories,
    counts: Counts,
) -> None:
    """Add to counts = (intersection (T, C, K+1), unit_pixels (T, C, G)).

    raw: bits of the activations of that shape; thresholds: (values (C, T), saturated (C, T), lowest ordered pattern
    that can matter (C,)); labels: (planes, image labels); categories: (category_of, annotated, convention).
    """
    n, units, height, width = shape
    plane = height * width
    intersection, unit_pixels = counts
    taus, _, concepts = intersection.shape
    local = np.zeros((taus, concepts), np.int32)
    area = np.zeros(taus, np.int64)
    cells = np.empty(plane, np.int32)
    mark = np.full(plane, -1, np.int64)
    touched = np.zeros(unit_pixels.shape[2], np.bool_)
    lowest = thresholds[2]
    for sample in range(n):
        for unit in range(units):
            if lowest[unit] > 0xFC00:
                continue
            job = sample * units + unit
            start = job * plane
            found = _active_cells(raw, start, height, width, lowest[unit], mark, job, cells)
            if found == 0:
                continue
            for tau in range(taus):
                area[tau] = 0
            for i in range(found):
                _count_cell(raw, start, width, cells[i], unit, sample, thresholds, axes, labels[0], local, area)
            for tau in range(taus):
                if area[tau] > 0:
                    _flush(
                        local[tau],
                        area[tau],
                        sample,
                        labels[1],
                        categories,
                        touched,
                        intersection[tau, unit],
                        unit_pixels[tau, unit],
                    )


@kernel
def _active_cells(
    raw: NDArray[np.uint16],
    start: int,
    height: int,
    width: int,
    lowest: int,
    mark: NDArray[np.int64],
    job: int,
    cells: NDArray[np.int32],
) -> int:
    """List the cells that have a corner whose ordered pattern is at least `lowest`, each once; returns how many."""
    found = 0
    stop = start + height * width
    for block in range(start, stop, 64):
        bits = block_mask(raw, block, min(block + 64, stop), lowest, 0xFC00)
        while bits != np.uint64(0):
            point = block - start + trailing_zeros(bits)
            bits &= bits - np.uint64(1)  # type: ignore[operator, assignment]
            y = point // width
            x = point - y * width
            for cell_y in range(max(y - 1, 0), y + 1):
                for cell_x in range(max(x - 1, 0), x + 1):
                    cell = cell_y * width + cell_x
                    if mark[cell] != job:
                        mark[cell] = job
                        cells[found] = cell
                        found += 1
    return found


@kernel
def _between(a: float, b: float, share: float) -> float:
    """a + share * (b - a) in float32; a alone where share is 0."""
    if share == np.float32(0.0):
        return np.float32(a)
    return np.float32(a + np.float32(share * np.float32(b - a)))


@kernel
def _count_cell(
    raw: NDArray[np.uint16],
    start: int,
    width: int,
    cell: int,
    unit: int,
    sample: int,
    thresholds: Thresholds,
    axes: tuple[Axis, Axis],
    planes: NDArray[np.uint16],
    local: NDArray[np.int32],
    area: NDArray[np.int64],
) -> None:
    (first_y, zeros_y, down), (first_x, zeros_x, along) = axes
    y = cell // width
    x = cell - y * width
    y0, y1 = first_y[y], first_y[y + 1]
    x0, x1 = first_x[x], first_x[x + 1]
    if y0 == y1 or x0 == x1:
        return
    right = min(x + 1, width - 1) - x
    below = width if y + 2 < first_y.size else 0
    a = half_to_float(raw[start + cell])
    b = half_to_float(raw[start + cell + right])
    c = half_to_float(raw[start + cell + below])
    d = half_to_float(raw[start + cell + below + right])
    values, saturated, _ = thresholds
    for column in range(x0, x1):
        t = _between(a, b, along[column])
        u = _between(c, d, along[column])
        for tau in range(values.shape[1]):
            threshold = values[unit, tau]
            if saturated[unit, tau]:
                alone = column - x0 < zeros_x[x]
                begin, end = y0, y0
                if a == threshold and (alone or b == threshold):
                    end = y1 if c == threshold and (alone or d == threshold) else y0 + zeros_y[y]
            else:
                begin, end = _run(t, u, down, y0, y1, threshold)
            if begin < end:
                area[tau] += end - begin
                for p in range(planes.shape[1]):
                    for row in range(begin, end):
                        local[tau, planes[sample, p, row, column]] += np.int32(1)


@kernel
def _run(t: float, u: float, down: NDArray[np.float32], y0: int, y1: int, threshold: float) -> tuple[int, int]:
    """The run of pixels of a cell's column, between values t and u, that are above the threshold."""
    top = _between(t, u, down[y0]) > threshold
    bottom = _between(t, u, down[y1 - 1]) > threshold
    if top and bottom:
        return y0, y1
    if not top and not bottom:
        return y0, y0
    above = 0
    for row in range(y0, y1):
        above += _between(t, u, down[row]) > threshold
    if top:
        return y0, y0 + above
    return y1 - above, y1


@kernel
def _flush(
    local: NDArray[np.int32],
    area: int,
    sample: int,
    image_labels: NDArray[np.uint16],
    categories: Categories,
    touched: NDArray[np.bool_],
    intersection: NDArray[np.int64],
    unit_pixels: NDArray[np.int64],
) -> None:
    """Move one unit's counts in one sample into the totals, and its area by convention; clears `local`."""
    category_of, annotated, convention = categories
    touched[:] = False
    for concept in range(1, local.size):
        count = local[concept]
        if count > 0:
            intersection[concept] += count
            if category_of[concept] >= 0:
                touched[category_of[concept]] = True
    local[:] = 0
    for slot in range(image_labels.shape[1]):
        concept = np.int64(image_labels[sample, slot])
        if concept > 0:
            intersection[concept] += area
            if category_of[concept] >= 0:
                touched[category_of[concept]] = True
    for category in range(unit_pixels.size):
        if convention == IMAGE:
            counts = annotated[sample, category]
        elif convention == MASK:
            counts = touched[category]
        else:
            counts = True
        if counts:
            unit_pixels[category] += area
