"""The kernel of the tally: the grid cells that a mask can touch, and the labels under them.

A cell is one pair of neighbouring grid rows and one of columns; the output pixels between them belong to it.
See `microtome.dissect.maths.tally` for what is counted and why the other cells hold no pixel of the mask.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from microtome.dissect.maths.jit import block_mask, count_ones, half_to_float, inlined_kernel, kernel, trailing_zeros
from microtome.dissect.maths.regions import Regions, find_regions
from microtome.dissect.maths.upsample import axis_weights
from microtome.dissect.maths.vector import COLUMNS, row_mask, spread

Axis = tuple[NDArray[np.int64], NDArray[np.float32]]
"""For an axis of `src` inputs and `dst` outputs: first output of each cell (src+1,), and the weight of the cell's
second input for each output (dst + 16,; the last 16 are not used)."""

Thresholds = tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.int64]]
Labels = tuple[NDArray[np.uint16], NDArray[np.uint16]]
Categories = tuple[NDArray[np.int64], NDArray[np.bool_], int]
Counts = tuple[NDArray[np.int64], NDArray[np.int64]]
Source = tuple[NDArray[np.uint16], int, int, bool]
"""One sample's labels: all planes of all samples in a row, the sample's first, pixels a plane, and whether its
`Regions` are of use."""
Ends = tuple[NDArray[np.float32], NDArray[np.float32]]
Pixels = tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]
"""What one unit's masks hold in one sample: pixels of each region (T, regions), the regions met so far (T, regions)
and their number (T,), the area (T,), and, for samples without regions, pixels of each concept (T, U, K+1). U is C
and these are the totals themselves, unless one must see what a single mask held: then U is 1."""

IMAGE, MASK = 0, 1
"""Positions of these conventions in `tally.CONVENTIONS`."""
SEGMENT = 63
"""Cells of a grid row that one word of bits tells (64 points)."""


def axis_cells(src: int, dst: int) -> Axis:
    """The cells along an axis of `src` inputs and `dst` outputs."""
    i0, _, share = axis_weights(src, dst)
    first = np.searchsorted(i0, np.arange(src + 1)).astype(np.int64)
    return first, np.concatenate([share, np.zeros(COLUMNS, np.float32)])


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
    planes, image_labels = labels
    intersection, unit_pixels = counts
    taus = intersection.shape[0]
    rows, columns = planes.shape[2:]
    size = rows * columns
    flat = planes.reshape(planes.size)
    pixels = (
        np.zeros((taus, size), np.int32),
        np.empty((taus, size), np.int32),
        np.zeros(taus, np.int64),
        np.zeros(taus, np.int64),
        np.zeros((taus, 1, intersection.shape[2]), np.int64) if categories[2] == MASK else intersection,
    )
    regions = (
        np.empty((rows, columns), np.int32),
        np.empty((rows, columns), np.int32),
        np.empty((size, planes.shape[1]), np.uint16),
        np.empty(size, np.int64),
    )
    ends = (np.zeros(columns + COLUMNS, np.float32), np.zeros(columns + COLUMNS, np.float32))
    touched = np.zeros(unit_pixels.shape[2], np.bool_)
    lowest = thresholds[2]
    for sample in range(n):
        first = sample * planes.shape[1] * size
        source = (flat, first, size, find_regions(flat, first, regions))
        for unit in range(units):
            start = (sample * units + unit) * height * width
            if lowest[unit] > 0xFC00 or not _any_active(raw, start, start + height * width, lowest[unit]):
                continue
            _mask_unit(raw, start, height, width, unit, thresholds, axes, ends, source, regions, pixels)
            for tau in range(taus):
                if pixels[3][tau] > 0:
                    _flush(tau, unit, sample, source, regions, pixels, image_labels, categories, touched, counts)


@inlined_kernel
def _any_active(raw: NDArray[np.uint16], start: int, stop: int, lowest: int) -> bool:
    for block in range(start, stop, 64):
        if block_mask(raw, block, min(block + 64, stop), lowest, 0xFC00) != np.uint64(0):
            return True
    return False


@kernel
def _mask_unit(
    raw: NDArray[np.uint16],
    start: int,
    height: int,
    width: int,
    unit: int,
    thresholds: Thresholds,
    axes: tuple[Axis, Axis],
    ends: Ends,
    source: Source,
    regions: Regions,
    pixels: Pixels,
) -> None:
    """Count one unit's masks in one sample: visit each run of neighbouring cells with a corner that matters."""
    first_y, first_x = axes[0][0], axes[1][0]
    lowest = thresholds[2][unit]
    for segment in range(0, width, SEGMENT):
        points = min(SEGMENT + 1, width - segment)
        here = start + segment
        bits = block_mask(raw, here, here + points, lowest, 0xFC00)
        cells_mask = (np.uint64(1) << np.uint64(min(SEGMENT, width - segment))) - np.uint64(1)
        for y in range(height):
            below = np.uint64(0)
            if y + 1 < height:
                here += width
                below = block_mask(raw, here, here + points, lowest, 0xFC00)
            cells = bits | below
            cells = (cells | (cells >> np.uint64(1))) & cells_mask
            bits = below
            if first_y[y] == first_y[y + 1]:
                continue
            while cells != np.uint64(0):
                begin = trailing_zeros(cells)
                end = begin + trailing_zeros(~(cells >> np.uint64(begin)))
                cells &= ~np.uint64(0) << np.uint64(end)
                if first_x[segment + begin] < first_x[segment + end]:
                    _mask_strip(
                        raw,
                        start,
                        width,
                        y,
                        segment + begin,
                        segment + end,
                        unit,
                        thresholds,
                        axes,
                        ends,
                        source,
                        regions,
                        pixels,
                    )


@inlined_kernel
def _mask_strip(
    raw: NDArray[np.uint16],
    start: int,
    width: int,
    y: int,
    left: int,
    right: int,
    unit: int,
    thresholds: Thresholds,
    axes: tuple[Axis, Axis],
    ends: Ends,
    source: Source,
    regions: Regions,
    pixels: Pixels,
) -> None:
    """Count the pixels of cells left ... right - 1 of the grid rows y and y + 1."""
    first_y, down = axes[0]
    values, saturated, _ = thresholds
    upper, lower = ends
    above = start + y * width
    below = above + width if y + 2 < first_y.size else above
    highest = max(
        _spread_row(raw, above, left, right, width, axes[1], upper),
        _spread_row(raw, below, left, right, width, axes[1], lower),
    )
    x0, x1 = axes[1][0][left], axes[1][0][right]
    for tau in range(values.shape[1]):
        threshold = values[unit, tau]
        if saturated[unit, tau]:
            for cell in range(left, right):
                other = min(cell + 1, width - 1)
                corners = (
                    half_to_float(raw[above + cell]) == threshold,
                    half_to_float(raw[above + other]) == threshold,
                    half_to_float(raw[below + cell]) == threshold,
                    half_to_float(raw[below + other]) == threshold,
                )
                _saturated_cell(corners, y, cell, tau, unit, axes, source, regions, pixels)
        elif highest > threshold:
            for x in range(x0, x1, COLUMNS):
                kept = (np.uint64(1) << np.uint64(min(COLUMNS, x1 - x))) - np.uint64(1)
                for row in range(first_y[y], first_y[y + 1]):
                    bits = row_mask(upper, lower, x - x0, down[row], threshold) & kept
                    if bits != np.uint64(0):
                        _count_row(bits, row, x, tau, unit, source, regions, pixels)


@inlined_kernel
def _spread_row(
    raw: NDArray[np.uint16], row: int, left: int, right: int, width: int, axis: Axis, out: NDArray[np.float32]
) -> np.float32:
    """Interpolate one grid row over cells left ... right - 1; returns the highest of its inputs (NaN left out)."""
    first, along = axis
    start = first[left]
    b = half_to_float(raw[row + left])
    highest = b if b > -np.inf else np.float32(-np.inf)
    for cell in range(left, right):
        a = b
        b = half_to_float(raw[row + min(cell + 1, width - 1)])
        if b > highest:
            highest = b
        for x in range(first[cell], first[cell + 1], COLUMNS):
            spread(out, x - start, a, b, along, x)
    return highest


@kernel
def _saturated_cell(
    corners: tuple[bool, bool, bool, bool],
    y: int,
    cell: int,
    tau: int,
    unit: int,
    axes: tuple[Axis, Axis],
    source: Source,
    regions: Regions,
    pixels: Pixels,
) -> None:
    """Count the pixels of a cell whose corners of non-zero weight all are at the maximum, as `corners` tells."""
    (first_y, down), (first_x, along) = axes
    for x in range(first_x[cell], first_x[cell + 1]):
        alone = along[x] == np.float32(0)
        above = corners[0] and (alone or corners[1])
        below = corners[2] and (alone or corners[3])
        for row in range(first_y[y], first_y[y + 1]):
            if above and (below or down[row] == np.float32(0)):
                _count_row(np.uint64(1), row, x, tau, unit, source, regions, pixels)


@inlined_kernel
def _count_row(
    bits: np.uint64,
    row: int,
    x: int,
    tau: int,
    unit: int,
    source: Source,
    regions: Regions,
    pixels: Pixels,
) -> None:
    """Count the pixels x + (set bits) of one output row: under their regions, or else straight under their labels."""
    region, run_end, labels, _ = regions
    count, met, found, area, direct = pixels
    flat, first, size, named = source
    area[tau] += count_ones(bits)
    if not named:
        planes = labels.shape[1]
        place = unit if direct.shape[1] > 1 else 0
        at = first + row * region.shape[1] + x
        while bits != np.uint64(0):
            pixel = at + trailing_zeros(bits)
            bits &= bits - np.uint64(1)
            for plane in range(planes):
                direct[tau, place, flat[pixel + plane * size]] += 1
        return
    while bits != np.uint64(0):
        at = x + trailing_zeros(bits)
        name = region[row, at]
        past = run_end[row, at] - x
        inside = bits
        if past < COLUMNS:
            inside &= (np.uint64(1) << np.uint64(past)) - np.uint64(1)
        if count[tau, name] == 0:
            met[tau, found[tau]] = name
            found[tau] += 1
        count[tau, name] += np.int32(count_ones(inside))
        bits ^= inside


@kernel
def _flush(
    tau: int,
    unit: int,
    sample: int,
    source: Source,
    regions: Regions,
    pixels: Pixels,
    image_labels: NDArray[np.uint16],
    categories: Categories,
    touched: NDArray[np.bool_],
    counts: Counts,
) -> None:
    """Move one mask's pixels into the totals, and its area by convention; clears them."""
    category_of, annotated, convention = categories
    _, _, labels, size = regions
    count, met, found, area, direct = pixels
    intersection, unit_pixels = counts
    touched[:] = False
    if not source[3]:
        direct[tau, unit if convention != MASK else 0, 0] = 0
        for concept in range(intersection.shape[2] if convention == MASK else 0):
            if direct[tau, 0, concept] > 0:
                intersection[tau, unit, concept] += direct[tau, 0, concept]
                direct[tau, 0, concept] = 0
                if category_of[concept] >= 0:
                    touched[category_of[concept]] = True
    for place in range(found[tau]):
        name = met[tau, place]
        for i in range(size[name]):
            concept = labels[name, i]
            intersection[tau, unit, concept] += count[tau, name]
            if convention == MASK and category_of[concept] >= 0:
                touched[category_of[concept]] = True
        count[tau, name] = 0
    found[tau] = 0
    for slot in range(image_labels.shape[1]):
        concept = image_labels[sample, slot]
        if concept == 0:
            continue
        intersection[tau, unit, concept] += area[tau]
        if category_of[concept] >= 0:
            touched[category_of[concept]] = True
    for category in range(unit_pixels.shape[2]):
        if (
            convention > MASK
            or (convention == MASK and touched[category])
            or (convention == IMAGE and annotated[sample, category])
        ):
            unit_pixels[tau, unit, category] += area[tau]
    area[tau] = 0
