"""The nearest neighbours of every vector among all others: exact for few vectors, by an inverted file for many."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from microtome.dissect.embedding.parallel import one_blas_thread
from microtome.dissect.embedding.pca import PCA, moments
from microtome.dissect.embedding.threads import Pool
from microtome.dissect.embedding.vectors import Floats, Vectors, blocks, in_memory

EXACT_ROWS = 10_000
"""Up to as many vectors every pair is looked at: that is as quick, and nothing is missed."""

COARSE = 96
"""Principal components along which candidates are sought; they are then ranked along `FINE`, in float16."""
FINE = 512
CANDIDATES = 3
"""Times k, plus one: how many are ranked anew."""

LISTS_PER_ROOT = 5.0
PROBES = 24
TRAINED_PER_LIST = 32
TRAINING = 4
QUERIES = 8192

Progress = Callable[[int, int], None]


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
    progress: Progress | None = None,
) -> Graph:
    """The `k` nearest neighbours of every vector (all others, where there are fewer), by Euclidean distance.

    Up to `EXACT_ROWS` vectors they are exact. Above that candidates come from an inverted file over the first `COARSE`
    principal components (faiss, IVF), and are ranked by their distances along the first `FINE`: most of the nearest are
    found, not all. pca: of the vectors, where it is known already, with at least as many components. The same result
    for the same `seed` and any number of threads.
    """
    k = max(0, min(k, vectors.rows - 1))
    started = time.monotonic()
    if k == 0:
        return Graph(np.zeros((vectors.rows, 0), np.int32), np.zeros((vectors.rows, 0), np.float32), {"method": "none"})
    if vectors.rows <= EXACT_ROWS:
        indices, distances = _exact(vectors, k, threads)
        info: dict[str, Any] = {"method": "exact"}
    else:
        indices, distances, info = _inverted_file(vectors, pca, k, seed, threads, progress)
    return Graph(indices, distances, {**info, "k": k, "seconds": round(time.monotonic() - started, 2)})


def _exact(vectors: Vectors, k: int, threads: int) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """All pairs, in blocks; distances of the nearest are taken from differences, which do not cancel."""
    rows = in_memory(vectors).astype(np.float64)
    rows -= rows.mean(axis=0)
    points = rows.astype(np.float32)
    norms = np.einsum("ij,ij->i", points, points)
    indices = np.empty((len(points), k), np.int32)
    distances = np.empty((len(points), k), np.float32)
    candidates = min(len(points), k + 1 + 8)
    size = max(1, min(1024, 2**24 // len(points)))

    def block(number: int) -> None:
        start, stop = number * size, min((number + 1) * size, len(points))
        squared = norms[None, :] - 2.0 * (points[start:stop] @ points.T)
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
        pool.each(block, -(-len(points) // size))
    return indices, distances


def graph_bytes(rows: int, dims: int, k: int) -> int:
    """About how many bytes `neighbor_graph` takes at most, besides the vectors."""
    answer = rows * k * 8
    if rows <= EXACT_ROWS:
        return answer + rows * dims * 16
    return answer + rows * (min(dims, COARSE) * 4 * 3 // 2 + min(dims, FINE) * 2 + 24)


class _Rotated:
    """Vectors along their principal components, at most `FINE` of them, all divided by one number: their distances are
    the same but for that, and float16 holds them well."""

    def __init__(self, vectors: Vectors, pca: PCA) -> None:
        self._vectors = vectors
        self.scale = float(np.sqrt(pca.total / vectors.dims)) or 1.0
        self._mean = pca.mean.astype(np.float32)
        self._along = np.ascontiguousarray(pca.components[:FINE].T / self.scale, dtype=np.float32)
        self.rows, self.dims = vectors.rows, self._along.shape[1]

    def read(self, start: int, stop: int) -> Floats:
        """Rows start ... stop - 1."""
        rotated: Floats = (self._vectors.read(start, stop) - self._mean) @ self._along
        return rotated


def _inverted_file(
    vectors: Vectors, pca: PCA | None, k: int, seed: int, threads: int, progress: Progress | None
) -> tuple[NDArray[np.int32], NDArray[np.float32], dict[str, Any]]:
    """Vectors are sorted into lists by the nearest of many centres; those of the lists near each one are looked at."""
    import faiss

    rotated = _Rotated(vectors, pca or PCA.fit(moments(vectors, threads), FINE))
    fine, coarse = rotated.dims, min(rotated.dims, COARSE)
    lists = int(LISTS_PER_ROOT * vectors.rows**0.5)
    index = faiss.IndexIVFFlat(faiss.IndexFlatL2(coarse), coarse, lists)
    index.cp.seed, index.cp.niter = seed + 1, TRAINING
    index.cp.max_points_per_centroid, index.cp.min_points_per_centroid = TRAINED_PER_LIST, 1
    index.nprobe = min(PROBES, lists)
    stored = faiss.IndexScalarQuantizer(fine, faiss.ScalarQuantizer.QT_fp16)
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(threads)
    try:
        index.train(np.ascontiguousarray(_random_rows(rotated, TRAINED_PER_LIST * lists, seed)[:, :coarse]))
        stored.train(np.zeros((1, fine), np.float32))
        stored.codes.resize(vectors.rows * stored.code_size)  # else it doubles as it grows, and is there twice
        stored.codes.resize(0)
        for _, block in blocks(rotated):
            index.add(np.ascontiguousarray(block[:, :coarse]))
            stored.add(block)
        first = faiss.LinearTransform(fine, coarse, False)
        faiss.copy_array_to_vector(np.eye(coarse, fine, dtype=np.float32).ravel(), first.A)
        first.is_trained = True
        refined = faiss.IndexRefine(faiss.IndexPreTransform(first, index), stored)
        refined.k_factor = CANDIDATES
        indices, distances = _search_lists(index, stored, refined, k, progress)
    finally:
        faiss.omp_set_num_threads(before)
    distances *= np.float32(rotated.scale)
    info = {"method": "ivf", "components": [coarse, fine], "lists": lists, "probes": index.nprobe}
    return indices, distances, info


def _search_lists(
    index: Any, stored: Any, refined: Any, k: int, progress: Progress | None
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Search for every vector, list by list: neighbours ask one after the other, and find each other in the cache."""
    import faiss

    count = stored.ntotal
    indices = np.empty((count, k), np.int32)
    distances = np.empty((count, k), np.float32)
    lists = [
        faiss.rev_swig_ptr(index.invlists.get_ids(number), index.invlists.list_size(number))
        for number in range(index.nlist)
        if index.invlists.list_size(number)
    ]
    order = np.concatenate(lists)
    for start in range(0, count, QUERIES):
        mine = order[start : start + QUERIES]
        squared, found = refined.search(stored.reconstruct_batch(mine), k + 1)
        found, squared = without_oneself(found, squared, mine)
        indices[mine], distances[mine] = found, np.sqrt(np.maximum(squared, 0.0))
        if progress is not None:
            progress(min(start + QUERIES, count), count)
    return indices, distances


def without_oneself(
    found: NDArray[np.int64], values: NDArray[np.float32], mine: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """(n, k + 1) neighbours with their values, less row i's own number mine[i], or else the last: (n, k) of both.

    Where fewer were found (-1), the last one found stands again.
    """
    keep = found != mine[:, None]
    keep[keep.all(axis=1), -1] = False
    shape = (len(found), found.shape[1] - 1)
    found, values = found[keep].reshape(shape), values[keep].reshape(shape)
    for row in np.flatnonzero((found < 0).any(axis=1)).tolist():
        there = int((found[row] >= 0).sum())
        found[row, there:], values[row, there:] = found[row, max(there - 1, 0)], values[row, max(there - 1, 0)]
    return found, values


def _random_rows(vectors: Vectors, count: int, seed: int) -> Floats:
    """`count` different rows (all where there are fewer), read block by block."""
    if count >= vectors.rows:
        return in_memory(vectors)
    chosen = np.sort(np.random.default_rng(seed).choice(vectors.rows, count, replace=False))
    parts = []
    for start, block in blocks(vectors):
        low, high = np.searchsorted(chosen, (start, start + len(block)))
        parts.append(block[chosen[low:high] - start])
    return np.concatenate(parts)
