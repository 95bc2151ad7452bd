"""The highest peaks of each unit among all points of a map, kept while the shards pass once.

A unit holds a few more than are wanted; whenever it is full, those beyond the wanted ones go. Positive float16 numbers
sort as their bit patterns do, so that a peak and its point make one integer: higher peaks first, then lower points.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from microtome.reports.outlines import kernel

_ROOM = 0.25
"""Of what is wanted, how much more a unit holds before it is sorted out."""
_LEAST_ROOM = 16
_INFINITY = 0x7C00
"""The bits of the greatest float16; those of NaN and of negative numbers are higher."""
_LAST_POINT = 0xFFFFFFFF
_LINE = 32
"""Units that are looked at together: as many peaks as a cache line has."""


class Highest:
    """Of each of `units` the `count` highest positive peaks (ties: the first points). Six bytes for each, and a quarter
    more, whatever the number of samples.

    maxima: (units,) float16, the highest finite peak, 0 where none is positive
    """

    def __init__(self, units: int, count: int) -> None:
        room = count + max(_LEAST_ROOM, int(_ROOM * count))
        self._count = count
        self._bits = np.zeros((units, room), np.uint16)
        self._points = np.zeros((units, room), np.uint32)
        self._held = np.zeros(units, np.int64)
        self._edge = np.ones(units, np.uint16)
        self._last = np.full(units, _LAST_POINT, np.uint32)
        self._maxima = np.zeros(units, np.uint16)

    @property
    def maxima(self) -> NDArray[np.float16]:
        return self._maxima.view(np.float16)

    def update(self, peaks: NDArray[np.float16], points: NDArray[np.int64]) -> None:
        """Take the peaks (n, units) of samples that are `points` (n,); those at -1 are none. Every point comes once."""
        bits = np.ascontiguousarray(peaks, np.float16).view(np.uint16)
        held = (self._bits, self._points, self._held)
        _take(bits, points, *held, self._edge, self._last, self._maxima, self._count)

    def of_unit(self, unit: int) -> tuple[NDArray[np.int64], NDArray[np.float16]]:
        """The points of a unit's highest peaks, ascending, and the peaks."""
        held = int(self._held[unit])
        bits, points = self._bits[unit, :held], self._points[unit, :held]
        if held > self._count:
            _sort_out(bits, points, self._count)
            bits, points = bits[: self._count], points[: self._count]
            self._held[unit] = self._count
        order = np.argsort(points)
        return points[order].astype(np.int64), bits[order].view(np.float16)


@kernel
def _take(
    bits: Any, points: Any, held_bits: Any, held_points: Any, held: Any, edge: Any, last: Any, maxima: Any, count: Any
) -> None:
    """Add a row of every unit's peaks for each point. What is behind a unit's edge (lower, or as high and beyond the
    point `last`) is none of its `count` highest."""
    room, units = held_bits.shape[1], bits.shape[1]
    for first in range(0, units, _LINE):
        for row in range(len(bits)):
            point = points[row]
            if point < 0:
                continue
            for unit in range(first, min(first + _LINE, units)):
                value = bits[row, unit]
                if value > maxima[unit] and value < _INFINITY:
                    maxima[unit] = value
                if value < edge[unit] or value > _INFINITY or (value == edge[unit] and point > last[unit]):
                    continue
                at = held[unit]
                held_bits[unit, at], held_points[unit, at] = value, point
                held[unit] = at + 1
                if held[unit] == room:
                    edge[unit], last[unit] = _sort_out(held_bits[unit], held_points[unit], count)
                    held[unit] = count


@kernel
def _sort_out(bits: Any, points: Any, count: Any) -> Any:
    """Move the `count` highest to the front, in no promised order; returns peak and point of the last of them."""
    high = _place_of(bits >> np.uint16(8), count)
    in_reach = bits[(bits >> np.uint16(8)) == high]
    above = (bits >> np.uint16(8) > high).sum()
    low = _place_of(in_reach & np.uint16(255), count - above)
    edge = np.uint16(high * 256 + low)
    equal = np.sort(points[bits == edge])
    last = equal[count - (bits > edge).sum() - 1]
    kept = 0
    for at in range(len(bits)):
        if bits[at] > edge or (bits[at] == edge and points[at] <= last):
            bits[kept], points[kept] = bits[at], points[at]
            kept += 1
    return edge, last


@kernel
def _place_of(bytes_: Any, count: Any) -> Any:
    """The `count`-th highest of numbers from 0 to 255."""
    counts = np.zeros(256, np.int64)
    for value in bytes_:
        counts[value] += 1
    place, passed = 256, 0
    while passed < count:
        place -= 1
        passed += counts[place]
    return place
