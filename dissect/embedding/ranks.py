"""Ranks of chosen pairs and exact nearest neighbours of a few points among all, in one pass over blocks of vectors.

A squared distance is the sum of squared differences in float64, `_apart`. It is bracketed first, by |x|² + |y|² - 2xy
of float64 products after a shift to the median of the points that are asked for, plus and minus what rounding can make
of that (Higham 2002, "Accuracy and Stability of Numerical Algorithms", equation 3.5); only pairs whose bracket leaves
the order open are measured. So the answer is that of measuring every pair, however long a vector is.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from microtome.dissect.embedding.parallel import one_blas_thread, ordered
from microtome.dissect.embedding.vectors import Vectors, gather
from microtome.dissect.maths.jit import inlined_kernel, kernel

ROWS = 4096
"""Vectors that are compared at a time: with a thousand points the distances take 32 MB."""
UNSURE = 2.0**-51
"""Times (dims + 16) (|x|² + |y|²): at most so far is a squared distance by products from the measured one. Rounding is
at most dims * 2^-53 of 2 (|x|² + |y|²) in the three sums, and again in the measured one; 16 stands for the shift."""

Doubles = NDArray[np.float64]
Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Ranks:
    """What n points see among all N.

    closer: (n, k) int64, how many other points are nearer to each point than each of its k given ones (rank - 1);
    nearest: (n, k) int64 the exact k nearest others, nearest first, ties by lower number; gaps: (n, k) float64 their
    squared distances, 0 for a twin of the same vector and for nothing else.
    """

    closer: Ints
    nearest: Ints
    gaps: Doubles


def rank_among_all(vectors: Vectors, points: Ints, given: Ints, *, threads: int = 1) -> Ranks:
    """How near the `given` others of each point are among all others, and which are the nearest.

    points: (n,) rows of `vectors`; given: (n, k) rows, none of them the point's own, k >= 1 and at most N - 1.
    """
    n, k = given.shape
    own = gather(vectors, points)
    shift = np.median(own.astype(np.float64), axis=0)  # a mean would follow a single vector far away
    shifted = own - shift
    norms = np.einsum("ij,ij->i", shifted, shifted)
    limits = _limits(vectors, own, given)
    closer = np.zeros((n, k), np.int64)
    nearest, gaps = np.full((n, k), -1, np.int64), np.full((n, k), np.inf)
    spans = [(start, min(start + ROWS, vectors.rows)) for start in range(0, vectors.rows, ROWS)]
    each = -(-n // threads)

    def products_with(span: tuple[int, int]) -> tuple[int, Floats, Doubles, Doubles]:
        rows = vectors.read(*span)
        block = rows - shift
        return span[0], rows, np.einsum("ij,ij->i", block, block), shifted @ block.T

    with one_blas_thread(), ThreadPoolExecutor(threads) as pool:
        for start, rows, lengths, products in ordered(products_with, spans, threads):

            def look(first: int, start: int = start, seen: Any = (products, rows, lengths)) -> None:
                part, (products, rows, lengths) = slice(first, first + each), seen
                asked = points[part], own[part], norms[part], limits[part]
                _look(products[part], start, rows, lengths, *asked, closer[part], nearest[part], gaps[part])

            list(pool.map(look, range(0, n, each)))
    return Ranks(closer, nearest, gaps)


def _limits(vectors: Vectors, own: Floats, given: Ints) -> Doubles:
    """(n, k) float64: squared distances of the given ones."""
    n, k = given.shape
    limits = np.empty((n, k))
    at_once = max(1, 2**24 // (k * max(1, vectors.dims)))
    for low in range(0, n, at_once):
        part = slice(low, low + at_once)
        _measure(own[part], gather(vectors, given[part].ravel()), limits[part])
    return limits


@inlined_kernel
def _apart(some: Any, i: int, others: Any, j: int) -> float:
    """Squared distance of some[i] and others[j], from differences in float64, summed in an order that is fixed."""
    a, b = some[i], others[j]
    dims = a.size
    whole = dims - dims % 4
    s0 = s1 = s2 = s3 = 0.0
    for c in range(0, whole, 4):
        d0, d1 = np.float64(a[c]) - np.float64(b[c]), np.float64(a[c + 1]) - np.float64(b[c + 1])
        d2, d3 = np.float64(a[c + 2]) - np.float64(b[c + 2]), np.float64(a[c + 3]) - np.float64(b[c + 3])
        s0 += d0 * d0
        s1 += d1 * d1
        s2 += d2 * d2
        s3 += d3 * d3
    for c in range(whole, dims):
        d0 = np.float64(a[c]) - np.float64(b[c])
        s0 += d0 * d0
    return (s0 + s1) + (s2 + s3)


@kernel
def _measure(own: Any, others: Any, squares: Any) -> None:
    """squares: (n, k) float64 of own (n, dims) and others (n * k, dims)."""
    n, k = squares.shape
    for i in range(n):
        for m in range(k):
            squares[i, m] = _apart(own, i, others, i * k + m)


@kernel
def _look(
    products: Any,
    start: int,
    rows: Any,
    lengths: Any,
    points: Any,
    own: Any,
    norms: Any,
    limits: Any,
    counts: Any,
    nearest: Any,
    gaps: Any,
) -> None:
    """Count the rows of one block that are nearer to each of n points than its limits, and keep the k nearest.

    products: (n, b) float64, of shifted vectors, become lower ends of squared distances; start: number of the block's
    first row; rows: (b, dims) float32; lengths: (b,) squared; own: (n, dims) float32; norms: (n,) squared.
    """
    n, b = products.shape
    k = limits.shape[1]
    unsure = UNSURE * (rows.shape[1] + 16)
    high = np.empty(b)
    for i in range(n):
        low, norm, mine = products[i], norms[i], points[i] - start
        for j in range(b):
            both = norm + lengths[j]
            square, doubt = both - 2.0 * low[j], unsure * both
            low[j], high[j] = max(square - doubt, 0.0), square + doubt
        if 0 <= mine < b:
            low[mine] = high[mine] = np.inf
        for m in range(k):
            limit, sure, possible = limits[i, m], 0, 0
            for j in range(b):
                sure += 1 if high[j] < limit else 0
                possible += 1 if low[j] < limit else 0
            if sure < possible:
                for j in range(b):
                    if low[j] < limit <= high[j]:
                        low[j] = high[j] = _apart(own, i, rows, j)
                        sure += 1 if low[j] < limit else 0
            counts[i, m] += sure
        worst = gaps[i, k - 1]
        for j in range(b):
            if low[j] < worst:
                square = low[j] if low[j] == high[j] else _apart(own, i, rows, j)
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
