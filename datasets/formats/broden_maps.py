"""Broden's label maps: PNGs whose red and green hold a number, R + 256 G."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from microtome.datasets.images import MAX_PIXELS, decode_image
from microtome.storage.errors import SampleError

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_HEAD = struct.Struct(">8s8xIIBB")
_END = b"\0\0\0\0IEND\xaeB\x60\x82"
_KINDS = {0: "grey", 2: "RGB", 3: "indexed", 4: "grey with transparency", 6: "RGB with transparency"}


def read_map(path: Path, key: str, what: str) -> NDArray[np.uint16]:
    """(h, w) uint16: the number at each pixel of the map at `path`, R + 256 G; blue is not used.

    key: the sample, what: how the map is called in errors. Raises SampleError where the file is not a whole PNG of
    kind RGB with 8 bits: in a grey or indexed one the same number would have to be told in another way.
    """
    try:
        return _decode(path.read_bytes(), key)
    except SampleError as error:
        raise SampleError(key, f"{what}: {error.reason}") from error
    except (FileNotFoundError, NotADirectoryError):
        raise SampleError(key, f"{what}: the file is missing") from None
    except IsADirectoryError:
        raise SampleError(key, f"{what}: a folder, not an image file") from None
    except OSError as error:
        raise SampleError(key, f"{what}: {error.strerror}") from error


def _decode(data: bytes, key: str) -> NDArray[np.uint16]:
    import cv2

    if not data:
        raise SampleError(key, "empty file (0 bytes)")
    if not data.startswith(_SIGNATURE):
        raise SampleError(key, "not a PNG")
    if len(data) < _HEAD.size:
        raise SampleError(key, "truncated image file")
    _, width, height, bits, kind = _HEAD.unpack_from(data)
    if (bits, kind) != (8, 2):
        raise SampleError(key, f"a PNG of kind {_KINDS.get(kind, kind)}, {bits} bits; expected RGB, 8 bits")
    if width * height > MAX_PIXELS:
        raise SampleError(key, f"too large: {width}x{height}, more than {MAX_PIXELS:,} pixels in all")
    # OpenCV is several times quicker than Pillow, and Pillow is stricter: it looks at whatever is not quite in order.
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED) if data.endswith(_END) else None
    if pixels is None or pixels.shape != (height, width, 3):
        pixels = decode_image(data, key)[..., ::-1]
    numbers = np.empty((height, width, 2), np.uint8)
    numbers[..., 0] = pixels[..., 2]
    numbers[..., 1] = pixels[..., 1]
    little: NDArray[np.uint16] = numbers.view("<u2")[..., 0]
    return little
