"""The colours of maps, the same on the page and in pictures.

Classes and clusters take turns with twelve colours: six of Okabe and Ito's, and six that were chosen so that any two of
the twelve, and the grey of points that have none, stay apart (CIEDE2000 of at least 10) for normal sight and, simulated
after Machado, Oliveira and Fernandes (2009), without red or green cones. All can be seen on white and on black. Values
take OpenCV's perceptually uniform map "plasma", without its darkest and its palest part.
"""

from __future__ import annotations

from typing import TypedDict

import cv2
import numpy as np
from numpy.typing import NDArray

CATEGORICAL = (
    *("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9"),
    *("#146e5f", "#aa3223", "#50d79b", "#aa2350", "#148cf5", "#b9148c"),
)
"""Class or cluster i has colour i modulo their number."""
NONE = "#b8bcc2"
"""Of points without a class, a cluster, the concept, or any activation."""
PRESENT = CATEGORICAL[4]
"""Of points that show the concept."""
_STEPS = 16
_FIRST, _LAST = 0.1, 0.88


class Palette(TypedDict):
    """Colours as "#rrggbb": `sequential` from the lowest value to the highest."""

    categorical: list[str]
    sequential: list[str]
    none: str
    present: str


def _sequential() -> tuple[str, ...]:
    levels = np.round(np.linspace(_FIRST, _LAST, _STEPS) * 255).astype(np.uint8)[None]
    bgr = np.asarray(cv2.applyColorMap(levels, cv2.COLORMAP_PLASMA))[0]
    return tuple(f"#{red:02x}{green:02x}{blue:02x}" for blue, green, red in bgr.tolist())


SEQUENTIAL = _sequential()
"""Values between two of them are mixed linearly."""


def palette() -> Palette:
    """All of them, for the page's data."""
    return {"categorical": list(CATEGORICAL), "sequential": list(SEQUENTIAL), "none": NONE, "present": PRESENT}


def rgb(*colours: str) -> NDArray[np.float32]:
    """(n, 3) float32 in [0, 1] of colours "#rrggbb"."""
    return np.array([[int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)] for colour in colours], np.float32)


def categorical(numbers: NDArray[np.integer]) -> NDArray[np.float32]:
    """(n, 3) float32 colours of classes or clusters `numbers` (n,), negative = none."""
    table = rgb(*CATEGORICAL, NONE)
    return table[np.where(numbers >= 0, numbers % len(CATEGORICAL), len(CATEGORICAL))]


def sequential(values: NDArray[np.floating]) -> NDArray[np.float32]:
    """(n, 3) float32 colours of `values` (n,) in [0, 1]; those that are not above 0, and NaN, have none."""
    clipped = np.clip(np.nan_to_num(values.astype(np.float32)), 0, 1)
    stops, at = rgb(*SEQUENTIAL), clipped * (_STEPS - 1)
    low = np.minimum(at.astype(np.int64), _STEPS - 2)
    share = (at - low)[:, None]
    mixed = stops[low] * (1 - share) + stops[low + 1] * share
    return np.asarray(np.where((clipped > 0)[:, None], mixed, rgb(NONE)), np.float32)
