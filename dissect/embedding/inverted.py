"""An inverted file of many vectors, to be asked for the neighbours of its own vectors.

Vectors are sorted into lists by the nearest of many centres (faiss, IVF), along their first principal components; those
of the lists near a vector are its candidates, which are ranked by their distances along more components, in float16.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from microtome.dissect.embedding.parallel import faiss_threads
from microtome.dissect.embedding.pca import PCA
from microtome.dissect.embedding.vectors import Floats, Vectors, blocks, gather

Found = tuple[NDArray[np.int32], NDArray[np.float32]]
"""(n, k) neighbours, nearest first, and their distances."""

COARSE = 96
"""Principal components along which candidates are sought; they are then ranked along `FINE`."""
FINE = 512
CANDIDATES = 3
"""Times k, plus one: how many are ranked anew."""

LISTS_PER_ROOT = 5.0
PROBES, SCANNED = 24, 5000
"""Lists that are looked at, at least, and as many more as hold so many vectors."""
FULL_BYTES = 2**29
"""Vectors that take no more are stored in float32: in float16 those of a tight cluster cannot be told apart."""

TRAINED_PER_LIST = 32
TRAINING = 4
QUERIES = 8192
MEASURED = 4096
EDGE = np.float32(1000.0)
"""Of what is stored, times the usual size of a component: its square, summed, stays within float32."""


class _Rotated:
    """Vectors along their principal components, at most `FINE` of them, moved and scaled to what float16 holds well.

    Their distances are the same but for `scale`. Middle and scale are medians of some, so that a few vectors far away
    do not cost all others their digits; those lie at the edge of what float16 holds.
    """

    def __init__(self, vectors: Vectors, pca: PCA) -> None:
        self._vectors = vectors
        self._mean = pca.mean.astype(np.float32)
        self._along = np.ascontiguousarray(pca.components[:FINE].T, dtype=np.float32)
        self.rows, self.dims = vectors.rows, self._along.shape[1]
        some = self._turned(_random_rows(vectors, MEASURED, 0))
        self._middle = np.median(some, axis=0)
        length = float(np.median(np.linalg.norm(some - self._middle, axis=1)))
        self.scale = length / self.dims**0.5 or float(np.sqrt(pca.total / vectors.dims)) or 1.0

    def _turned(self, rows: Floats) -> Floats:
        return np.asarray((rows - self._mean) @ self._along, dtype=np.float32)

    def read(self, start: int, stop: int) -> Floats:
        """Rows start ... stop - 1."""
        found = self._turned(self._vectors.read(start, stop))
        found -= self._middle
        found /= np.float32(self.scale)
        return np.clip(found, -EDGE, EDGE, out=found)


@dataclass(frozen=True)
class InvertedFile:
    """lists: which vectors lie near which centre, by `COARSE` components (an index of faiss, IVF); stored: all vectors
    by `FINE` components (a flat index of faiss); scale: what distances are to be multiplied by."""

    lists: Any
    stored: Any
    scale: float

    @classmethod
    def build(cls, vectors: Vectors, pca: PCA, seed: int, threads: int) -> InvertedFile:
        """The file of `vectors`, whose principal components are `pca`; the same for any number of threads."""
        import faiss

        rotated = _Rotated(vectors, pca)
        fine, coarse = rotated.dims, min(rotated.dims, COARSE)
        count = int(LISTS_PER_ROOT * vectors.rows**0.5)
        centres, half = faiss.IndexFlatL2(coarse), faiss.ScalarQuantizer.QT_fp16
        lists: Any
        stored: Any
        if bytes_a_number(vectors.rows, fine) == 4:
            lists, stored = faiss.IndexIVFFlat(centres, coarse, count), faiss.IndexFlatL2(fine)
        else:
            lists = faiss.IndexIVFScalarQuantizer(centres, coarse, count, half, faiss.METRIC_L2, False)
            stored = faiss.IndexScalarQuantizer(fine, half)
        lists.cp.seed, lists.cp.niter = seed + 1, TRAINING
        lists.cp.max_points_per_centroid, lists.cp.min_points_per_centroid = TRAINED_PER_LIST, 1
        with faiss_threads(threads):
            lists.train(np.ascontiguousarray(_random_rows(rotated, TRAINED_PER_LIST * count, seed)[:, :coarse]))
            stored.train(np.zeros((1, fine), np.float32))
            stored.codes.resize(vectors.rows * stored.code_size)  # else it doubles as it grows, and is there twice
            stored.codes.resize(0)
            for _, block in blocks(rotated):
                lists.add(np.ascontiguousarray(block[:, :coarse]))
                stored.add(block)
        return cls(lists, stored, rotated.scale)

    @property
    def rows(self) -> int:
        """How many vectors it holds."""
        return int(self.stored.ntotal)

    @property
    def info(self) -> dict[str, Any]:
        """How it searches."""
        components = [self.lists.d, self.stored.d]
        return {"method": "ivf", "components": components, "lists": self.lists.nlist, "probes": self.probes}

    @property
    def probes(self) -> int:
        """Lists that are looked at for a vector."""
        lists = int(self.lists.nlist)
        return min(lists, max(PROBES, -(-SCANNED * lists // max(1, self.rows))))

    def order(self) -> NDArray[np.int64]:
        """The vectors list by list: asked for in this order, neighbours find each other in the processor's cache."""
        import faiss

        lists = self.lists.invlists
        parts = [
            faiss.rev_swig_ptr(lists.get_ids(number), lists.list_size(number))
            for number in range(self.lists.nlist)
            if lists.list_size(number)
        ]
        return np.concatenate(parts)

    def search(self, rows: NDArray[np.int64], k: int, threads: int) -> Found:
        """The k nearest others of each of its own vectors `rows` (n,)."""
        import faiss

        fine, coarse = self.stored.d, self.lists.d
        first = faiss.LinearTransform(fine, coarse, False)
        faiss.copy_array_to_vector(np.eye(coarse, fine, dtype=np.float32).ravel(), first.A)
        first.is_trained = True
        self.lists.nprobe = self.probes
        refined = faiss.IndexRefine(faiss.IndexPreTransform(first, self.lists), self.stored)
        refined.k_factor = CANDIDATES
        indices = np.empty((len(rows), k), np.int32)
        distances = np.empty((len(rows), k), np.float32)
        with faiss_threads(threads):
            for start in range(0, len(rows), QUERIES):
                mine = rows[start : start + QUERIES]
                squared, found = refined.search(self.stored.reconstruct_batch(mine), k + 1)
                found, squared = without_oneself(found, squared, mine)
                indices[start : start + len(mine)] = found
                distances[start : start + len(mine)] = np.sqrt(np.maximum(squared, 0.0)) * np.float32(self.scale)
        return indices, distances

    def to_arrays(self) -> dict[str, NDArray[np.generic]]:
        """As named arrays; those of the indexes hold what faiss writes to its files."""
        import faiss

        scale = np.array([self.scale])
        return {
            "lists": faiss.serialize_index(self.lists),
            "stored": faiss.serialize_index(self.stored),
            "scale": scale,
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[np.generic]]) -> InvertedFile:
        """Again, from copies of `to_arrays`."""
        import faiss

        lists, stored = (faiss.deserialize_index(arrays[name].astype(np.uint8)) for name in ("lists", "stored"))
        return cls(lists, stored, float(arrays["scale"].astype(np.float64)[0]))


def bytes_a_number(rows: int, dims: int) -> int:
    """In which so many vectors are stored: 4, or 2 where they would take too much."""
    return 4 if 4 * rows * min(dims, FINE) <= FULL_BYTES else 2


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
    """`count` different rows, all where there are fewer, in ascending order."""
    count = min(count, vectors.rows)
    return gather(vectors, np.sort(np.random.default_rng(seed).choice(vectors.rows, count, replace=False)))
