"""Thumbnails of patches: which there are to draw, and drawing them.

Planning is pure: `plan_patches` turns the tables into arrays ordered by sample, so that every image is decoded once
and every chunk of activations is read once, however the patches of the units are spread over the data.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from microtome.datasets.geometry import CropGeometry
from microtome.reports.outlines import Axis, as_uint8, draw_outline, unit_mask

SIZE = 112
"""Side of a thumbnail in pixels: seven JPEG blocks of 16, so that neighbours in a strip never bleed."""

Box: TypeAlias = tuple[int, int, int, int]
"""top, left, bottom, right in pixels of the original image, half-open."""

_SMALLEST_SIDE = 8


@dataclass(frozen=True, slots=True)
class LayerPatches:
    """The patches of one layer that get a thumbnail, ordered by (sample, unit, rank); all arrays have length n.

    unit, rank, sample: int64; box: (n, 4) int64, top, left, bottom, right in pixels of the original image;
    threshold: float64; outlined: bool, whether the unit has a mask at all; saturated: bool
    """

    layer: str
    units: int
    per_unit: int
    unit: NDArray[np.int64]
    rank: NDArray[np.int64]
    sample: NDArray[np.int64]
    box: NDArray[np.int64]
    threshold: NDArray[np.float64]
    outlined: NDArray[np.bool_]
    saturated: NDArray[np.bool_]

    def between(self, start: int, stop: int) -> range:
        """Positions of the patches of samples start ... stop - 1."""
        low, high = np.searchsorted(self.sample, [start, stop])
        return range(int(low), int(high))

    @property
    def scratch_bytes(self) -> int:
        """Bytes of all thumbnails, raw."""
        return self.units * self.per_unit * SIZE * SIZE * 3


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
class Drawer:
    """Draws the patches of one image: what the crop of the model is, and the image itself.

    image: (H, W, 3) uint8, the original, upright
    """

    image: NDArray[np.uint8]
    geometry: CropGeometry
    _plain: dict[Box, NDArray[np.uint8]] = field(default_factory=dict)

    @classmethod
    def of(cls, image: NDArray[np.uint8], size: tuple[int, int], resize: int | None) -> Drawer:
        """For a model whose input is `size` (H, W), cropped from the image with its shorter side at `resize`."""
        height, width = image.shape[:2]
        return cls(image, CropGeometry.of(height, width, size=size, resize=resize))

    def draw(
        self, box: Box, activation: NDArray[np.float32] | None, threshold: float = 0.0, saturated: bool = False
    ) -> NDArray[np.uint8]:
        """The thumbnail of `box`, (rows, columns, 3) uint8, with the mask of `activation` (h, w) outlined if given."""
        inside = self._clip(box)
        thumb = self._thumb(inside)
        if activation is None:
            return thumb
        rows, columns = self._axes(inside, (thumb.shape[0], thumb.shape[1]), activation.shape)
        return draw_outline(thumb, unit_mask(activation, threshold, saturated, rows, columns))

    def _clip(self, box: Box) -> Box:
        """`box` within the image, at least one pixel."""
        height, width = self.image.shape[:2]
        top, left = min(max(box[0], 0), height - 1), min(max(box[1], 0), width - 1)
        return top, left, min(max(box[2], top + 1), height), min(max(box[3], left + 1), width)

    def _thumb(self, box: Box) -> NDArray[np.uint8]:
        """The thumbnail of `box` without a mask; kept, since units of deep layers look at the same whole image."""
        known = self._plain.get(box)
        if known is None:
            top, left, bottom, right = box
            rows, columns = thumb_shape(bottom - top, right - left)
            method = cv2.INTER_AREA if bottom - top > rows else cv2.INTER_LINEAR
            known = as_uint8(cv2.resize(self.image[top:bottom, left:right], (columns, rows), interpolation=method))
            self._plain[box] = known
        return known

    def _axes(self, box: Box, shape: tuple[int, int], grid: tuple[int, ...]) -> tuple[Axis, Axis]:
        """Where the thumbnail's pixel centres fall on the activation grid, through the model's crop."""
        height, width = self.image.shape[:2]
        rows = box[0] + (np.arange(shape[0]) + 0.5) * ((box[2] - box[0]) / shape[0])
        columns = box[1] + (np.arange(shape[1]) + 0.5) * ((box[3] - box[1]) / shape[1])
        crop_rows = rows * (self.geometry.resized[0] / height) - self.geometry.top
        crop_columns = columns * (self.geometry.resized[1] / width) - self.geometry.left
        crop = self.geometry.size
        return Axis.at(crop_rows, crop[0], grid[0]), Axis.at(crop_columns, crop[1], grid[1])
