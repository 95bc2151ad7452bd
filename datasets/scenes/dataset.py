"""The `scenes` dataset: procedural pictures with known truth, on every label plane at once."""

from __future__ import annotations

import hashlib
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from microtome.datasets.base import Concept, Entry, Sample
from microtome.datasets.scenes.canvas import Canvas
from microtome.datasets.scenes.colours import name_colours
from microtome.datasets.scenes.compose import SceneTruth, compose, is_validation, kind_of
from microtome.datasets.scenes.concepts import CONCEPTS, PLANES, SCENE_KINDS, concept_id
from microtome.datasets.scenes.light import expose, grade, light_up
from microtome.storage.errors import UsageError

GENERATOR: Final = "scenes-1"
"""Version of the generator: changes whenever a scene would look different. Part of the fingerprint."""

_SMALLEST, _LARGEST = 16, 4096


class ScenesDataset:
    """`count` scenes of `size` x `size` pixels; seed and index give the picture, whatever the count.

    A layout is in relative coordinates: scene 7 shows the same things at 64 pixels and at 512. Nothing is stored
    and nothing is shared between reads, so threads and processes may read at will. One scene in five is in the
    split `val`, the others in `train`; the class label is the kind of scene.

    The color plane names each pixel's colour after lighting, haze and shadow, over a neighbourhood of about a
    hundredth of the picture, before the camera's blur and noise (see `colours`).
    """

    def __init__(self, count: int, size: int = 128, seed: int = 0) -> None:
        if count < 1:
            raise UsageError(f"scenes: count is {count}; give at least 1, as in scenes:2000.")
        if not _SMALLEST <= size <= _LARGEST:
            raise UsageError(f"scenes: size is {size}; give {_SMALLEST} to {_LARGEST} pixels.")
        if not 0 <= seed < 2**63:
            raise UsageError(f"scenes: seed is {seed}; give 0 or a positive number below 2**63.")
        self._count, self._size, self._seed = count, size, seed

    @property
    def spec(self) -> str:
        """`scenes:COUNT`, with the options that differ from their defaults."""
        options = [f"size={self._size}"] * (self._size != 128) + [f"seed={self._seed}"] * (self._seed != 0)
        return f"scenes:{self._count}" + (f"?{'&'.join(options)}" if options else "")

    @property
    def concepts(self) -> tuple[Concept, ...]:
        return CONCEPTS

    @property
    def plane_names(self) -> tuple[str, ...]:
        return PLANES

    @property
    def image_label_slots(self) -> int:
        return 1

    @property
    def class_names(self) -> tuple[str, ...]:
        return SCENE_KINDS

    def __len__(self) -> int:
        return self._count

    def entry(self, index: int) -> Entry:
        """Key, split and class of scene `index`; costs microseconds."""
        self._check(index)
        split = "val" if is_validation(self._seed, index) else "train"
        return Entry(f"{self._seed}-{index:06d}", split, kind_of(self._seed, index))

    def read(self, index: int) -> Sample:
        """Paint scene `index`: image (size, size, 3) uint8, planes (5, size, size) uint16, one image label."""
        self._check(index)
        canvas = Canvas(self._size)
        truth, light, dice = compose(canvas, self._seed, index)
        lit = grade(canvas.image, light)
        if light.dark:
            light_up(canvas, lit)
        planes = np.empty((len(PLANES), self._size, self._size), np.uint16)
        planes[:4] = canvas.labels.transpose(2, 0, 1)
        planes[4] = self._colour_plane(lit)
        image_labels = np.array([concept_id("scene", truth.kind)], np.uint16)
        return Sample(expose(lit, dice), planes, image_labels)

    def truth(self, index: int) -> SceneTruth:
        """What scene `index` was made of. It is painted at a tiny size to find out; costs about a millisecond."""
        self._check(index)
        return compose(Canvas(_SMALLEST), self._seed, index)[0]

    def fingerprint(self) -> str:
        """16 hexadecimal digits over the generator's version, seed, count and size."""
        words = f"{GENERATOR} count={self._count} size={self._size} seed={self._seed}"
        return hashlib.sha256(words.encode()).hexdigest()[:16]

    def sample_fingerprint(self, index: int) -> int:
        """64 bits over the generator's version, seed, size and index: the number of scenes changes no scene."""
        self._check(index)
        words = f"{GENERATOR} size={self._size} seed={self._seed} index={index}"
        return int.from_bytes(hashlib.sha256(words.encode()).digest()[:8])

    def _colour_plane(self, lit: NDArray[np.uint8]) -> NDArray[np.uint16]:
        width = max(self._size // 128, 1) * 2 + 1
        smooth = np.asarray(cv2.blur(lit, (width, width)), np.uint8)
        return name_colours(smooth).astype(np.uint16) + np.uint16(_FIRST_COLOUR)

    def _check(self, index: int) -> None:
        if not 0 <= index < self._count:
            raise IndexError(f"scene {index} of {self._count}: indices run from 0 to {self._count - 1}")


_FIRST_COLOUR: Final = concept_id("color", "black")
