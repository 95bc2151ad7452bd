"""Polygons in relative coordinates: (n, 2) float32 arrays of x, y (y grows downwards)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache

import numpy as np

from microtome.datasets.scenes.canvas import Points
from microtome.datasets.scenes.dice import Dice


@cache
def _circle(corners: int) -> Points:
    angle = np.arange(corners) * (2 * math.pi / corners)
    return np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)


def polygon(*corners: tuple[float, float]) -> Points:
    return np.array(corners, np.float32)


def rectangle(left: float, top: float, right: float, bottom: float) -> Points:
    return np.array(((left, top), (right, top), (right, bottom), (left, bottom)), np.float32)


def ellipse(x: float, y: float, rx: float, ry: float, corners: int = 18) -> Points:
    return _circle(corners) * np.array((rx, ry), np.float32) + np.array((x, y), np.float32)


def blob(dice: Dice, x: float, y: float, rx: float, ry: float, rough: float = 0.2, corners: int = 14) -> Points:
    """An ellipse that strays outwards and inwards at `corners` places by up to `rough` of the radius."""
    stray = [1 + rough * (2 * dice.roll() - 1) for _ in range(corners)]
    radius = np.empty((2 * corners, 1), np.float32)
    radius[0::2, 0] = stray
    radius[1::2] = (radius[0::2] + radius[[*range(2, 2 * corners, 2), 0]]) * np.float32(0.515)
    return _circle(2 * corners) * radius * np.array((rx, ry), np.float32) + np.array((x, y), np.float32)


def bar(x0: float, y0: float, x1: float, y1: float, width: float) -> Points:
    """A straight stroke of a given width from (x0, y0) to (x1, y1)."""
    length = math.hypot(x1 - x0, y1 - y0) or 1.0
    nx, ny = -(y1 - y0) / length * width / 2, (x1 - x0) / length * width / 2
    return polygon((x0 + nx, y0 + ny), (x1 + nx, y1 + ny), (x1 - nx, y1 - ny), (x0 - nx, y0 - ny))


def grid(left: float, top: float, right: float, bottom: float, rows: int, columns: int, gap: float) -> list[Points]:
    """Rectangles in rows and columns; `gap` is the share of a cell left free."""
    w, h = (right - left) / columns, (bottom - top) / rows
    return [
        rectangle(
            left + (c + gap / 2) * w, top + (r + gap / 2) * h, left + (c + 1 - gap / 2) * w, top + (r + 1 - gap / 2) * h
        )
        for r in range(rows)
        for c in range(columns)
    ]


def place(shape: Points, x: float, y: float, scale: float, mirror: bool = False) -> Points:
    """A shape drawn about the origin, scaled and moved to (x, y)."""
    factor = np.array((-scale if mirror else scale, scale), np.float32)
    return shape * factor + np.array((x, y), np.float32)


def outline(*corners: Sequence[float]) -> Points:
    """A shape about the origin given as rows of x, y."""
    return np.array(corners, np.float32)
