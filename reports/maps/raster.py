"""Points as antialiased dots: as large and as opaque as their number allows, whether they are a hundred or millions."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from microtome.reports.outlines import kernel

_MARGIN = 0.03
"""Empty share of the picture along each edge."""
_COVER = 0.35
"""Share of the square that all dots together cover, where their size is free."""
_SMALLEST, _LARGEST = 0.6, 0.0048
"""Radius of a dot: the least in pixels, the most as a share of the picture's side."""
_LAYERS = 2.5
"""How many dots on top of each other at average density make a colour solid."""
_CLEAREST, _SOLIDEST = 0.12, 0.85

Floats = NDArray[np.float32]


def dot_size(points: int, side: int) -> tuple[float, float]:
    """(radius in pixels, opacity) of each of `points` dots in a square of `side` pixels."""
    area = float(side * side)
    radius = math.sqrt(_COVER * area / (math.pi * max(points, 1)))
    radius = min(max(radius, _SMALLEST), max(_SMALLEST, _LARGEST * side))
    overlap = points * math.pi * radius**2 / (_COVER * area)
    return radius, min(max(_LAYERS / max(overlap, 1e-9), _CLEAREST), _SOLIDEST)


def place(positions: NDArray[np.floating], side: int) -> tuple[Floats, float, NDArray[np.float64]]:
    """Where points (n, 2) of a map come to lie in a square of `side` pixels: (n, 2) float32 (column, row), y upwards.

    The map keeps its proportions and lies in the middle. Also the scale, in pixels a unit of the map, and the map's
    middle (x, y): column = side / 2 + scale * (x - middle), row = side / 2 - scale * (y - middle).
    """
    low, high = positions.min(axis=0).astype(np.float64), positions.max(axis=0).astype(np.float64)
    middle = (low + high) / 2
    scale = side * (1 - 2 * _MARGIN) / (float((high - low).max()) or 1.0)
    return to_pixels(positions, side, scale, middle), scale, middle


def to_pixels(positions: NDArray[np.floating], side: int, scale: float, middle: NDArray[np.float64]) -> Floats:
    """(n, 2) float32 (column, row) of positions (n, 2), see `place`."""
    return np.asarray(side / 2 + scale * np.array([1, -1]) * (positions - middle), np.float32)


def draw_dots(at: Floats, colours: Floats, order: NDArray[np.integer], side: int) -> NDArray[np.uint8]:
    """The dots on white, later ones over earlier: (side, side, 3) uint8.

    at: (n, 2) float32 (column, row) of their centres in pixels; colours: (n, 3) float32 in [0, 1]; order: (n,) which
    point is drawn first.
    """
    radius, opacity = dot_size(len(at), side)
    picture = np.ones((side, side, 3), np.float32)
    _draw(at, colours, np.asarray(order, np.int64), np.float32(radius), np.float32(opacity), picture)
    return np.asarray(np.round(picture * 255), np.uint8)


@kernel
def _draw(at: Any, colours: Any, order: Any, radius: Any, opacity: Any, picture: Any) -> None:
    side = picture.shape[0]
    for point in order:
        column, row = at[point, 0], at[point, 1]
        red, green, blue = colours[point]
        top, bottom = max(0, int(row - radius - 1)), min(side - 1, int(row + radius + 1))
        left, right = max(0, int(column - radius - 1)), min(side - 1, int(column + radius + 1))
        for i in range(top, bottom + 1):
            for j in range(left, right + 1):
                down, across = np.float32(i) + np.float32(0.5) - row, np.float32(j) + np.float32(0.5) - column
                covered = radius + np.float32(0.5) - math.sqrt(down * down + across * across)
                if covered <= 0:
                    continue
                alpha = opacity * min(np.float32(1.0), np.float32(covered))
                picture[i, j, 0] += alpha * (red - picture[i, j, 0])
                picture[i, j, 1] += alpha * (green - picture[i, j, 1])
                picture[i, j, 2] += alpha * (blue - picture[i, j, 2])
