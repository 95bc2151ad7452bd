"""The sheet that scenes are painted on: a picture and its label planes, filled polygon by polygon, back to front.

Coordinates are relative: (0, 0) is the top left corner of the picture and (1, 1) the bottom right one, so a layout
looks the same at every size. The picture is antialiased; the labels are not, and each fill overwrites all four of
them, so what is hidden in the picture is hidden in the planes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from microtome.datasets.scenes.colours import RGB, blend
from microtome.datasets.scenes.concepts import concept_id
from microtome.datasets.scenes.tiles import LEVELS, SIDE, pyramid

Points = NDArray[np.float32]
_SHIFT = 6
_ONE = 1 << _SHIFT
TEXTURES = ("striped", "dotted", "checkered", "zigzagged")


class Weave(NamedTuple):
    """A tile laid on a surface: `width` of one repeat in relative units, `angle` in radians, offset in repeats."""

    tile: str
    second: RGB
    width: float
    angle: float = 0.0
    offset: tuple[float, float] = (0.0, 0.0)


class Surface(NamedTuple):
    """What a polygon is filled with: a colour (or two, woven) and the ids of object, part, material, texture."""

    colour: RGB
    labels: tuple[int, int, int, int]
    weave: Weave | None = None


def surface(colour: RGB, thing: str, part: str = "", material: str = "", weave: Weave | None = None) -> Surface:
    """A surface by the names of its concepts; a weave of stripes, dots, ... brings its texture label."""
    texture = weave.tile if weave is not None and weave.tile in TEXTURES else ""
    ids = (
        concept_id("object", thing),
        concept_id("part", part),
        concept_id("material", material),
        concept_id("texture", texture),
    )
    return Surface(colour, ids, weave)


class Canvas:
    """A picture under way.

    image: (S, S, 3) uint8 RGB; labels: (S, S, 4) uint8 ids of object, part, material, texture.
    air: share of `haze` between the eye and what is painted next. lit: side of the sun, -1 left ... 1 right.
    dark: whether lamps and windows shine. glow: polygons that do, painted again once the picture has been darkened.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.image: NDArray[np.uint8] = np.zeros((size, size, 3), np.uint8)
        self.labels: NDArray[np.uint8] = np.zeros((size, size, 4), np.uint8)
        self.haze: RGB = (200.0, 210.0, 220.0)
        self.air = 0.0
        self.lit = 0.0
        self.dark = False
        self.glow: list[tuple[list[NDArray[np.int32]], RGB, int]] = []

    def fill(self, shapes: Points | Sequence[Points], paint: Surface) -> None:
        """Paint one polygon or several: (n, 2) float32 relative x, y."""
        if isinstance(shapes, np.ndarray):
            polygons = [self._fixed(shapes)]
        elif len({len(shape) for shape in shapes}) == 1:
            polygons = list(self._fixed(np.array(shapes, np.float32)))
        else:
            polygons = [self._fixed(shape) for shape in shapes]
        if not polygons:
            return
        if paint.weave is None:
            colour = blend(paint.colour, self.haze, self.air)
            cv2.fillPoly(self.image, polygons, colour, cv2.LINE_AA, _SHIFT)
        else:
            self._fill_woven(polygons, paint.colour, paint.weave)
        cv2.fillPoly(self.labels, polygons, paint.labels, cv2.LINE_8, _SHIFT)

    def shine(self, shapes: Sequence[Points], colour: RGB, part: str) -> None:
        """Have what is now painted as `part` inside the shapes shine in `colour`, once the night has fallen."""
        if shapes and self.dark:
            self.glow.append(([self._fixed(p) for p in shapes], colour, concept_id("part", part)))

    def shadow(self, shape: Points, strength: float) -> None:
        """Darken what is painted so far inside a polygon; labels stay."""
        polygon = self._fixed(shape)
        box = self._box([polygon])
        if box is None:
            return
        (top, bottom, left, right), mask = box, self._mask([polygon], box)
        region = self.image[top:bottom, left:right]
        gain = 256 - (mask.astype(np.uint16) * int(strength * 256) >> 8)
        region[:] = (region * gain[..., None] >> 8).astype(np.uint8)

    def blur_onto(self, shapes: Sequence[Points], paint: Surface, softness: float, strength: float) -> None:
        """Paint with soft edges (clouds): labels where the soft mask passes half of `strength`."""
        polygons = [self._fixed(p) for p in shapes]
        box = self._box(polygons, pad=int(softness * self.size) + 1)
        if box is None:
            return
        top, bottom, left, right = box
        sigma = max(softness * self.size / 2, 0.3)
        mask = cv2.GaussianBlur(self._mask(polygons, box), (0, 0), sigma)
        colour = np.array(blend(paint.colour, self.haze, self.air), np.float32)
        share = mask.astype(np.float32)[..., None] * (strength / 255)
        region = self.image[top:bottom, left:right]
        region[:] = (region + (colour - region) * share).astype(np.uint8)
        self.labels[top:bottom, left:right][mask > 127] = paint.labels

    def _fixed(self, points: Points) -> NDArray[np.int32]:
        return np.asarray(np.rint((points * self.size - 0.5) * _ONE), np.int32)

    def _box(self, polygons: Sequence[NDArray[np.int32]], pad: int = 1) -> tuple[int, int, int, int] | None:
        """Rows top:bottom and columns left:right that the polygons touch; None outside the picture."""
        x, y, width, height = cv2.boundingRect(polygons[0] if len(polygons) == 1 else np.concatenate(polygons))
        left, right = max((x >> _SHIFT) - pad, 0), min(((x + width) >> _SHIFT) + pad + 2, self.size)
        top, bottom = max((y >> _SHIFT) - pad, 0), min(((y + height) >> _SHIFT) + pad + 2, self.size)
        return (top, bottom, left, right) if left < right and top < bottom else None

    def _mask(self, polygons: Sequence[NDArray[np.int32]], box: tuple[int, int, int, int]) -> NDArray[np.uint8]:
        top, bottom, left, right = box
        mask = np.zeros((bottom - top, right - left), np.uint8)
        offset = (-left * _ONE, -top * _ONE)
        moved = [p + np.array(offset, np.int32) for p in polygons]
        cv2.fillPoly(mask, moved, 255, cv2.LINE_AA, _SHIFT)
        return mask

    def _fill_woven(self, polygons: Sequence[NDArray[np.int32]], colour: RGB, weave: Weave) -> None:
        box = self._box(polygons)
        if box is None:
            return
        top, bottom, left, right = box
        mask = self._mask(polygons, box)
        table = colour_ramp(blend(colour, self.haze, self.air), blend(weave.second, self.haze, self.air))
        paint = np.asarray(cv2.LUT(cv2.merge([self._tile(weave, box)] * 3), table[:, None, :]), np.uint8)
        region = self.image[top:bottom, left:right]
        share = mask[..., None].astype(np.uint16)
        share += share >> 7
        mixed = paint * share
        mixed += region * (256 - share)
        region[:] = mixed >> 8

    def _tile(self, weave: Weave, box: tuple[int, int, int, int]) -> NDArray[np.uint8]:
        top, bottom, left, right = box
        texels = SIDE / (weave.width * self.size)
        level = min(max(round(math.log2(texels)), 0), LEVELS - 1) if texels > 1 else 0
        tile = pyramid(weave.tile)[level]
        step = texels / 2**level
        c, s = math.cos(weave.angle) * step, math.sin(weave.angle) * step
        du, dv = weave.offset[0] * tile.shape[1], weave.offset[1] * tile.shape[0]
        matrix = np.array([[c, s, c * left + s * top + du], [-s, c, -s * left + c * top + dv]], np.float64)
        return np.asarray(
            cv2.warpAffine(
                tile, matrix, (right - left, bottom - top),
                flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_WRAP,
            ),
            np.uint8,
        )  # fmt: skip


def colour_ramp(first: RGB, second: RGB) -> NDArray[np.uint8]:
    """(256, 3) uint8 from `first` to `second`, colours in [0, 255]."""
    a, b = np.array(first, np.float32), np.array(second, np.float32)
    return np.asarray((a + (b - a) * _STEPS).astype(np.uint8), np.uint8)


_STEPS = np.linspace(0, 1, 256, dtype=np.float32)[:, None]
