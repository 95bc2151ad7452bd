"""Counting the labels themselves: pixels and images of each concept, and which categories a sample annotates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from microtome.dissect.maths.jit import kernel
from microtome.storage.errors import UsageError


@dataclass(frozen=True, slots=True)
class LabelCounts:
    """pixels, images: (K+1,) int64 by concept id (entry 0 is 0; an image label counts H*W pixels);
    annotated: (n, G) bool: the sample has at least one labelled pixel or image label of the category."""

    pixels: NDArray[np.int64]
    images: NDArray[np.int64]
    annotated: NDArray[np.bool_]

    def merge(self, other: LabelCounts) -> LabelCounts:
        """These samples followed by those of `other`."""
        return LabelCounts(
            self.pixels + other.pixels,
            self.images + other.images,
            np.concatenate([self.annotated, other.annotated]),
        )

    def to_arrays(self) -> dict[str, NDArray[np.generic]]:
        """The state, as named arrays."""
        return {"pixels": self.pixels, "images": self.images, "annotated": self.annotated}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[np.generic]]) -> LabelCounts:
        """The state again, from `to_arrays`."""
        return cls(
            arrays["pixels"].astype(np.int64),
            arrays["images"].astype(np.int64),
            arrays["annotated"].astype(np.bool_),
        )


def check_labels(
    labels: NDArray[np.uint16],
    image_labels: NDArray[np.uint16],
    concepts: int,
    category_of: NDArray[np.int64],
    categories: int,
) -> None:
    """Raise where arrays have the wrong form, or hold ids above `concepts` (kernels would write out of bounds)."""
    if labels.ndim != 4 or labels.dtype != np.uint16:
        raise ValueError(f"labels must be (n, P, H, W) uint16, not {labels.shape} {labels.dtype}")
    if image_labels.ndim != 2 or image_labels.dtype != np.uint16:
        raise ValueError(f"image labels must be (n, Q) uint16, not {image_labels.shape} {image_labels.dtype}")
    if category_of.shape != (concepts + 1,) or bool(np.any((category_of < -1) | (category_of >= categories))):
        raise ValueError(f"category_of must be ({concepts + 1},) with values from -1 to {categories - 1}")
    _check_ids(labels, image_labels, concepts)


def _check_ids(labels: NDArray[np.uint16], image_labels: NDArray[np.uint16], concepts: int) -> None:
    highest = max(int(labels.max(initial=0)), int(image_labels.max(initial=0)))
    if highest > concepts:
        raise UsageError(f"a label map holds concept id {highest}, but there are only {concepts} concepts")


def count_labels(
    labels: NDArray[np.uint16],
    image_labels: NDArray[np.uint16],
    n_concepts: int,
    category_of: Sequence[int] | NDArray[np.integer],
    n_categories: int,
) -> LabelCounts:
    """labels: (n, P, H, W) uint16 and image_labels: (n, Q) uint16 hold ids 0 (none) ... n_concepts;
    category_of: (n_concepts + 1,) category index of each, -1 for id 0."""
    categories = np.ascontiguousarray(category_of, dtype=np.int64)
    check_labels(labels, image_labels, n_concepts, categories, n_categories)
    n, _, height, width = labels.shape
    counts = LabelCounts(
        np.zeros(n_concepts + 1, np.int64),
        np.zeros(n_concepts + 1, np.int64),
        np.zeros((n, n_categories), np.bool_),
    )
    flat = np.ascontiguousarray(labels).reshape(n, -1)
    image_rows = np.ascontiguousarray(image_labels)
    _count(flat, image_rows, height * width, categories, counts.pixels, counts.images, counts.annotated)
    return counts


def presence_bits(labels: NDArray[np.uint16], image_labels: NDArray[np.uint16], n_concepts: int) -> NDArray[np.uint8]:
    """(n, ceil((n_concepts + 1) / 8)) bits: bit c, little-endian, says whether concept c occurs in the sample.

    labels: (n, P, H, W) uint16 and image_labels: (n, Q) uint16 hold ids 0 (none) ... n_concepts; bit 0 is never set.
    """
    _check_ids(labels, image_labels, n_concepts)
    n = len(labels)
    there = np.zeros((n, n_concepts + 1), np.bool_)
    _mark(np.ascontiguousarray(labels).reshape(n, -1), there)
    _mark(np.ascontiguousarray(image_labels), there)
    there[:, 0] = False
    return np.packbits(there, axis=1, bitorder="little")


@kernel
def _mark(labels: NDArray[np.uint16], there: NDArray[np.bool_]) -> None:
    """Set there[i, c] where c is among labels[i]."""
    for sample in range(labels.shape[0]):
        last = np.int64(-1)
        for value in labels[sample]:
            if value != last:
                there[sample, value] = True
                last = np.int64(value)


@kernel
def _count(
    labels: NDArray[np.uint16],
    image_labels: NDArray[np.uint16],
    area: int,
    category_of: NDArray[np.int64],
    pixels: NDArray[np.int64],
    images: NDArray[np.int64],
    annotated: NDArray[np.bool_],
) -> None:
    """Four interleaved histograms a sample: equal neighbours then do not wait for each other's store."""
    concepts = pixels.size
    local = np.zeros((4, concepts), np.int64)
    size = labels.shape[1]
    for sample in range(labels.shape[0]):
        row = labels[sample]
        whole = size // 4 * 4
        for i in range(0, whole, 4):
            local[0, row[i]] += 1
            local[1, row[i + 1]] += 1
            local[2, row[i + 2]] += 1
            local[3, row[i + 3]] += 1
        for i in range(whole, size):
            local[0, row[i]] += 1
        for slot in range(image_labels.shape[1]):
            local[0, image_labels[sample, slot]] += area
        for concept in range(concepts):
            total = local[0, concept] + local[1, concept] + local[2, concept] + local[3, concept]
            if total > 0:
                local[0, concept] = local[1, concept] = local[2, concept] = local[3, concept] = 0
                if concept > 0:
                    pixels[concept] += total
                    images[concept] += 1
                    if category_of[concept] >= 0:
                        annotated[sample, category_of[concept]] = True
