"""UMAP beside the map of the house, for those who compare: umap-learn, an extra.

L. McInnes, J. Healy, J. Melville: UMAP: Uniform Manifold Approximation and Projection for Dimension Reduction, 2018.
The seed is fixed, so umap-learn optimises on one thread; as the other maps it takes Euclidean distances.
"""

from __future__ import annotations

import importlib
import importlib.util
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from microtome.storage.errors import UsageError

NEIGHBORS = 15
MIN_DIST = 0.1
LEAST_POINTS = 4
"""Fewer points have no neighbourhood graph to lay out."""
MOST_POINTS = 500_000
"""More points take umap-learn hours and tens of gigabytes: its descent for neighbours is compiled per process."""


def check_umap(points: int = 0) -> None:
    """Raise UsageError where umap-learn is not installed, or for more than MOST_POINTS; nothing is imported."""
    if importlib.util.find_spec("umap") is None:
        raise UsageError(
            '--umap needs umap-learn, which is not installed; install it with: pip install "microtome[umap]"'
        )
    if points > MOST_POINTS:
        raise UsageError(
            f"UMAP of {points:,} points is beyond umap-learn on one machine, it is offered up to {MOST_POINTS:,}; make "
            "the maps without it: microtome map RUN --no-umap"
        )


def umap_map(
    vectors: NDArray[np.float32],
    *,
    neighbors: int = NEIGHBORS,
    seed: int = 0,
    initial: NDArray[np.floating] | None = None,
    graph: tuple[NDArray[np.integer], NDArray[np.floating]] | None = None,
) -> NDArray[np.float32]:
    """UMAP positions (N, 2) float32 of `vectors` (N, C), the same for the same seed.

    neighbors: of each point, itself included as umap-learn counts; initial: (N, 2) where points start, scaled to ten
    across as umap-learn does with its own; default: its spectral layout; graph: (indices (N, k), distances (N, k)) of
    the nearest others, k >= neighbors - 1, which saves umap-learn from searching. Raises UsageError where umap-learn is
    not installed, or for more than MOST_POINTS points.
    """
    n = len(vectors)
    check_umap(n)
    if n < LEAST_POINTS:
        return np.zeros((n, 2), np.float32)
    neighbors = min(neighbors, n - 1)
    with _quiet():
        umap = importlib.import_module("umap")
        model = umap.UMAP(
            n_neighbors=neighbors,
            min_dist=MIN_DIST,
            init="spectral" if initial is None else _ten_across(initial),
            random_state=seed,
            n_jobs=1,
            precomputed_knn=(None, None, None) if graph is None else _with_oneself(graph, neighbors),
        )
        return np.asarray(model.fit_transform(np.ascontiguousarray(vectors, np.float32)), np.float32)


def _ten_across(initial: NDArray[np.floating]) -> NDArray[np.float32]:
    low, high = initial.min(axis=0), initial.max(axis=0)
    return np.asarray(10 * (initial - low) / np.maximum(high - low, 1e-12), np.float32)


def _with_oneself(
    graph: tuple[NDArray[np.integer], NDArray[np.floating]], neighbors: int
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Neighbours as umap-learn has them: each point itself first, then the others."""
    indices, distances = graph
    own = np.arange(len(indices), dtype=np.int32)[:, None]
    near = np.concatenate([own, indices[:, : neighbors - 1]], axis=1).astype(np.int32)
    far = np.concatenate([np.zeros_like(own, np.float32), distances[:, : neighbors - 1]], axis=1).astype(np.float32)
    return near, far


@contextmanager
def _quiet() -> Iterator[None]:
    """umap-learn says in warnings what is meant here: one thread, no index for later points, a disconnected graph."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
