"""The outline of a unit's mask on a thumbnail: kernels that draw a whole strip, compiled by numba, GIL released.

The mask is up(a)(x) > T with `up` bilinear, half-pixel centres, evaluated as a + l * (b - a) in float32
(Network Dissection, Bau et al. 2017, section 2), here at the pixels of the thumbnail instead of a label map.
A blurred mask tells every pixel's distance to the edge; tables of it draw a smooth line without tracing a contour.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import NormalDist
from typing import Any, TypeVar, cast

import numba
import numpy as np
from numpy.typing import NDArray

_SIGMA = 0.9
_DIMMED = 153  # in 1/255
_REACH = 2  # pixels beside the mask that the line touches: half the width of the blur
_GREY = 128
_BLANK = 232
_BLOCK = 16
"""Pixels that JPEG packs together, where colours have half the resolution."""

F = TypeVar("F", bound=Callable[..., Any])


def kernel(function: F) -> F:
    """Compile `function` with numba: no Python inside, GIL released, machine code cached on disk."""
    return cast(F, numba.njit(nogil=True, cache=True)(function))


def _line_tables() -> tuple[NDArray[np.uint16], NDArray[np.uint16]]:
    """How a pixel changes, by the value 0 ... 255 of the blurred mask: (factor in 1/255, white added)."""
    factor = np.empty(256, np.uint16)
    light = np.empty(256, np.uint16)
    for value in range(256):
        share = min(max(value / 255, 1e-4), 1 - 1e-4)
        distance = NormalDist().inv_cdf(share) * _SIGMA
        dimmed = _DIMMED / 255
        dimming = dimmed + (1 - dimmed) * _ramp(distance, -0.8, 0.0)
        dark = _bump(distance, -1.25, 1.0)
        white = _bump(distance, 0.1, 0.95)
        factor[value] = round(255 * dimming * (1 - 0.8 * dark) * (1 - white))
        light[value] = min(round(255 * white), 255 - factor[value])
    return factor, light


def _ramp(x: float, low: float, high: float) -> float:
    return min(max((x - low) / (high - low), 0.0), 1.0)


def _bump(x: float, centre: float, half_width: float) -> float:
    """1 at `centre`, falling smoothly to 0 at `half_width` from it."""
    away = min(abs(x - centre) / half_width, 1.0)
    return (1 + math.cos(math.pi * away)) / 2


def _blur_weights() -> tuple[int, int, int]:
    """Weights of a Gaussian blur at distance 0, 1 and 2, in 1/256; those of all five add up to 1."""
    raw = [math.exp(-((x / _SIGMA) ** 2) / 2) for x in range(3)]
    total = raw[0] + 2 * (raw[1] + raw[2])
    one, two = round(256 * raw[1] / total), round(256 * raw[2] / total)
    return 256 - 2 * (one + two), one, two


_FACTOR, _LIGHT = _line_tables()
_AT_0, _AT_1, _AT_2 = _blur_weights()


@kernel
def _axis(start: float, step: float, cells: int, low: Any, high: Any, weight: Any) -> None:
    """Where positions start + i * step, in shares of the axis, fall: between two cells, and the share of the second."""
    for i in range(len(low)):
        place = min(max((start + i * step) * cells - 0.5, 0.0), cells - 1.0)
        low[i] = np.int64(place)
        high[i] = min(low[i] + 1, cells - 1)
        weight[i] = np.float32(place - low[i])


@kernel
def _near(low: Any, high: Any, first: int, last: int) -> tuple[int, int]:
    """The range of positions that cells first ... last have a share in, and those beside that a line needs."""
    start = 0
    while start < len(high) and high[start] < first:
        start += 1
    stop = len(low)
    while stop > 0 and low[stop - 1] > last:
        stop -= 1
    return max(start - _REACH, 0), min(stop + _REACH, len(low))


@kernel
def _reached(activation: Any, threshold: Any, rows: tuple[int, int], columns: tuple[int, int]) -> Any:
    """(first row, last row, first column, last column) of the cells that reach the threshold; none: last < first."""
    top, bottom, left, right = activation.shape[0], -1, activation.shape[1], -1
    for i in range(rows[0], rows[1] + 1):
        for j in range(columns[0], columns[1] + 1):
            if activation[i, j] >= threshold:
                top, bottom = min(top, i), i
                left, right = min(left, j), max(right, j)
    return top, bottom, left, right


@kernel
def _widen(line: Any, threshold: Any, saturated: bool, low: Any, high: Any, weight: Any, out: Any) -> None:
    """One row of the grid at all columns: bilinear values; of a saturated unit 1 where both cells tie, else 0."""
    for j in range(len(out)):
        left, right = line[low[j]], line[high[j]]
        if saturated:
            tied = left >= threshold and (right >= threshold or weight[j] == 0)
            out[j] = np.float32(1.0) if tied else np.float32(0.0)
        else:
            out[j] = left + weight[j] * (right - left)


@kernel
def _join(upper: Any, lower: Any, threshold: Any, saturated: bool, weight: Any, out: Any) -> None:
    """The mask between two widened rows, `weight` of the way from `upper` to `lower`."""
    if saturated:
        for j in range(len(out)):
            out[j] = upper[j] > 0 and (lower[j] > 0 or weight == 0)
    else:
        for j in range(len(out)):
            out[j] = upper[j] + weight * (lower[j] - upper[j]) > threshold


@kernel
def mask_of(activation: Any, threshold: Any, saturated: bool, rows: Any, columns: Any) -> Any:
    """Where a unit sees: (n, m) uint8, 0 or 1.

    rows, columns: (low, high, weight) of the positions, as `axis` gives them. A saturated unit ties at its maximum on
    more positions than tau: there a position is in the mask when every cell that has a share in it reaches the
    threshold.
    """
    low, high, weight = rows
    left, right, share = columns
    count = len(left)
    inside = np.empty((len(low), count), np.uint8)
    wide = np.empty((2, count), np.float32)
    held = np.full(2, -1, np.int64)
    for i in range(len(low)):
        for cell in (low[i], high[i]):
            if held[cell & 1] != cell:
                _widen(activation[cell], threshold, saturated, left, right, share, wide[cell & 1])
                held[cell & 1] = cell
        _join(wide[low[i] & 1], wide[high[i] & 1], threshold, saturated, weight[i], inside[i])
    return inside


@kernel
def axis(start: float, step: float, count: int, cells: int) -> Any:
    """Positions start + i * step (shares of an axis of `cells` cells), i < count, clamped: (low, high, weight).

    low, high: int64, the two cells a position lies between; weight: float32 in [0, 1), the share of `high`
    """
    low, high = np.empty(count, np.int64), np.empty(count, np.int64)
    weight = np.empty(count, np.float32)
    _axis(start, step, cells, low, high, weight)
    return low, high, weight


@kernel
def _dim(shown: Any, onto: Any) -> None:
    """A row of bytes as it is drawn away from a mask."""
    for i in range(len(onto)):
        onto[i] = (np.uint32(shown[i]) * np.uint32(_DIMMED) + np.uint32(127)) // np.uint32(255)


@kernel
def _blur_down(inside: Any, i: int, out: Any) -> None:
    """Row `i` of `inside`, blurred from row to row, in 1/256; the border is repeated."""
    last = len(inside) - 1
    a, b, c = inside[max(i - 2, 0)], inside[max(i - 1, 0)], inside[i]
    d, e = inside[min(i + 1, last)], inside[min(i + 2, last)]
    count = len(c)
    for j in range(count):
        far, near = np.uint32(a[j] + e[j]), np.uint32(b[j] + d[j])
        out[j + _REACH] = np.uint32(_AT_0) * c[j] + np.uint32(_AT_1) * near + np.uint32(_AT_2) * far
    for j in range(_REACH):
        out[j] = out[_REACH]
        out[count + _REACH + j] = out[count + _REACH - 1]


@kernel
def _blur_across(down: Any, out: Any) -> None:
    """The blurred mask of a row, 0 ... 255, from what `_blur_down` made."""
    for j in range(len(out)):
        near, far = down[j + 1] + down[j + 3], down[j] + down[j + 4]
        total = np.uint32(_AT_0) * down[j + 2] + np.uint32(_AT_1) * near + np.uint32(_AT_2) * far
        out[j] = (total * np.uint32(255) + np.uint32(32768)) >> np.uint32(16)


@kernel
def _draw_line(shown: Any, soft: Any, onto: Any) -> None:
    """A row of RGB or BGR bytes with the line where `soft` tells; where that is 0, `onto` is left dimmed."""
    for j in range(len(soft)):
        value = soft[j]
        if value == 255:
            for k in range(3 * j, 3 * j + 3):
                onto[k] = shown[k]
        elif value:
            share, white = np.uint32(_FACTOR[value]), np.uint32(_LIGHT[value])
            for k in range(3 * j, 3 * j + 3):
                onto[k] = (np.uint32(shown[k]) * share + np.uint32(127)) // np.uint32(255) + white


@kernel
def draw_outline(pixels: Any, inside: Any, top: int, left: int, strip: Any, offset: int) -> None:
    """Draw the bright part and the line of `inside` (n, m) uint8, which begins at (top, left) of the picture.

    pixels, strip, offset: as for `draw_patch`; the picture stands there dimmed already
    """
    width = inside.shape[1]
    down, soft = np.empty(width + 2 * _REACH, np.uint32), np.empty(width, np.uint8)
    first, last = 3 * left, 3 * (left + width)
    for i in range(len(inside)):
        _blur_down(inside, i, down)
        _blur_across(down, soft)
        _draw_line(pixels[top + i, first:last], soft, strip[top + i, offset + first : offset + last])


@kernel
def draw_patch(
    pixels: Any,
    shape: tuple[int, int],
    place: Any,
    activation: Any,
    threshold: float,
    saturated: bool,
    strip: Any,
    offset: int,
) -> None:
    """Draw a picture with the mask of `activation` (h, w) float32; all is dimmed where nothing passes `threshold`.

    pixels, strip: rows of bytes, three a pixel, the picture in the first `shape` (rows, columns) of `pixels`, drawn
    onto `strip` from byte `offset` of its rows on (whole rows of bytes are what the compiler can vectorise)
    place: (4,) float64, where the pixels lie on the activation map, in shares of its height and width: the centre of
    the first row, the step from row to row, the same of the columns.
    """
    bar = np.float32(threshold)
    rows = axis(place[0], place[1], shape[0], activation.shape[0])
    columns = axis(place[2], place[3], shape[1], activation.shape[1])
    for i in range(shape[0]):
        _dim(pixels[i], strip[i, offset : offset + 3 * shape[1]])
    found = _reached(activation, bar, (rows[0][0], rows[1][-1]), (columns[0][0], columns[1][-1]))
    if found[1] >= found[0]:
        top, bottom = _near(rows[0], rows[1], found[0], found[1])
        left, right = _near(columns[0], columns[1], found[2], found[3])
        down = (rows[0][top:bottom], rows[1][top:bottom], rows[2][top:bottom])
        across = (columns[0][left:right], columns[1][left:right], columns[2][left:right])
        draw_outline(pixels, mask_of(activation, bar, saturated, down, across), top, left, strip, offset)


@kernel
def _fill_up(strip: Any, offset: int, shape: tuple[int, int], side: int) -> None:
    """Repeat the last of the drawn rows and columns past the end of their JPEG blocks, which would blur them otherwise,
    and leave the cell blank from there."""
    rows, columns = shape
    low = min((rows // _BLOCK + 1) * _BLOCK, side)
    right = min((columns // _BLOCK + 1) * _BLOCK, side)
    for i in range(side):
        source = strip[min(i, rows - 1)]
        for j in range(0 if i >= rows else columns, side):
            blank = i >= low or j >= right
            for k in range(3):
                strip[i, offset + 3 * j + k] = _BLANK if blank else source[offset + 3 * min(j, columns - 1) + k]


@kernel
def draw_strip(
    at: Any,
    rank: Any,
    picture: Any,
    outlined: Any,
    threshold: Any,
    saturated: Any,
    maps: Any,
    pixels: Any,
    shapes: Any,
    places: Any,
    strip: Any,
) -> None:
    """Draw the patches at positions `at` of a layer over `strip` (s, k * s * 3) uint8, by rank.

    rank, picture, outlined, threshold, saturated, maps (n, h, w) float32: of the layer's patches
    pixels (p, s, s * 3) uint8, shapes (p, 2), places (p, 4): of all pictures; no rows: the image was unreadable, the
    thumbnail is grey
    """
    side = strip.shape[0]
    for p in at:
        offset = rank[p] * side * 3
        number = picture[p]
        shape = (shapes[number, 0], shapes[number, 1])
        if shape[0] == 0:
            strip[:, offset : offset + 3 * side] = _GREY
            continue
        if outlined[p]:
            draw_patch(pixels[number], shape, places[number], maps[p], threshold[p], saturated[p], strip, offset)
        else:
            for i in range(shape[0]):
                strip[i, offset : offset + 3 * shape[1]] = pixels[number, i, : 3 * shape[1]]
        if shape[0] < side or shape[1] < side:
            _fill_up(strip, offset, shape, side)
