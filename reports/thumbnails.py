"""Thumbnails of patches: which there are to draw, and drawing them.

Planning is pure: `plan_patches` turns the tables into arrays ordered by sample, so that every image is decoded once
and every chunk of activations is read once, however the patches of the units are spread over the data.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import TypeAlias

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from microtome.datasets.geometry import CropGeometry
from microtome.reports.outlines import Axis, Mask, as_uint8, dim

SIZE = 96
"""Side of a thumbnail in pixels: six JPEG blocks of 16, so that neighbours in a strip never bleed."""

Box: TypeAlias = tuple[int, int, int, int]
"""top, left, bottom, right in pixels of the original image, half-open."""

_SMALLEST_SIDE = 8


@dataclass(frozen=True, slots=True)
class LayerPatches:
    """The patches of one layer that get a thumbnail, ordered by (sample, unit, rank); all arrays have length n.

    unit, rank, sample: int64; box: (n, 4) int64, top, left, bottom, right in pixels of the original image;
    value: float64, the peak; threshold: float64; outlined: bool, whether the unit has a mask at all; saturated: bool
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
    outlined: NDArray[np.bool_]
    saturated: NDArray[np.bool_]

    def between(self, start: int, stop: int) -> range:
        """Positions of the patches of samples start ... stop - 1."""
        low, high = np.searchsorted(self.sample, [start, stop])
        return range(int(low), int(high))

    def of_units(self, start: int, stop: int) -> LayerPatches:
        """The patches of units start ... stop - 1."""
        kept = (self.unit >= start) & (self.unit < stop)
        names = ("unit", "rank", "sample", "box", "value", "threshold", "outlined", "saturated")
        return replace(self, **{name: getattr(self, name)[kept] for name in names})

    @property
    def held_bytes(self) -> int:
        """Bytes of all thumbnails at most: a picture for every box of every sample, a mask for every patch."""
        places = pd.DataFrame(self.box)
        places["sample"] = self.sample
        pictures = len(places) - int(places.duplicated().sum())
        return (3 * pictures + len(places)) * SIZE * SIZE


def plan_patches(layer: str, units: pd.DataFrame, patches: pd.DataFrame, per_unit: int) -> LayerPatches:
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
        outlined=np.isin(state, ("ok", "saturated"))[unit],
        saturated=(state == "saturated")[unit],
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
class Thumb:
    """A patch ready to draw: the picture of its box, shared by all patches of that box, and the mask on it.

    picture: (rows, columns, 3) uint8; mask: None where the unit has none, then nothing is dimmed
    """

    picture: NDArray[np.uint8]
    mask: Mask | None

    def drawn(self) -> NDArray[np.uint8]:
        """The thumbnail as it is shown, (rows, columns, 3) uint8."""
        if self.mask is None:
            return self.picture
        shown = dim(self.picture)
        self.mask.draw(self.picture, shown)
        return shown


@dataclass(frozen=True, slots=True)
class Drawer:
    """Prepares the patches of one image: what the crop of the model is, and the image itself.

    image: (H, W, 3) uint8, the original, upright
    """

    image: NDArray[np.uint8]
    geometry: CropGeometry
    _views: dict[Box, tuple[Box, NDArray[np.uint8]]] = field(default_factory=dict)

    @classmethod
    def of(cls, image: NDArray[np.uint8], size: tuple[int, int], resize: int | None) -> Drawer:
        """For a model whose input is `size` (H, W), cropped from the image with its shorter side at `resize`."""
        height, width = image.shape[:2]
        return cls(image, CropGeometry.of(height, width, size=size, resize=resize))

    def thumb(
        self, box: Box, activation: NDArray[np.float32] | None, threshold: float = 0.0, saturated: bool = False
    ) -> Thumb:
        """The thumbnail of `box` with the mask of `activation` (h, w), if given."""
        (top, left, bottom, right), picture = self._view(box)
        if activation is None:
            return Thumb(picture, None)
        rows = self._axis(0, top, bottom, picture.shape[0], activation.shape[0])
        columns = self._axis(1, left, right, picture.shape[1], activation.shape[1])
        return Thumb(picture, Mask.of(activation, threshold, saturated, rows, columns))

    def _view(self, box: Box) -> tuple[Box, NDArray[np.uint8]]:
        """`box` within the image, and its picture; kept, since units of deep layers look at the same whole image."""
        known = self._views.get(box)
        if known is None:
            height, width = self.image.shape[:2]
            top, left = min(max(box[0], 0), height - 1), min(max(box[1], 0), width - 1)
            bottom, right = min(max(box[2], top + 1), height), min(max(box[3], left + 1), width)
            known = (top, left, bottom, right), _shrink(self.image[top:bottom, left:right])
            self._views[box] = known
        return known

    def _axis(self, axis: int, start: int, stop: int, count: int, cells: int) -> Axis:
        """Where `count` pixel centres between `start` and `stop` fall on the activation grid."""
        geometry = self.geometry
        offset = geometry.left if axis else geometry.top
        extent = self.image.shape[axis]
        return _axis(start, stop, count, cells, extent, geometry.resized[axis], offset, geometry.size[axis])


@lru_cache(maxsize=8192)
def _axis(start: int, stop: int, count: int, cells: int, extent: int, resized: int, offset: int, size: int) -> Axis:
    """`Drawer._axis` through the model's crop: `size` pixels from `offset` of an image of `extent` made `resized`."""
    places = start + (np.arange(count) + 0.5) * ((stop - start) / count)
    return Axis.at(np.asarray(places * (resized / extent) - offset, np.float64), size, cells)


def _shrink(crop: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """`crop` as a thumbnail.

    Down to half its size bilinear weights miss no pixel; what is larger goes first to a power of two times the
    thumbnail, from which averaging is exact: several times as fast as averaging at any scale, and as smooth.
    """
    rows, columns = thumb_shape(crop.shape[0], crop.shape[1])
    step = 1
    while max(crop.shape) > 2 * step * SIZE:
        step *= 2
    thumb = cv2.resize(crop, (columns * step, rows * step), interpolation=cv2.INTER_LINEAR)
    return as_uint8(thumb if step == 1 else cv2.resize(thumb, (columns, rows), interpolation=cv2.INTER_AREA))
