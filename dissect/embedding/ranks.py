"""Ranks of chosen pairs and exact nearest neighbours of a few points among all, in one pass over blocks of vectors.

Squared distances are |x|² + |y|² - 2xy of float32 products, after a shift to the mean of the points that are asked for.
What is nearer by less than the rounding of such a product (`SLACK`) counts as equally near.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from microtome.dissect.embedding.parallel import one_blas_thread, ordered
from microtome.dissect.embedding.vectors import Vectors
from microtome.dissect.maths.jit import kernel

SLACK = 1e-6
"""Squared distances that differ by less than this share of |x|² + |y|² are equal."""
ROWS = 4096
"""Vectors that are compared at a time: with a thousand points the distances take 16 MB."""

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Ranks:
    """What n points see among all N.

    closer: (n, k) int64, how many other points are nearer to each point than each of its k given ones (rank - 1);
    nearest: (n, k) int64 the exact k nearest others, nearest first, ties by lower number; gaps: (n, k) float32 their
    squared distances, 0 where that is within rounding.
    """

    closer: Ints
    nearest: Ints
    gaps: NDArray[np.float32]


def gather(vectors: Vectors, wanted: Ints) -> NDArray[np.float32]:
    """The rows `wanted` (any order, repeats allowed) of `vectors`: (len(wanted), dims) float32."""
    order = np.argsort(wanted, kind="stable")
    rows = wanted[order]
    found = np.empty((len(wanted), vectors.dims), np.float32)
    for start in range(0, vectors.rows, ROWS):
        stop = min(start + ROWS, vectors.rows)
        low, high = np.searchsorted(rows, (start, stop))
        if high > low:
            found[order[low:high]] = vectors.read(start, stop)[rows[low:high] - start]
    return found


def rank_among_all(vectors: Vectors, points: Ints, given: Ints, *, threads: int = 1) -> Ranks:
    """How near the `given` others of each point are among all others, and which are the nearest.

    points: (n,) rows of `vectors`; given: (n, k) rows, none of them the point's own, k >= 1 and at most N - 1.
    """
    n, k = given.shape
    own = gather(vectors, points)
    shift = own.mean(axis=0, dtype=np.float64).astype(np.float32)
    own -= shift
    norms = np.einsum("ij,ij->i", own, own)
    limits = _limits(vectors, own, norms, given, shift)
    closer = np.zeros((n, k), np.int64)
    nearest, gaps = np.full((n, k), -1, np.int64), np.full((n, k), np.inf, np.float32)
    spans = [(start, min(start + ROWS, vectors.rows)) for start in range(0, vectors.rows, ROWS)]
    each = -(-n // threads)

    def products_with(span: tuple[int, int]) -> tuple[int, NDArray[np.float32], NDArray[np.float32]]:
        block = vectors.read(*span) - shift
        return span[0], own @ block.T, np.einsum("ij,ij->i", block, block)

    with one_blas_thread(), ThreadPoolExecutor(threads) as pool:
        for start, products, lengths in ordered(products_with, spans, threads):

            def look(first: int, start: int = start, products: Any = products, lengths: Any = lengths) -> None:
                part = slice(first, first + each)
                seen = products[part], norms[part], lengths, start, points[part], limits[part]
                _look(*seen, closer[part], nearest[part], gaps[part])

            list(pool.map(look, range(0, n, each)))
    return Ranks(closer, nearest, gaps)


def _limits(vectors: Vectors, own: Any, norms: Any, given: Ints, shift: Any) -> NDArray[np.float32]:
    """(n, k) float32: what a squared distance must be below, for its point to be nearer than the given one."""
    n, k = given.shape
    limits = np.empty((n, k), np.float32)
    at_once = max(1, 2**24 // (k * max(1, vectors.dims)))
    for low in range(0, n, at_once):
        part = slice(low, low + at_once)
        others = (gather(vectors, given[part].ravel()) - shift).reshape(-1, k, vectors.dims)
        lengths = np.einsum("ijc,ijc->ij", others, others)
        others -= own[part, None, :]
        squares = np.einsum("ijc,ijc->ij", others, others)
        limits[part] = squares - np.float32(SLACK) * (norms[part, None] + lengths)
    return limits


@kernel
def _look(
    products: Any, norms: Any, lengths: Any, start: int, points: Any, limits: Any, counts: Any, nearest: Any, gaps: Any
) -> None:
    """Count the rows of one block that are nearer to each of n points than its limits, and keep the k nearest.

    products: (n, b) float32, become squared distances; start: number of the block's first row; counts: (n, k).
    """
    n, b = products.shape
    k = limits.shape[1]
    for i in range(n):
        row, norm, own = products[i], norms[i], points[i] - start
        for j in range(b):
            row[j] = norm + lengths[j] - np.float32(2.0) * row[j]
        if 0 <= own < b:
            row[own] = np.float32(np.inf)
        for m in range(k):
            limit, count = limits[i, m], np.int32(0)
            for j in range(b):
                count += np.int32(1) if row[j] < limit else np.int32(0)
            counts[i, m] += count
        worst = gaps[i, k - 1]
        for j in range(b):
            if row[j] < worst:
                square = row[j] if row[j] > np.float32(SLACK) * (norm + lengths[j]) else np.float32(0.0)
                if square >= worst:
                    continue
                at = k - 1
                while at > 0 and square < gaps[i, at - 1]:
                    gaps[i, at] = gaps[i, at - 1]
                    nearest[i, at] = nearest[i, at - 1]
                    at -= 1
                gaps[i, at] = square
                nearest[i, at] = start + j
                worst = gaps[i, k - 1]
