"""What all views share: a dataset that shows another one's samples, with other labels or in another order."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from microtome.datasets.base import (
    Concept,
    CountsUnknownIds,
    Entry,
    FingerprintsSamples,
    ImageDataset,
    Labels,
    MakesRemarks,
    Remark,
    Sample,
    read_labels,
)


class View:
    """`dataset` as it is: a view overrides what it shows otherwise, and says so in `mark`. An ImageDataset."""

    def __init__(self, dataset: ImageDataset) -> None:
        self.dataset = dataset

    def mark(self) -> str:
        """A text that differs wherever this view shows its samples otherwise than `dataset` does."""
        return ""

    @property
    def spec(self) -> str:
        return self.dataset.spec

    @property
    def concepts(self) -> Sequence[Concept]:
        return self.dataset.concepts

    @property
    def plane_names(self) -> Sequence[str]:
        return self.dataset.plane_names

    @property
    def image_label_slots(self) -> int:
        return self.dataset.image_label_slots

    @property
    def class_names(self) -> Sequence[str]:
        return self.dataset.class_names

    def __len__(self) -> int:
        return len(self.dataset)

    def entry(self, index: int) -> Entry:
        """Key, split and class label of sample `index`."""
        return self.dataset.entry(index)

    def read(self, index: int) -> Sample:
        """Decode sample `index`. Raises SampleError where it cannot be used."""
        return self.dataset.read(index)

    def read_labels(self, index: int) -> Labels:
        """The labels of sample `index`, by the quickest way there is."""
        return read_labels(self.dataset, index)

    def fingerprint(self) -> str:
        """A hash of the dataset's own fingerprint and of what this view shows otherwise."""
        own = self.dataset.fingerprint()
        mark = self.mark()
        return hashlib.blake2b(f"{mark} {own}".encode(), digest_size=16).hexdigest() if mark else own

    def unknown_ids(self) -> dict[str, dict[int, int]]:
        """What the dataset says of numbers that it does not know."""
        return self.dataset.unknown_ids() if isinstance(self.dataset, CountsUnknownIds) else {}

    def remarks(self) -> Sequence[Remark]:
        """What the dataset remarks."""
        return self.dataset.remarks() if isinstance(self.dataset, MakesRemarks) else ()

    def relabel(self, planes: NDArray[np.uint16]) -> NDArray[np.uint16]:
        """Label planes (..., P, H, W) of `dataset` as this view shows them."""
        return planes

    def places(self, indices: Sequence[int]) -> Sequence[int]:
        """Where the samples `indices` of this view stand in `dataset`."""
        return indices


def underlying(dataset: ImageDataset) -> ImageDataset:
    """The dataset that one or several views show; any other as it is."""
    while isinstance(dataset, View):
        dataset = dataset.dataset
    return dataset


def place_of(dataset: ImageDataset, index: int) -> tuple[ImageDataset, int]:
    """The dataset that one or several views show, and where sample `index` of theirs stands in it."""
    while isinstance(dataset, View):
        index = dataset.places([index])[0]
        dataset = dataset.dataset
    return dataset, index


def sample_fingerprints(dataset: ImageDataset, count: int) -> NDArray[np.uint64] | None:
    """(count,) fingerprints of the first `count` samples; None where the dataset does not tell samples apart."""
    places: Sequence[int] = range(count)
    marks: list[str] = []
    while isinstance(dataset, View):
        places = dataset.places(places)
        marks += [mark for mark in [dataset.mark()] if mark]
        dataset = dataset.dataset
    if not isinstance(dataset, FingerprintsSamples):
        return None
    found = np.fromiter((dataset.sample_fingerprint(place) for place in places), np.uint64, count)
    if marks:
        found ^= np.frombuffer(hashlib.blake2b("\n".join(marks).encode(), digest_size=8).digest(), "<u8")[0]
    return found
