"""Attention over an image: a unit's map laid over its thumbnail as colours, instead of an outlined mask.

Each map is scaled by its own maximum in that image and upsampled bilinearly (half-pixel centres, as masks are). Low
attention darkens, high attention shows a colour of OpenCV's perceptually uniform map "inferno".
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from microtome.reports.outlines import axis, kernel
from microtome.storage.schema import LayerEntry

KINDS = ("heads", "heads-mean", "rollout")
"""Kinds of layers whose units are attention over the image."""

_LEAST, _MOST = 0.35, 0.9
"""How much of a pixel is colour: where there is no attention, and where there is most."""


def is_heat(entry: LayerEntry) -> bool:
    """Whether the units of a layer are attention maps; other directions among such units are not."""
    return entry["kind"] in KINDS and "readout" not in entry


def _colours() -> NDArray[np.uint8]:
    ramp = np.arange(256, dtype=np.uint8)[None]
    return np.ascontiguousarray(cv2.applyColorMap(ramp, cv2.COLORMAP_INFERNO)[0], dtype=np.uint8)


COLOURS = _colours()
"""(256, 3) uint8 BGR, from no attention to most."""


@kernel
def _draw_heat(place: Any, activation: Any, colours: Any, onto: Any, offset: int) -> None:
    """Lay one map (h, w) float32 over the square of `onto` that begins at byte `offset` of its rows."""
    side = onto.shape[0]
    low, high, weight = axis(place[0], place[1], side, activation.shape[0])
    left, right, share = axis(place[2], place[3], side, activation.shape[1])
    top = np.float32(0.0)
    for i in range(activation.shape[0]):
        for j in range(activation.shape[1]):
            top = max(top, activation[i, j])
    scale = np.float32(1.0) / top if top > 0 else np.float32(0.0)
    for i in range(side):
        above, below = activation[low[i]], activation[high[i]]
        for j in range(side):
            upper = above[left[j]] + share[j] * (above[right[j]] - above[left[j]])
            lower = below[left[j]] + share[j] * (below[right[j]] - below[left[j]])
            value = min(max((upper + weight[i] * (lower - upper)) * scale, np.float32(0.0)), np.float32(1.0))
            alpha = np.float32(_LEAST) + np.float32(_MOST - _LEAST) * value
            level = np.int64(value * np.float32(255.0) + np.float32(0.5))
            for k in range(3):
                at = offset + 3 * j + k
                mixed = (np.float32(1.0) - alpha) * onto[i, at] + alpha * colours[level, k]
                onto[i, at] = np.uint8(mixed + np.float32(0.5))


@kernel
def draw_heat_strip(
    at: Any, rank: Any, picture: Any, mapped: Any, maps: Any, shapes: Any, places: Any, colours: Any, strip: Any
) -> None:
    """Lay the maps of the patches at positions `at` over `strip` (s, k * s * 3) uint8, which shows them plainly.

    rank, picture, mapped (whether there is a map), maps (n, h, w) float32: of the layer's patches; shapes, places: of
    all pictures, see `outlines.draw_strip`
    """
    side = strip.shape[0]
    for p in at:
        if mapped[p] and shapes[picture[p], 0] > 0:
            _draw_heat(places[picture[p]], maps[p], colours, strip, rank[p] * side * 3)
