"""In what a layer's vectors are compared, and how the nearest are found there: exactly, or by an index in the run."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from microtome.dissect.audit.progress import Progress, say
from microtome.dissect.embedding.index import ApproximateIndex, K, build_index
from microtome.dissect.embedding.pca import PCA, PCAVectors, moments, whitened_components
from microtome.dissect.embedding.search import Ints, Neighbors, known_metric, nearest
from microtome.dissect.embedding.vectors import LayerVectors, Vectors
from microtome.storage.errors import NotWritableError, UnknownNameError, UsageError
from microtome.storage.neighbors import read_index, write_index
from microtome.storage.run import Run

METHODS = ("auto", "exact", "approximate")
INDEX_ROWS = 200_000
"""From so many vectors on an index pays: below, all of them are read and compared in a second or two."""
SMALLEST_INDEX = 1000
FARTHEST = 10
"""Times the number of neighbours for which an index's recall is known: who asks for more has all vectors compared."""


@dataclass(frozen=True)
class Space:
    """A layer's vectors as they are compared. rows: those of the run; pca: by which they are whitened, if they are;
    index: None where the search is exact."""

    rows: LayerVectors
    metric: str
    pca: PCA | None
    index: ApproximateIndex | None
    threads: int

    def nearest(self, query: NDArray[np.floating], k: int, without: int | None = None) -> Neighbors:
        """The `k` nearest samples of a query, (C,) as the layer gives it; `without` leaves a sample out.

        Raises UsageError for a query that has no direction where directions are compared.
        """
        asked = query[None] if self.pca is None else self.pca.transform(query[None], whiten=True)
        if self.metric == "cosine" and not asked.any():
            raise UsageError(
                "every unit of the layer gives 0 for this image, which is no direction to compare; take --metric "
                "euclidean, or another layer"
            )
        left_out: Ints | None = None
        if without is not None:
            left_out = np.searchsorted(self.rows.samples, [without]).astype(np.int64)
        if self.index is not None:
            found = self.index.nearest(self.rows, asked, k, without=left_out, threads=self.threads)
        else:
            vectors: Vectors = self.rows if self.pca is None else PCAVectors(self.rows, self.pca, whiten=True)
            found = nearest(vectors, asked, k, self.metric, without=left_out, threads=self.threads)
        kept = found.indices[0] >= 0
        return Neighbors(self.rows.samples[found.indices[0][kept]], found.distances[0][kept])


def open_space(run: Run, layer: str, metric: str, *, whiten: bool, method: str, threads: int, k: int = K) -> Space:
    """How `layer` is searched. method: "exact", "approximate", or "auto": by an index where there are many vectors.

    k: neighbours that will be asked for; for very many of them all vectors are compared. An index that the run does not
    have yet is built and stored. Raises UsageError for what does not go together.
    """
    if method not in METHODS:
        raise UnknownNameError("method", method, METHODS)
    rows = LayerVectors.finite(run, layer)
    known_metric(metric)
    if whiten and method == "approximate":
        raise UsageError("whitened vectors are compared exactly; leave out --approximate or --whiten")
    if whiten:
        kept = whitened_components(rows.rows)
        return Space(rows, metric, PCA.fit(moments(rows, threads), kept), None, threads)
    index = None
    if k > FARTHEST * K:
        if method == "approximate":
            say(f"note: an index finds the {K} nearest well, not the {k:,} nearest, so all are compared")
        method = "exact"
    if method == "approximate" or (method == "auto" and rows.rows >= INDEX_ROWS):
        index = index_of(run, layer, rows, metric, threads)
        if index is not None and not index.info.is_good and method == "auto":
            say(f"note: the index of {layer} finds only {index.info.recall:.1%} of the {K} nearest: all are compared")
            index = None
    return Space(rows, metric, None, index, threads)


def index_of(run: Run, layer: str, rows: LayerVectors, metric: str, threads: int) -> ApproximateIndex | None:
    """The run's index of a layer, built and stored where it has none; None where there are too few vectors for one."""
    if rows.rows < SMALLEST_INDEX:
        return None
    folder, made_of = run.layer(layer)["folder"], _made_of(run, layer, rows)
    stored = read_index(run.place, folder, metric, made_of)
    if stored is not None:
        try:
            return ApproximateIndex.unpack(*stored)
        except ValueError as error:
            say(f"note: the index of {layer} is made anew ({error})")
    say(f"an index of the {rows.rows:,} vectors of {layer} is built and kept in the run; --exact does without")
    shown: dict[str, Progress] = {}

    def told(what: str, done: int, total: int) -> None:
        shown.setdefault(what, Progress(what, total, "vectors")).move_to(done, total)

    try:
        index = build_index(rows, metric, threads=threads, told=told)
    finally:
        for bar in shown.values():
            bar.close()
    say(f"it finds {index.info.recall:.1%} of the {index.info.k} nearest ({index.info.sample} vectors asked)")
    try:
        write_index(run.place, folder, metric, *index.pack(), made_of)
    except NotWritableError as error:
        say(f"note: the index is not kept: {error}")
    return index


def _made_of(run: Run, layer: str, rows: LayerVectors) -> str:
    """A hash of everything that the vectors of a layer depend on."""
    info = run.info
    parts = [info["config"], info["model"]["fingerprint"], info["data"]["fingerprint"], run.layer(layer)]
    samples = hashlib.sha256(rows.samples.astype("<i8").tobytes()).hexdigest()
    return hashlib.sha256(json.dumps([parts, info["data"]["samples"], samples], sort_keys=True).encode()).hexdigest()
