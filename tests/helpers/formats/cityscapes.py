"""A small data set in the layout of Cityscapes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from helpers.images import photo, regions, save
from numpy.typing import NDArray
from PIL import Image

FRAMES = (
    "train/aachen/aachen_000000_000019",
    "train/aachen/aachen_000001_000019",
    "train/ulm/ulm_000000_000019",
    "val/munster/munster_000000_000019",
)
SPARSE = ("train_extra/bayreuth/bayreuth_000000_000019", "train_extra/nuremberg/nuremberg_000000_000019")
HELD_BACK = "test/berlin/berlin_000000_000019"

NUMBERS = np.array([0, 1, 3, 4, 7, 8, 11, 17, 21, 23, 26, 33, 24, 9])
TRAIN_NUMBERS = np.array([255, 0, 1, 2, 8, 10, 13, 18])


def numbers(seed: int, size: tuple[int, int] = (24, 48), of: NDArray[np.integer] = NUMBERS) -> NDArray[np.uint8]:
    """The mask of seed `seed`, (h, w) uint8."""
    return of[regions(*size, seed, ids=len(of))].astype(np.uint8)


def frame(root: Path, key: str, seed: int, size: tuple[int, int] = (24, 48)) -> Path:
    """Write one image."""
    return save(root / "leftImg8bit" / f"{key}_leftImg8bit.png", photo(*size, seed))


def mask(
    root: Path, key: str, pixels: NDArray[np.generic] | Image.Image | bytes, kind: str = "gtFine_labelIds"
) -> Path:
    """Write one mask."""
    return save(root / kind.partition("_")[0] / f"{key}_{kind}.png", pixels)


def fine(root: Path, *, size: tuple[int, int] = (24, 48)) -> Path:
    """Splits train, val and test (which is void) with fine annotations, and what else comes beside them."""
    for seed, key in enumerate(FRAMES):
        frame(root, key, seed, size)
        mask(root, key, numbers(seed, size))
        mask(root, key, photo(*size, seed), "gtFine_color")
        mask(root, key, numbers(seed, size).astype(np.uint16) * 1000, "gtFine_instanceIds")
        (root / "gtFine" / f"{key}_gtFine_polygons.json").write_text("{}")
    frame(root, HELD_BACK, 99, size)
    mask(root, HELD_BACK, numbers(99, size, np.array([0, 1, 2, 3])))
    (root / "README").write_text("The Cityscapes Dataset")
    return root


def coarse(root: Path, *, size: tuple[int, int] = (24, 48)) -> Path:
    """Add coarse annotations: of train and val, which stay fine, and of train_extra."""
    for seed, key in enumerate((*FRAMES, *SPARSE), 50):
        if key in SPARSE:
            frame(root, key, seed, size)
        mask(root, key, numbers(seed, size), "gtCoarse_labelIds")
    return root
