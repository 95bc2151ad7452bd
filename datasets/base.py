"""What every dataset reader gives: images with label planes, and the concepts the labels name.

A *label plane* is one (h, w) map of concept ids; several planes let one pixel be a wheel (part), of a car
(object), red (color). Ids are 1 ... K in the order of `concepts`; 0 means unlabelled. Readers see to it that no
two planes give the same concept at the same pixel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Concept:
    """A labelled visual idea. `id` is 1 ... K; `category` is object, part, material, texture, color or scene."""

    id: int
    name: str
    category: str


@dataclass(frozen=True, slots=True)
class Entry:
    """What is known of a sample before its files are opened.

    key: stable name within the dataset (a relative path, an index); split: "" where the dataset has none;
    label: index into `class_names`, or None.
    """

    key: str
    split: str = ""
    label: int | None = None


@dataclass(frozen=True, slots=True)
class Sample:
    """One image, upright, with its labels.

    image:        (H, W, 3) uint8, RGB in [0, 255]
    planes:       (P, h, w) uint16 concept ids, 0 = unlabelled; covers the same field of view as the image and
                  may be smaller or larger than it (same aspect ratio)
    image_labels: (Q,) uint16 concept ids of the whole image, 0 = none
    """

    image: NDArray[np.uint8]
    planes: NDArray[np.uint16]
    image_labels: NDArray[np.uint16]


@runtime_checkable
class ImageDataset(Protocol):
    """The reader interface. Readers are safe to call from several threads and hold no image in memory.

    spec:               what the user wrote to name this dataset
    concepts:           ids 1 ... K in order
    plane_names:        one name for each label plane, P of them (may be empty: images only)
    image_label_slots:  Q, the most image-level labels that a sample has
    class_names:        names of the class labels; empty where there are none
    """

    @property
    def spec(self) -> str: ...
    @property
    def concepts(self) -> Sequence[Concept]: ...
    @property
    def plane_names(self) -> Sequence[str]: ...
    @property
    def image_label_slots(self) -> int: ...
    @property
    def class_names(self) -> Sequence[str]: ...

    def __len__(self) -> int: ...

    def entry(self, index: int) -> Entry:
        """Key, split and class label of sample `index`, without opening its image."""
        ...

    def read(self, index: int) -> Sample:
        """Decode sample `index`. Raises SampleError where the image or a mask cannot be used."""
        ...

    def fingerprint(self) -> str:
        """A short hash that changes when an image, a mask, a class or an option changes."""
        ...


@runtime_checkable
class FingerprintsSamples(Protocol):
    """What a dataset may give besides, so that a run that grows can tell whether its old samples are what they were."""

    def sample_fingerprint(self, index: int) -> int:
        """64 bits that change when the image, a mask or the meaning of the labels of sample `index` changes."""
        ...
