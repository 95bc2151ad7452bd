"""The nearest neighbours of every vector among all others: exact for few vectors, by an inverted file for many."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from microtome.dissect.embedding.inverted import COARSE, FINE, Found, InvertedFile, bytes_a_number
from microtome.dissect.embedding.parallel import Pool, one_blas_thread
from microtome.dissect.embedding.pca import PCA, moments
from microtome.dissect.embedding.vectors import Vectors, in_memory

EXACT_ROWS = 10_000
"""Up to as many vectors every pair is looked at: that is as quick, and nothing is missed."""

AT_ONCE = 16_384

Progress = Callable[[int, int], None]
Search = Callable[[InvertedFile, int], Found]
"""Gives the k nearest of all vectors in a file."""


@dataclass(frozen=True)
class Graph:
    """indices: (N, k) int32, the neighbours of each row, nearest first, without itself; distances: (N, k) float32,
    Euclidean; info: how they were found."""

    indices: NDArray[np.int32]
    distances: NDArray[np.float32]
    info: dict[str, Any] = field(default_factory=dict)


def neighbor_graph(
    vectors: Vectors,
    k: int,
    *,
    pca: PCA | None = None,
    seed: int = 0,
    threads: int = 1,
    search: Search | None = None,
    progress: Progress | None = None,
) -> Graph:
    """The `k` nearest neighbours of every vector (all others, where there are fewer), by Euclidean distance.

    Up to `EXACT_ROWS` vectors they are exact. Above that candidates come from an inverted file over the first `COARSE`
    principal components (faiss, IVF), and are ranked by their distances along the first `FINE`: most of the nearest are
    found, not all. pca: of the vectors, where it is known already, with at least as many components; search: does the
    searching in the file, somewhere else say. The same result for the same `seed`, whoever searches.
    """
    k = max(0, min(k, vectors.rows - 1))
    started = time.monotonic()
    if k == 0:
        return Graph(np.zeros((vectors.rows, 0), np.int32), np.zeros((vectors.rows, 0), np.float32), {"method": "none"})
    if vectors.rows <= EXACT_ROWS:
        indices, distances = _exact(vectors, k, threads)
        info: dict[str, Any] = {"method": "exact"}
    else:
        lists = InvertedFile.build(vectors, pca or PCA.fit(moments(vectors, threads), FINE), seed, threads)
        info = lists.info
        if search is None:
            indices, distances = _list_by_list(lists, k, threads, progress)
        else:
            indices, distances = search(lists, k)
    return Graph(indices, distances, {**info, "k": k, "seconds": round(time.monotonic() - started, 2)})


def _exact(vectors: Vectors, k: int, threads: int) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """All pairs, in blocks of float64; distances of the nearest are taken from differences, which do not cancel."""
    rows = in_memory(vectors).astype(np.float64)
    rows -= np.median(rows, axis=0)
    norms = np.einsum("ij,ij->i", rows, rows)
    indices = np.empty((len(rows), k), np.int32)
    distances = np.empty((len(rows), k), np.float32)
    candidates = min(len(rows), k + 1 + 8)
    size = max(1, min(1024, 2**23 // len(rows)))

    def block(number: int) -> None:
        start, stop = number * size, min((number + 1) * size, len(rows))
        squared = norms[None, :] - 2.0 * (rows[start:stop] @ rows.T)
        mine = np.arange(start, stop)
        squared[mine - start, mine] = np.inf
        near = np.argpartition(squared, min(candidates, squared.shape[1] - 1), axis=1)[:, :candidates]
        near = np.sort(near, axis=1)
        apart = np.linalg.norm(rows[near] - rows[mine, None, :], axis=2)
        apart[near == mine[:, None]] = np.inf
        order = np.argsort(apart, axis=1, kind="stable")[:, :k]
        indices[start:stop] = np.take_along_axis(near, order, axis=1)
        distances[start:stop] = np.take_along_axis(apart, order, axis=1)

    with one_blas_thread(), Pool(threads) as pool:
        pool.each(block, -(-len(rows) // size))
    return indices, distances


def _list_by_list(lists: InvertedFile, k: int, threads: int, progress: Progress | None) -> Found:
    """The neighbours of all vectors, those that lie together one after the other."""
    order = lists.order()
    indices = np.empty((len(order), k), np.int32)
    distances = np.empty((len(order), k), np.float32)
    for start in range(0, len(order), AT_ONCE):
        mine = order[start : start + AT_ONCE]
        indices[mine], distances[mine] = lists.search(mine, k, threads)
        if progress is not None:
            progress(start + len(mine), len(order))
    return indices, distances


def graph_bytes(rows: int, dims: int, k: int) -> int:
    """About how many bytes `neighbor_graph` takes at most, besides the vectors."""
    answer = rows * k * 8
    if rows <= EXACT_ROWS:
        return answer + rows * dims * 16 + 2**27
    size = bytes_a_number(rows, dims)
    return answer + rows * (min(dims, COARSE) * size * 3 // 2 + min(dims, FINE) * size + 24)
