"""The nearest of many vectors, exactly: one or many queries against blocks, in parallel.

Products are float32, which is as fast as memory; what they leave in doubt is decided in float64. A distance is
compared by (x - m)² - 2 x(q - m), where m is a point among the vectors, so that a mean far from zero takes no digits
from the product; its rounding is bounded (Higham 2002, "Accuracy and Stability of Numerical Algorithms", equation 3.5),
and every vector that may belong to the nearest within that bound is measured in float64. So the answer is that of
float64 throughout, ties going to the lower row.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from microtome.dissect.embedding.parallel import one_blas_thread, ordered
from microtome.dissect.embedding.vectors import Floats, Vectors, block_rows, spans
from microtome.storage.errors import UnknownNameError, UsageError

Doubles = NDArray[np.float64]
Ints = NDArray[np.int64]

METRICS = ("euclidean", "cosine")
QUERIES_AT_ONCE = 64
EXACT_AT_ONCE = CACHED_ROWS = 256
BLOCK_ROWS = 8192
SHIFT_ROWS = 256
ROUNDING, EPSILON = 2.0**-24, 2.0**-52
OVERFLOWS = 1e35
NOBODY = -1


@dataclass(frozen=True, slots=True)
class Neighbors:
    """The k nearest of Q queries, nearest first.

    indices: (Q, k) int64 rows; distances: (Q, k) float64. Where there are fewer than k, -1 and infinity.
    """

    indices: Ints
    distances: Doubles


def distances_to(rows: NDArray[np.floating], query: Doubles, metric: str) -> Doubles:
    """Distance of each row of (n, C) to a (C,) query in float64; a vector of length 0 is at cosine distance 1."""
    found = np.empty(len(rows))
    if metric == "cosine":
        query = _unit(query[None])[0]
    for start in range(0, len(rows), EXACT_AT_ONCE):
        part = rows[start : start + EXACT_AT_ONCE].astype(np.float64, order="C")
        if metric == "cosine":
            part = _unit(part)
            without = ~part.any(axis=1) | ~query.any()
        part -= query
        squares = np.einsum("ij,ij->i", part, part)
        found[start : start + len(part)] = np.where(without, 1.0, squares / 2) if metric == "cosine" else squares**0.5
    return found


def _unit(rows: Doubles) -> Doubles:
    """Rows of length 1; those of length 0 as they are."""
    # Divided by the largest entry first: squares of small numbers vanish, of large ones overflow.
    largest = np.abs(rows).max(axis=1, initial=0.0, keepdims=True)
    rows = rows / np.where(largest > 0, largest, 1.0)
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    unit: Doubles = rows / np.where(length > 0, length, 1.0)
    return unit


def known_metric(metric: str) -> str:
    """`metric`. Raises UnknownNameError where it is none."""
    if metric not in METRICS:
        raise UnknownNameError("metric", metric, METRICS)
    return metric


@dataclass(frozen=True, slots=True)
class _Terms:
    """What a comparison needs of each row of a block, made once. offset, factor: (n,) float64, factor (1,) where all
    have the same; reach, slack: how far rounding can go, of the product per length of what the row is multiplied with,
    and of the offset; longest: length of the longest row."""

    offset: Doubles
    factor: Doubles
    reach: float
    slack: float
    longest: float


@dataclass(slots=True)
class _Asked:
    """Queries, ready to be compared: a row's rank is by `weight * offset + factor * (row @ direction)`.

    exact: (Q, C) float64; direction: (Q, C) float32; weight, length: (Q,) float64; limit: (Q,) float64, a value that
    the k-th nearest is known not to exceed; it only falls.
    """

    exact: Doubles
    direction: Floats
    weight: Doubles
    length: Doubles
    limit: Doubles
    lock: threading.Lock = field(default_factory=threading.Lock)


class ExactSearch:
    """The nearest of `vectors`, any number of times; what is known of the rows is kept from the first time on.

    metric: "euclidean" or "cosine". Raises UnknownNameError for another. A vector that holds NaN is nobody's neighbour.
    """

    def __init__(self, vectors: Vectors, metric: str = "euclidean", *, threads: int = 1) -> None:
        self._vectors, self._metric, self._threads = vectors, known_metric(metric), threads
        self._spans = spans(vectors, min(BLOCK_ROWS, block_rows(vectors.dims)))
        self._terms: dict[int, _Terms] = {}
        self._shift = _middle(vectors)

    def nearest(self, queries: NDArray[np.floating], k: int, *, without: Ints | None = None) -> Neighbors:
        """The `k` nearest of each of (Q, C) queries, or as many as there are.

        without: (Q,) a row that is not to be found by each query (itself), -1 where there is none.
        Raises UsageError for queries of other dimensions, or that are not finite.
        """
        queries = np.atleast_2d(queries)
        if queries.shape[1] != self._vectors.dims:
            raise UsageError(f"a query has {self._vectors.dims} numbers, as the vectors have, not {queries.shape[1]}")
        if not np.isfinite(queries).all():
            raise UsageError("a query holds NaN or infinity and has no neighbours")
        if k < 1:
            raise UsageError(f"k is {k}; ask for one neighbour or more")
        kept = min(k + (without is not None), max(self._vectors.rows, 1))
        asked = self._ask(queries.astype(np.float64))
        with one_blas_thread():
            parts = list(ordered(lambda span: self._search(span, asked, kept), self._spans, self._threads))
        found = _best(parts, len(queries), kept)
        return found if without is None else _leave_out(found, without, min(k, kept))

    def _ask(self, exact: Doubles) -> _Asked:
        if self._metric == "euclidean":
            direction, weight = -2.0 * (exact - self._shift), np.ones(len(exact))
        else:
            unit, axis = _unit(exact), _unit(self._shift[None])[0]
            along = unit @ axis
            direction, weight = along[:, None] * axis - unit, -along
        length = np.linalg.norm(direction, axis=1)
        return _Asked(exact, direction.astype(np.float32), weight, length, np.full(len(exact), np.inf))

    def _search(self, span: tuple[int, int], asked: _Asked, k: int) -> list[tuple[Ints, Ints, Doubles]]:
        rows = self._vectors.read(*span)
        terms = self._terms.get(span[0])
        if terms is None:
            terms = self._terms[span[0]] = self._terms_of(rows)
        parts = []
        for first in range(0, len(asked.exact), QUERIES_AT_ONCE):
            some = slice(first, first + QUERIES_AT_ONCE)
            parts += self._compare(rows, terms, span[0], asked, some, k)
        return parts

    def _compare(
        self, rows: Floats, terms: _Terms, start: int, asked: _Asked, some: slice, k: int
    ) -> list[tuple[Ints, Ints, Doubles]]:
        """(query, row, distance) of what may be among the nearest of `some` queries in a block."""
        direction, weight, length = asked.direction[some], asked.weight[some], asked.length[some]
        with np.errstate(over="ignore", invalid="ignore"):
            products = (rows @ direction[0])[None] if len(direction) == 1 else direction @ rows.T
            values = products * terms.factor
            values += weight[:, None] * terms.offset
        if not terms.longest * length.max() < OVERFLOWS:
            values[...] = np.nan
        doubt = length * terms.reach + np.abs(weight) * terms.slack
        found = []
        for number, (row_values, unsure) in enumerate(zip(values, doubt.tolist(), strict=True), start=some.start):
            near = self._candidates(row_values, unsure, asked, number, k)
            distances = distances_to(rows[near], asked.exact[number], self._metric)
            best = np.lexsort((near, distances))[:k]
            found.append((np.full(len(best), number), near[best] + start, distances[best]))
        return found

    def _candidates(self, values: Doubles, doubt: float, asked: _Asked, number: int, k: int) -> Ints:
        """Rows of a block that may be among the nearest of a query; what overflowed or is NaN stays in doubt."""
        near = np.flatnonzero(~(values > asked.limit[number] + doubt))
        if len(near) <= k:
            return near
        some = values[near]
        limit = float(np.partition(some, k - 1)[k - 1]) + doubt
        if not np.isfinite(limit):
            return near
        with asked.lock:
            asked.limit[number] = min(asked.limit[number], limit)
        kept: Ints = near[~(some > limit + doubt)]
        return kept

    def _terms_of(self, rows: Floats) -> _Terms:
        euclidean, axis = self._metric == "euclidean", _unit(self._shift[None])[0]
        length, offset = np.empty(len(rows)), np.empty(len(rows))
        for start in range(0, len(rows), CACHED_ROWS):
            exact = rows[start : start + CACHED_ROWS].astype(np.float64)
            part = slice(start, start + len(exact))
            length[part] = np.sqrt(np.einsum("ij,ij->i", exact, exact))
            if euclidean:
                exact -= self._shift
                offset[part] = np.einsum("ij,ij->i", exact, exact)
            else:
                offset[part] = exact @ axis
        terms, longest = self._vectors.dims + 16, float(np.nanmax(length, initial=0.0))
        if euclidean:
            slack = terms * EPSILON * float(np.nanmax(offset, initial=0.0))
            return _Terms(offset, np.ones(1), terms * ROUNDING * longest, slack, longest)
        factor = 1.0 / np.where(length > 0, length, 1.0)
        return _Terms(offset * factor, factor, terms * ROUNDING, terms * EPSILON, longest)


def nearest(
    vectors: Vectors,
    queries: NDArray[np.floating],
    k: int,
    metric: str = "euclidean",
    *,
    without: Ints | None = None,
    threads: int = 1,
) -> Neighbors:
    """The `k` nearest of each of (Q, C) queries, once; see `ExactSearch`."""
    return ExactSearch(vectors, metric, threads=threads).nearest(queries, k, without=without)


def _middle(vectors: Vectors) -> Doubles:
    """A point among the vectors: the mean of some of them, spread evenly."""
    if not vectors.rows:
        return np.zeros(vectors.dims)
    step = max(1, BLOCK_ROWS // SHIFT_ROWS)
    some = vectors.read(0, min(vectors.rows, BLOCK_ROWS))[::step].astype(np.float64)
    some = some[np.isfinite(some).all(axis=1)]
    return some.mean(axis=0) if len(some) else np.zeros(vectors.dims)


def _best(parts: list[list[tuple[Ints, Ints, Doubles]]], queries: int, k: int) -> Neighbors:
    """The nearest `k` of what the blocks found."""
    flat = [part for block in parts for part in block]
    number = np.concatenate([np.zeros(0, np.int64), *(part[0] for part in flat)])
    index = np.concatenate([np.zeros(0, np.int64), *(part[1] for part in flat)])
    distance = np.concatenate([np.zeros(0), *(part[2] for part in flat)])
    usable = np.isfinite(distance)
    number, index, distance = number[usable], index[usable], distance[usable]
    order = np.lexsort((index, distance, number))
    number, index, distance = number[order], index[order], distance[order]
    rank = np.arange(len(number)) - np.searchsorted(number, number)
    found = Neighbors(np.full((queries, k), NOBODY, np.int64), np.full((queries, k), np.inf))
    here = rank < k
    found.indices[number[here], rank[here]] = index[here]
    found.distances[number[here], rank[here]] = distance[here]
    return found


def _leave_out(found: Neighbors, without: Ints, k: int) -> Neighbors:
    """Each query's neighbours but the row `without`; `k` of them."""
    others = found.indices != np.asarray(without)[:, None]
    order = np.argsort(~others, axis=1, kind="stable")[:, :k]
    own = ~np.take_along_axis(others, order, axis=1)
    indices = np.take_along_axis(found.indices, order, axis=1)
    distances = np.take_along_axis(found.distances, order, axis=1)
    indices[own], distances[own] = NOBODY, np.inf
    return Neighbors(indices, distances)
