"""From the dataset to what the model takes: decoded, resized, cropped images with labels that agree to the pixel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import cv2
import numpy as np
from numpy.typing import NDArray

from microtome.datasets.base import ImageDataset
from microtome.datasets.geometry import CropGeometry
from microtome.datasets.images import Interpolation, crop_labels, resize_crop
from microtome.dissect.models import Preprocess
from microtome.storage.arrays import THUMBNAIL_SIDE
from microtome.storage.errors import SampleError


@dataclass(frozen=True, slots=True)
class Item:
    """One sample, ready for the model, or the reason why it is not.

    image: (H, W, 3) uint8, the model's crop; thumbnail: (32, 32, 3) uint8, the same small; planes: (P, LH, LW) uint16;
    image_labels: (Q,) uint16; height, width: of the upright original in pixels; error: empty where all is well.
    """

    image: NDArray[np.uint8]
    thumbnail: NDArray[np.uint8]
    planes: NDArray[np.uint16]
    image_labels: NDArray[np.uint16]
    height: int
    width: int
    error: str = ""

    @property
    def ok(self) -> bool:
        """Whether the sample could be read."""
        return not self.error


def read_item(dataset: ImageDataset, index: int, preprocess: Preprocess, label_size: tuple[int, int]) -> Item:
    """Read sample `index`, resized and cropped as the model wants it; what cannot be read gives an `error`."""
    try:
        sample = dataset.read(index)
    except SampleError as error:
        return _unreadable(error.reason)
    height, width = sample.image.shape[:2]
    geometry = CropGeometry.of(height, width, size=preprocess.size, resize=preprocess.resize)
    image = resize_crop(sample.image, geometry, cast("Interpolation", preprocess.interpolation))
    return Item(
        image=image,
        thumbnail=thumbnail_of(image),
        planes=crop_labels(sample.planes, geometry, label_size),
        image_labels=sample.image_labels,
        height=height,
        width=width,
    )


def thumbnail_of(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The whole of `image` (H, W, 3) at 32x32, each pixel the mean of the area that it covers, rounded."""
    small = cv2.resize(image, (THUMBNAIL_SIDE, THUMBNAIL_SIDE), interpolation=cv2.INTER_AREA)
    return np.asarray(small, np.uint8)


def _unreadable(reason: str) -> Item:
    return Item(
        image=np.zeros((0, 0, 3), np.uint8),
        thumbnail=np.zeros((0, 0, 3), np.uint8),
        planes=np.zeros((0, 0, 0), np.uint16),
        image_labels=np.zeros(0, np.uint16),
        height=0,
        width=0,
        error=reason,
    )
