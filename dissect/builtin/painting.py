"""Labelled scenes at 64 x 64, painted once into files: what the built-in generator and segmenter are trained on."""

from __future__ import annotations

import hashlib
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from microtome.datasets.scenes import SCENE_KINDS, ScenesDataset
from microtome.datasets.scenes.compose import kind_of

SIDE: Final = 64
PLANES: Final = 3
"""Of the planes of `scenes`: object, part, material."""
_PAINTED: Final = 2 * SIDE
_BLOCK: Final = 250
_ENDLESS: Final = 10**9


@dataclass(frozen=True, slots=True)
class Choice:
    """Which scenes of a seed: the first `count` of these kinds and lights (none named: all of them)."""

    seed: int
    count: int
    kinds: tuple[str, ...] = ()
    lights: tuple[str, ...] = ()

    def indices(self) -> NDArray[np.int64]:
        """(count,) int64: their places in `scenes`, in rising order."""
        scenes = ScenesDataset(_ENDLESS, _PAINTED, self.seed)
        found: list[int] = []
        index = 0
        while len(found) < self.count:
            kind = kind_of(self.seed, index)
            if (not self.kinds or SCENE_KINDS[kind] in self.kinds) and (
                not self.lights or scenes.truth(index).light in self.lights
            ):
                found.append(index)
            index += 1
        return np.array(found, np.int64)


@dataclass(frozen=True, slots=True)
class Painted:
    """images: (N, 64, 64, 3) uint8; planes: (N, 3, 64, 64) uint8, ids of concepts, 0 = unlabelled."""

    images: NDArray[np.uint8]
    planes: NDArray[np.uint8]


def paint(choice: Choice, folder: Path, workers: int) -> Painted:
    """The chosen scenes, painted at twice the size and halved: means of pixels, the label of the upper left one.

    They are kept in `folder` under a name that tells the choice, and used again.
    """
    scenes = ScenesDataset(_ENDLESS, _PAINTED, choice.seed)
    mark = hashlib.sha256(f"{scenes.fingerprint()} {choice}".encode()).hexdigest()[:16]
    path = folder / f"painted-{mark}.npz"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        indices = choice.indices()
        blocks = [indices[start : start + _BLOCK] for start in range(0, len(indices), _BLOCK)]
        with ProcessPoolExecutor(workers) as pool:
            parts = list(pool.map(partial(_paint_block, scenes), blocks))
        unfinished = folder / f"painted-{mark}.partial.npz"
        images, planes = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        np.savez(unfinished, images=images, planes=planes)
        unfinished.replace(path)
    with np.load(path) as file:
        return Painted(file["images"], file["planes"])


def _paint_block(scenes: ScenesDataset, indices: NDArray[np.int64]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    images = np.empty((len(indices), SIDE, SIDE, 3), np.uint8)
    planes = np.empty((len(indices), PLANES, SIDE, SIDE), np.uint8)
    for place, index in enumerate(indices):
        sample = scenes.read(int(index))
        images[place] = cv2.resize(sample.image, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
        planes[place] = sample.planes[:PLANES, ::2, ::2]
    return images, planes
