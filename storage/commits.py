"""What a stage has finished: one small record a shard, written after everything that it vouches for.

`commits/STAGE/SHARD.json` names the shard, the key of everything that the result depends on, and size and CRC-32
of the files that the shard wrote. A stage's small mergeable state lies beside it as `SHARD.safetensors.zst` and is
vouched for in the same way. A record that is absent, unreadable, of another key, or whose files have another size,
means: not done, do the shard again.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from numcodecs.zstd import Zstd
from numpy.typing import NDArray
from safetensors.numpy import load, save

from microtome.storage.errors import RunDamagedError
from microtome.storage.files import checksum, fsync_file, read_json, write_bytes, write_json

State = Mapping[str, NDArray[np.generic]]

_CODEC = Zstd(level=1)


class StageCommits:
    """The commit records of one stage. `root` is the run's folder; `key` hashes what the results depend on."""

    def __init__(self, root: Path, stage: str, key: str) -> None:
        self._root = root
        self._folder = root / "commits" / stage
        self._key = key
        self.stage = stage

    def commit(self, shard: int, state: State, files: Iterable[Path] = ()) -> None:
        """Record that `shard` is done: flush `files` to disk, store `state`, then write the record."""
        vouched = {}
        for path in files:
            fsync_file(path)
            vouched[path.relative_to(self._root).as_posix()] = list(checksum(path))
        packed = pack_state(state)
        write_bytes(self._state_path(shard), packed)
        record = {
            "shard": shard,
            "key": self._key,
            "state": [len(packed), zlib.crc32(packed)],
            "files": vouched,
        }
        write_json(self._record_path(shard), record)

    def done(self, shards: int) -> set[int]:
        """Those of the first `shards` shards that are committed under this key, with every file at its size."""
        return {shard for shard in range(shards) if self._is_valid(shard)}

    def is_done(self, shard: int) -> bool:
        """Whether `shard` is committed, as `done` judges it."""
        return self._is_valid(shard)

    def state(self, shard: int) -> dict[str, NDArray[np.generic]]:
        """The state that `shard` committed. Raises RunDamagedError where it is not what the record says."""
        try:
            packed = self._state_path(shard).read_bytes()
            size, crc = read_json(self._record_path(shard))["state"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RunDamagedError(f"stage {self.stage}, shard {shard}: no readable state ({error})") from error
        if (len(packed), zlib.crc32(packed)) != (size, crc):
            raise RunDamagedError(
                f"{self._state_path(shard)} is altered (its checksum is not that of its commit); "
                f"delete {self._record_path(shard)} and resume the audit"
            )
        return unpack_state(packed)

    def clear(self) -> None:
        """Forget every record of this stage (records first, then states)."""
        for pattern in ("*.json", "*.safetensors.zst"):
            for path in self._folder.glob(pattern):
                path.unlink(missing_ok=True)

    def _is_valid(self, shard: int) -> bool:
        try:
            record = read_json(self._record_path(shard))
            expected = {self._root / name: size for name, (size, _) in record["files"].items()}
            expected[self._state_path(shard)] = record["state"][0]
            return (
                record["shard"] == shard
                and record["key"] == self._key
                and all(path.stat().st_size == size for path, size in expected.items())
            )
        except (OSError, ValueError, LookupError, TypeError, AttributeError):  # absent, or not such a record at all
            return False

    def _record_path(self, shard: int) -> Path:
        return self._folder / f"{shard:06d}.json"

    def _state_path(self, shard: int) -> Path:
        return self._folder / f"{shard:06d}.safetensors.zst"


def pack_state(state: State) -> bytes:
    """Named arrays of numbers as zstd-compressed safetensors; the same arrays always give the same bytes."""
    return bytes(_CODEC.encode(save({name: np.asarray(array, order="C") for name, array in state.items()})))


def unpack_state(packed: bytes) -> dict[str, NDArray[np.generic]]:
    """The inverse of `pack_state`."""
    return dict(load(bytes(_CODEC.decode(packed))))
