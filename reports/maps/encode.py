"""The bytes of the map page's data files, and the order of its points. Pure functions on arrays.

Every file is a classic script, since pages from disk cannot fetch, and carries gzip in base64:

    MICROTOME_MAP_DATA("ID", "BASE64 OF GZIP BYTES");

All numbers are little-endian. What lies next to each other on the map lies next to each other in the files: points are
numbered along a Morton curve (Morton 1966), and coordinates are stored as differences, whose low bytes and high bytes
stand apart, because gzip finds what repeats only where it repeats byte by byte.
"""

from __future__ import annotations

import base64
import gzip
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from microtome.reports.payload import safe_json

GZIP_LEVEL, QUICK_LEVEL = 6, 1
"""How hard gzip tries; the quick one gives the same size for the highest peaks of a unit, in a fifth of the time."""
STEPS = 65535
"""Steps between the two edges of a box."""

NO_CLASS = 65535
NO_CLUSTER = -1
PEAK_STEPS = 255

_SPREAD = ((8, 0x00FF00FF), (4, 0x0F0F0F0F), (2, 0x33333333), (1, 0x55555555))


@dataclass(frozen=True, slots=True)
class Box:
    """The rectangle that the points of a view lie in."""

    x0: float
    y0: float
    x1: float
    y1: float

    @classmethod
    def around(cls, positions: NDArray[np.float32]) -> Box:
        """The smallest box around (n, 2) finite positions; one without width or height grows by a half on each side."""
        if not len(positions):
            return cls(-0.5, -0.5, 0.5, 0.5)
        low, high = positions.min(axis=0).astype(np.float64), positions.max(axis=0).astype(np.float64)
        flat = low == high
        low, high = np.where(flat, low - 0.5, low), np.where(flat, high + 0.5, high)
        return cls(float(low[0]), float(low[1]), float(high[0]), float(high[1]))

    def values(self) -> list[float]:
        """x0, y0, x1, y1."""
        return [self.x0, self.y0, self.x1, self.y1]


def quantise(values: NDArray[np.float32], low: float, high: float) -> NDArray[np.uint16]:
    """The nearest of 65,536 equal steps from `low` (0) to `high` (65535), of finite values: (n,) uint16."""
    scaled = (np.asarray(values, np.float64) - low) * (STEPS / (high - low))
    return np.clip(np.rint(scaled), 0, STEPS).astype(np.uint16)


def quantised(positions: NDArray[np.float32], box: Box) -> tuple[NDArray[np.uint16], NDArray[np.uint16]]:
    """The steps of (n, 2) positions within `box`: across, then down."""
    return quantise(positions[:, 0], box.x0, box.x1), quantise(positions[:, 1], box.y0, box.y1)


def morton(x: NDArray[np.uint16], y: NDArray[np.uint16]) -> NDArray[np.uint32]:
    """The place of (x, y) on the Morton curve: their bits in turn, those of x the lower ones."""
    return _spread(x) | (_spread(y) << np.uint32(1))


def _spread(values: NDArray[np.uint16]) -> NDArray[np.uint32]:
    """Bit i of each value at bit 2i."""
    spread = values.astype(np.uint32)
    for shift, mask in _SPREAD:
        spread = (spread | (spread << np.uint32(shift))) & np.uint32(mask)
    return spread


def page_order(positions: NDArray[np.float32]) -> NDArray[np.int64]:
    """Which of (n, 2) finite positions comes first, second, ... along the Morton curve; ties as they came."""
    return np.argsort(morton(*quantised(positions, Box.around(positions))), kind="stable")


def byte_split(values: NDArray[np.uint16]) -> bytes:
    """All low bytes, then all high bytes."""
    return values.astype("<u2").view(np.uint8).reshape(-1, 2).T.tobytes()


def deltas(values: NDArray[np.uint16]) -> NDArray[np.uint16]:
    """Differences to the one before (the first to 0), modulo 65536."""
    return np.diff(values, prepend=np.uint16(0)).astype(np.uint16)


def zigzag(values: NDArray[np.int32]) -> NDArray[np.uint32]:
    """0, -1, 1, -2, ... as 0, 1, 2, 3, ...: small numbers of either sign stay small."""
    return ((values << np.int32(1)) ^ (values >> np.int32(31))).view(np.uint32)


def encode_order(samples: NDArray[np.int64]) -> bytes:
    """The sample of each point, below 2**31: uint32, zigzag of the difference to the one before (the first to 0)."""
    return zigzag(np.diff(samples, prepend=0).astype(np.int32)).astype("<u4").tobytes()


def encode_view(positions: NDArray[np.float32], box: Box) -> bytes:
    """The (n, 2) positions of a view: x, then y; each as steps within `box`, differences, low bytes and high bytes."""
    return b"".join(byte_split(deltas(axis)) for axis in quantised(positions, box))


def encode_classes(classes: NDArray[np.int64]) -> bytes:
    """The number of each point's class: uint16, 65535 for none and for what uint16 cannot number."""
    fits = (classes >= 0) & (classes < NO_CLASS)
    return np.where(fits, classes, NO_CLASS).astype("<u2").tobytes()


def encode_clusters(clusters: NDArray[np.int32]) -> bytes:
    """The cluster of each point: int16, -1 for none and for what int16 cannot number."""
    fits = (clusters >= 0) & (clusters <= np.iinfo(np.int16).max)
    return np.where(fits, clusters, NO_CLUSTER).astype("<i2").tobytes()


def encode_bits(present: NDArray[np.bool_]) -> bytes:
    """Whether each point has something: bit i % 8 of byte i // 8."""
    return np.packbits(present, bitorder="little").tobytes()


def levels(peaks: NDArray[np.float32], maximum: float) -> NDArray[np.uint8]:
    """round(255 * peak / maximum), 0 where a peak is negative or NaN, or where the maximum is not above 0."""
    if not maximum > 0:
        return np.zeros(len(peaks), np.uint8)
    scaled = np.nan_to_num(peaks, nan=0.0, posinf=maximum, neginf=0.0) / np.float32(maximum)
    steps: NDArray[np.uint8] = np.rint(PEAK_STEPS * np.clip(scaled, 0, 1)).astype(np.uint8)
    return steps


def encode_all(peaks: NDArray[np.float32], maximum: float) -> bytes:
    """A unit's peak at every point: uint8."""
    return levels(peaks, maximum).tobytes()


def encode_top(points: NDArray[np.int64], peaks: NDArray[np.float32], maximum: float) -> bytes:
    """A unit's highest peaks: those at `points`, ascending, without any that rounds to 0.

    uint32 how many; uint32 their points, ascending, as differences (the first to 0); uint8 their values.
    """
    level = levels(peaks, maximum)
    fires = points[level > 0]
    apart = np.diff(fires, prepend=0).astype("<u4")
    return np.array([len(fires)], "<u4").tobytes() + apart.tobytes() + level[level > 0].tobytes()


def packed(content: bytes, level: int = GZIP_LEVEL) -> str:
    """`content` as gzip in base64; the same content gives the same text."""
    return base64.b64encode(gzip.compress(content, level, mtime=0)).decode("ascii")


def data_file(name: str, content: bytes, level: int = GZIP_LEVEL) -> str:
    """The classic script that hands `content` to the page as the file `name` (its address without ".js")."""
    return f'MICROTOME_MAP_DATA({safe_json(name)},"{packed(content, level)}");\n'


def encode_json(value: Any) -> bytes:
    """JSON in ASCII."""
    return safe_json(value).encode("ascii")
