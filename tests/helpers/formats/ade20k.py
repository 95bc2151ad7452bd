"""Small data sets in the layouts of ADE20K: the scene parsing benchmark of 2016 and the full release of 2021."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from helpers.images import photo, regions, save
from numpy.typing import NDArray

CLASSES = ("wall", "building, edifice", "sky", "bed ", "road, route", "screen, silver screen")
"""Names of the numbers 1 ... 6 of the benchmark."""

FULL = {
    401: "car, auto, automobile",
    774: "door",
    2420: "sky",
    2855: "tree",
    312: "building, edifice",
    2978: "wheel",
    2212: "screen, silver screen",
    2213: "screen, CRT screen",
    1831: "café, coffeehouse",
}
"""Names of numbers of the full release."""

OBJECTS = (401, 774, 2420, 2855, 312, 2212, 2213, 1831)
PARTS = (774, 2978, 312)
PARTS_OF_PARTS = (2978, 774)


def parsing_masks(number: int, size: tuple[int, int] = (24, 32)) -> NDArray[np.uint16]:
    """The numbers of image `number` of the benchmark, (h, w), 0 ... 6."""
    return regions(*size, number)


def parsing(root: Path, *, size: tuple[int, int] = (24, 32)) -> Path:
    """ADEChallengeData2016: four images in training/, two in validation/, of scenes that some share."""
    scenes = ("airport_terminal", "street", "airport_terminal", "art_gallery", "street", "misc")
    lines = []
    for number, scene in enumerate(scenes):
        folder, short = ("training", "train") if number < 4 else ("validation", "val")
        name = f"ADE_{short}_{number + 1:08}"
        save(root / "images" / folder / f"{name}.jpg", photo(*size, number))
        save(root / "annotations" / folder / f"{name}.png", parsing_masks(number, size).astype(np.uint8))
        lines.append(f"{name} {scene}\n")
    (root / "sceneCategories.txt").write_text("".join(lines))
    objects = [f"{number}\t0.1576\t11664\t1172\t1\t{name}\n" for number, name in enumerate(CLASSES, 1)]
    (root / "objectInfo150.txt").write_text("Idx\tRatio\tTrain\tVal\tStuff\tName\n" + "".join(objects))
    return root


def coded(numbers: NDArray[np.integer], instances: int = 5) -> NDArray[np.uint8]:
    """(h, w) numbers as the (h, w, 3) uint8 image that the full release codes them as."""
    high, low = np.divmod(numbers.astype(np.int64), 256)
    blue = np.where(numbers > 0, np.arange(numbers.size).reshape(numbers.shape) % instances + 1, 0)
    return np.stack([high * 10, low, blue], axis=-1).astype(np.uint8)


def drawn(numbers: Sequence[int], seed: int, size: tuple[int, int]) -> NDArray[np.int64]:
    """Regions of `numbers` and of 0, (h, w)."""
    return np.array([0, *numbers])[regions(*size, seed, ids=len(numbers) + 1)]


def full_maps(number: int, size: tuple[int, int] = (24, 32)) -> list[NDArray[np.int64]]:
    """The numbers of image `number` of the full release: objects, and 0 to 2 levels of parts."""
    drawings = ((OBJECTS, 0), (PARTS, 100), (PARTS_OF_PARTS, 200))
    return [drawn(numbers, number + seed, size) for numbers, seed in drawings[: number % 3 + 1]]


def annotation(maps: Sequence[NDArray[np.integer]], scene: object) -> dict[str, object]:
    """The contents of an image's JSON file: an object for each number and level."""
    found = [
        {
            "id": number,
            "name": FULL[number],
            "name_ndx": number,
            "hypernym": [FULL[number], "entity"],
            "raw_name": FULL[number].partition(",")[0],
            "attributes": [],
            "crop": "0",
            "parts": {"hasparts": [], "ispartof": 0 if level else [], "part_level": level},
            "polygon": {"x": [1, 2, 2], "y": [1, 1, 2]},
        }
        for level, numbers in enumerate(maps)
        for number in np.unique(numbers).tolist()
        if number
    ]
    return {"annotation": {"filename": "../../etc/passwd", "imsize": [1, 1, 3], "scene": scene, "object": found}}


PLACES = ("training/urban/street", "training/cultural/apse__indoor", "validation/urban/street")


def full_image(root: Path, number: int, place: str, scene: object, size: tuple[int, int] = (24, 32)) -> Path:
    """Write one image with all that belongs to it; returns its path without its ending."""
    stem = root / "images/ADE" / place / f"ADE_{'val' if place.startswith('v') else 'train'}_{number + 1:08}"
    maps = full_maps(number, size)
    save(Path(f"{stem}.jpg"), photo(*size, number))
    for level, numbers in enumerate(maps):
        save(Path(f"{stem}_parts_{level}.png" if level else f"{stem}_seg.png"), coded(numbers))
    save(stem / f"instance_000_{stem.name}.png", regions(*size, number).astype(np.uint8))
    save(stem / "instance_001.jpg", photo(*size, number))
    encoding = "latin-1" if number % 2 else "utf-8"
    text = json.dumps(annotation(maps, scene), ensure_ascii=False)
    Path(f"{stem}.json").write_bytes(text.encode(encoding))
    return stem


def full(root: Path, *, size: tuple[int, int] = (24, 32)) -> Path:
    """ADE20K_2021_17_01: six images in two scenes, objects and up to two levels of parts."""
    for number in range(6):
        place = PLACES[number % 3]
        scene = ["outdoor", "urban", "street"] if place.endswith("street") else ["cultural", "apse__indoor"]
        full_image(root, number, place, scene, size)
    (root / "index_ade20k.pkl").write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    return root
