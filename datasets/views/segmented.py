"""Label planes that a segmenter gives: named here, filled in by whoever has run it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from microtome.datasets.base import Concept, ImageDataset, Labels, Sample
from microtome.datasets.planes import once_a_pixel
from microtome.datasets.views.view import View


@dataclass(frozen=True)
class Segments:
    """What a segmenter tells apart: a label and a category for each of its ids, in `planes` maps an image."""

    labels: tuple[str, ...]
    categories: tuple[str, ...]
    planes: int


class Segmented(View):
    """`dataset` with the concepts and planes of a segmenter added, the planes empty.

    A label that the dataset has under the same name and category is the same concept. `place` puts a segmenter's ids
    where they belong.
    """

    def __init__(self, dataset: ImageDataset, segments: Segments) -> None:
        super().__init__(dataset)
        known = {(concept.name, concept.category): concept.id for concept in dataset.concepts}
        added = []
        lookup = [0]
        for label, category in zip(segments.labels, segments.categories, strict=True):
            if (label, category) not in known:
                known[label, category] = len(known) + 1
                added.append(Concept(known[label, category], label, category))
            lookup.append(known[label, category])
        self._concepts = (*dataset.concepts, *added)
        self._lookup = np.array(lookup, np.uint16)
        self._first = len(dataset.plane_names)
        self._names = (*dataset.plane_names, *_plane_names(segments.planes, dataset.plane_names))

    @property
    def concepts(self) -> Sequence[Concept]:
        return self._concepts

    @property
    def plane_names(self) -> Sequence[str]:
        return self._names

    def mark(self) -> str:
        """The concepts and planes that were added."""
        added = [f"{concept.name} {concept.category}" for concept in self._concepts]
        return f"segmented 1 {len(self._names)} {added} {self._lookup.tolist()}"

    def read(self, index: int) -> Sample:
        """Sample `index`, the segmenter's planes 0."""
        sample = self.dataset.read(index)
        return Sample(sample.image, self._with_room(sample.planes), sample.image_labels)

    def read_labels(self, index: int) -> Labels:
        """Its labels, the segmenter's planes 0."""
        labels = super().read_labels(index)
        return Labels(self._with_room(labels.planes), labels.image_labels)

    def place(self, raw: NDArray[np.uint16]) -> NDArray[np.uint16]:
        """(..., P, H, W) planes of this view that hold nothing but the segmenter's ids.

        raw: (..., planes, H, W), id + 1 as the segmenter gave them, 0 = unlabelled.
        """
        placed = np.zeros((*raw.shape[:-3], len(self._names), *raw.shape[-2:]), np.uint16)
        placed[..., self._first :, :, :] = self._lookup[raw]
        once_a_pixel_each(placed, first=self._first)
        return placed

    def _with_room(self, planes: NDArray[np.uint16]) -> NDArray[np.uint16]:
        room = np.zeros((len(self._names) - self._first, *planes.shape[1:]), np.uint16)
        return np.concatenate([planes, room])


def insert_segments(
    dataset: ImageDataset, labels: NDArray[np.uint16], image_labels: NDArray[np.uint16], raw: NDArray[np.uint16]
) -> None:
    """In place: fill what a segmenter gave into `labels`, as views of a `Segmented` dataset show it.

    labels: (n, P, H, W) as `dataset` gives them; image_labels: (n, Q); raw: (n, planes, H, W) as `Segmented.place` has
    it. A concept that is there already, at the pixel or for the whole image, is not given again.
    """
    above = []
    while not isinstance(dataset, Segmented):
        if not isinstance(dataset, View):
            raise ValueError("the dataset has no planes for a segmenter")
        above.append(dataset)
        dataset = dataset.dataset
    placed = dataset.place(raw)
    for view in reversed(above):
        placed = view.relabel(placed)
    np.maximum(labels, placed, out=labels)  # the dataset's own planes are empty in `placed`, and the other way round
    once_a_pixel_each(labels, image_labels)


def once_a_pixel_each(
    labels: NDArray[np.uint16], image_labels: NDArray[np.uint16] | None = None, *, first: int = 0
) -> None:
    """In place: `once_a_pixel` for the planes from `first` on of each of (n, P, H, W), or of one (P, H, W).

    image_labels: (n, Q) or (Q,): what the whole image has is taken out of the planes.
    """
    each = labels.reshape(-1, *labels.shape[-3:])
    for number, planes in enumerate(each):
        filled = np.flatnonzero(planes.any(axis=(1, 2))).tolist()
        pairs = [(earlier, later) for later in filled for earlier in filled if first <= earlier < later]
        whole = None if image_labels is None else image_labels.reshape(len(each), -1)[number].copy()
        once_a_pixel(planes, pairs, whole)


def _plane_names(count: int, taken: Sequence[str]) -> list[str]:
    """`count` names for planes, none of them taken."""
    stem = "segmenter"
    while any(name.startswith(stem) for name in taken):
        stem += "+"
    return [stem if count == 1 else f"{stem} {number + 1}" for number in range(count)]
