"""Surfaces' fine structure: small wrapping tiles in [0, 255] that say how far a pixel lies between two colours.

Materials (grass, brick, ...) and textures (striped, dotted, ...) are both tiles. Each has a pyramid of halved
copies, so that a distant wall does not alias. A tile is drawn once a process, from a fixed stream of numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from microtome.datasets.scenes.dice import mix, uniforms

SIDE: Final = 128
LEVELS: Final = 5
Field = NDArray[np.float32]


def noise(key: int, rows: int, columns: int, side: int = SIDE) -> Field:
    """(side, side) wrapping value noise, about in [0, 1]: a grid of random values, cubically interpolated."""
    grid = uniforms(mix(key, rows, columns), rows * columns).astype(np.float32).reshape(rows, columns)
    wide = np.pad(grid, 2, mode="wrap")
    step_y, step_x = side // rows, side // columns
    full = cv2.resize(wide, ((columns + 4) * step_x, (rows + 4) * step_y), interpolation=cv2.INTER_CUBIC)
    return np.asarray(full[2 * step_y : 2 * step_y + side, 2 * step_x : 2 * step_x + side], dtype=np.float32)


def _unit(field: Field) -> Field:
    """Stretched to [0, 1] between its 1st and 99th percentile."""
    low, high = np.percentile(field, [1, 99])
    return np.asarray(np.clip((field - low) / (high - low), 0, 1), np.float32)


def _grass() -> Field:
    return _unit(noise(1, 16, 128) + 0.7 * noise(2, 32, 64) + 0.5 * noise(3, 8, 8))


def _water() -> Field:
    return np.asarray(
        np.power(_unit(noise(4, 32, 8) + 0.8 * noise(5, 64, 16) + 0.3 * noise(6, 4, 4)), np.float32(1.6)), np.float32
    )


def _sand() -> Field:
    return _unit(0.8 * noise(7, 128, 128) + 0.5 * noise(8, 64, 64) + 0.8 * noise(9, 8, 4))


def _snow() -> Field:
    return _unit(0.3 * noise(10, 128, 128) + noise(11, 8, 4) + 0.5 * noise(12, 16, 8)) ** 0.5


def _earth() -> Field:
    return _unit(noise(13, 64, 64) + noise(14, 16, 16) + 0.5 * noise(15, 4, 4))


def _stone() -> Field:
    ridges = np.abs(noise(16, 8, 8) - 0.5) + 0.5 * np.abs(noise(17, 16, 16) - 0.5)
    return _unit(np.sqrt(ridges) + 0.2 * noise(18, 64, 64))


def _asphalt() -> Field:
    return _unit(noise(19, 128, 128) + 0.6 * noise(20, 8, 8))


def _foliage() -> Field:
    return _unit(noise(21, 16, 16) + 0.9 * noise(22, 32, 32) + 0.5 * noise(23, 64, 64))


def _needles() -> Field:
    rows = np.arange(SIDE, dtype=np.float32)[:, None] / SIDE
    return _unit(0.8 * np.abs((rows * 8) % 1 - 0.5) + 0.6 * noise(24, 32, 64))


def _brick() -> Field:
    y, x = np.mgrid[0:SIDE, 0:SIDE]
    row = y // 16
    column = ((x + (row % 2) * 16) % SIDE) // 32
    tone = uniforms(25, 64).astype(np.float32)[(row * 4 + column) % 64]
    mortar = (y % 16 < 3) | ((x + (row % 2) * 16) % 32 < 3)
    return np.where(mortar, 1.0, 0.1 + 0.35 * tone).astype(np.float32)


def _planks() -> Field:
    x = np.arange(SIDE)[None, :]
    board = uniforms(26, 8).astype(np.float32)[x // 16]
    field = 0.35 + 0.4 * board + 0.35 * (noise(27, 8, 128) - 0.5)
    return np.where(x % 16 < 2, 0.0, np.clip(field, 0, 1)).astype(np.float32)


def _shingles() -> Field:
    y, x = np.mgrid[0:SIDE, 0:SIDE]
    row = y // 16
    edge = (y % 16 > 12) | ((x + (row % 2) * 8) % 16 < 2)
    return np.where(edge, 0.0, 0.55 + 0.45 * noise(28, 8, 16)).astype(np.float32)


def _plaster() -> Field:
    return _unit(noise(29, 64, 64) + noise(30, 8, 8))


def _paving() -> Field:
    y, x = np.mgrid[0:SIDE, 0:SIDE]
    tone = uniforms(31, 16).astype(np.float32)[(y // 32) * 4 + x // 32]
    return np.where((y % 32 < 2) | (x % 32 < 2), 0.0, 0.5 + 0.4 * tone + 0.2 * (noise(32, 64, 64) - 0.5))


def _striped() -> Field:
    x = np.arange(SIDE)[None, :]
    return np.broadcast_to((x // 16) % 2, (SIDE, SIDE)).astype(np.float32)


def _dotted() -> Field:
    y, x = np.mgrid[0:SIDE, 0:SIDE].astype(np.float32)
    shift = np.where((y // 32) % 2 > 0, 16.0, 0.0)
    return np.asarray((np.hypot((x + shift) % 32 - 15.5, y % 32 - 15.5) < 9.5), np.float32)


def _checkered() -> Field:
    y, x = np.mgrid[0:SIDE, 0:SIDE]
    return np.asarray(((y // 16 + x // 16) % 2), np.float32)


def _zigzagged() -> Field:
    y, x = np.mgrid[0:SIDE, 0:SIDE]
    return np.asarray((((y + np.abs(x % 32 - 16)) // 11.0) % 2 > 0.5), np.float32)


_DRAW: Final[dict[str, Callable[[], Field]]] = {
    "grass": _grass, "water": _water, "sand": _sand, "snow": _snow, "earth": _earth, "stone": _stone,
    "asphalt": _asphalt, "foliage": _foliage, "needles": _needles, "brick": _brick, "planks": _planks,
    "shingles": _shingles, "plaster": _plaster, "paving": _paving, "striped": _striped, "dotted": _dotted,
    "checkered": _checkered, "zigzagged": _zigzagged,
}  # fmt: skip


@cache
def pyramid(name: str) -> tuple[NDArray[np.uint8], ...]:
    """The tile at SIDE, SIDE/2, ... : LEVELS arrays of uint8, each a wrapping square."""
    tile = np.asarray(np.rint(np.clip(_DRAW[name](), 0, 1) * 255), dtype=np.uint8)
    levels = [tile]
    for _ in range(LEVELS - 1):
        half = levels[-1].shape[0] // 2
        levels.append(np.asarray(cv2.resize(levels[-1], (half, half), interpolation=cv2.INTER_AREA), np.uint8))
    return tuple(levels)
