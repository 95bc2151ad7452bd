"""The outline of a unit's mask on a thumbnail.

The mask is up(a)(x) > T with `up` bilinear, half-pixel centres, evaluated as a + l * (b - a) in float32
(Network Dissection, Bau et al. 2017, section 2), here at the pixels of the thumbnail instead of a label map.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

_SIGMA = 0.9
_DIMMED = 0.6
_REACH = 2  # pixels beside the mask that the line touches: half the width of the blur
_ALL = slice(None)


@dataclass(frozen=True, slots=True)
class Axis:
    """Where n positions, ascending, fall on an axis of the activation grid: between two cells, share `weight`.

    cells: the part of the grid's axis that they lie on
    low, high: (n,) int64, the two cells, counted from the first of `cells`; weight: (n,) float32 in [0, 1)
    starts, stops: for each of `cells`, the range of the positions that it may have a share in
    """

    cells: slice
    low: NDArray[np.int64]
    high: NDArray[np.int64]
    weight: NDArray[np.float32]
    starts: list[int]
    stops: list[int]

    @classmethod
    def at(cls, positions: NDArray[np.float64], extent: int, cells: int) -> Axis:
        """Positions in pixels (pixel i has its centre at i + 0.5) of an axis of `extent` pixels and `cells` cells."""
        place = np.clip(positions * (cells / extent) - 0.5, 0.0, cells - 1.0)
        low = np.floor(place).astype(np.int64)
        high = np.minimum(low + 1, cells - 1)
        weight = (place - low).astype(np.float32)
        part = slice(int(low[0]), int(high[-1]) + 1)
        low, high = low - part.start, high - part.start
        every = np.arange(part.stop - part.start)
        starts, stops = high.searchsorted(every, "left"), low.searchsorted(every, "right")
        return cls(part, low, high, weight, starts.tolist(), stops.tolist())

    def near(self, first: int, last: int) -> slice:
        """Positions that cells `first` ... `last` of `cells` have a share in, and those beside that a line needs."""
        return slice(max(self.starts[first] - _REACH, 0), min(self.stops[last] + _REACH, len(self.low)))


def upsample(
    activation: NDArray[np.float32], rows: Axis, columns: Axis, down: slice = _ALL, across: slice = _ALL
) -> NDArray[np.float32]:
    """Bilinear values of `activation`, cut to the cells of both axes, at their positions `down` x `across`: (n, m)."""
    left = activation[:, columns.low[across]]
    wide = left + columns.weight[across] * (activation[:, columns.high[across]] - left)
    upper = wide[rows.low[down]]
    return upper + rows.weight[down, None] * (wide[rows.high[down]] - upper)


def unit_mask(
    activation: NDArray[np.float32],
    threshold: float,
    saturated: bool,
    rows: Axis,
    columns: Axis,
    down: slice = _ALL,
    across: slice = _ALL,
) -> NDArray[np.bool_]:
    """Where a unit sees: (n, m) bool at positions `down` x `across`; `activation` is cut to the cells of both axes.

    A saturated unit ties at its maximum on more positions than tau: there a position is in the mask when every
    grid cell that has a share in it equals the threshold.
    """
    if not saturated:
        return np.asarray(upsample(activation, rows, columns, down, across) > np.float32(threshold))
    full = activation >= np.float32(threshold)
    wide = full[:, columns.low[across]] & (full[:, columns.high[across]] | (columns.weight[across] == 0))
    return np.asarray(wide[rows.low[down]] & (wide[rows.high[down]] | (rows.weight[down] == 0)[:, None]))


@dataclass(frozen=True, slots=True)
class Mask:
    """The part of a thumbnail that a mask and its outline touch; empty where nothing passes the threshold.

    top, left: where the part begins; inside: (n, m) bool
    """

    top: int
    left: int
    inside: NDArray[np.bool_]

    @classmethod
    def of(cls, activation: NDArray[np.float32], threshold: float, saturated: bool, rows: Axis, columns: Axis) -> Mask:
        """`unit_mask` of the whole `activation` (h, w), evaluated only near the cells that reach the threshold."""
        here = activation[rows.cells, columns.cells]
        reached_rows, reached_columns = (here >= np.float32(threshold)).nonzero()
        if not len(reached_rows):
            return _NOTHING
        down = rows.near(int(reached_rows[0]), int(reached_rows[-1]))
        across = columns.near(int(reached_columns.min()), int(reached_columns.max()))
        return cls(down.start, across.start, unit_mask(here, threshold, saturated, rows, columns, down, across))

    def draw(self, thumb: NDArray[np.uint8], onto: NDArray[np.uint8]) -> None:
        """Draw the outline over `onto`, which is `thumb` (n, m, 3) dimmed throughout."""
        if self.inside.size:
            place = np.s_[self.top : self.top + len(self.inside), self.left : self.left + self.inside.shape[1]]
            onto[place] = draw_outline(thumb[place], self.inside)


_NOTHING = Mask(0, 0, np.zeros((0, 0), np.bool_))


def dim(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """`image` as it is drawn away from a mask; a new array."""
    return as_uint8(cv2.convertScaleAbs(image, alpha=_DIMMED))


def draw_outline(thumb: NDArray[np.uint8], mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """`thumb` (n, m, 3) with the rest dimmed and a white line, edged dark, around `mask` (n, m); a new array.

    With an empty mask all of it is dimmed: nothing here passes the threshold.
    """
    filled = mask.astype(np.uint8) * np.uint8(255)
    soft = cv2.GaussianBlur(filled, (5, 5), _SIGMA, borderType=cv2.BORDER_REPLICATE)
    soft = cv2.cvtColor(soft, cv2.COLOR_GRAY2RGB)
    drawn = cv2.multiply(thumb, cv2.LUT(soft, _FACTOR), scale=1 / 255)
    return as_uint8(cv2.add(drawn, cv2.LUT(soft, _LIGHT), dst=drawn))


def as_uint8(image: NDArray[Any]) -> NDArray[np.uint8]:
    """`image` of an OpenCV call that keeps the type, typed as the uint8 it is."""
    return np.asarray(image, np.uint8)


def _line_tables() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """How a pixel changes, by the value 0 ... 255 of the blurred mask: (factor in 1/255, white added).

    The blurred value tells the distance to the edge; tables of it draw a smooth line without tracing a contour.
    """
    factor = np.empty(256, np.uint8)
    light = np.empty(256, np.uint8)
    for value in range(256):
        share = min(max(value / 255, 1e-4), 1 - 1e-4)
        distance = NormalDist().inv_cdf(share) * _SIGMA
        dimming = _DIMMED + (1 - _DIMMED) * _ramp(distance, -0.8, 0.0)
        dark = _bump(distance, -1.25, 1.0)
        white = _bump(distance, 0.1, 0.95)
        factor[value] = round(255 * dimming * (1 - 0.8 * dark) * (1 - white))
        light[value] = round(255 * white)
    return factor, light


def _ramp(x: float, low: float, high: float) -> float:
    return min(max((x - low) / (high - low), 0.0), 1.0)


def _bump(x: float, centre: float, half_width: float) -> float:
    """1 at `centre`, falling smoothly to 0 at `half_width` from it."""
    away = min(abs(x - centre) / half_width, 1.0)
    return (1 + math.cos(math.pi * away)) / 2


_FACTOR, _LIGHT = _line_tables()
