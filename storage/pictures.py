"""Small encoded pictures that a run keeps, many in one file, with what is to be said of them.

`layers/LAYER/explanations/BLOCK.safetensors` holds those of a block of units, `explanations/BLOCK.safetensors` those of
classes: a file appears whole or not at all, and the same pictures give the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from microtome.storage.errors import RunDamagedError
from microtome.storage.files import json_bytes
from microtome.storage.places import Place, name_of

FOLDER = "explanations/"
SUFFIX = ".safetensors"

_ABOUT = "__about__"


@dataclass(frozen=True)
class PictureBlock:
    """Pictures by name, each a whole WebP file; about: JSON values; key: a hash of all that they depend on."""

    key: str
    about: dict[str, Any]
    pictures: Mapping[str, bytes]


def blocks_folder(layer_folder: str | None) -> str:
    """Where the blocks of a layer's units lie; None: those of classes."""
    return FOLDER if layer_folder is None else f"layers/{layer_folder}/{FOLDER}"


def block_key(layer_folder: str | None, number: int) -> str:
    """Where block `number` lies."""
    return f"{blocks_folder(layer_folder)}{number:06d}{SUFFIX}"


def block_keys(place: Place, layer_folder: str | None) -> list[str]:
    """The blocks that are there, in their order."""
    return sorted(key for key, _ in place.list(blocks_folder(layer_folder)) if key.endswith(SUFFIX))


def write_block(place: Place, file: str, block: PictureBlock) -> None:
    """Write a block whole to `file`."""
    arrays = {name: np.frombuffer(picture, np.uint8) for name, picture in block.pictures.items()}
    arrays[_ABOUT] = np.frombuffer(json_bytes({"key": block.key, "about": block.about}), np.uint8)
    place.write(file, save(arrays))


def read_block(place: Place, file: str) -> PictureBlock:
    """The block in `file`. Raises RunDamagedError where it is missing or cannot be read."""
    try:
        arrays = load(place.read(file))
        said = json.loads(arrays.pop(_ABOUT).tobytes())
        pictures = {name: values.tobytes() for name, values in arrays.items()}
        return PictureBlock(str(said["key"]), dict(said["about"]), pictures)
    except (FileNotFoundError, SafetensorError, ValueError, LookupError, TypeError) as error:
        raise RunDamagedError(
            f"{name_of(place, file)} is missing or cannot be read; make it again with: "
            f"microtome verify {place.path or place.url} --repair"
        ) from error


def holds_block(place: Place, file: str, key: str) -> bool:
    """Whether `file` is a readable block made under `key`."""
    if place.size(file) is None:
        return False
    try:
        return read_block(place, file).key == key
    except RunDamagedError:
        return False
