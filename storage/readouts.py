"""The matrices by which a run reads directions out of a layer: `layers/LAYER/readout.safetensors`.

They decide what the units are, so they are written before run.json speaks of them, never again, and are checked
against the fingerprint in run.json whenever they are opened.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from microtome.storage.errors import RunDamagedError
from microtome.storage.places import Place, name_of

FILE = "readout.safetensors"

Matrices = Mapping[str, NDArray[np.generic]]


def readout_key(folder: str) -> str:
    """Where the matrices of the layer in `folder` lie."""
    return f"layers/{folder}/{FILE}"


def is_readout(key: str) -> bool:
    """Whether `key` is where some layer's matrices lie."""
    return key.startswith("layers/") and key.endswith(f"/{FILE}") and key.count("/") == 2


def fingerprint_of(matrices: Matrices) -> str:
    """Hexadecimal sha256 over names, shapes, types and values."""
    digest = hashlib.sha256()
    for name in sorted(matrices):
        values = np.ascontiguousarray(matrices[name])
        digest.update(f"{name} {values.shape} {values.dtype.str}\0".encode())
        digest.update(values.tobytes())
    return digest.hexdigest()


def pack_readout(matrices: Matrices) -> bytes:
    """The content of the file."""
    return save({name: np.ascontiguousarray(values) for name, values in matrices.items()})


def read_readout(place: Place, folder: str, fingerprint: str) -> dict[str, NDArray[np.generic]]:
    """The matrices of the layer in `folder`. Raises RunDamagedError where they are missing or not those of the run."""
    key = readout_key(folder)
    lost = "so what its units are is lost: bring it back from a copy, or audit again into another --out"
    try:
        matrices: dict[str, NDArray[np.generic]] = load(place.read(key))
    except FileNotFoundError as error:
        raise RunDamagedError(f"{name_of(place, key)} is missing, {lost}") from error
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise RunDamagedError(f"{name_of(place, key)} is altered ({error}), {lost}") from error
    if fingerprint_of(matrices) != fingerprint:
        raise RunDamagedError(f"{name_of(place, key)} is altered, {lost}")
    return matrices
