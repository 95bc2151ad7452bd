"""Image and mask files for tests: coloured regions, encoded bytes, and a folder dataset written to disk."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

PALETTE = np.array(
    [[0, 0, 0], [255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 0], [0, 255, 255], [255, 0, 255]], np.uint8
)
"""A colour for each of the ids 0 ... 6."""


def regions(height: int, width: int, seed: int = 0, ids: int = 7) -> NDArray[np.uint16]:
    """A (height, width) uint16 map of overlapping rectangles with ids 0 ... ids - 1."""
    rng = np.random.default_rng(seed)
    grid = np.zeros((height, width), np.uint16)
    for _ in range(12):
        top, left = int(rng.integers(0, height)), int(rng.integers(0, width))
        bottom, right = int(rng.integers(top, height)) + 1, int(rng.integers(left, width)) + 1
        grid[top:bottom, left:right] = rng.integers(0, ids)
    return grid


def encode(image: Image.Image, form: str = "PNG", **options: object) -> bytes:
    """The image as the bytes of a file."""
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def with_chunk(png: bytes, kind: bytes, data: bytes) -> bytes:
    """A PNG with one more chunk behind its header."""
    chunk = struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    return png[:33] + chunk + png[33:]


def photo(height: int = 24, width: int = 32, seed: int = 0) -> NDArray[np.uint8]:
    """A smooth (height, width, 3) uint8 image that survives JPEG."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return np.array(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


def save(path: Path, pixels: NDArray[np.generic] | Image.Image | bytes) -> Path:
    """Write an array, a Pillow image or raw bytes to `path`, making its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(pixels, bytes):
        path.write_bytes(pixels)
    else:
        (pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)).save(path)
    return path


def street(root: Path, *, images: int = 6, height: int = 24, width: int = 32) -> Path:
    """A folder dataset: splits train and val, planes object (grey) and parts (indexed, not for every image)."""
    for number in range(images):
        split = "val" if number % 3 == 2 else "train"
        save(root / "images" / split / f"{number:03}.png", photo(height, width, number))
        save(root / "masks/object" / split / f"{number:03}.png", regions(height, width, number).astype(np.uint8))
        if number % 2:
            parts = Image.fromarray(regions(height, width, number + 99, ids=4).astype(np.uint8), "P")
            parts.putpalette(bytes(PALETTE.ravel()))
            save(root / "masks/parts" / split / f"{number:03}.png", parts)
    (root / "classes.csv").write_text(
        "index,name,category,plane\n1,car,object,object\n2,tree,object,\n3,house,object,object\n"
        "1,wheel,part,parts\n3,roof,part,parts\n4,road,object,object\n5,Lane,surface,\n"
    )
    return root
