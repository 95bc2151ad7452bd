"""Concepts that any image has: colours and simple textures, as label planes computed from its pixels.

Every pixel of the label grid is a block of the image, and its colour is that of the block's mean: what one sees at
that resolution, where a single pixel of the block might be noise, dither or a fringe of chroma subsampling. The mean
is of sRGB values (area resampling, as for the images that models get). Where the label grid is finer than the image,
pixels are named before they are enlarged, since a blend of red and green would be brown.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from microtome.datasets.base import Concept, ImageDataset, Labels, Sample
from microtome.datasets.free.colours import COLOUR_TERMS, name_colours
from microtome.datasets.free.textures import TEXTURES, name_textures
from microtome.datasets.planes import once_a_pixel, resize_labels
from microtome.datasets.views.view import View
from microtome.storage.errors import UnknownNameError

_GRID: Final = 256
"""The longest shorter side of the grid of a sample that has no labels of its own."""

_VERSION: Final = 1
"""Changes whenever a pixel would be named otherwise."""

Size = tuple[int, int]


class FreeConcepts(View):
    """`dataset` with a plane more for each of `kinds` ("colors", "textures"), in alphabetical order.

    The concepts follow the dataset's own, of category color and texture; one that the dataset has already, by name
    and category, is the same concept. The planes lie on the grid of the sample's own; a sample without labels has a
    grid of the image's aspect ratio, with a shorter side of the image's, at most 256. Labels cannot be read without
    decoding the image. Raises UnknownNameError for another kind.
    """

    def __init__(self, dataset: ImageDataset, kinds: Sequence[str]) -> None:
        super().__init__(dataset)
        for kind in kinds:
            if kind not in KINDS:
                raise UnknownNameError("kind of free concepts", kind, KINDS)
        self._kinds = tuple(sorted(set(kinds)))
        concepts = list(dataset.concepts)
        known = {(concept.name, concept.category): concept.id for concept in concepts}
        own_planes = len(dataset.plane_names)
        names = list(dataset.plane_names)
        shared = []
        self._ids: dict[str, NDArray[np.uint16]] = {}
        for kind in self._kinds:
            category, terms, _ = KINDS[kind]
            ids = [known.get((term, category), 0) for term in terms]
            if any(ids):
                shared += [(plane, len(names)) for plane in range(own_planes)]
            for place, term in enumerate(terms):
                if not ids[place]:
                    concepts.append(Concept(len(concepts) + 1, term, category))
                    ids[place] = len(concepts)
            self._ids[kind] = np.array([0, *ids], np.uint16)
            names.append(_unused(kind, names))
        self._concepts, self._plane_names, self._shared = tuple(concepts), tuple(names), tuple(shared)

    @property
    def concepts(self) -> Sequence[Concept]:
        return self._concepts

    @property
    def plane_names(self) -> Sequence[str]:
        return self._plane_names

    def mark(self) -> str:
        """The kinds, and the version of their definitions."""
        return f"free {_VERSION} {' '.join(self._kinds)}" if self._kinds else ""

    def read(self, index: int) -> Sample:
        """Sample `index` with the planes that are computed from its image."""
        sample = self.dataset.read(index)
        size = _grid(sample)
        added = [self._ids[kind][KINDS[kind][2](sample.image, size)] for kind in self._kinds]
        planes = np.concatenate([resize_labels(sample.planes, size), *(plane[None] for plane in added)])
        image_labels = sample.image_labels.copy()
        once_a_pixel(planes, self._shared, image_labels)
        return Sample(sample.image, planes, image_labels)

    def read_labels(self, index: int) -> Labels:
        """The labels of sample `index`; its image is decoded for them."""
        sample = self.read(index)
        return Labels(sample.planes, sample.image_labels)


def _grid(sample: Sample) -> Size:
    height, width = sample.planes.shape[1:]
    if len(sample.planes) and (height, width) != (1, 1):
        return height, width
    height, width = sample.image.shape[:2]
    scale = min(1.0, _GRID / min(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))


def _colours(image: NDArray[np.uint8], size: Size) -> NDArray[np.uint8]:
    """Colour terms (h, w) uint8 on the grid `size`."""
    height, width = min(size[0], image.shape[0]), min(size[1], image.shape[1])
    if (height, width) != image.shape[:2]:
        image = np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA))
    names = name_colours(image)
    return np.asarray(resize_labels(names.astype(np.uint16)[None], size)[0], np.uint8)


def _unused(name: str, names: Sequence[str]) -> str:
    """`name`, or that with a word that says where the plane comes from and, at need, a number."""
    candidates = (name, f"{name} (pixels)", *(f"{name} (pixels {number})" for number in range(2, len(names) + 3)))
    return next(candidate for candidate in candidates if candidate not in names)


KINDS: Final[dict[str, tuple[str, tuple[str, ...], Callable[[NDArray[np.uint8], Size], NDArray[np.uint8]]]]] = {
    "colors": ("color", COLOUR_TERMS, _colours),
    "textures": ("texture", TEXTURES, name_textures),
}
"""Kinds of free concepts: the concepts' category, their names, and what numbers them from 1 on a grid (h, w)."""
