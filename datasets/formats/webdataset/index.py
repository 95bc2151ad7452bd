"""Where every sample of a set of tars lies: found once from the tars' headers, then kept in the cache.

The index is one Arrow file that opens by mapping it to memory: a row a sample, in the order of the tars and of the
samples in them, with the key, the tar's number, the class label, and offset and size of the image and of each mask.
"""

from __future__ import annotations

import json
import zlib
from contextlib import suppress
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from microtome.datasets.base import Remark
from microtome.datasets.caches import cached
from microtome.datasets.formats.webdataset.samples import Survey, survey
from microtome.datasets.formats.webdataset.shards import Shards

_VERSION = "webdataset 2"


class Index:
    """What an index file holds.

    planes: every NAME of a member KEY.NAME.png, by name; remarks: what was noticed in the tars; damage: {sample: why},
    those behind which their tar is damaged; tars: (N,) int64 number of the tar; labels: (N,) int64, -1 = none; places:
    for the image and then for each plane (N, 2) int64 offset and size, offset 0 = no mask
    """

    def __init__(self, batch: pa.RecordBatch) -> None:
        said = json.loads(batch.schema.metadata[b"webdataset"])
        self.planes: tuple[str, ...] = tuple(said["planes"])
        self.remarks = tuple(Remark(text, count, tuple(examples)) for text, count, examples in said["remarks"])
        self.damage = {int(row): str(why) for row, why in said["damage"]}
        self._batch = batch
        self._keys = batch.column("key")
        self.tars = _values(batch, "tar")
        self.labels = _values(batch, "label")
        self.places: tuple[NDArray[np.int64], ...] = tuple(
            _values(batch, f"place {number}").reshape(-1, 2) for number in range(1 + len(self.planes))
        )

    def __len__(self) -> int:
        return len(self.tars)

    def key(self, index: int) -> bytes:
        """The key of a sample within its tar."""
        key: bytes = self._keys[index].as_py()
        return key


def open_index(shards: Shards) -> Index:
    """The index of `shards`, from the cache where it is there and whole. Raises UsageError (see `survey`)."""
    found: list[pa.RecordBatch] = []

    def make(path: Path) -> None:
        found.append(found[0] if found else _batch(survey(shards)))
        with suppress(OSError):  # a full disk: this process has the index all the same
            _write(found[0], path)

    tars = (f"{name} {state}" for name, state in zip(shards.names, shards.states, strict=True))
    state = "\n".join([_VERSION, str(shards.root), *tars])
    path = cached("webdataset", state, ".arrow", make)
    if not found:
        with suppress(pa.ArrowInvalid, OSError, LookupError, ValueError):
            return Index(_load(path))
        with suppress(OSError):
            path.unlink()
        cached("webdataset", state, ".arrow", make)
    return Index(found[0] if found else _batch(survey(shards)))


def _batch(found: Survey) -> pa.RecordBatch:
    """The survey as the one record batch of an index file, with a checksum over its columns."""
    keys = pa.LargeBinaryArray.from_buffers(
        pa.large_binary(), len(found.tars), [None, pa.py_buffer(found.key_ends), pa.py_buffer(found.keys)]
    )
    pairs = [pa.FixedSizeListArray.from_arrays(pa.array(places.reshape(-1)), 2) for places in found.places]
    columns = {"key": keys, "tar": pa.array(found.tars), "label": pa.array(found.labels)}
    columns |= {f"place {number}": pair for number, pair in enumerate(pairs)}
    batch = pa.RecordBatch.from_pydict(columns)
    said = {
        "planes": found.planes,
        "remarks": [(remark.text, remark.count, remark.examples) for remark in found.remarks],
        "damage": list(found.damage.items()),
        "checksum": _checksum(batch),
    }
    return batch.replace_schema_metadata({"webdataset": json.dumps(said)})


def _write(batch: pa.RecordBatch, path: Path) -> None:
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, batch.schema) as writer:
        writer.write_batch(batch)


def _load(path: Path) -> pa.RecordBatch:
    """The record batch of an index file, mapped to memory. Raises ValueError or what Arrow does where it is damaged."""
    batch = pa.ipc.open_file(pa.memory_map(str(path))).get_batch(0)
    if json.loads(batch.schema.metadata[b"webdataset"])["checksum"] != _checksum(batch):
        raise ValueError(f"{path} is damaged")
    return batch


def _checksum(batch: pa.RecordBatch) -> int:
    total = zlib.crc32(str(batch.schema.remove_metadata()).encode())
    for column in batch.columns:
        for buffer in column.buffers():
            total = zlib.crc32(buffer, total) if buffer is not None else total
    return total


def _values(batch: pa.RecordBatch, name: str) -> NDArray[np.int64]:
    column = batch.column(name)
    column = column.values if pa.types.is_fixed_size_list(column.type) else column
    values: NDArray[np.int64] = column.to_numpy(zero_copy_only=True)
    return values
