"""An explanation of one image as a picture: a map laid over it, a signed picture around grey, an object cut out."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from microtome.reports.explanations.colours import colours_of, scale_of

Image = NDArray[np.uint8]
Map = NDArray[np.floating]

_GREY, _DIMMED = 0.8, 0.72
"""How much of a picture's colour gives way to grey beneath a map, and how bright what is left is."""

_MOST = 0.88
_BEND = 0.65
"""How much of a pixel is the map's colour at most; values rise to it as their power `_BEND`."""

_AROUND = 0.3
_LINE, _SHADOW = (255, 212, 0), (28, 28, 28)


def overlay(image: Image, values: Map, *, signed: bool = False) -> Image:
    """A map laid over its image, (H, W, 3) uint8: nothing shows the image, in grey; much shows the map's colours.

    image: (H, W, 3) uint8; values: (h, w) floating point, enlarged bilinearly where it is smaller, scaled by its own
    magnitudes (see `colours.scale_of`). signed: blue speaks against, orange for; else what is below 0 counts as 0.
    Values that are not finite show the image. Raises ValueError for other shapes.
    """
    _check(image, values)
    scaled = _scaled(values, signed=signed)
    scaled = np.asarray(cv2.resize(scaled, image.shape[1::-1], interpolation=cv2.INTER_LINEAR), np.float32)
    alpha = _MOST * np.abs(scaled)[..., None] ** _BEND
    mixed = (1 - alpha) * _subdued(image) + alpha * colours_of(scaled, signed=signed)
    return np.rint(mixed).astype(np.uint8)


def heat_of(values: Map, *, signed: bool = False, scale: float | None = None) -> Image:
    """A map (h, w) by itself, (h, w, 3) uint8, in the same colours; scale: what gets the last one. [its own]"""
    return colours_of(_scaled(values, signed=signed, scale=scale), signed=signed)


def picture_of(attribution: Map) -> Image:
    """A signed picture around grey, (H, W, 3) uint8: 0 is grey, each channel lighter above and darker below.

    attribution: (3, H, W) floating point, scaled by its own magnitudes; what is not finite is grey. Raises ValueError
    for another shape.
    """
    if attribution.ndim != 3 or attribution.shape[0] != 3:
        raise ValueError(f"a picture is made of (3, H, W), not {attribution.shape}")
    around = 127.5 + 127.5 * _scaled(attribution, signed=True)
    return np.asarray(np.rint(np.moveaxis(around, 0, 2)), np.uint8)


def cut_out(image: Image, mask: Map) -> Image:
    """The object of a mask (h, w), where it is above one half, in its colours and outlined; the rest dim and grey."""
    _check(image, mask)
    known = np.nan_to_num(np.asarray(mask, np.float32))
    inside = np.asarray(cv2.resize(known, image.shape[1::-1], interpolation=cv2.INTER_NEAREST), np.float32) > 0.5
    around = _AROUND * cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)[..., None] + 24
    drawn = np.where(inside[..., None], image, np.rint(around).astype(np.uint8))
    outlines, _ = cv2.findContours(inside.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    drawn = np.ascontiguousarray(drawn, np.uint8)
    thick = max(1, round(min(image.shape[:2]) / 112))
    cv2.drawContours(drawn, outlines, -1, _SHADOW, thick + 2)
    cv2.drawContours(drawn, outlines, -1, _LINE, thick)
    return drawn


def _scaled(values: Map, *, signed: bool, scale: float | None = None) -> NDArray[np.float32]:
    """In [0, 1], or [-1, 1] where signed."""
    known = np.where(np.isfinite(values), values, 0).astype(np.float64)
    if not signed:
        known = np.maximum(known, 0)
    return np.clip(known / (scale or scale_of(known)), -1, 1).astype(np.float32)


def _subdued(image: Image) -> NDArray[np.float32]:
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)[..., None]
    return np.asarray(_DIMMED * (_GREY * grey + (1 - _GREY) * image), np.float32)


def _check(image: Image, values: Map) -> None:
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(f"an image is (H, W, 3) uint8, not {image.shape} {image.dtype}")
    if values.ndim != 2 or not values.size:
        raise ValueError(f"a map is (h, w), not {values.shape}")
