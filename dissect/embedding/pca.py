"""Exact principal components of more vectors than fit in memory, from merged moments.

Pearson (1901), "On lines and planes of closest fit to systems of points in space"; moments of parts are merged by the
pairwise formula of Chan, Golub and LeVeque (1979), "Updating formulae and a pairwise algorithm for computing sample
variances". Every block is centred on its own mean before it is squared, so that a mean far from zero costs no digits;
products and sums are float64: in float32 components of a ten-thousandth of the largest variance lose their digits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from microtome.dissect.embedding.parallel import one_blas_thread, ordered
from microtome.dissect.embedding.vectors import Vectors, blocks, spans
from microtome.storage.errors import UsageError

Doubles = NDArray[np.float64]

ROWS_AT_ONCE = 4096
NOTHING = 1e-9
"""Of the largest variance: a component that varies less only holds the rounding of float32, and whitens to zero."""

WHITENED, VECTORS_A_COMPONENT = 64, 10
"""Whitened vectors have so many components at most, and one for so many vectors there are: along more of them noise
counts as much as what tells images apart, and in the end all are equally far from each other."""


@dataclass(slots=True)
class Moments:
    """What is known of the vectors seen: updated in place, mergeable.

    count: how many; mean: (C,) float64; scatter: (C, C) float64, the sum of (x - mean)(x - mean)'.
    """

    count: int
    mean: Doubles
    scatter: Doubles

    @classmethod
    def empty(cls, dims: int) -> Moments:
        """Nothing seen yet of vectors of `dims` numbers."""
        return cls(0, np.zeros(dims), np.zeros((dims, dims)))

    def update(self, block: NDArray[np.floating]) -> None:
        """Add the rows of `block`, (n, C)."""
        for start in range(0, len(block), ROWS_AT_ONCE):
            rows = block[start : start + ROWS_AT_ONCE].astype(np.float64)
            mean = rows.mean(axis=0)
            rows -= mean
            self.merge(Moments(len(rows), mean, rows.T @ rows))

    def merge(self, other: Moments) -> None:
        """Add what `other` has seen. The result depends on the order in its last bits alone."""
        if not other.count:
            return
        count = self.count + other.count
        apart = other.mean - self.mean
        self.scatter += other.scatter
        self.scatter += np.outer(apart, apart * (self.count * other.count / count))
        self.mean += apart * (other.count / count)
        self.count = count

    def to_arrays(self) -> dict[str, NDArray[np.generic]]:
        """The state, as named arrays."""
        return {"count": np.array([self.count], np.int64), "mean": self.mean, "scatter": self.scatter}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[np.generic]]) -> Moments:
        """The state again, from copies of `to_arrays`."""
        mean, scatter = (arrays[name].astype(np.float64) for name in ("mean", "scatter"))
        return cls(int(arrays["count"].astype(np.int64)[0]), mean, scatter)


def moments(vectors: Vectors, threads: int = 1) -> Moments:
    """The moments of all vectors, read once. The same bits for any number of threads."""

    def of_span(span: tuple[int, int]) -> Moments:
        found = Moments.empty(vectors.dims)
        found.update(vectors.read(*span))
        return found

    whole = Moments.empty(vectors.dims)
    with one_blas_thread():
        for part in ordered(of_span, spans(vectors), threads):
            whole.merge(part)
    return whole


@dataclass(frozen=True, slots=True)
class PCA:
    """Directions of greatest variance.

    mean: (C,); components: (K, C), orthonormal rows, greatest variance first, the largest entry of each positive;
    variance: (K,) along each, over count - 1; total: variance along all directions. All float64.
    """

    mean: Doubles
    components: Doubles
    variance: Doubles
    total: float

    @classmethod
    def fit(cls, seen: Moments, components: int | None = None) -> PCA:
        """The first `components` (all where None) principal components of the vectors that `seen` has seen.

        There are no more than dimensions, nor than vectors less one. Raises UsageError for fewer than two vectors, and
        for vectors that are not finite.
        """
        if seen.count < 2:
            raise UsageError(f"principal components need two vectors or more, not {seen.count}")
        if not np.isfinite(seen.scatter).all():
            raise UsageError("principal components need finite vectors; some hold NaN or infinity")
        dims = len(seen.mean)
        kept = max(1, min(dims, seen.count - 1, components or dims))
        with one_blas_thread():
            values, columns = scipy.linalg.eigh(
                seen.scatter / (seen.count - 1), subset_by_index=(dims - kept, dims - 1)
            )
        rows = np.ascontiguousarray(columns.T[::-1])
        largest = np.abs(rows).argmax(axis=1)
        rows *= np.where(rows[np.arange(kept), largest] < 0, -1.0, 1.0)[:, None]
        total = float(np.trace(seen.scatter)) / (seen.count - 1)
        return cls(seen.mean.copy(), rows, np.maximum(values[::-1], 0.0), total)

    @property
    def ratio(self) -> Doubles:
        """(K,) share of all variance that lies along each component; zeros where nothing varies."""
        return self.variance / self.total if self.total > 0 else np.zeros_like(self.variance)

    def first(self, count: int) -> PCA:
        """The first `count` components alone, all where there are fewer."""
        return PCA(self.mean, self.components[:count], self.variance[:count], self.total)

    def transform(self, block: NDArray[np.floating], whiten: bool = False) -> NDArray[np.float32]:
        """Coordinates of the rows of `block`, (n, C), along the components: (n, K) float32.

        whiten: each divided by its standard deviation, so that all count alike; those that do not vary become 0.
        """
        found = np.empty((len(block), len(self.components)), np.float32)
        along = (self.components * self.whitening[:, None] if whiten else self.components).T
        for start in range(0, len(block), ROWS_AT_ONCE):
            rows = block[start : start + ROWS_AT_ONCE].astype(np.float64)
            rows -= self.mean
            found[start : start + len(rows)] = rows @ along
        return found

    @property
    def whitening(self) -> Doubles:
        """(K,) what whitened coordinates are multiplied by: 1 / standard deviation, 0 for what does not vary."""
        varies = self.variance > NOTHING * self.variance.max(initial=0.0)
        return np.where(varies, 1.0 / np.sqrt(np.where(varies, self.variance, 1.0)), 0.0)

    def to_arrays(self) -> dict[str, NDArray[np.generic]]:
        """As named arrays."""
        total = np.array([self.total])
        return {"mean": self.mean, "components": self.components, "variance": self.variance, "total": total}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[np.generic]]) -> PCA:
        """Again, from copies of `to_arrays`."""
        mean, components, variance, total = (
            arrays[name].astype(np.float64) for name in ("mean", "components", "variance", "total")
        )
        return cls(mean, components, variance, float(total[0]))


def whitened_components(vectors: int) -> int:
    """Components along which so many vectors are compared, whitened."""
    return max(1, min(WHITENED, vectors // VECTORS_A_COMPONENT))


class PCAVectors:
    """Other vectors along principal components, transformed as they are read."""

    def __init__(self, vectors: Vectors, pca: PCA, whiten: bool = False) -> None:
        self._vectors, self._pca, self._whiten = vectors, pca, whiten
        self.rows, self.dims = vectors.rows, len(pca.components)

    def read(self, start: int, stop: int) -> NDArray[np.float32]:
        """Rows start ... stop - 1: (stop - start, K) float32."""
        return self._pca.transform(self._vectors.read(start, stop), self._whiten)


def coordinates(vectors: Vectors, pca: PCA | None) -> NDArray[np.float32]:
    """(N, 2) along the first two principal components; 0 along those that there are not."""
    found = np.zeros((vectors.rows, 2), np.float32)
    if pca is not None:
        first = pca.first(2)
        for start, block in blocks(vectors):
            found[start : start + len(block), : len(first.components)] = first.transform(block)
    return found
