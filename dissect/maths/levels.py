"""Every pixel of an upsampled activation map sorted into bins between candidate thresholds, and counted by concept.

A mask at tau is true on few pixels (`cells.py`); here every pixel above the lowest candidate counts, so the values are
made, row by row, and never kept. They are those of `upsample`, bit for bit.

A pixel costs one look into a table for its bin, and one increment in a table of counts by code (`codes.py`) and bin,
for all of its planes together. What a code stands for comes in when the samples of its group are through.

The candidates are float16 numbers, which as float32 end in 13 zero bits. So all values between two neighbouring float16
numbers lie in one bin, and a table of bins by the leading bits, rounded up, needs no search: 1,024 entries an octave.
Magnitudes below the smallest candidate other than 0 share a single entry on either side of 0.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from microtome.dissect.maths.cells import IMAGE, MASK, Axis, Categories, Counts
from microtome.dissect.maths.codes import Codes
from microtome.dissect.maths.jit import as_bits, half_to_float, inlined_kernel, kernel

MAX_EDGES = 255
"""Most edges a unit may have, so that a byte holds the number of a bin."""
SPARE = 13
"""Bits at the end of a float32 that are 0 in every float16 number."""
SMALLEST, LARGEST, INFINITY = 0x33800000, 0x477FE000, 0x7F800000
"""Bits of the smallest and the largest float16 number above 0, and of infinity, as float32."""
STEPS = 2 * (40 << 10) + 2
"""Most entries of a unit's table of bins: 40 octaves on either side of 0, 0 itself, what is above the highest edge."""

Edges = tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int32], NDArray[np.int32]]
"""Ascending edges of each unit (C, B); how many are finite (C,); what is taken off magnitudes, as bits (C,); the step
of each edge (C, B)."""
Axes = tuple[Axis, Axis, NDArray[np.int64], NDArray[np.int64]]
"""The cells of rows and of columns, as of `axis_cells`; for each column its first and its second input."""
Classes = tuple[NDArray[np.int64], NDArray[np.uint16]]
"""Of each class of samples its half, 0 or 1, and the labels of the whole image (classes, Q)."""
Buffers = tuple[
    NDArray[np.float32],
    NDArray[np.float32],
    NDArray[np.int64],
    NDArray[np.uint32],
    NDArray[np.uint8],
    NDArray[np.int32],
]
"""A map (h, w); its rows spread to the width of the labels (h, W); the first and the last column of each row that is
above the lowest edge (h, 2), -1 where none is; steps of the pixels of an output row (W,); bins by step (STEPS,); a
group's counts by code and bin, bin 0 being that of what is not above the lowest edge (codes, B + 1)."""
Met = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_], NDArray[np.int64]]
"""Of each class its pixels by bin (classes, B), the highest bin that is labelled with each category, or -1 (classes,
G + 1), and whether it has any pixels; those that have, and behind them how many these are."""


def edge_steps(edges: NDArray[np.float32]) -> Edges:
    """What the kernel needs to find bins. edges: (C, B) float32 ascending, filled up with +inf; B at most MAX_EDGES.

    Raises ValueError where an edge is no float16 number.
    """
    values = np.ascontiguousarray(edges, np.float32) + np.float32(0)  # -0 + 0 is 0
    bits, finite = values.view(np.int32), np.isfinite(values)
    magnitude = bits & np.int32(0x7FFFFFFF)
    inside = (magnitude >= SMALLEST) & (magnitude <= LARGEST) & (magnitude & ((1 << SPARE) - 1) == 0)
    if not np.all(inside | (magnitude == 0) | (bits == INFINITY)):
        raise ValueError("edges must be float16 numbers, as those of `candidates` are, or +inf")
    nearest = np.where(inside, magnitude, INFINITY).min(axis=1, initial=INFINITY)
    dropped = (nearest - (1 << SPARE)).astype(np.int32)
    raised = np.maximum(magnitude - dropped[:, None], np.minimum(magnitude, 1))
    steps = np.where(bits < 0, -1, 1) * (raised >> SPARE)
    return values, finite.sum(axis=1).astype(np.int64), dropped, steps.astype(np.int32)


@inlined_kernel
def _step(value: np.float32, dropped: np.int32) -> np.int32:
    """The step that `value`, no NaN, is in: the number of float16 numbers from 0 up to it, rounded up."""
    bits = as_bits(value)
    magnitude = np.int32(bits & np.int32(0x7FFFFFFF))
    raised = max(np.int32(magnitude - dropped), min(magnitude, np.int32(1)))
    signed = np.int32(-raised) if bits < 0 else raised
    return np.int32((signed + np.int32((1 << SPARE) - 1)) >> np.int32(SPARE))


@kernel
def count_levels(
    raw: NDArray[np.uint16],
    shape: tuple[int, int, int, int],
    edges: Edges,
    axes: Axes,
    labels: Codes,
    classes: Classes,
    categories: Categories,
    counts: Counts,
) -> None:
    """Add to counts = (intersection (C, 2, K+1, B), unit_pixels (C, 2, G+1, B)) pixels with edge b < value <= edge b+1.

    The last category counts every sample; annotated, in `categories`, is that of each class (classes, G). Under "mask"
    a class must be a single sample, and what is above the highest pixel that is labelled with the category counts in
    that pixel's bin: there the mask touches it no more.
    """
    _, units, height, width = shape
    bins, columns, known = counts[0].shape[3], labels[0].shape[3], classes[0].size
    begins, ends = labels[2], labels[3]
    buffers = (
        np.empty((height, width), np.float32),
        np.empty((height, columns), np.float32),
        np.empty((height, 2), np.int64),
        np.empty(columns, np.uint32),
        np.empty(STEPS, np.uint8),
        np.zeros((np.max(ends[1:] - ends[:-1]), bins + 1), np.int32),
    )
    met = (
        np.zeros((known, bins), np.int64),
        np.full((known, counts[1].shape[2]), -1, np.int64),
        np.zeros(known, np.bool_),
        np.zeros(known + 1, np.int64),
    )
    for unit in range(units):
        if edges[1][unit] == 0:
            continue
        top = _fill_bins(unit, edges, buffers[4])
        for group in range(begins.size - 1):
            for sample in range(begins[group], begins[group + 1]):
                if _read_map(raw, (sample * units + unit) * height * width, edges[0][unit, 0], buffers):
                    _count_map(sample, unit, top, edges, axes, labels, buffers)
            _add_codes(unit, (ends[group], ends[group + 1]), labels, classes, categories, buffers[5], met, counts[0])
            _add_classes(unit, classes, categories, met, counts)


@inlined_kernel
def _fill_bins(unit: int, edges: Edges, found: NDArray[np.uint8]) -> np.int32:
    """Write the bin of every step from the lowest edge on; returns the step, counted from there, above all edges."""
    _, used, _, steps = edges
    lowest = steps[unit, 0]
    begin = 0
    for b in range(used[unit]):
        end = steps[unit, b] - lowest + 1
        found[begin:end] = b
        begin = end
    found[begin] = used[unit]
    return np.int32(begin)


@inlined_kernel
def _read_map(raw: NDArray[np.uint16], start: int, lowest: np.float32, buffers: Buffers) -> bool:
    """Read one map, and note between which columns of each row values are above `lowest`; whether any is."""
    grid, _, above = buffers[0], buffers[1], buffers[2]
    height, width = grid.shape
    found = False
    for y in range(height):
        first, last = -1, -1
        for x in range(width):
            grid[y, x] = half_to_float(raw[start + y * width + x])
        for x in range(width):
            if grid[y, x] > lowest:
                first = x if first < 0 else first
                last = x
        above[y, 0], above[y, 1] = first, last
        found |= last >= 0
    return found


@inlined_kernel
def _count_map(
    sample: int, unit: int, top: np.int32, edges: Edges, axes: Axes, labels: Codes, buffers: Buffers
) -> None:
    """Count one map's pixels, strip by strip between two grid rows, leaving out columns that are nowhere above."""
    (first_y, down), (first_x, _), _, _ = axes
    _, wide, above, steps, bins, table = buffers
    lowest, dropped, base = edges[0][unit, 0], edges[2][unit], edges[3][unit, 0]
    height = wide.shape[0]
    spread = -1
    for y in range(height):
        below = min(y + 1, height - 1)
        last = max(above[y, 1], above[below, 1])
        if first_y[y] == first_y[y + 1] or last < 0:
            continue
        first = min(above[y, 0] if above[y, 0] >= 0 else last, above[below, 0] if above[below, 0] >= 0 else last)
        begin, size = first_x[max(first - 1, 0)], first_x[last + 1] - first_x[max(first - 1, 0)]
        for row in range(max(y, spread + 1), below + 1):
            _spread_row(row, axes, buffers)
        spread = below
        upper, lower = wide[y, begin : begin + size], wide[below, begin : begin + size]
        for row in range(first_y[y], first_y[y + 1]):
            share = down[row]
            for x in range(size):
                value = _between(upper[x], lower[x], share)
                step = _step(value if value > lowest else lowest, dropped)  # NaN is above nothing
                steps[x] = np.uint32(min(np.int32(step - base), top))
            for layer in range(labels[1][sample]):
                codes = labels[0][sample, layer, row, begin : begin + size]
                for x in range(size):
                    table[codes[x], bins[steps[x]]] += 1


@inlined_kernel
def _spread_row(row: int, axes: Axes, buffers: Buffers) -> None:
    """Interpolate one grid row over the columns of the labels."""
    grid, wide = buffers[0][row], buffers[1][row]
    (_, along), left, right = axes[1], axes[2], axes[3]
    for x in range(wide.size):
        wide[x] = _between(grid[left[x]], grid[right[x]], along[x])


@inlined_kernel
def _between(a: np.float32, b: np.float32, share: np.float32) -> np.float32:
    return a if share == np.float32(0) else a + share * (b - a)


@kernel
def _add_codes(
    unit: int,
    codes: tuple[int, int],
    labels: Codes,
    classes: Classes,
    categories: Categories,
    table: NDArray[np.int32],
    met: Met,
    intersection: NDArray[np.int64],
) -> None:
    """Add a group's counts by code to those of the concepts it stands for and of its class; clears them."""
    _, _, _, _, class_of, members, first = labels
    area, touched, held, order = met
    for code in range(codes[0], codes[1]):
        counted = table[code - codes[0]]
        some = np.int32(0)
        for b in range(1, counted.size):
            some |= counted[b]
        if some:
            known = class_of[code]
            if not held[known]:
                held[known] = True
                order[order[-1]] = known
                order[-1] += 1
            for i in range(members.shape[1]):
                concept = members[code, i]
                if concept == 0:
                    break
                _add_row(intersection[unit, classes[0][known], concept], counted)
                if categories[2] == MASK and categories[0][concept] >= 0:
                    place = categories[0][concept]
                    touched[known, place] = max(touched[known, place], _highest(counted))
            if first[code]:
                _add_row(area[known], counted)
        counted[:] = 0


@inlined_kernel
def _add_row(total: NDArray[np.int64], counted: NDArray[np.int32]) -> None:
    for b in range(total.size):
        total[b] += counted[b + 1]


@inlined_kernel
def _highest(counted: NDArray[np.int32]) -> int:
    """The highest bin that holds a pixel, counted from what is above the lowest edge."""
    b = counted.size - 1
    while counted[b] == 0:
        b -= 1
    return b - 1


@kernel
def _add_classes(unit: int, classes: Classes, categories: Categories, met: Met, counts: Counts) -> None:
    """Add the area of each class by convention, and under the labels of the whole image; clears it."""
    halves, image_labels = classes
    category_of, annotated, convention = categories
    intersection, unit_pixels = counts
    area, touched, held, order = met
    bins, every = area.shape[1], unit_pixels.shape[2] - 1
    for place in range(order[-1]):
        known = order[place]
        half = halves[known]
        for slot in range(image_labels.shape[1]):
            concept = image_labels[known, slot]
            if concept > 0:
                intersection[unit, half, concept] += area[known]
                if category_of[concept] >= 0:
                    touched[known, category_of[concept]] = bins - 1
        for category in range(every + 1):
            if category == every or convention > MASK or (convention == IMAGE and annotated[known, category]):
                unit_pixels[unit, half, category] += area[known]
            elif convention == MASK:
                for b in range(bins if touched[known, category] >= 0 else 0):
                    unit_pixels[unit, half, category, min(b, touched[known, category])] += area[known, b]
        area[known] = 0
        touched[known] = -1
        held[known] = False
    order[-1] = 0
