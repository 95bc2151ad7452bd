"""What a stage has finished: one small record a shard, written after everything that it vouches for.

`commits/STAGE/SHARD.json` names the shard, the key of everything that the result depends on, and size and CRC-32
of the files that the shard wrote. A stage's small mergeable state lies beside it as `SHARD.safetensors.zst` and is
vouched for in the same way. A record that is absent, unreadable, of another key, or whose files have another size,
means: not done, do the shard again.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numcodecs.zstd import Zstd
from numpy.typing import NDArray
from safetensors.numpy import load, save

from microtome.storage.errors import RunDamagedError
from microtome.storage.files import Written, json_bytes
from microtome.storage.places import Place, name_of

State = Mapping[str, NDArray[np.generic]]

_CODEC = Zstd(level=1)
WRITERS = 16


class StageCommits:
    """The commit records of one stage of the run in `place`; `key` hashes what the results depend on."""

    def __init__(self, place: Place, stage: str, key: str) -> None:
        self._place = place
        self._folder = f"commits/{stage}/"
        self._key = key
        self.stage = stage

    def commit(self, shard: int, state: State, files: Iterable[Written] = ()) -> None:
        """Record that `shard` is done: have `files` on disk, store `state`, then write the record."""
        vouched = {key: [size, crc] for key, size, crc in files}
        self._place.flush(vouched)
        packed = pack_state(state)
        self._place.write(self._state_key(shard), packed)
        record = {
            "shard": shard,
            "key": self._key,
            "state": [len(packed), zlib.crc32(packed)],
            "files": vouched,
        }
        self._place.write(self._record_key(shard), json_bytes(record))

    def done(self, shards: int) -> set[int]:
        """Those of the first `shards` shards that are committed under this key, with every file at its size."""
        return self._valid(range(shards))

    def is_done(self, shard: int) -> bool:
        """Whether `shard` is committed, as `done` judges it."""
        return bool(self._valid([shard]))

    def _valid(self, shards: Sequence[int]) -> set[int]:
        records = self._place.read_many(self._recorded(shards))
        expected = {}
        for shard in shards:
            files = self._vouched(shard, records.get(self._record_key(shard)))
            if files is not None:
                expected[shard] = files
        sizes = self._place.sizes(key for files in expected.values() for key in files)
        return {
            shard for shard, files in expected.items() if all(sizes.get(key) == size for key, size in files.items())
        }

    def bytes_of(self, shard: int) -> int:
        """Bytes on disk that `shard`, which is committed, accounts for."""
        record = json.loads(self._place.read(self._record_key(shard)))
        return int(record["state"][0]) + sum(int(size) for size, _ in record["files"].values())

    def state(self, shard: int) -> dict[str, NDArray[np.generic]]:
        """The state that `shard` committed. Raises RunDamagedError where it is not what the record says."""
        try:
            packed = self._place.read(self._state_key(shard))
            size, crc = json.loads(self._place.read(self._record_key(shard)))["state"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RunDamagedError(f"stage {self.stage}, shard {shard}: no readable state ({error})") from error
        if (len(packed), zlib.crc32(packed)) != (size, crc):
            raise RunDamagedError(
                f"{name_of(self._place, self._state_key(shard))} is altered (its checksum is not that of its commit); "
                f"find and mend the damage with: microtome verify {self._place.path or self._place.url} --repair"
            )
        return unpack_state(packed)

    def adopt(self, former: Mapping[str, int]) -> int:
        """Take over, files unread, the records of shards below `former[key]` that were written under `key`.

        Other records of other keys are deleted. May be interrupted and repeated. Returns how many are valid now.
        """
        keys = [key for key, _ in self._place.list(self._folder)]
        found = self._place.read_many(key for key in keys if key.endswith(".json"))
        mine, adopted, others = 0, {}, set()
        for name, content in found.items():
            try:
                record = json.loads(content)
                key, shard = record["key"], int(record["shard"])
            except (ValueError, LookupError, TypeError):
                others.add(name)
                continue
            if key == self._key:
                mine += 1
            elif shard < former.get(key, 0):
                adopted[name] = json_bytes({**record, "key": self._key})
            else:
                others.add(name)
        with ThreadPoolExecutor(WRITERS, thread_name_prefix="adopt") as writers:
            list(writers.map(self._place.write, adopted, adopted.values()))
        self._place.delete(others)
        self._place.delete(name.removesuffix(".json") + ".safetensors.zst" for name in others)
        return mine + len(adopted)

    def clear(self) -> None:
        """Forget every record of this stage (records first, then states)."""
        keys = [key for key, _ in self._place.list(self._folder)]
        self._place.delete(key for key in keys if key.endswith(".json"))
        self._place.delete(key for key in keys if key.endswith(".safetensors.zst"))

    def _recorded(self, shards: Sequence[int]) -> list[str]:
        """Keys of the records that may be there: one listing spares a bucket a question for each."""
        wanted = [self._record_key(shard) for shard in shards]
        if self._place.path is not None or len(shards) < 2:
            return wanted
        there = {key for key, _ in self._place.list(self._folder)}
        return [key for key in wanted if key in there]

    def _vouched(self, shard: int, content: bytes | None) -> dict[str, int] | None:
        """{key: size} of all that a record vouches for; None where it is no record of this shard and key."""
        if content is None:
            return None
        try:
            record = json.loads(content)
            expected = {str(name): int(size) for name, (size, _) in record["files"].items()}
            expected[self._state_key(shard)] = int(record["state"][0])
            return expected if record["shard"] == shard and record["key"] == self._key else None
        except (ValueError, LookupError, TypeError, AttributeError):  # not such a record at all
            return None

    def _record_key(self, shard: int) -> str:
        return f"{self._folder}{shard:06d}.json"

    def _state_key(self, shard: int) -> str:
        return f"{self._folder}{shard:06d}.safetensors.zst"


def pack_state(state: State) -> bytes:
    """Named arrays of numbers as zstd-compressed safetensors; the same arrays always give the same bytes."""
    return bytes(_CODEC.encode(save({name: np.asarray(array, order="C") for name, array in state.items()})))


def unpack_state(packed: bytes) -> dict[str, NDArray[np.generic]]:
    """The inverse of `pack_state`."""
    return dict(load(bytes(_CODEC.decode(packed))))
