"""From the dataset to what the model takes: decoded, resized, cropped images with labels that agree to the pixel.

A generator takes the latents that its images are made of; of its images there are labels and thumbnails all the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias, TypeVar, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from microtome.datasets.base import ImageDataset, MakesTogether
from microtome.datasets.geometry import CropGeometry
from microtome.datasets.images import Interpolation, crop_labels, resize_crop
from microtome.datasets.views.view import place_of
from microtome.dissect.audit.turns import TurnPool
from microtome.dissect.generators.data import GeneratedDataset, LatentRow
from microtome.dissect.models import Preprocess
from microtome.storage.arrays import THUMBNAIL_SIDE
from microtome.storage.errors import SampleError

T = TypeVar("T")

Fed: TypeAlias = NDArray[np.uint8] | LatentRow
"""What a model is fed with for one sample: a picture (H, W, 3), or a generator's latents."""

MADE_AT_ONCE = 16
"""Samples that one thread makes together, where they are made."""


@dataclass(frozen=True, slots=True)
class Item:
    """One sample, ready for the model, or the reason why it is not.

    image: (H, W, 3) uint8, the model's crop; thumbnail: (32, 32, 3) uint8, the same small; planes: (P, LH, LW) uint16;
    image_labels: (Q,) uint16; height, width: of the upright original in pixels; error: empty where all is well;
    latents: what a generator makes the image of, None for images that come from elsewhere.
    """

    image: NDArray[np.uint8]
    thumbnail: NDArray[np.uint8]
    planes: NDArray[np.uint16]
    image_labels: NDArray[np.uint16]
    height: int
    width: int
    error: str = ""
    latents: LatentRow | None = None

    @property
    def fed(self) -> Fed:
        """What the model takes."""
        return self.image if self.latents is None else self.latents

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
    made, place = place_of(dataset, index)
    return Item(
        image=image,
        thumbnail=thumbnail_of(image),
        planes=crop_labels(sample.planes, geometry, label_size),
        image_labels=sample.image_labels,
        height=height,
        width=width,
        latents=made.latents(place) if isinstance(made, GeneratedDataset) else None,
    )


def read_each(dataset: ImageDataset, indices: Sequence[int], read: Callable[[int], T]) -> list[T]:
    """`read(index)` of each of some samples of `dataset`; those that are made, made together."""
    with made_together(dataset, indices):
        return [read(index) for index in indices]


def submit_each(
    decoders: TurnPool, turn: int, dataset: ImageDataset, indices: Sequence[int], read: Callable[[int], T]
) -> list[Future[list[T]]]:
    """The same as work for several threads: one sample at a time, or a few that are made together."""
    step = made_at_once(dataset)
    parts = [indices[start : start + step] for start in range(0, len(indices), step)]
    return [decoders.submit(turn, partial(read_each, dataset, part, read)) for part in parts]


def made_at_once(dataset: ImageDataset) -> int:
    """How many samples one thread reads together: several where they are made, else one."""
    return MADE_AT_ONCE if isinstance(place_of(dataset, 0)[0], MakesTogether) else 1


@contextmanager
def made_together(dataset: ImageDataset, indices: Sequence[int]) -> Iterator[None]:
    """While open, this thread reads the samples `indices`; those that are made are made together."""
    places = [place_of(dataset, index) for index in indices]
    made = places[0][0] if places else None
    if not isinstance(made, MakesTogether):
        yield
        return
    with made.together([place for _, place in places]):
        yield


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
