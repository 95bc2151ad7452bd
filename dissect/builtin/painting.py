"""Labelled scenes at 64 x 64, painted once into files: what the built-in generator and segmenter are trained on."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from microtome.datasets.scenes import SCENE_KINDS, ScenesDataset
from microtome.datasets.scenes.canvas import Canvas, Points, Surface
from microtome.datasets.scenes.compose import compose, kind_of, setting_of

SIDE: Final = 64
PLANES: Final = 3
"""Of the planes of `scenes`: object, part, material."""
_PAINTED: Final = 2 * SIDE
_BLOCK: Final = 250
_ENDLESS: Final = 10**9
_SMALL: Final = 16
_EDGE: Final = 0.1


@dataclass(frozen=True, slots=True)
class Choice:
    """Which scenes of a seed: the first `count` of these kinds, lights, grounds, layouts (none named: all of them).

    only: nothing else stands in them. showing: stands in them, at least `tall` (1: as high as the picture), with its
    middle a tenth or more within the picture. views: pictures of each scene, the first of all of it, the others of
    a window with a side of 80% to 100%.
    """

    seed: int
    count: int
    kinds: tuple[str, ...] = ()
    lights: tuple[str, ...] = ()
    grounds: tuple[str, ...] = ()
    layouts: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    showing: str = ""
    tall: float = 0.0
    views: int = 1

    def indices(self) -> NDArray[np.int64]:
        """(count,) int64: their places in `scenes`, in rising order."""
        found: list[int] = []
        index = 0
        while len(found) < self.count:
            kind = SCENE_KINDS[kind_of(self.seed, index)]
            if (not self.kinds or kind in self.kinds) and self._holds(index):
                found.append(index)
            index += 1
        return np.array(found, np.int64)

    def _holds(self, index: int) -> bool:
        setting = setting_of(self.seed, index)
        wanted = ((self.lights, setting.light), (self.grounds, setting.ground), (self.layouts, setting.layout))
        if any(names and name not in names for names, name in wanted):
            return False
        if not self.only and not self.showing:
            return True
        things = compose(_Unpainted(_SMALL), self.seed, index)[0].things
        return all(not self.only or thing.name in self.only for thing in things) and (
            not self.showing
            or any(t.name == self.showing and t.height >= self.tall and _EDGE <= t.x <= 1 - _EDGE for t in things)
        )


class _Unpainted(Canvas):
    """A canvas on which things leave no trace: what stands in a scene is found faster."""

    def fill(self, shapes: Points | Sequence[Points], paint: Surface) -> None:
        pass

    def shadow(self, shape: Points, strength: float) -> None:
        pass

    def blur_onto(self, shapes: Sequence[Points], paint: Surface, softness: float, strength: float) -> None:
        pass


@dataclass(frozen=True, slots=True)
class Painted:
    """images: (N, 64, 64, 3) uint8; planes: (N, 3, 64, 64) uint8, ids of concepts, 0 = unlabelled."""

    images: NDArray[np.uint8]
    planes: NDArray[np.uint8]


def paint(choice: Choice, folder: Path, workers: int) -> Painted:
    """The chosen scenes, painted at twice the size and halved: means of pixels, labels of single ones.

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
            parts = list(pool.map(partial(_paint_block, scenes, choice), blocks))
        unfinished = folder / f"painted-{mark}.partial.npz"
        images, planes = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        np.savez(unfinished, images=images, planes=planes)
        unfinished.replace(path)
    with np.load(path) as file:
        return Painted(file["images"], file["planes"])


def _paint_block(
    scenes: ScenesDataset, choice: Choice, indices: NDArray[np.int64]
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    count = len(indices) * choice.views
    images = np.empty((count, SIDE, SIDE, 3), np.uint8)
    planes = np.empty((count, PLANES, SIDE, SIDE), np.uint8)
    for place, (index, view) in enumerate(product(indices.tolist(), range(choice.views))):
        if view == 0:
            sample = scenes.read(index)
        top, left, side = _window(choice.seed, index, view)
        part = sample.image[top : top + side, left : left + side]
        images[place] = cv2.resize(part, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
        steps = np.arange(SIDE) * side // SIDE
        planes[place] = sample.planes[:PLANES, top + steps[:, None], left + steps]
    return images, planes


def _window(seed: int, index: int, view: int) -> tuple[int, int, int]:
    """Upper row, left column and side of a view; view 0 is the whole picture."""
    if view == 0:
        return 0, 0, _PAINTED
    rng = np.random.default_rng((seed, index, view))
    side = int(rng.integers(_PAINTED * 4 // 5, _PAINTED + 1))
    top, left = rng.integers(0, _PAINTED - side + 1, 2).tolist()
    return top, left, side
