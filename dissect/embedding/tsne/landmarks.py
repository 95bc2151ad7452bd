"""A map of some points, and the others placed among them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from microtome.dissect.embedding.tsne.kernels import Points
from microtome.dissect.embedding.vectors import Floats, Vectors
from microtome.dissect.maths.jit import kernel

VOTES = 5
"""Nearest neighbours on the map that a point is placed between."""


@dataclass(frozen=True)
class Chosen:
    """Some rows of other vectors. chosen: (rows,) int64, ascending."""

    vectors: Vectors
    chosen: NDArray[np.int64]

    @classmethod
    def draw(cls, vectors: Vectors, count: int, seed: int) -> Chosen:
        """`count` different rows at random."""
        drawn = np.random.default_rng(seed).choice(vectors.rows, count, replace=False)
        return cls(vectors, np.sort(drawn).astype(np.int64))

    @property
    def rows(self) -> int:
        """How many they are."""
        return len(self.chosen)

    @property
    def dims(self) -> int:
        """Numbers in each."""
        return self.vectors.dims

    def read(self, start: int, stop: int) -> Floats:
        """Rows start ... stop - 1."""
        wanted = self.chosen[start:stop]
        if not len(wanted):
            return np.empty((0, self.dims), np.float32)
        first = int(wanted[0])
        return self.vectors.read(first, int(wanted[-1]) + 1)[wanted - first]


def place_others(
    indices: NDArray[np.int32], distances: NDArray[np.float32], chosen: NDArray[np.int64], positions: Points
) -> Points:
    """(N, 2): the points `chosen` at `positions`, every other at the weighted mean of its nearest that have a place.

    indices, distances: (N, k) neighbours of all points. Whoever has none with a place yet waits for the next round;
    whoever never has one is put at the centre. The map is spread as N points would spread it, by the root of N / n.
    """
    count = len(indices)
    placed = np.zeros((count, 2), np.float32)
    placed[chosen] = positions * np.float32((count / max(1, len(chosen))) ** 0.5)
    has = np.zeros(count, np.bool_)
    has[chosen] = True
    while not has.all():
        found = _place_round(indices, distances, has, placed)
        if not found.any():
            break
        has |= found
    return placed


@kernel
def _place_round(
    indices: NDArray[np.int32], distances: NDArray[np.float32], has: NDArray[np.bool_], placed: Points
) -> NDArray[np.bool_]:
    """Place all that have a neighbour in `has`; returns which."""
    found = np.zeros(has.size, np.bool_)
    for i in range(has.size):
        if has[i]:
            continue
        votes = 0
        total = 0.0
        x = 0.0
        y = 0.0
        for c in range(indices.shape[1]):
            j = indices[i, c]
            if has[j] and votes < VOTES:
                weight = 1.0 / (1e-12 + np.float64(distances[i, c]) ** 2)
                total += weight
                x += weight * placed[j, 0]
                y += weight * placed[j, 1]
                votes += 1
        if votes > 0:
            placed[i, 0] = np.float32(x / total)
            placed[i, 1] = np.float32(y / total)
            found[i] = True
    return found
