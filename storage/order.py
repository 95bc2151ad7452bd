"""The order of a grown run's samples within its dataset, where that is not the dataset's own.

`order/DIGEST.safetensors.zst` is named by its content and written before run.json speaks of it.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from microtome.storage.commits import pack_state, unpack_state
from microtome.storage.errors import RunDamagedError
from microtome.storage.places import Place, name_of

FOLDER = "order/"
SUFFIX = ".safetensors.zst"


def write_order(place: Place, order: NDArray[np.int64]) -> str:
    """Store `order`, positions in the dataset; returns the digest by which run.json names it."""
    packed = pack_state({"order": order})
    digest = hashlib.blake2b(packed, digest_size=16).hexdigest()
    place.write(f"{FOLDER}{digest}{SUFFIX}", packed)
    return digest


def read_order(place: Place, digest: str) -> NDArray[np.int64]:
    """The order stored under `digest`. Raises RunDamagedError where it is missing or altered."""
    key = f"{FOLDER}{digest}{SUFFIX}"
    try:
        packed = place.read(key)
    except FileNotFoundError as error:
        raise RunDamagedError(f"{name_of(place, key)} is missing: the order of the run's samples is lost") from error
    if hashlib.blake2b(packed, digest_size=16).hexdigest() != digest:
        raise RunDamagedError(f"{name_of(place, key)} is altered: the order of the run's samples is lost")
    return unpack_state(packed)["order"].astype(np.int64)


def forget_orders(place: Place, keep: str | None) -> None:
    """Delete every stored order but the one that run.json names."""
    kept = f"{FOLDER}{keep}{SUFFIX}"
    place.delete([key for key, _ in place.list(FOLDER) if key != kept])
