"""The activation maps of the top patches alone: what a run that keeps no activations has for its pages.

`layers/LAYER/patch_maps/SHARD.safetensors.zst` holds the maps of the top patches that are samples of the shard, float16
as activations are stored; where there are none, there is no file. The tally's commit vouches for it.
"""

from __future__ import annotations

import zlib

import numpy as np
from numcodecs.zstd import Zstd
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from microtome.storage.errors import RunDamagedError, UsageError
from microtome.storage.files import Written
from microtome.storage.places import Place, name_of

_CODEC = Zstd(level=1, checksum=True)


def write_patch_maps(
    place: Place,
    folder: str,
    shard: int,
    sample: NDArray[np.int64],
    unit: NDArray[np.int64],
    maps: NDArray[np.float16],
) -> list[Written]:
    """Store maps (n, h, w) of units `unit` (n,) for samples `sample` (n,), in ascending order of both.

    folder: the layer's. Returns the file that was written, if any.
    """
    key = _key(folder, shard)
    if not len(sample):
        place.delete([key])
        return []
    packed = bytes(_CODEC.encode(save({"sample": sample, "unit": unit, "maps": maps})))
    place.write(key, packed)
    return [Written(key, len(packed), zlib.crc32(packed))]


def read_patch_maps(
    place: Place, folder: str, shard: int, sample: NDArray[np.int64], unit: NDArray[np.int64]
) -> NDArray[np.float16]:
    """Maps (n, h, w) of units `unit` (n,) for samples `sample` (n,) of `shard`, as they are stored.

    Raises UsageError where one of them is no top patch, RunDamagedError where the file is missing or altered.
    """
    key = _key(folder, shard)
    try:
        stored = load(bytes(_CODEC.decode(place.read(key))))
        order = {
            pair: row for row, pair in enumerate(zip(stored["sample"].tolist(), stored["unit"].tolist(), strict=True))
        }
        maps = stored["maps"].astype(np.float16)
    except FileNotFoundError:
        order, maps = {}, np.zeros((0, 0, 0), np.float16)
    except (ValueError, KeyError, RuntimeError, OSError, SafetensorError) as error:
        raise RunDamagedError(
            f"{name_of(place, key)} cannot be read ({error}); "
            f"find and mend the damage with: microtome verify {place.path or place.url} --repair"
        ) from error
    pairs = list(zip(sample.tolist(), unit.tolist(), strict=True))
    for pair in pairs:
        if pair not in order:
            raise UsageError(
                f"the run was made with --keep-activations no: it has the maps of top patches alone, and sample "
                f"{pair[0]} is none of unit {pair[1]}; audit with --keep-activations yes for all of them"
            )
    return maps[[order[pair] for pair in pairs]]


def _key(folder: str, shard: int) -> str:
    return f"layers/{folder}/patch_maps/{shard:06d}.safetensors.zst"
