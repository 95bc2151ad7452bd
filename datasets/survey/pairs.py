"""Which of up to millions of 64-bit hashes differ in few bits: exactly, without comparing each with each.

Of 64 bits in four bands of 16, a pair that differs in at most 7 has a band in which it differs in at most one
(pigeonhole). So every band is sorted, and only hashes whose bands are equal or differ in one bit are compared:
a million random hashes take half a billion comparisons, not half a million millions. Pairs are not kept, as a film
of n frames may have n² of them: what is kept of each hash is its group, and its nearest others.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import numba
import numpy as np
from numpy.typing import NDArray

_BANDS = 4
_BITS = 16
_VALUES = 1 << _BITS
MOST_DISTANT = 2 * _BANDS - 1
FAR = 65
"""The distance of the nearest other where there is none."""

F = TypeVar("F", bound=Callable[..., Any])


def _kernel(function: F) -> F:
    return cast(F, numba.njit(nogil=True, cache=True)(function))


@dataclass(frozen=True, slots=True)
class Neighbours:
    """Of n hashes with tags, what lies within the distance asked for; a hash is no neighbour of itself.

    group:          (n,) int64, equal for hashes that a chain of near pairs joins
    tags:           (n,) uint64, the tags of all neighbours together
    within, across: (n,) int64, the nearest neighbour with a tag in common, and the nearest with which it has two
                    different tags; the lowest of several, -1 for none
    within_distance, across_distance: (n,) int64, their distance, FAR for none
    """

    group: NDArray[np.int64]
    tags: NDArray[np.uint64]
    within: NDArray[np.int64]
    within_distance: NDArray[np.int64]
    across: NDArray[np.int64]
    across_distance: NDArray[np.int64]


def neighbours(hashes: NDArray[np.uint64], tags: NDArray[np.uint64], distance: int) -> Neighbours:
    """The neighbours of all of `hashes` (n,), no two of them equal, up to `distance` different bits, at most 7.

    tags: (n,) a set of up to 64 tags for each, a bit each.
    """
    if not 0 <= distance <= MOST_DISTANT:
        raise ValueError(f"distance is {distance}; expected 0 ... {MOST_DISTANT}")
    n = len(hashes)
    order, starts = np.empty((_BANDS, n), np.int64), np.empty((_BANDS, _VALUES + 1), np.int64)
    for band in range(_BANDS):
        values = (hashes >> np.uint64(_BITS * band)).astype(np.uint16)
        order[band] = np.argsort(values, kind="stable")
        starts[band] = np.searchsorted(values[order[band]], np.arange(_VALUES + 1))
    found = Neighbours(
        group=np.arange(n),
        tags=np.zeros(n, np.uint64),
        within=np.full(n, -1, np.int64),
        within_distance=np.full(n, FAR, np.int64),
        across=np.full(n, -1, np.int64),
        across_distance=np.full(n, FAR, np.int64),
    )
    _search(
        *(hashes, tags, distance, order, starts, found.group, found.tags),
        *(found.within, found.within_distance, found.across, found.across_distance),
    )
    return found


@_kernel
def _different_bits(first: Any, second: Any) -> Any:
    """How many bits of two uint64 differ (Warren, Hacker's Delight, 2012, section 5-1)."""
    bits = first ^ second
    bits = bits - ((bits >> np.uint64(1)) & np.uint64(0x5555555555555555))
    bits = (bits & np.uint64(0x3333333333333333)) + ((bits >> np.uint64(2)) & np.uint64(0x3333333333333333))
    bits = (bits + (bits >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return np.int64((bits * np.uint64(0x0101010101010101)) >> np.uint64(56))


@_kernel
def _root(group: Any, i: Any) -> Any:
    while group[i] != i:
        group[i] = group[group[i]]
        i = group[i]
    return i


@_kernel
def _nearer(nearest: Any, distances: Any, i: Any, j: Any, distance: Any) -> None:
    if distance < distances[i] or (distance == distances[i] and j < nearest[i]):
        nearest[i], distances[i] = j, distance


@_kernel
def _search(
    hashes: Any,
    tags: Any,
    distance: int,
    order: Any,
    starts: Any,
    group: Any,
    near_tags: Any,
    within: Any,
    within_distance: Any,
    across: Any,
    across_distance: Any,
) -> None:
    one_bit_apart = _BITS if distance >= _BANDS else 0
    for band in range(_BANDS):
        for value in range(_VALUES):
            start, stop = starts[band, value], starts[band, value + 1]
            if start == stop:
                continue
            for flip in range(-1, one_bit_apart):
                other = value if flip < 0 else value ^ (1 << flip)
                if other < value:
                    continue
                for first in range(start, stop):
                    i = order[band, first]
                    others = first + 1 if flip < 0 else starts[band, other]
                    for second in range(others, starts[band, other + 1]):
                        j = order[band, second]
                        apart = _different_bits(hashes[i], hashes[j])
                        if apart > distance:
                            continue
                        a, b = _root(group, i), _root(group, j)
                        group[max(a, b)] = min(a, b)
                        near_tags[i] |= tags[j]
                        near_tags[j] |= tags[i]
                        if tags[i] & tags[j]:
                            _nearer(within, within_distance, i, j, apart)
                            _nearer(within, within_distance, j, i, apart)
                        both = tags[i] | tags[j]
                        if both & (both - np.uint64(1)):
                            _nearer(across, across_distance, i, j, apart)
                            _nearer(across, across_distance, j, i, apart)
    for i in range(len(group)):
        group[i] = _root(group, i)
