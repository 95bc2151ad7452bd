"""Shards of a Zarr array as the files they are, made and read by the threads that have or want them.

Zarr's own reader and writer hand every chunk to an event loop and a pool of threads: reading a whole shard by them
takes 1.1 to 1.9 times as long, and writing one 1.5 to 1.8 times (`make bench BENCH=shards`). This module knows the
one layout that Microtome gives its arrays (Zarr v3, codec `sharding_indexed`: little-endian numbers, zstd, an index at
the end that CRC-32C guards); Zarr creates the arrays, and reads parts of shards. Any Zarr reader reads these files.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any, TypeVar

import google_crc32c
import numpy as np
from numcodecs.zstd import compress, decompress
from numpy.typing import NDArray
from zarr.codecs import BytesCodec, Crc32cCodec, ShardingCodec, ShardingCodecIndexLocation, ZstdCodec

if TYPE_CHECKING:
    import zarr

T = TypeVar("T")

INDEX_CRC_BYTES = 4
ABSENT = 2**64 - 1
"""Offset and length of a chunk that was never written."""
ZSTD_LEVEL, ZSTD_CHECKSUM = 1, True


class _Compressors:
    """The threads that compress, for all shards of this process: as many as cores, unless limited."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._count = os.cpu_count() or 1
        self._pool: ThreadPoolExecutor | None = None

    def limit(self, count: int) -> None:
        """Have `count` threads from now on; with one, whoever has a shard compresses it itself."""
        with self._lock:
            self._count, self._pool = count, None

    def map(self, function: Callable[[T], bytes], items: Iterable[T]) -> Iterator[bytes]:
        """`function` of every item, in order."""
        with self._lock:
            if self._pool is None and self._count > 1:
                self._pool = ThreadPoolExecutor(self._count, thread_name_prefix="compress")
            pool = self._pool
        return map(function, items) if pool is None else iter(pool.map(function, items))


_COMPRESSORS = _Compressors()


def limit_compressors(count: int) -> None:
    """Have `count` threads of this process compress."""
    _COMPRESSORS.limit(count)


@dataclass(frozen=True)
class ShardLayout:
    """How the shards of an array lie in their files: shapes of shard and chunk, dtype, and what a hole reads as."""

    shard: tuple[int, ...]
    chunk: tuple[int, ...]
    dtype: np.dtype[Any]
    fill: Any

    @classmethod
    def of(cls, array: zarr.Array[Any]) -> ShardLayout | None:
        """The layout of `array`; None where it is not the one that this reader knows."""
        codecs: tuple[object, ...] = getattr(array.metadata, "codecs", ())
        if len(codecs) != 1 or not isinstance(codecs[0], ShardingCodec) or array.shards is None:
            return None
        sharding = codecs[0]
        known = (
            [type(codec) for codec in sharding.codecs] == [BytesCodec, ZstdCodec]
            and [type(codec) for codec in sharding.index_codecs] == [BytesCodec, Crc32cCodec]
            and sharding.index_location == ShardingCodecIndexLocation.end
            and all(_is_little(codec) for codec in (sharding.codecs[0], sharding.index_codecs[0]))
        )
        if not known:
            return None
        return cls(array.shards, array.chunks, np.dtype(array.dtype).newbyteorder("<"), array.fill_value)

    def read(self, content: bytes | None, shape: tuple[int, ...]) -> NDArray[Any]:
        """The first `shape` of the shard whose file holds `content`; a hole where there is no file.

        Raises ValueError or RuntimeError where `content` is not such a file, or its checksums say it was altered.
        """
        if content is None:
            return np.full(shape, self.fill, self.dtype)
        values = np.empty(shape, self.dtype)
        scratch = np.empty(self.chunk, self.dtype)
        whole = memoryview(content)
        for (start, size), corner in zip(self._index(whole), self._corners(), strict=True):
            ends = [min(at + step, end) for at, step, end in zip(corner, self.chunk, shape, strict=True)]
            inside = tuple(slice(at, end) for at, end in zip(corner, ends, strict=True))
            target = values[inside]
            if 0 in target.shape:
                continue
            if start == size == ABSENT:
                target[...] = self.fill
                continue
            if start + size > len(whole):
                raise ValueError(f"a chunk ends at byte {start + size:,} of {len(whole):,}")
            direct = target.shape == self.chunk and target.flags.c_contiguous
            decoded = target if direct else scratch
            decompress(whole[start : start + size], decoded.reshape(-1).view(np.uint8))
            if not direct:
                target[...] = scratch[tuple(slice(length) for length in target.shape)]
        return values

    def content(self, values: NDArray[Any]) -> bytes:
        """The file of a shard that holds `values`, which may be shorter than a shard along any axis."""
        corners = list(self._corners())
        filled = [all(at < end for at, end in zip(corner, values.shape, strict=True)) for corner in corners]
        views = (
            values[tuple(slice(at, at + step) for at, step in zip(corner, self.chunk, strict=True))]
            for corner, some in zip(corners, filled, strict=True)
            if some
        )
        parts = _COMPRESSORS.map(self._compressed, views)
        index = np.full((len(corners), 2), ABSENT, "<u8")
        pieces, at = [], 0
        for number, some in enumerate(filled):
            if some:
                pieces.append(part := next(parts))
                index[number] = at, len(part)
                at += len(part)
        guarded = index.tobytes()
        return b"".join((*pieces, guarded, google_crc32c.value(guarded).to_bytes(INDEX_CRC_BYTES, "little")))

    def _compressed(self, values: NDArray[Any]) -> bytes:
        """A chunk that begins with `values`."""
        if values.shape == self.chunk:
            chunk = np.ascontiguousarray(values, self.dtype)
        else:
            chunk = np.full(self.chunk, self.fill, self.dtype)
            chunk[tuple(slice(length) for length in values.shape)] = values
        return bytes(compress(chunk.reshape(-1).view(np.uint8), ZSTD_LEVEL, ZSTD_CHECKSUM))

    def _corners(self) -> Iterator[tuple[int, ...]]:
        """Where each chunk begins, in the order of the index."""
        return product(*(range(0, long, step) for long, step in zip(self.shard, self.chunk, strict=True)))

    def _index(self, content: memoryview) -> list[list[int]]:
        """(offset, length) in bytes of every chunk."""
        chunks = math.prod(long // step for long, step in zip(self.shard, self.chunk, strict=True))
        size = 16 * chunks
        if len(content) < size + INDEX_CRC_BYTES:
            raise ValueError(f"{len(content):,} bytes cannot hold an index of {chunks:,} chunks")
        index = bytes(content[-size - INDEX_CRC_BYTES : -INDEX_CRC_BYTES])
        if google_crc32c.value(index) != int.from_bytes(content[-INDEX_CRC_BYTES:], "little"):
            raise ValueError("the checksum of its index is wrong")
        return np.frombuffer(index, "<u8").reshape(chunks, 2).tolist()


def _is_little(codec: object) -> bool:
    endian = getattr(codec, "endian", None)
    return getattr(endian, "value", endian) in ("little", None)
