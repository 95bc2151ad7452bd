"""Neighbours of small clouds of points, and affinities written out."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from microtome.dissect.embedding.tsne.affinities import Affinities


def neighbors_of(count: int, k: int, seed: int = 0, clusters: int = 4) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """The k nearest others of each of `count` points around a few centres, and their distances: (count, k) both."""
    rng = np.random.default_rng(seed)
    points = 3.0 * rng.normal(size=(clusters, 4))[np.arange(count) % clusters] + rng.normal(size=(count, 4))
    apart = np.linalg.norm(points[:, None] - points[None], axis=2)
    np.fill_diagonal(apart, np.inf)
    indices = np.argsort(apart, axis=1)[:, :k]
    return indices.astype(np.int32), np.take_along_axis(apart, indices, axis=1).astype(np.float32)


def dense(affinities: Affinities) -> NDArray[np.float64]:
    """The whole matrix, (N, N). Raises AssertionError where a row is not sorted."""
    matrix = np.zeros((affinities.points,) * 2)
    for row in range(affinities.points):
        here = slice(affinities.starts[row], affinities.starts[row + 1])
        columns = affinities.neighbors[here]
        assert (np.diff(columns) > 0).all()
        matrix[row, columns] = affinities.weights[here]
    return matrix


def dense_divergence(affinities: Affinities, positions: NDArray[np.generic]) -> float:
    """Kullback-Leibler of the map `positions` (N, 2), over all pairs in float64."""
    p, points = dense(affinities), positions.astype(np.float64)
    kernel = 1.0 / (1.0 + ((points[:, None] - points[None]) ** 2).sum(axis=2))
    np.fill_diagonal(kernel, 0.0)
    q, there = kernel / kernel.sum(), p > 0
    return float((p[there] * np.log(p[there] / q[there])).sum())
