"""The eleven basic colour terms of English (Berlin and Kay, 1969) and the palettes that scenes are painted with.

A pixel's term is that of the nearest prototype in CIELAB, read from a table over the 32^3 cells of RGB. The
prototypes are ours: typical sRGB values of each term, several where a term spans light and dark.
"""

from __future__ import annotations

from functools import cache
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

RGB = tuple[float, float, float]

COLOUR_TERMS: Final = (
    "black", "white", "red", "green", "yellow", "blue", "brown", "purple", "pink", "orange", "gray",
)  # fmt: skip

_PROTOTYPES: Final[dict[str, tuple[str, ...]]] = {
    "black": ("000000", "141414", "1c1814", "10141e", "141c12"),
    "white": ("ffffff", "f0f0ee", "e4e6ea", "eee8dc"),
    "red": ("c81e1e", "e03030", "a01418", "781014", "d84840"),
    "green": ("2e8b2e", "1e5a1e", "4a8c3c", "7cb450", "5a7832", "30502a", "9cc878", "3c9678", "1c3418"),
    "yellow": ("f0dc28", "e8c83c", "f4e678", "d2b428", "ecdca0"),
    "blue": ("2850c8", "1e3278", "4682c8", "78aae6", "a0c8f0", "3c78a0", "1c2440", "b8d4ee", "507090"),
    "brown": ("6e4628", "503018", "8c6440", "a07850", "321e12", "785a46"),
    "purple": ("783c96", "50286e", "9664b4", "b48cc8", "3c1e50"),
    "pink": ("f096b4", "e66e96", "f0b4be", "d2829b", "e8b0a0"),
    "orange": ("f08c1e", "e67828", "f0a050", "c86420", "f0b478"),
    "gray": ("808080", "a0a0a0", "606060", "404040", "b8b8b8", "8c9296", "707880", "989088", "c8c8c8"),
}


def rgb(code: str) -> RGB:
    """A hexadecimal code such as "c81e1e" as three floats in [0, 255]."""
    return (float(int(code[0:2], 16)), float(int(code[2:4], 16)), float(int(code[4:6], 16)))


def blend(first: RGB, second: RGB, share: float) -> RGB:
    """`first` where share is 0, `second` where it is 1."""
    return (
        first[0] + (second[0] - first[0]) * share,
        first[1] + (second[1] - first[1]) * share,
        first[2] + (second[2] - first[2]) * share,
    )


def shade(colour: RGB, gain: float) -> RGB:
    """The colour under `gain` times the light, clipped at 255."""
    return (min(colour[0] * gain, 255.0), min(colour[1] * gain, 255.0), min(colour[2] * gain, 255.0))


@cache
def term_table() -> NDArray[np.uint8]:
    """(32768,) uint8: index into COLOUR_TERMS for each cell `(r >> 3) << 10 | (g >> 3) << 5 | b >> 3`."""
    codes = [(COLOUR_TERMS.index(term), rgb(code)) for term, group in _PROTOTYPES.items() for code in group]
    prototypes = _lab(np.array([code for _, code in codes]))
    levels = np.arange(32) * 8 + 4.0
    cells = _lab(np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), axis=-1).reshape(-1, 3))
    distance = np.square(cells[:, None, :] - prototypes[None, :, :]) @ np.array([0.6, 1.0, 1.0])
    terms = np.array([term for term, _ in codes], dtype=np.uint8)
    return np.asarray(terms[np.argmin(distance, axis=1)], np.uint8)


def name_colours(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(H, W) uint8 index into COLOUR_TERMS of each pixel of an (H, W, 3) uint8 RGB image."""
    cells = (image >> 3).astype(np.uint16)
    return np.asarray(term_table()[(cells[..., 0] << 10) | (cells[..., 1] << 5) | cells[..., 2]], np.uint8)


def _lab(colours: NDArray[np.float64]) -> NDArray[np.float64]:
    """CIELAB (D65) of (n, 3) sRGB values in [0, 255]; through OpenCV's float conversion."""
    pixels = (colours[None] / 255.0).astype(np.float32)
    return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2LAB)[0], dtype=np.float64)


# What things are painted with. Vivid paint covers every chromatic term, so that no object owns a colour.
PAINT: Final = tuple(
    rgb(code)
    for code in (
        "c8282c", "d2483c", "2f6fc4", "1f4a8c", "3c9650", "2c6e46", "e6c632", "efd86a", "e8862a", "d86a1e",
        "7d46a0", "9a6cb8", "e88cb0", "d9638f", "f2f0ea", "dcdcd6", "2a2a2e", "8c8f94", "7a5030", "5ec0c0",
    )
)  # fmt: skip
WALLS: Final = tuple(
    rgb(code) for code in ("e8dcc4", "f0ece0", "d8b890", "c8d4d8", "e0b4a0", "d2d0a8", "b8c4a8", "e6cf94")
)
ROOFS: Final = tuple(rgb(code) for code in ("a0402c", "8a3428", "5a4a44", "484c54", "7a5a3c", "b0583a", "3e5648"))
SKIN: Final = tuple(rgb(code) for code in ("f0c8a8", "e0ac84", "c08a60", "8c5a3c", "5c3a28"))
HAIR: Final = tuple(rgb(code) for code in ("2a1c14", "4a3020", "8a5a30", "d8b868", "1a1a1a", "a8a49c"))
LEAVES: Final = tuple(
    rgb(code) for code in ("3c7a30", "4c8c3a", "2e6432", "68963c", "86a044", "2a5438", "c8962c", "b8642a", "a8442c")
)
