"""An approximate index of many vectors: candidates from faiss, measured exactly; its recall is known before it is used.

Vectors lie in cells around centres found in a random sample (an inverted file; Jégou, Douze and Schmid 2011, "Product
quantization for nearest neighbor search"), each as one byte for each of its first principal components. The candidates
of the cells nearest to a query are compared by their true vectors, so that distances are exact and an error can only
be a neighbour that is missed. How many cells and candidates that takes is found out on some vectors of the set, and
the recall then measured on others.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from microtome.dissect.embedding.parallel import faiss_threads, one_blas_thread, ordered
from microtome.dissect.embedding.pca import PCA, Moments
from microtome.dissect.embedding.search import ExactSearch, Ints, Neighbors, distances_to, known_metric
from microtome.dissect.embedding.vectors import Floats, Vectors, gather, spans

if TYPE_CHECKING:
    import faiss

K = 10
GOOD_RECALL, WANTED_RECALL = 0.95, 0.98
PROBES = (8, 16, 32, 64, 128, 256)
CANDIDATES = (50, 100, 200, 400, 800)
TIES = 5 * K
TUNED_ON, MEASURED_ON = 100, 200
TRAINING_BYTES = 2**28
TRAINED_A_CELL, ROUNDS = 40, 10
COMPONENTS = 128
KEPT_VARIANCE = 0.98

Told = Callable[[str, int, int], object]


@dataclass(frozen=True)
class IndexInfo:
    """What an index is and how good. probes: cells that a query visits; candidates: measured exactly; recall: share of
    the true `k` nearest that were found, over `sample` vectors of the set that nothing was tuned on."""

    metric: str
    rows: int
    dims: int
    components: int
    cells: int
    probes: int
    candidates: int
    k: int
    sample: int
    recall: float
    seed: int

    @property
    def is_good(self) -> bool:
        """Whether it finds so much that it may stand in for the exact search."""
        return self.recall >= GOOD_RECALL


@dataclass(frozen=True)
class ApproximateIndex:
    """An index in memory, with what is known of it."""

    index: faiss.Index
    info: IndexInfo

    def nearest(
        self,
        vectors: Vectors,
        queries: NDArray[np.floating],
        k: int,
        *,
        without: Ints | None = None,
        threads: int = 1,
    ) -> Neighbors:
        """About the `k` nearest of (Q, C) finite queries among `vectors`, those that were indexed, with true distances.

        `k` are found wherever there are so many, but how many of them are true is known for `info.k` alone.

        without: (Q,) a row that is not to be found by each query, -1 where there is none.
        """
        queries = np.ascontiguousarray(np.atleast_2d(queries), np.float32)
        kept = min(k, self.info.rows)
        found = self._enough(queries, min(max(self.info.candidates, 5 * k), self.info.rows), kept + 1, threads)
        indices, distances = np.full((len(queries), kept), -1, np.int64), np.full((len(queries), kept), np.inf)
        for number, query in enumerate(queries.astype(np.float64)):
            rows = found[number][found[number] >= 0]
            if without is not None:
                rows = rows[rows != without[number]]
            rows.sort()
            apart = distances_to(gather(vectors, rows), query, self.info.metric)
            best = np.lexsort((rows, apart))[:kept]
            indices[number, : len(best)], distances[number, : len(best)] = rows[best], apart[best]
        return Neighbors(indices, distances)

    def _enough(self, queries: Floats, wanted: int, least: int, threads: int) -> Ints:
        """(Q, wanted) candidates, -1 where there are none; of more and more cells until each query has `least`."""
        probes = self.info.probes
        while True:
            found = _candidates(self.index, queries, wanted, probes, threads)
            if probes >= self.info.cells or (found >= 0).sum(axis=1).min(initial=wanted) >= min(least, wanted):
                return found
            probes *= 2

    def pack(self) -> tuple[bytes, dict[str, Any]]:
        """The content of a faiss index file, and `info` as JSON values."""
        import faiss

        return faiss.serialize_index(self.index).tobytes(), asdict(self.info)

    @classmethod
    def unpack(cls, content: bytes, info: dict[str, Any]) -> ApproximateIndex:
        """An index again from `pack`. Raises ValueError where it is not one."""
        import faiss

        try:
            index = faiss.deserialize_index(np.frombuffer(content, np.uint8))
            known = IndexInfo(**info)
        except (RuntimeError, TypeError) as error:
            raise ValueError(f"no index of neighbours: {error}") from error
        if (index.ntotal, index.d) != (known.rows, known.dims):
            raise ValueError(
                f"an index of {index.ntotal} vectors of {index.d} numbers, not {known.rows} of {known.dims}"
            )
        return cls(index, known)


def build_index(
    vectors: Vectors, metric: str = "euclidean", *, seed: int = 0, threads: int = 1, told: Told = lambda *_: None
) -> ApproximateIndex:
    """Index `vectors`, which are finite and 1,000 or more, and measure how good the index is.

    told: called with what is being done, and how many vectors of how many are.
    """
    rng = np.random.default_rng((seed, vectors.rows, vectors.dims))
    cells = max(1, min(round(2 * math.sqrt(vectors.rows)), vectors.rows // TRAINED_A_CELL))
    training = min(cells * TRAINED_A_CELL, TRAINING_BYTES // (4 * vectors.dims), vectors.rows)
    sampled, seen = _read_once(vectors, metric, np.sort(rng.permutation(vectors.rows)[:training]), threads, told)
    pca = _enough(PCA.fit(seen))
    index = _empty_index(pca, metric, cells, seed)
    with faiss_threads(threads):
        index.train(sampled)
        for start, stop in spans(vectors):
            index.add(vectors.read(start, stop))
            told("index", stop, vectors.rows)
    asked = rng.permutation(vectors.rows)[: TUNED_ON + MEASURED_ON]
    truth = _truth(vectors, asked, metric, threads)
    cut = len(asked) * TUNED_ON // (TUNED_ON + MEASURED_ON)
    probes, candidates = _tune(index, truth.part(slice(0, cut)), threads)
    measured = truth.part(slice(cut, None))
    recall = measured.recall(_candidates(index, measured.queries, candidates + 1, probes, threads))
    info = IndexInfo(
        metric=metric,
        rows=vectors.rows,
        dims=vectors.dims,
        components=len(pca.components),
        cells=cells,
        probes=probes,
        candidates=candidates,
        k=K,
        sample=len(measured.queries),
        recall=round(recall, 4),
        seed=seed,
    )
    return ApproximateIndex(index, info)


def _read_once(vectors: Vectors, metric: str, wanted: Ints, threads: int, told: Told) -> tuple[Floats, Moments]:
    """The vectors numbered `wanted` (ascending), and the moments of all, as they are indexed."""
    known_metric(metric)

    def read(span: tuple[int, int]) -> tuple[Floats, Moments]:
        rows = vectors.read(*span)
        here = wanted[np.searchsorted(wanted, span[0]) : np.searchsorted(wanted, span[1])] - span[0]
        seen = Moments.empty(vectors.dims)
        seen.update(_normalised(rows) if metric == "cosine" else rows)
        return rows[here], seen

    parts, whole = [], Moments.empty(vectors.dims)
    with one_blas_thread():
        for rows, seen in ordered(read, spans(vectors), threads):
            parts.append(rows)
            whole.merge(seen)
            told("components", whole.count, vectors.rows)
    return np.concatenate(parts), whole


def _normalised(rows: Floats) -> Floats:
    length: Floats = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.divide(rows, np.where(length > 0, length, 1), dtype=np.float32)


def _enough(pca: PCA) -> PCA:
    """The first components: so many that little variance is left, in whole groups of 16, at most `COMPONENTS`."""
    needed = int(np.searchsorted(np.cumsum(pca.ratio), KEPT_VARIANCE)) + 1
    kept = min(-(-needed // 16) * 16, COMPONENTS, len(pca.components))
    return pca.first(kept)


def _empty_index(pca: PCA, metric: str, cells: int, seed: int) -> faiss.Index:
    """An inverted file behind transforms, so that the file on disk holds all there is to know."""
    import faiss

    kept, dims = pca.components.shape
    coarse = faiss.IndexFlatL2(kept)
    inner = faiss.IndexIVFScalarQuantizer(coarse, kept, cells, faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_L2)
    inner.cp.seed, inner.cp.niter, inner.cp.min_points_per_centroid = seed + 1, ROUNDS, 1
    inner.cp.max_points_per_centroid = TRAINED_A_CELL
    turn = faiss.LinearTransform(dims, kept, False)
    faiss.copy_array_to_vector(np.ascontiguousarray(pca.components, np.float32).ravel(), turn.A)
    centre = faiss.CenteringTransform(dims)
    faiss.copy_array_to_vector(pca.mean.astype(np.float32), centre.mean)
    for transform in (turn, centre):
        transform.is_trained = True
    index = faiss.IndexPreTransform(turn, inner)
    index.prepend_transform(centre)
    if metric == "cosine":
        index.prepend_transform(faiss.NormalizationTransform(dims))
    return index


def _candidates(index: faiss.Index, queries: Floats, wanted: int, probes: int, threads: int) -> Ints:
    """(Q, wanted) rows that are near the queries, nearest first as far as the index can tell; -1 where it has none."""
    import faiss

    with faiss_threads(threads):
        faiss.extract_index_ivf(index).nprobe = probes
        found: Ints = index.search(queries, wanted)[1].astype(np.int64)
    return found


@dataclass(frozen=True)
class _Truth:
    """Some vectors of the set and their true neighbours, themselves left out: rows (Q,), queries (Q, C), indices
    (Q, more than K): -1 for what is farther than the K-th."""

    rows: Ints
    queries: Floats
    indices: Ints

    def part(self, some: slice) -> _Truth:
        """Some of them."""
        return _Truth(self.rows[some], self.queries[some], self.indices[some])

    def recall(self, found: Ints) -> float:
        """The share of the true nearest that are among `found` (Q, any number); any of those equally far counts."""
        shares = []
        for row, true, rows in zip(self.rows.tolist(), self.indices, found, strict=True):
            wanted = min(K, int((true >= 0).sum()))
            hits = len(np.intersect1d(true[true >= 0], rows[rows != row]))
            shares.append(min(hits, wanted) / max(wanted, 1))
        return float(np.mean(shares))


def _truth(vectors: Vectors, rows: Ints, metric: str, threads: int) -> _Truth:
    queries = gather(vectors, np.sort(rows))[np.argsort(np.argsort(rows))]
    found = ExactSearch(vectors, metric, threads=threads).nearest(queries, TIES, without=rows)
    last = found.distances[:, min(K, found.distances.shape[1]) - 1]
    near = (found.distances <= last[:, None]) & np.isfinite(found.distances)
    return _Truth(rows, queries, np.where(near, found.indices, -1))


def _tune(index: faiss.Index, truth: _Truth, threads: int) -> tuple[int, int]:
    """The fewest cells, and then candidates, by which the wanted recall is reached; all there are where it is not."""
    for probes in PROBES:
        found = _candidates(index, truth.queries, CANDIDATES[-1] + 1, probes, threads)
        if truth.recall(found) >= WANTED_RECALL:
            enough = (count for count in CANDIDATES if truth.recall(found[:, : count + 1]) >= WANTED_RECALL)
            return probes, next(enough)
    return PROBES[-1], CANDIDATES[-1]
