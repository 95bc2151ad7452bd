"""The geometry of "resize the shorter side, then cut out the centre", in integers, for images and labels alike.

Three grids cover the same field of view: the original image (and its label planes, at any resolution), the
resized image, and the crop inside it that a model sees. Pixel i of an axis of n pixels covers [i, i + 1) / n of
that axis; centres are at (i + 0.5) / n. Sizes and offsets are rounded as torchvision's `Resize` and `CenterCrop`
round them, so that a model gets exactly the crop it was trained for; where the resized image is smaller than the
crop, the crop is padded, as there (its offset is then negative).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from microtome.storage.errors import UsageError

Box = tuple[float, float, float, float]
IntBox = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class CropGeometry:
    """Where the crop that a model sees lies in the original image.

    height, width: of the original image, upright, in pixels
    resized:       (rh, rw) of the image after its shorter side was resized
    top, left:     of the crop, in pixels of the resized image; negative where the crop is padded
    size:          (H, W) of the crop
    """

    height: int
    width: int
    resized: tuple[int, int]
    top: int
    left: int
    size: tuple[int, int]

    @classmethod
    def of(cls, height: int, width: int, *, size: tuple[int, int], resize: int | None) -> CropGeometry:
        """The geometry for an image of height x width pixels.

        size: (H, W) of the crop; resize: length of the shorter side after resizing, or None for the least
        length at which the image covers the crop. Raises UsageError where a length is not positive.
        """
        if min(height, width, *size) < 1 or (resize is not None and resize < 1):
            raise UsageError(
                f"cannot crop {size[0]}x{size[1]} from {height}x{width} pixels with shorter side {resize}; "
                "every length has to be 1 or more"
            )
        short = _covering_side(height, width, size) if resize is None else resize
        resized = _resized(height, width, short)
        return cls(
            height=height,
            width=width,
            resized=resized,
            top=_offset(resized[0], size[0]),
            left=_offset(resized[1], size[1]),
            size=(size[0], size[1]),
        )

    def scaled(self, size: tuple[int, int]) -> CropGeometry:
        """The same field of view, up to half a pixel, as a crop of `size` (H, W)."""
        if size == self.size:
            return self
        tall, wide = size[0] / self.size[0], size[1] / self.size[1]
        resized = max(1, round(self.resized[0] * tall)), max(1, round(self.resized[1] * wide))
        return CropGeometry(self.height, self.width, resized, round(self.top * tall), round(self.left * wide), size)

    def label_indices(
        self, label_size: tuple[int, int], plane_shape: tuple[int, int]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Which row and column of a label plane the centre of each pixel of the label grid falls on.

        label_size: (LH, LW), a grid over the crop; plane_shape: (h, w) of a plane over the original's field of
        view. Returns rows (LH,) and columns (LW,) int64; -1 where the crop is padding. A centre that falls on
        the border of two pixels takes the later one.
        """
        rows = _nearest(self.top, self.size[0], self.resized[0], label_size[0], plane_shape[0])
        columns = _nearest(self.left, self.size[1], self.resized[1], label_size[1], plane_shape[1])
        return rows, columns

    def to_original(self, top: float, left: float, bottom: float, right: float) -> IntBox:
        """The smallest box of whole original pixels that holds a box in crop pixels, clipped to the image.

        Both are half-open (top, left, bottom, right). A box that lies in padding alone comes back empty.
        """
        (rh, rw), height, width = self.resized, self.height, self.width
        return (
            _clip(math.floor((top + self.top) * height / rh), height),
            _clip(math.floor((left + self.left) * width / rw), width),
            _clip(math.ceil((bottom + self.top) * height / rh), height),
            _clip(math.ceil((right + self.left) * width / rw), width),
        )

    def to_crop(self, box: Box) -> Box:
        """The inverse of `to_original`, unrounded and unclipped: a box in original pixels, in crop pixels."""
        top, left, bottom, right = box
        (rh, rw), height, width = self.resized, self.height, self.width
        return (
            top * rh / height - self.top,
            left * rw / width - self.left,
            bottom * rh / height - self.top,
            right * rw / width - self.left,
        )

    def source_box(self) -> Box:
        """(top, left, bottom, right) of the crop without its padding, in original pixels, unrounded."""
        (rh, rw), (crop_height, crop_width) = self.resized, self.size
        return (
            max(0, self.top) * self.height / rh,
            max(0, self.left) * self.width / rw,
            min(rh, self.top + crop_height) * self.height / rh,
            min(rw, self.left + crop_width) * self.width / rw,
        )


def _resized(height: int, width: int, short: int) -> tuple[int, int]:
    if width <= height:
        return int(short * height / width), short
    return short, int(short * width / height)


def _covering_side(height: int, width: int, size: tuple[int, int]) -> int:
    """The least shorter side at which the resized image is at least `size`."""
    along_short, along_long = (size[1], size[0]) if width <= height else size
    short_length, long_length = sorted((height, width))
    side = max(along_short, along_long * short_length // long_length)
    while int(side * long_length / short_length) < along_long:
        side += 1
    return side


def _offset(length: int, crop: int) -> int:
    if crop > length:
        return -((crop - length) // 2)
    return round((length - crop) / 2.0)


def _nearest(offset: int, crop: int, resized: int, labels: int, plane: int) -> NDArray[np.int64]:
    """Indices in a plane axis for `labels` centres over a crop axis: floor of an exact fraction."""
    doubled = (2 * np.arange(labels, dtype=np.int64) + 1) * crop + 2 * offset * labels
    scale = 2 * labels * resized
    inside = (doubled >= 0) & (doubled < scale)
    return np.where(inside, doubled * plane // scale, -1)


def _clip(value: int, limit: int) -> int:
    return min(max(value, 0), limit)
