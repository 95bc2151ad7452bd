"""The Zarr arrays of a run: created at full length up front, written one whole shard at a time.

One shard is one file of each array: `arrays.zarr/NAME/c/SHARD/0/...`. Floats are filled with NaN, so that a hole is
never mistaken for silence. Codec and chunks are measured choices (docs/performance.md): zstd level 1 without a
shuffle filter, chunks of 32 samples by at least 16 channels.
"""

from __future__ import annotations

import json
import math
import threading
import zlib
from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.abc.store import Store
from zarr.codecs import ZstdCodec

from microtome.storage.errors import MicrotomeError, RunDamagedError
from microtome.storage.files import Written
from microtome.storage.places import Place, name_of, writing_to
from microtome.storage.shard_files import ZSTD_CHECKSUM, ZSTD_LEVEL, ShardLayout, limit_compressors
from microtome.storage.shards import ShardPlan, chunk_channels

ROOT = "arrays.zarr"

LABELS = "labels"
IMAGE_LABELS = "image_labels"
SEGMENTS = "segments"
THUMBNAILS, PRESENCE = "thumbnails", "presence"
MORE_ARRAYS = (THUMBNAILS, PRESENCE)
"""Arrays of samples that runs of earlier versions lack; run.json says which of them a run has."""
THUMBNAIL_SIDE = 32
ACTIVATIONS, PEAKS, PEAK_AT, MEANS = "activations", "peaks", "peak_at", "means"

_OPENING = threading.Lock()  # zarr.config belongs to the whole process

ArrayND = NDArray[np.generic]
ZarrArray: TypeAlias = "zarr.Array[Any]"


def limit_threads(count: int) -> None:
    """Have `count` threads of this process compress; Zarr has as many for what it reads (its first reading counts)."""
    limit_compressors(count)
    zarr.config.set({"threading.max_workers": count})


def layer_array(folder: str, name: str) -> str:
    """Path of a layer's array inside arrays.zarr."""
    return f"layers/{folder}/{name}"


def presence_bytes(concepts: int) -> int:
    """Bytes of a sample in array `presence`: a bit for each concept id, and for 0, which is never set."""
    return -(-(concepts + 1) // 8)


def shard_key(name: str, shard: int, dimensions: int) -> str:
    """The file of a run that holds `shard` of array `name`."""
    return "/".join([ROOT, name, "c", str(shard), *"0" * (dimensions - 1)])


class RunArrays:
    """The arrays below `RUN/arrays.zarr`. Safe to use from several threads, one writer a shard."""

    def __init__(self, place: Place, plan: ShardPlan) -> None:
        self._place = place
        self._plan = plan
        self._store = place.zarr_store(ROOT)
        self._open: dict[str, ZarrArray] = {}
        self._layouts: dict[str, ShardLayout | None] = {}

    def __reduce__(self) -> tuple[type[RunArrays], tuple[Place, ShardPlan]]:
        return RunArrays, (self._place, self._plan)

    def create(
        self, name: str, item_shape: tuple[int, ...], dtype: str, *, channels: bool = False, grow: bool = False
    ) -> None:
        """Create array `name` of shape (N, *item_shape) unless it is there already with that shape and dtype.

        channels: the first item axis is split into chunks, so that one unit reads without all others.
        grow: an array of fewer samples is made longer; what it holds stays.
        """
        shape = (self._plan.samples, *item_shape)
        if 0 in shape:
            return
        with writing_to(self._place.url):
            self._create(name, shape, dtype, channels, grow)

    def _create(self, name: str, shape: tuple[int, ...], dtype: str, channels: bool, grow: bool) -> None:
        store = self._group_store()
        item_shape = shape[1:]
        if self.exists(name):
            existing = self._array(name)
            if existing.shape == shape and existing.dtype == np.dtype(dtype):
                return
            alike = (existing.shape[1:], existing.dtype) == (shape[1:], np.dtype(dtype))
            if grow and alike and existing.shape[0] < shape[0]:
                existing.resize(shape)
                return
            raise RunDamagedError(
                f"{self._named(name)} has shape {existing.shape} {existing.dtype}, expected {shape} {dtype}"
            )
        chunk_item = item_shape
        if channels:
            map_bytes = math.prod(item_shape[1:]) * np.dtype(dtype).itemsize
            chunk_item = (chunk_channels(item_shape[0], map_bytes, self._plan.chunk), *item_shape[1:])
        shard_item = tuple(-(-n // c) * c for n, c in zip(item_shape, chunk_item, strict=True))
        zarr.create_array(
            store=store,
            name=name,
            shape=shape,
            chunks=(self._plan.chunk, *chunk_item),
            shards=(self._plan.shard, *shard_item),
            dtype=dtype,
            compressors=ZstdCodec(level=ZSTD_LEVEL, checksum=ZSTD_CHECKSUM),
            fill_value=float("nan") if np.dtype(dtype).kind == "f" else 0,
        )

    def _group_store(self) -> Store:
        """The store, with a group at its root, so that Zarr's own tools open it as a whole."""
        if self._place.size(f"{ROOT}/zarr.json") is None:
            zarr.create_group(store=self._store)
        return self._store

    def write_shard(self, name: str, shard: int, values: ArrayND) -> list[Written]:
        """Write all samples of `shard` into array `name`; returns the file that now holds them.

        No file where an axis is empty. Raises ValueError where `values` are not exactly the shard's samples.
        """
        if values.size == 0:
            return []
        rows = self._plan.samples_of(shard)
        array, layout = self._array(name), self._layout(name)
        if values.shape != (expected := (len(rows), *array.shape[1:])):
            raise ValueError(f"shard {shard} of {name} has shape {expected}, not {values.shape}")
        if layout is None or layout.shard[0] != self._plan.shard:
            raise RunDamagedError(f"{self._named(name)} is not laid out as this version of Microtome writes arrays")
        content = layout.content(values)
        key = shard_key(name, shard, values.ndim)
        if self._place.path is not None:
            self._place.delete([key])  # on a full disk the new one may need its room
        self._place.write(key, content)
        return [Written(key, len(content), zlib.crc32(content))]

    def read_shard(self, name: str, shard: int) -> ArrayND:
        """All samples of `shard` from array `name`, decoded in this thread."""
        rows = self._plan.samples_of(shard)
        array, layout = self._array(name), self._layout(name)
        if layout is None or layout.shard[0] != self._plan.shard:
            return self.read(name, rows.start, rows.stop)
        key = shard_key(name, shard, array.ndim)
        try:
            return layout.read(self._place.read_many([key]).get(key), (len(rows), *array.shape[1:]))
        except (ValueError, OSError, RuntimeError) as error:
            raise self._damaged(name, rows.start, rows.stop, error) from error

    def read(self, name: str, start: int, stop: int) -> ArrayND:
        """Samples start ... stop - 1 of array `name`."""
        array = self._array(name)
        try:
            return np.asarray(array[start:stop])
        except MicrotomeError:
            raise
        except (ValueError, OSError, RuntimeError) as error:
            raise self._damaged(name, start, stop, error) from error

    def exists(self, name: str) -> bool:
        """Whether array `name` was created (arrays with an empty axis are not)."""
        return self._place.size(f"{ROOT}/{name}/zarr.json") is not None

    def presence(self, start: int, stop: int, concept: int) -> NDArray[np.bool_]:
        """(stop - start,) whether concept `concept` (its id) occurs in each of the samples, from array `presence`."""
        bits = self.read(PRESENCE, start, stop)[:, concept // 8]
        found: NDArray[np.bool_] = ((bits.astype(np.uint8) >> np.uint8(concept % 8)) & 1).astype(np.bool_)
        return found

    def describe(self) -> Mapping[str, tuple[int, ...]]:
        """Shape of every array, by path."""
        keys = sorted(key for key, _ in self._place.list(f"{ROOT}/") if key.endswith("/zarr.json"))
        found = self._place.read_many(keys)
        arrays = [key for key, content in found.items() if json.loads(content)["node_type"] == "array"]
        names = [key.removeprefix(f"{ROOT}/").removesuffix("/zarr.json") for key in arrays]
        return {name: self._array(name).shape for name in names}

    def _array(self, name: str) -> ZarrArray:
        array = self._open.get(name)
        if array is None:
            try:
                with _OPENING, zarr.config.set({"array.write_empty_chunks": True}):  # looking for NaN costs more
                    array = zarr.open_array(store=self._store, path=name, mode="r+")
            except MicrotomeError:
                raise
            except (OSError, ValueError, KeyError) as error:
                raise RunDamagedError(f"{self._named(name)} cannot be opened as a Zarr array ({error})") from error
            self._open[name] = array
        return array

    def _layout(self, name: str) -> ShardLayout | None:
        if name not in self._layouts:
            self._layouts[name] = ShardLayout.of(self._array(name))
        return self._layouts[name]

    def _damaged(self, name: str, start: int, stop: int, error: Exception) -> RunDamagedError:
        return RunDamagedError(
            f"{self._named(name)}, samples {start} to {stop - 1}, cannot be read ({error}); "
            f"find and mend the damage with: microtome verify {self._place.path or self._place.url} --repair"
        )

    def _named(self, name: str) -> str:
        return name_of(self._place, f"{ROOT}/{name}")
