"""Affinities of neighbours: how strongly each pair of points is drawn together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from microtome.dissect.embedding.parallel import Pool
from microtome.dissect.embedding.tsne.kernels import fast_kernel
from microtome.dissect.maths.jit import kernel

NEIGHBORS_PER_PERPLEXITY = 3


@dataclass(frozen=True)
class Affinities:
    """A symmetric matrix p of N rows that sums to 1, kept sparse by rows.

    Row i has the columns neighbors[starts[i]:starts[i + 1]] (int32, ascending), with the values `weights` (float32).
    """

    starts: NDArray[np.int64]
    neighbors: NDArray[np.int32]
    weights: NDArray[np.float32]

    @property
    def points(self) -> int:
        """N."""
        return len(self.starts) - 1

    def reordered(self, order: NDArray[np.int64], pool: Pool) -> Affinities:
        """The same matrix for points in another order: new row i is old row order[i]."""
        lengths = np.diff(self.starts)[order]
        starts = np.concatenate([[0], np.cumsum(lengths)])
        place = np.empty(len(order), np.int32)
        place[order] = np.arange(len(order), dtype=np.int32)
        neighbors, weights = np.empty_like(self.neighbors), np.empty_like(self.weights)
        pool.blocks(
            lambda start, stop: _reorder(
                order, place, start, stop, self.starts, self.neighbors, self.weights, starts, neighbors, weights
            ),
            self.points,
        )
        return Affinities(starts, neighbors, weights)


def uniform_affinities(indices: NDArray[np.int32], pool: Pool) -> Affinities:
    """Every neighbour of a point alike: p_ij = (n_ij + n_ji) / 2Nk, with n_ij = 1 where j is among i's k neighbours.

    indices: (N, k). Nearly the same maps as with perplexity k, from far fewer pairs (Böhm, Berens and Kobak 2022).
    """
    return symmetric(indices, np.full(indices.shape, 1.0 / max(1, indices.shape[1]), np.float32), pool)


def gaussian_affinities(
    indices: NDArray[np.int32], distances: NDArray[np.float32], perplexity: float, pool: Pool
) -> Affinities:
    """Gaussian kernels whose widths give every row `perplexity` (van der Maaten and Hinton 2008, eq. 1), symmetrised.

    indices, distances: (N, k) neighbours, about three times as many as the perplexity.
    """
    conditional = np.empty(distances.shape, np.float32)
    pool.blocks(lambda start, stop: _calibrate(distances, start, stop, np.log(perplexity), conditional), len(distances))
    return symmetric(indices, conditional, pool)


def symmetric(indices: NDArray[np.int32], conditional: NDArray[np.float32], pool: Pool) -> Affinities:
    """p_ij = (p_j|i + p_i|j) / 2N from the rows p_j|i, given for the neighbours `indices`, both (N, k)."""
    count, k = indices.shape
    lengths = np.bincount(indices.ravel(), minlength=count)[:count] + k
    room = np.concatenate([[0], np.cumsum(lengths)])
    neighbors = np.empty(int(room[-1]), np.int32)
    weights = np.empty(int(room[-1]), np.float32)
    _fill(indices, conditional, room, neighbors, weights, np.float32(0.5 / max(1, count)))
    used = np.empty(count, np.int64)
    pool.blocks(lambda start, stop: _sort_rows(room, start, stop, neighbors, weights, used), count)
    starts = np.concatenate([[0], np.cumsum(used)])
    _close_gaps(room, starts, neighbors, weights)
    size = int(starts[-1])
    return Affinities(starts, neighbors[:size].copy(), weights[:size].copy())


@fast_kernel
def _calibrate(
    distances: NDArray[np.float32], start: int, stop: int, entropy: float, conditional: NDArray[np.float32]
) -> None:
    """Rows of exp(-beta d²) that sum to 1, beta by bisection such that their entropy is `entropy` (nats)."""
    k = distances.shape[1]
    for i in range(start, stop):
        nearest = np.float64(distances[i, 0]) ** 2
        low, high, beta = 0.0, np.inf, 1.0
        spread = np.float64(distances[i, k - 1]) ** 2 - nearest
        if spread > 0:
            beta = 1.0 / spread
        for _ in range(200):
            total = 0.0
            moment = 0.0
            for j in range(k):
                beyond = np.float64(distances[i, j]) ** 2 - nearest
                p = np.exp(-beta * beyond)
                total += p
                moment += p * beyond
            found = np.log(total) + beta * moment / total
            if abs(found - entropy) < 1e-6:
                break
            if found > entropy:
                low = beta
                beta = 2.0 * beta if high == np.inf else 0.5 * (low + high)
            else:
                high = beta
                beta = 0.5 * (low + high)
        total = 0.0
        for j in range(k):
            total += np.exp(-beta * (np.float64(distances[i, j]) ** 2 - nearest))
        for j in range(k):
            conditional[i, j] = np.exp(-beta * (np.float64(distances[i, j]) ** 2 - nearest)) / total


@kernel
def _fill(
    indices: NDArray[np.int32],
    conditional: NDArray[np.float32],
    room: NDArray[np.int64],
    neighbors: NDArray[np.int32],
    weights: NDArray[np.float32],
    share: np.float32,
) -> None:
    """Write every pair into the rows of both of its points."""
    at = room[:-1].copy()
    for i in range(indices.shape[0]):
        for c in range(indices.shape[1]):
            j = indices[i, c]
            weight = conditional[i, c] * share
            neighbors[at[i]], weights[at[i]] = j, weight
            neighbors[at[j]], weights[at[j]] = i, weight
            at[i] += 1
            at[j] += 1


@kernel
def _sort_rows(
    room: NDArray[np.int64],
    start: int,
    stop: int,
    neighbors: NDArray[np.int32],
    weights: NDArray[np.float32],
    used: NDArray[np.int64],
) -> None:
    """Sort each row by neighbour and add up what stands twice; `used` becomes the length that is left."""
    for i in range(start, stop):
        first, last = room[i], room[i + 1]
        order = np.argsort(neighbors[first:last], kind="mergesort")
        columns, values = neighbors[first:last][order], weights[first:last][order]
        at = first - 1
        for n in range(last - first):
            if n > 0 and columns[n] == columns[n - 1]:
                weights[at] += values[n]
            else:
                at += 1
                neighbors[at], weights[at] = columns[n], values[n]
        used[i] = at + 1 - first


@kernel
def _close_gaps(
    room: NDArray[np.int64], starts: NDArray[np.int64], neighbors: NDArray[np.int32], weights: NDArray[np.float32]
) -> None:
    """Move the rows together, in place."""
    for i in range(starts.size - 1):
        for n in range(starts[i + 1] - starts[i]):
            neighbors[starts[i] + n] = neighbors[room[i] + n]
            weights[starts[i] + n] = weights[room[i] + n]


@kernel
def _reorder(
    order: NDArray[np.int64],
    place: NDArray[np.int32],
    start: int,
    stop: int,
    old_starts: NDArray[np.int64],
    old_neighbors: NDArray[np.int32],
    old_weights: NDArray[np.float32],
    starts: NDArray[np.int64],
    neighbors: NDArray[np.int32],
    weights: NDArray[np.float32],
) -> None:
    for i in range(start, stop):
        source = old_starts[order[i]]
        for n in range(starts[i + 1] - starts[i]):
            neighbors[starts[i] + n] = place[old_neighbors[source + n]]
            weights[starts[i] + n] = old_weights[source + n]
