"""Named arrays of a layer that are small enough for one file: its principal components, and where a map has got to.

`layers/LAYER/NAME.safetensors` holds arrays that a stage vouches for like its tables. A `Checkpoint` is one compressed
file with a checksum that appears whole or not at all, and is deleted when what it is the middle of has come to an end.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numcodecs.zstd import Zstd
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from microtome.storage.errors import RunDamagedError
from microtome.storage.places import Place, name_of

Arrays = Mapping[str, NDArray[np.generic]]

_CODEC = Zstd(level=1, checksum=True)
_KEY = "__key__"


def layer_arrays_key(folder: str, name: str) -> str:
    """Where the arrays `name` of the layer in `folder` lie."""
    return f"layers/{folder}/{name}.safetensors"


def write_arrays(place: Place, key: str, arrays: Arrays) -> tuple[int, int]:
    """Write `arrays` whole; the same arrays always give the same bytes. Returns their number and CRC-32."""
    content = save({name: np.ascontiguousarray(values) for name, values in arrays.items()})
    place.write(key, content)
    return len(content), zlib.crc32(content)


def read_arrays(place: Place, key: str) -> dict[str, NDArray[np.generic]]:
    """The arrays at `key`. Raises RunDamagedError where they are missing or cannot be read."""
    try:
        return dict(load(place.read(key)))
    except FileNotFoundError as error:
        raise RunDamagedError(
            f"{name_of(place, key)} is missing; make the map of this layer with: "
            f"microtome map {place.path or place.url}"
        ) from error
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise RunDamagedError(
            f"{name_of(place, key)} cannot be read ({error}); "
            f"mend it with: microtome verify {place.path or place.url} --repair"
        ) from error


@dataclass(frozen=True)
class Checkpoint:
    """Where a map of the layer in `folder` has got to, for whoever goes on with it after a kill.

    key: of everything that the map depends on; what was saved under another key is as good as nothing.
    """

    place: Place
    folder: str
    key: str

    def load(self) -> dict[str, NDArray[np.generic]] | None:
        """What was saved last under this key; None where there is nothing, or nothing that can be read."""
        try:
            arrays = dict(load(bytes(_CODEC.decode(self.place.read(self._file)))))
        except FileNotFoundError:
            return None
        except (SafetensorError, RuntimeError, ValueError, KeyError, TypeError):
            return None  # the map is begun again
        if arrays.pop(_KEY, np.zeros(0, np.uint8)).tobytes() != self.key.encode():
            return None
        return arrays

    def save(self, arrays: Arrays) -> None:
        """Save `arrays` in place of what was saved before."""
        named = {name: np.asarray(values, order="C") for name, values in arrays.items()}
        named[_KEY] = np.frombuffer(self.key.encode(), np.uint8)
        self.place.write(self._file, bytes(_CODEC.encode(save(named))))

    def delete(self) -> None:
        """Forget it: the map is there."""
        self.place.delete([self._file])

    @property
    def _file(self) -> str:
        return f"layers/{self.folder}/map.checkpoint.safetensors.zst"
