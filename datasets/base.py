"""What every dataset reader gives: images with label planes, and the concepts the labels name.

A *label plane* is one (h, w) map of concept ids; several planes let one pixel be a wheel (part), of a car
(object), red (color). Ids are 1 ... K in the order of `concepts`; 0 means unlabelled. Readers see to it that no
two planes give the same concept at the same pixel.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
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


@dataclass(frozen=True, slots=True)
class Labels:
    """The labels of one image: `planes` and `image_labels` as in Sample.

    Planes in which nothing is labelled may have any size.
    """

    planes: NDArray[np.uint16]
    image_labels: NDArray[np.uint16]


@dataclass(frozen=True, slots=True)
class Remark:
    """What a reader noticed about a dataset: one sentence, how many things it holds for, and some of them."""

    text: str
    count: int
    examples: tuple[str, ...] = ()


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


# What a dataset may give besides; readers of ours give all of it.


@runtime_checkable
class ReadsLabels(Protocol):
    """Labels can be had without decoding the image, which is many times faster."""

    def read_labels(self, index: int) -> Labels:
        """The labels of sample `index`, equal to those that `read` gives; the image's file is at most looked at.

        Raises SampleError where a mask cannot be used.
        """
        ...


@runtime_checkable
class CountsUnknownIds(Protocol):
    """Numbers in masks that the dataset's own list of labels does not know; they count as unlabelled."""

    def unknown_ids(self) -> dict[str, dict[int, int]]:
        """{plane: {number: images}}, ascending, over the samples that this object has read, each counted once."""
        ...


@runtime_checkable
class MakesRemarks(Protocol):
    """What was noticed at opening and is no reason to refuse: images without labels, entries without an image."""

    def remarks(self) -> Sequence[Remark]:
        """One remark a kind of finding; none where all is well."""
        ...


@runtime_checkable
class FingerprintsSamples(Protocol):
    """So that a run that grows can tell whether its old samples are what they were."""

    def sample_fingerprint(self, index: int) -> int:
        """64 bits that change when the image, a mask or the meaning of the labels of sample `index` changes."""
        ...


@runtime_checkable
class MakesTogether(Protocol):
    """Samples that are made, not read, and cheaper to make together than one by one."""

    def together(self, indices: Sequence[int]) -> AbstractContextManager[None]:
        """While it is open, this thread reads the samples `indices` without making each by itself."""
        ...


def read_labels(dataset: ImageDataset, index: int) -> Labels:
    """The labels of sample `index`, by the quickest way that `dataset` has. Raises SampleError."""
    if isinstance(dataset, ReadsLabels):
        return dataset.read_labels(index)
    sample = dataset.read(index)
    return Labels(sample.planes, sample.image_labels)
