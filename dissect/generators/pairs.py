"""Contact sheets of edits: each image before, with the concept outlined, and after."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from microtome.reports.contact import Tile, draw_grid

SIDE = 128
PER_LINE = 12
PAIRS = 20
LINE, EDGE = (255, 212, 0), (28, 28, 28)


@dataclass(frozen=True, eq=False)
class Pair:
    """One latent's images, (H, W, 3) uint8. mask: (H, W) bool, where the concept was before, None = nothing to outline;
    random: with random units edited instead, None = not made; lines: what stands beneath each of them."""

    before: NDArray[np.uint8]
    after: NDArray[np.uint8]
    random: NDArray[np.uint8] | None
    mask: NDArray[np.bool_] | None
    lines: tuple[Sequence[str], Sequence[str], Sequence[str]]


def draw_pairs(pairs: Sequence[Pair], title: str) -> Image.Image:
    """All pairs in lines, RGB."""
    tiles = [tile for pair in pairs for tile in _tiles(pair)]
    each = len(tiles) // len(pairs) if pairs else 1
    return draw_grid(tiles, title, side=SIDE, per_line=PER_LINE // each * each)


def outlined(image: NDArray[np.uint8], mask: NDArray[np.bool_], side: int = SIDE) -> NDArray[np.uint8]:
    """The image with its longer side at `side` pixels, smooth, and the mask's border drawn on it."""
    height, width = image.shape[:2]
    scale = side / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    large = np.array(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))
    grown = cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
    borders, _ = cv2.findContours(grown, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(large, borders, -1, EDGE, 3)
    cv2.drawContours(large, borders, -1, LINE, 1)
    return large


def _tiles(pair: Pair) -> list[Tile]:
    before = pair.before if pair.mask is None else outlined(pair.before, pair.mask)
    tiles = [Tile(before, pair.lines[0]), Tile(pair.after, pair.lines[1])]
    return tiles if pair.random is None else [*tiles, Tile(pair.random, pair.lines[2])]
