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


@dataclass(frozen=True, slots=True)
class Axis:
    """Where n positions fall on an axis of the activation grid: between cells `low` and `high`, share `weight`.

    low, high: (n,) int64; weight: (n,) float32 in [0, 1)
    """

    low: NDArray[np.int64]
    high: NDArray[np.int64]
    weight: NDArray[np.float32]

    @classmethod
    def at(cls, positions: NDArray[np.float64], extent: int, cells: int) -> Axis:
        """Positions in pixels (pixel i has its centre at i + 0.5) of an axis of `extent` pixels and `cells` cells."""
        place = np.clip(positions * (cells / extent) - 0.5, 0.0, cells - 1.0)
        low = np.floor(place).astype(np.int64)
        return cls(low, np.minimum(low + 1, cells - 1), (place - low).astype(np.float32))


def upsample(activation: NDArray[np.float32], rows: Axis, columns: Axis) -> NDArray[np.float32]:
    """Bilinear values of `activation` (h, w) at the product of `rows` (n) and `columns` (m): (n, m) float32."""
    left = activation[:, columns.low]
    wide = left + columns.weight * (activation[:, columns.high] - left)
    upper = wide[rows.low]
    return upper + rows.weight[:, None] * (wide[rows.high] - upper)


def unit_mask(
    activation: NDArray[np.float32], threshold: float, saturated: bool, rows: Axis, columns: Axis
) -> NDArray[np.bool_]:
    """Where a unit sees: (n, m) bool at the product of `rows` and `columns`.

    A saturated unit ties at its maximum on more positions than tau: there a position is in the mask when every
    grid cell that has a share in it equals the threshold.
    """
    if not saturated:
        return np.asarray(upsample(activation, rows, columns) > np.float32(threshold))
    full = activation >= np.float32(threshold)
    wide = full[:, columns.low] & (full[:, columns.high] | (columns.weight == 0))
    return np.asarray(wide[rows.low] & (wide[rows.high] | (rows.weight == 0)[:, None]))


def draw_outline(thumb: NDArray[np.uint8], mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """`thumb` (n, m, 3) with the rest dimmed and a white line, edged dark, around `mask` (n, m); a new array.

    With an empty mask all of it is dimmed: nothing here passes the threshold.
    """
    filled = mask.astype(np.uint8) * np.uint8(255)
    soft = cv2.GaussianBlur(filled, (5, 5), _SIGMA, borderType=cv2.BORDER_REPLICATE)
    factor = cv2.cvtColor(cv2.LUT(soft, _FACTOR), cv2.COLOR_GRAY2RGB)
    light = cv2.cvtColor(cv2.LUT(soft, _LIGHT), cv2.COLOR_GRAY2RGB)
    return as_uint8(cv2.add(cv2.multiply(thumb, factor, scale=1 / 255), light))


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
