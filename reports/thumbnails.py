"""Thumbnails of patches: which there are to draw, and drawing them.

Planning is pure: `plan_patches` turns the tables into arrays ordered by sample, so that every image is decoded once
and every chunk of activations is read once, however the patches of the units are spread over the data.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from microtome.datasets.geometry import CropGeometry
from microtome.reports.outlines import kernel

SIZE = 96
"""Side of a thumbnail in pixels: six JPEG blocks of 16, so that neighbours in a strip never bleed."""

Box: TypeAlias = tuple[int, int, int, int]
"""top, left, bottom, right in pixels of the original image, half-open."""

_SMALLEST_SIDE = 8
_SOFT_SHARE = 2.5


@dataclass(frozen=True, slots=True)
class LayerPatches:
    """The patches of one layer that get a thumbnail, ordered by (sample, unit, rank); all arrays have length n.

    unit, rank, sample: int64; box: (n, 4) int64, top, left, bottom, right in pixels of the original image;
    value: float64, the peak; threshold: float64; mapped: bool, whether the unit's map is drawn; saturated: bool
    heat: whether maps are laid over the image as colours, not outlined as masks
    """

    layer: str
    units: int
    per_unit: int
    unit: NDArray[np.int64]
    rank: NDArray[np.int64]
    sample: NDArray[np.int64]
    box: NDArray[np.int64]
    value: NDArray[np.float64]
    threshold: NDArray[np.float64]
    mapped: NDArray[np.bool_]
    saturated: NDArray[np.bool_]
    heat: bool = False

    def between(self, start: int, stop: int) -> range:
        """Positions of the patches of samples start ... stop - 1."""
        low, high = np.searchsorted(self.sample, [start, stop])
        return range(int(low), int(high))

    def of_units(self, start: int, stop: int) -> LayerPatches:
        """The patches of units start ... stop - 1."""
        kept = (self.unit >= start) & (self.unit < stop)
        names = ("unit", "rank", "sample", "box", "value", "threshold", "mapped", "saturated")
        return replace(self, **{name: getattr(self, name)[kept] for name in names})

    def held_bytes(self, cells: int) -> int:
        """Bytes that wait in memory: a picture for every box of every sample, `cells` float32 for every patch."""
        pictures = len(np.unique(np.column_stack([self.sample, self.box]), axis=0))
        return 3 * SIZE * SIZE * pictures + 4 * cells * len(self.sample)


def plan_patches(
    layer: str, units: pd.DataFrame, patches: pd.DataFrame, per_unit: int, *, heat: bool = False
) -> LayerPatches:
    """The thumbnails of a layer: at most `per_unit` a unit, none for units that never respond."""
    state = units["state"].to_numpy().astype(str)
    silent = np.isin(state, ("dead", "constant"))
    kept = patches[(patches["rank"] < per_unit).to_numpy()]
    kept = kept[~silent[kept["unit"].to_numpy()]]
    kept = kept.sort_values(["sample", "unit", "rank"], kind="stable")
    unit = kept["unit"].to_numpy(np.int64)
    return LayerPatches(
        layer=layer,
        units=len(units),
        per_unit=int(kept["rank"].max()) + 1 if len(kept) else 0,
        unit=unit,
        rank=kept["rank"].to_numpy(np.int64),
        sample=kept["sample"].to_numpy(np.int64),
        box=kept[["top", "left", "bottom", "right"]].to_numpy(np.int64),
        value=kept["value"].to_numpy(np.float64),
        threshold=units["threshold"].to_numpy(np.float64)[unit],
        mapped=np.isin(state, ("ok", "saturated"))[unit],
        saturated=(state == "saturated")[unit],
        heat=heat,
    )


def sample_blocks(samples: NDArray[np.int64], chunk: int) -> Iterator[tuple[int, int]]:
    """(start, stop) of every chunk of `chunk` samples that holds any of `samples`, cut to those within it."""
    wanted = np.unique(samples)
    _, first = np.unique(wanted // chunk, return_index=True)
    for part in np.split(wanted, first[1:]):
        if len(part):
            yield int(part[0]), int(part[-1]) + 1


def thumb_shape(height: int, width: int) -> tuple[int, int]:
    """(rows, columns) of the thumbnail of a box of that shape: the longer side is `SIZE`."""
    longer = max(height, width, 1)
    return max(_SMALLEST_SIDE, round(SIZE * height / longer)), max(_SMALLEST_SIDE, round(SIZE * width / longer))


@dataclass(frozen=True, slots=True)
class Pictures:
    """What the patches of several layers show: one small picture for all patches of the same box of the same sample.

    samples: (s,) the samples in use, ascending; sample i has pictures first[i] ... first[i + 1] - 1
    box: (p, 4) int64, as planned
    pixels: (p, SIZE, SIZE, 3) uint8, BGR as OpenCV encodes; shape: (p, 2) int64, the rows and columns in use, 0 until
    the picture is taken; place: (p, 4) float64, where they lie on the activation map, see `outlines.draw_patch`
    """

    samples: NDArray[np.int64]
    first: NDArray[np.int64]
    box: NDArray[np.int64]
    pixels: NDArray[np.uint8]
    shape: NDArray[np.int64]
    place: NDArray[np.float64]

    @classmethod
    def plan(cls, plans: Sequence[LayerPatches]) -> tuple[Pictures, list[NDArray[np.int64]]]:
        """The pictures, not taken yet, and for each of `plans` the number of every patch's picture."""
        keys = np.concatenate([np.column_stack([plan.sample, plan.box]) for plan in plans])
        unique, number = np.unique(keys, axis=0, return_inverse=True)
        samples, first = np.unique(unique[:, 0], return_index=True)
        count = len(unique)
        pixels = np.empty((count, SIZE, SIZE, 3), np.uint8)
        shape, place = np.zeros((count, 2), np.int64), np.zeros((count, 4), np.float64)
        pictures = cls(samples, np.append(first, count), unique[:, 1:], pixels, shape, place)
        return pictures, np.split(number, np.cumsum([len(plan.sample) for plan in plans])[:-1])

    def take(self, index: int, camera: Camera) -> None:
        """Take all pictures of sample `samples[index]`."""
        for number in range(int(self.first[index]), int(self.first[index + 1])):
            top, left, bottom, right = self.box[number].tolist()
            view = camera.look((top, left, bottom, right))
            rows, columns = view.picture.shape[:2]
            self.pixels[number, :rows, :columns] = cv2.cvtColor(view.picture, cv2.COLOR_RGB2BGR)
            self.place[number] = view.place
            self.shape[number] = rows, columns


@dataclass(frozen=True, slots=True)
class View:
    """What a camera sees of a box.

    picture: (rows, columns, 3) uint8; place: where its pixels lie on an activation map, see `outlines.draw_patch`
    """

    picture: NDArray[np.uint8]
    place: tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Camera:
    """Looks at boxes of one image, and knows what the crop of the model is.

    image: (H, W, 3) uint8, the original, upright
    """

    image: NDArray[np.uint8]
    geometry: CropGeometry
    _softened: list[NDArray[np.uint8]] = field(default_factory=list)

    @classmethod
    def of(cls, image: NDArray[np.uint8], size: tuple[int, int], resize: int | None) -> Camera:
        """For a model whose input is `size` (H, W), cropped from the image with its shorter side at `resize`."""
        height, width = image.shape[:2]
        return cls(image, CropGeometry.of(height, width, size=size, resize=resize))

    def look(self, box: Box) -> View:
        """The part of `box` that lies within the image, or its pixels nearest to `box`."""
        height, width = self.image.shape[:2]
        top, left = min(max(box[0], 0), height - 1), min(max(box[1], 0), width - 1)
        bottom, right = min(max(box[2], top + 1), height), min(max(box[3], left + 1), width)
        picture = self._shrink(top, left, bottom, right)
        down = self._axis(0, top, bottom, picture.shape[0])
        return View(picture, (*down, *self._axis(1, left, right, picture.shape[1])))

    def _axis(self, axis: int, start: int, stop: int, count: int) -> tuple[float, float]:
        """Where the first of `count` pixel centres between `start` and `stop` falls in the crop, and how far apart."""
        geometry = self.geometry
        offset = geometry.left if axis else geometry.top
        size = geometry.size[axis]
        scale = geometry.resized[axis] / self.image.shape[axis]
        step = (stop - start) / count
        return ((start + step / 2) * scale - offset) / size, step * scale / size

    def _shrink(self, top: int, left: int, bottom: int, right: int) -> NDArray[np.uint8]:
        """That part of the image as a thumbnail.

        Down to half its size bilinear weights miss no pixel, and somewhat below that they miss nothing of an image
        softened before, once for all its boxes. What is larger goes first to a power of two times the thumbnail, from
        which averaging is exact: several times as fast as averaging at any scale, and as smooth.
        """
        longer = max(bottom - top, right - left)
        rows, columns = thumb_shape(bottom - top, right - left)
        soft = 2 * SIZE < longer <= _SOFT_SHARE * SIZE
        if soft and not self._softened:
            flat = self.image.reshape(len(self.image), -1)
            self._softened.append(_soften(flat).reshape(self.image.shape))
        crop = (self._softened[0] if soft else self.image)[top:bottom, left:right]
        step = 1
        while not soft and longer > 2 * step * SIZE:
            step *= 2
        thumb = cv2.resize(crop, (columns * step, rows * step), interpolation=cv2.INTER_LINEAR)
        shown = thumb if step == 1 else cv2.resize(thumb, (columns, rows), interpolation=cv2.INTER_AREA)
        return np.asarray(shown, np.uint8)


@kernel
def _soften(flat: Any) -> Any:
    """An image as rows of bytes, three a pixel, averaged 11 : 42 : 11 with its neighbours down and across."""
    height, width = flat.shape
    out = np.empty_like(flat)
    line = np.empty(width + 6, np.uint32)
    for i in range(height):
        above, here, below = flat[max(i - 1, 0)], flat[i], flat[min(i + 1, height - 1)]
        for j in range(width):
            line[j + 3] = np.uint32(42) * here[j] + np.uint32(11) * (np.uint32(above[j]) + np.uint32(below[j]))
        for j in range(3):
            line[j], line[width + 3 + j] = line[j + 3], line[width + j]
        for j in range(width):
            total = np.uint32(42) * line[j + 3] + np.uint32(11) * (line[j] + line[j + 6])
            out[i, j] = (total + np.uint32(2048)) >> np.uint32(12)
    return out
