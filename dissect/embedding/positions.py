"""Images like a patch: the vector of one position of one image, against every position of every image.

Exact, a shard at a time in parallel, from the activations that the run keeps. Of each image counts the position that
is nearest. Distances are taken in float32 first; what could be among the nearest within their rounding is measured
again in float64.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from microtome.dissect.embedding.parallel import one_blas_thread, ordered
from microtome.dissect.embedding.search import distances_to, known_metric
from microtome.storage.run import Run

Maps = NDArray[np.float32]

READ_AT_ONCE = 32
TOLERANCE = 1e-4
"""Relative to the lengths that are compared: far more than float32 leaves in doubt over thousands of units."""


@dataclass(frozen=True, slots=True)
class NearPositions:
    """The k images nearest to a patch, nearest first: sample, row, column (k,) int64 of their best positions, and
    distance (k,) float64."""

    sample: NDArray[np.int64]
    row: NDArray[np.int64]
    column: NDArray[np.int64]
    distance: NDArray[np.float64]


def nearest_positions(
    run: Run,
    layer: str,
    query: NDArray[np.floating],
    k: int,
    metric: str = "euclidean",
    *,
    without: int | None = None,
    threads: int = 1,
    told: Callable[[int], object] = lambda _: None,
) -> NearPositions:
    """The `k` images that have the positions nearest to `query`, (C,) true values of all units at one position.

    without: a sample that is left out; told: called with the number of images looked at. Ties go to the lower sample,
    then to the earlier position. Raises UsageError where the run keeps no activations.
    """
    known_metric(metric)
    width = run.layer(layer)["grid"][1]
    exact = query.astype(np.float64)

    def search(start: int) -> NDArray[np.float64]:
        stop = min(start + READ_AT_ONCE, run.plan.samples)
        maps = run.activation_range(layer, start, stop)
        found = nearest_in(
            maps.reshape(*maps.shape[:2], -1), exact, k, metric, None if without is None else without - start
        )
        found[:, 0] += start
        told(stop - start)
        return found

    best = np.empty((0, 3))
    with one_blas_thread():
        for found in ordered(search, range(0, run.plan.samples, READ_AT_ONCE), threads):
            best = _first(np.concatenate([best, found]), k)
    sample, position = best[:, 0].astype(np.int64), best[:, 1].astype(np.int64)
    return NearPositions(sample, position // width, position % width, best[:, 2])


def nearest_in(maps: Maps, query: NDArray[np.float64], k: int, metric: str, without: int | None) -> NDArray[np.float64]:
    """(up to k, 3): sample, position and distance of the images of maps (n, C, positions) nearest to a query."""
    with np.errstate(over="ignore", invalid="ignore"):
        rough, doubt = _rough(maps, query, metric)
    rough = np.where(np.isfinite(rough), rough, np.inf)
    if without is not None and 0 <= without < len(maps):
        rough[without] = np.inf
    best = rough.min(axis=1)
    readable = np.flatnonzero(np.isfinite(best))
    if len(readable) > k:
        limit = np.partition(best[readable] + doubt[readable], k - 1)[k - 1]
        readable = readable[best[readable] - doubt[readable] <= limit]
    rows = []
    for sample in readable.tolist():
        positions = np.flatnonzero(rough[sample] <= best[sample] + 2 * doubt[sample])
        distances = distances_to(maps[sample][:, positions].T, query, metric)
        nearest = int(distances.argmin())
        rows.append((sample, positions[nearest], distances[nearest]))
    return _first(np.array(rows, np.float64).reshape(-1, 3), k)


def _rough(maps: Maps, query: NDArray[np.float64], metric: str) -> tuple[Maps, Maps]:
    """(n, positions) distances in float32, and (n,) how far they may be off."""
    asked = query.astype(np.float32)
    if metric == "euclidean":
        apart = maps - asked[:, None]
        distance = np.sqrt(np.einsum("ncp,ncp->np", apart, apart))
        return distance, TOLERANCE * distance.min(axis=1, initial=np.inf, where=np.isfinite(distance))
    length = np.sqrt(np.einsum("ncp,ncp->np", maps, maps))
    asked = asked / max(float(np.linalg.norm(query)), float(np.finfo(np.float32).tiny))
    cosine = np.einsum("ncp,c->np", maps, asked) / np.where(length > 0, length, np.float32(1))
    return 1 - cosine, np.full(len(maps), TOLERANCE, np.float32)


def _first(rows: NDArray[np.float64], k: int) -> NDArray[np.float64]:
    """The `k` rows (sample, position, distance) of least distance, the lower sample first among equals."""
    return rows[np.lexsort((rows[:, 1], rows[:, 0], rows[:, 2]))[:k]]
