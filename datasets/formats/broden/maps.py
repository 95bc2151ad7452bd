"""Broden's label maps: PNGs whose red and green hold a number, R + 256 G."""

from __future__ import annotations

import os
import struct
import zlib

import numpy as np
from numpy.typing import NDArray

from microtome.datasets.images import MAX_PIXELS, decode_channels, decode_image
from microtome.datasets.listing import open_regular
from microtome.storage.errors import SampleError

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_HEAD = struct.Struct(">8s8xIIBB")
_CHUNK = struct.Struct(">I4s")
_KINDS = {0: "grey", 2: "RGB", 3: "indexed", 4: "grey with transparency", 6: "RGB with transparency"}


def read_map(path: str, key: str, what: str) -> NDArray[np.uint16]:
    """(h, w) uint16: the number at each pixel of the map at `path`, R + 256 G; blue is not used.

    key: the sample, what: how the map is called in errors. Raises SampleError where the file is not a whole PNG of
    kind RGB with 8 bits: in a grey or indexed one the same number would have to be told in another way.
    """
    try:
        return _decode(_content(path), key)
    except SampleError as error:
        raise SampleError(key, f"{what}: {error.reason}") from error
    except (FileNotFoundError, NotADirectoryError):
        raise SampleError(key, f"{what}: the file is missing") from None
    except IsADirectoryError:
        raise SampleError(key, f"{what}: a folder, not an image file") from None
    except OSError as error:
        raise SampleError(key, f"{what}: {error.strerror}") from error


def _content(path: str) -> bytes:
    file = open_regular(path)
    try:
        return os.read(file, os.fstat(file).st_size)
    finally:
        os.close(file)


def _decode(data: bytes, key: str) -> NDArray[np.uint16]:
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
    if not _is_whole(data):
        decode_image(data, key)  # knows best what is wrong, but overlooks checksums
        raise SampleError(key, "damaged image (its end is missing, or a checksum is wrong)")
    return _numbers(data, key, (height, width, 3))


def _numbers(data: bytes, key: str, shape: tuple[int, int, int]) -> NDArray[np.uint16]:
    """R + 256 G, by OpenCV, which is several times quicker than Pillow, where it can.

    In few calls: each of them lets go of the interpreter's lock, and threads that read lose time at every one.
    """
    import cv2

    try:
        bgr = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        bgr = None
    if bgr is None or bgr.shape != shape:
        bgr = np.ascontiguousarray(decode_channels(data, key)[..., ::-1])
    pairs = np.empty((*shape[:2], 2), np.uint8)
    cv2.mixChannels([bgr], [pairs], [2, 0, 1, 1])
    numbers: NDArray[np.uint16] = pairs.view("<u2")[..., 0]
    return numbers


def _is_whole(data: bytes) -> bool:
    """Whether all chunks of a PNG are there, with the checksums that they should have."""
    start, kind = len(_SIGNATURE), b""
    while kind != b"IEND":
        if start + 12 > len(data):
            return False
        length, kind = _CHUNK.unpack_from(data, start)
        end = start + 8 + length
        if zlib.crc32(data[start + 4 : end]).to_bytes(4) != data[end : end + 4]:
            return False
        start = end + 4
    return True
