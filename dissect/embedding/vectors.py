"""Vectors that need not fit in memory, read a range of rows at a time: an array, or a layer's means in a run."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from microtome.storage.arrays import MEANS, layer_array
from microtome.storage.errors import RunDamagedError, UsageError
from microtome.storage.run import Run

Floats = NDArray[np.float32]

BLOCK_BYTES = 32 * 2**20
"""About how much a block of rows takes where nobody asks for another size."""

NEAR = 1024
"""Rows apart that are read at once: what lies between them comes from the same shard, or nearly."""


class Vectors(Protocol):
    """`rows` vectors of `dims` numbers each. `read` may be called from several threads at once."""

    @property
    def rows(self) -> int:
        """How many vectors there are."""
        ...

    @property
    def dims(self) -> int:
        """Numbers in each."""
        ...

    def read(self, start: int, stop: int) -> Floats:
        """Rows start ... stop - 1: (stop - start, dims) float32, C-contiguous; not to be written to."""
        ...


class ArrayVectors:
    """The rows of an array in memory, or of a np.memmap. array: (rows, dims), of any real type."""

    def __init__(self, array: NDArray[np.generic]) -> None:
        if array.ndim != 2:
            raise UsageError(f"vectors come as an array of shape (rows, dims), not {array.shape}")
        self._array = array
        self.rows, self.dims = array.shape

    def read(self, start: int, stop: int) -> Floats:
        """Rows start ... stop - 1; a view where the array is C-contiguous float32 already."""
        return np.ascontiguousarray(self._array[start:stop], dtype=np.float32)


class SampleVectors:
    """An array of a run that has a row for every sample, without the samples that could not be read.

    samples: (rows,) int64, ascending: which sample each row is. What a sample has is laid out as one vector.
    Raises UsageError where the run has not read its images yet.
    """

    def __init__(self, run: Run, name: str, dims: int) -> None:
        table = run.table("samples")
        if "status" not in table:
            raise UsageError(f"{run.url} has not read its images yet; go on with: microtome audit --resume {run.url}")
        self.samples: NDArray[np.int64] = np.flatnonzero(table["status"].to_numpy() == "ok").astype(np.int64)
        self.rows, self.dims = len(self.samples), dims
        self._run, self._name = run, name

    def read(self, start: int, stop: int) -> Floats:
        """Rows start ... stop - 1."""
        wanted = self.samples[start:stop]
        found = np.empty((len(wanted), self.dims), np.float32)
        size = self._run.plan.shard
        for shard in np.unique(wanted // size).tolist():
            low, high = np.searchsorted(wanted, (shard * size, (shard + 1) * size))
            found[low:high] = self._read_in_shard(shard, wanted[low:high]).reshape(-1, self.dims)
        return found

    def _read_in_shard(self, shard: int, samples: NDArray[np.int64]) -> NDArray[np.generic]:
        """Some samples of one shard; of few of them only the chunks that hold them."""
        size, chunk = self._run.plan.shard, self._run.plan.chunk
        if len(samples) <= chunk < size:
            first = int(samples[0])
            return self._run.arrays.read(self._name, first, int(samples[-1]) + 1)[samples - first]
        return self._run.arrays.read_shard(self._name, shard)[samples - shard * size]


class LayerVectors(SampleVectors):
    """The spatial mean of every unit of a layer, one row for each sample of the run that could be read.

    Raises UnknownNameError for a layer that the run does not have.
    """

    def __init__(self, run: Run, layer: str) -> None:
        entry = run.layer(layer)
        super().__init__(run, layer_array(entry["folder"], MEANS), entry["units"])
        self._layer = layer

    @classmethod
    def finite(cls, run: Run, layer: str) -> LayerVectors:
        """The same without the samples for which the network gives NaN or infinity there, as units.parquet knows."""
        vectors = cls(run, layer)
        if not run.has_layer_table(layer, "units"):
            return vectors
        units = run.layer_table(layer, "units")
        if not any(name in units and units[name].any() for name in ("nan", "infinite")):
            return vectors
        finite = np.zeros(run.plan.samples, np.bool_)
        for shard, samples in enumerate(run.plan):
            stored = run.arrays.read_shard(vectors._name, shard).astype(np.float32)
            finite[samples.start : samples.stop] = np.isfinite(stored).all(axis=1)
        vectors.samples = vectors.samples[finite[vectors.samples]]
        vectors.rows = len(vectors.samples)
        return vectors

    def read(self, start: int, stop: int) -> Floats:
        """Rows start ... stop - 1. Raises RunDamagedError where one of them is not finite."""
        found = super().read(start, stop)
        finite = np.isfinite(found).all(axis=1)
        if not finite.all():
            sample = int(self.samples[start:stop][~finite][0])
            raise RunDamagedError(
                f"layer {self._layer} has means that are not finite (in sample {sample}, which was readable): "
                f"its numbers overflow, or a shard is missing; see microtome verify {self._run.url}"
            )
        return found


def block_rows(dims: int) -> int:
    """Rows of a block of about `BLOCK_BYTES`."""
    return max(1, BLOCK_BYTES // (4 * max(1, dims)))


def blocks(vectors: Vectors, size: int | None = None) -> Iterator[tuple[int, Floats]]:
    """(first row, rows) of consecutive blocks of `size` rows, the last one shorter."""
    for start, stop in spans(vectors, size):
        yield start, vectors.read(start, stop)


def spans(vectors: Vectors, size: int | None = None) -> list[tuple[int, int]]:
    """(first row, row after the last) of consecutive blocks of `size` rows, the last one shorter."""
    size = size or block_rows(vectors.dims)
    return [(start, min(start + size, vectors.rows)) for start in range(0, vectors.rows, size)]


def gather(vectors: Vectors, wanted: NDArray[np.int64]) -> Floats:
    """The rows `wanted` of `vectors`, in any order, repeats allowed: (len(wanted), dims) float32.

    Rows that lie near each other are read at once.
    """
    order = np.argsort(wanted, kind="stable")
    rows, found = wanted[order], np.empty((len(wanted), vectors.dims), np.float32)
    size, start = block_rows(vectors.dims), 0
    far = np.flatnonzero(np.diff(rows) > NEAR) + 1
    for stop in [*far.tolist(), len(rows)]:
        while start < stop:
            first = int(rows[start])
            end = min(stop, int(np.searchsorted(rows, first + size)))
            found[order[start:end]] = vectors.read(first, int(rows[end - 1]) + 1)[rows[start:end] - first]
            start = end
    return found


def in_memory(vectors: Vectors, threads: int = 1) -> Floats:
    """All rows, (rows, dims) float32, read by `threads` threads; no copy where they are in memory already."""
    if isinstance(vectors, ArrayVectors):
        return vectors.read(0, vectors.rows)
    whole = np.empty((vectors.rows, vectors.dims), np.float32)

    def fill(span: tuple[int, int]) -> None:
        whole[span[0] : span[1]] = vectors.read(*span)

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(fill, spans(vectors)))
    return whole
