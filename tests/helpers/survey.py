"""A dataset that is held in memory, with whatever labels, splits and troubles a test wants."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from microtome.datasets.base import Concept, Entry, Labels, Remark, Sample
from microtome.storage.errors import SampleError


def sample(
    image: NDArray[np.uint8] | None = None,
    planes: NDArray[np.integer] | None = None,
    image_labels: Sequence[int] = (),
) -> Sample:
    """A Sample; without an image a random one, without planes none."""
    if image is None:
        image = np.random.default_rng(0).integers(0, 256, (12, 16, 3), np.uint8)
    planes = np.zeros((0, 1, 1)) if planes is None else planes
    return Sample(image, planes.astype(np.uint16), np.array(image_labels, np.uint16))


@dataclass
class MemoryDataset:
    """An ImageDataset of `samples`; a string in place of a sample is the reason why it cannot be read."""

    samples: Sequence[Sample | str]
    concepts: Sequence[Concept] = ()
    splits: Sequence[str] = ()
    labels: Sequence[int | None] = ()
    class_names: Sequence[str] = ()
    plane_names: Sequence[str] = ()
    image_label_slots: int = 0
    spec: str = "memory"
    keys: Sequence[str] = ()
    unknown: dict[str, dict[int, int]] = field(default_factory=dict)
    remarked: Sequence[Remark] = ()
    decoded: int = 0

    def __post_init__(self) -> None:
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self.samples)

    def entry(self, index: int) -> Entry:
        key = self.keys[index] if self.keys else f"{index:04}"
        return Entry(key, self.splits[index] if self.splits else "", self.labels[index] if self.labels else None)

    def read(self, index: int) -> Sample:
        with self._lock:
            self.decoded += 1
        found = self.samples[index]
        if isinstance(found, str):
            raise SampleError(self.entry(index).key, found)
        return found

    def read_labels(self, index: int) -> Labels:
        found = self.samples[index]
        if isinstance(found, str):
            raise SampleError(self.entry(index).key, found)
        return Labels(found.planes, found.image_labels)

    def fingerprint(self) -> str:
        return "memory00"

    def unknown_ids(self) -> dict[str, dict[int, int]]:
        return self.unknown

    def remarks(self) -> Sequence[Remark]:
        return self.remarked
