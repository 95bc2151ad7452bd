"""COCO data sets as the public download has them: JSON files, panoptic PNGs, and what was planted in them.

The `write_*` functions return {key: (h, w) category ids, 0 = unlabelled} as a slow and obvious reference.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from helpers.images import photo, regions, save
from numpy.typing import NDArray

from microtome.datasets.base import ImageDataset

THINGS = {1: "person", 18: "dog", 62: "chair"}
STUFF = {92: "banner", 149: "river", 183: "other"}
MERGED = {1: "person", 18: "dog", 62: "chair", 149: "river", 184: "tree-merged"}

Planted = dict[str, NDArray[np.int64]]
Document = dict[str, Any]


def image_name(number: int) -> str:
    return f"{139 + 7 * number:012}.jpg"


def write_panoptic(root: Path, name: str = "val2017", *, images: int = 4, size: tuple[int, int] = (24, 32)) -> Planted:
    """Images, panoptic_NAME.json and its PNGs; regions of 2x2 pixels at least; ids that need all three bytes."""
    planted: Planted = {}
    annotations = []
    for number in range(images):
        blocks = regions(size[0] // 2, size[1] // 2, number, ids=len(MERGED) + 1).repeat(2, 0).repeat(2, 1)
        segments = np.array([0, *(70_001 * (place + 1) + 300 * number for place in range(len(MERGED)))])
        codes = segments[blocks]
        colours = np.stack([codes % 256, codes // 256 % 256, codes // 65536], -1).astype(np.uint8)
        file = image_name(number).replace(".jpg", ".png")
        save(root / f"annotations/panoptic_{name}" / file, colours)
        info = [
            {"id": segment, "category_id": category, "iscrowd": 0, "bbox": [0, 0, 1, 1], "area": 1}
            for segment, category in zip(segments[1:].tolist(), MERGED, strict=True)
        ]
        annotations.append({"segments_info": info, "file_name": file, "image_id": 139 + 7 * number})
        planted[f"{name}/{image_name(number)}"] = np.array([0, *MERGED])[blocks]
    _write(root, "panoptic", name, images, size, annotations, MERGED)
    return planted


def write_instances(root: Path, name: str = "val2017", *, images: int = 4, size: tuple[int, int] = (24, 32)) -> Planted:
    """Images and instances_NAME.json: a crowd in run lengths, polygons of one and two pieces, a compressed code."""
    planted: Planted = {}
    annotations: list[Document] = []
    for number in range(images):
        shift = 2 * (number % 3)
        small, pieces = box(size, 4, 6, 8, 12), box(size, 2 + shift, 4, 20, 22)
        second = box(size, 2, 24, 6, 28)
        crowd, code = box(size, 0, 0, 6, 6), box(size, 10, 14, 18, 24)
        found = [
            (62, 0, small, [polygon(4, 6, 8, 12)]),
            (1, 1, crowd, uncompressed(crowd)),
            (18, 0, pieces | second, [polygon(2 + shift, 4, 20, 22), polygon(2, 24, 6, 28)]),
            (1, 0, code, compressed(code)),
        ]
        annotations += [annotation(number, *one) for one in found]
        planted[f"{name}/{image_name(number)}"] = painted(
            size, [(crowd, mask, category) for category, crowd, mask, _ in found]
        )
    annotations = annotations[::2] + annotations[1::2]  # those of an image do not stand together
    _write(root, "instances", name, images, size, annotations, THINGS)
    return planted


def write_stuff(root: Path, name: str = "val2017", *, images: int = 4, size: tuple[int, int] = (24, 32)) -> Planted:
    """Images and stuff_NAME.json: compressed codes; "other" (183) is where the things are."""
    planted: Planted = {}
    annotations = []
    for number in range(images):
        blocks = regions(size[0] // 2, size[1] // 2, number + 50, ids=4).repeat(2, 0).repeat(2, 1)
        for place, category in enumerate(STUFF, 1):
            if (blocks == place).any():
                annotations.append(annotation(number, category, 0, blocks == place, compressed(blocks == place)))
        planted[f"{name}/{image_name(number)}"] = np.array([0, 92, 149, 0])[blocks]
    _write(root, "stuff", name, images, size, annotations, STUFF)
    return planted


def box(size: tuple[int, int], top: int, left: int, bottom: int, right: int) -> NDArray[np.bool_]:
    mask = np.zeros(size, np.bool_)
    mask[top:bottom, left:right] = True
    return mask


def polygon(top: int, left: int, bottom: int, right: int) -> list[float]:
    return [left, top, right, top, right, bottom, left, float(bottom)]


def uncompressed(mask: NDArray[np.bool_]) -> Document:
    """Run lengths, column by column, beginning with zeros."""
    counts, last = [0], False
    for value in mask.ravel(order="F").tolist():
        if value != last:
            counts.append(0)
            last = value
        counts[-1] += 1
    return {"size": list(mask.shape), "counts": counts}


def compressed(mask: NDArray[np.bool_]) -> Document:
    from pycocotools import mask as coco_mask

    code = coco_mask.encode(np.asfortranarray(mask, np.uint8))
    return {"size": list(mask.shape), "counts": code["counts"].decode("ascii")}


def annotation(number: int, category: int, crowd: int, mask: NDArray[np.bool_], segmentation: object) -> Document:
    return {
        "segmentation": segmentation,
        "area": float(mask.sum()),
        "iscrowd": crowd,
        "image_id": 139 + 7 * number,
        "bbox": [0.0, 0.0, 1.0, 1.0],
        "category_id": category,
        "id": 900_000 + 10 * number + category,
    }


def painted(size: tuple[int, int], regions: list[tuple[int, NDArray[np.bool_], int]]) -> NDArray[np.int64]:
    """Category ids of (crowd, mask, category), pixel by pixel: the smallest that is no crowd, else a crowd."""
    grid = np.zeros(size, np.int64)
    for row in range(size[0]):
        for column in range(size[1]):
            here = [(crowd, mask.sum(), category) for crowd, mask, category in regions if mask[row, column]]
            grid[row, column] = min(here)[2] if here else 0
    return grid


def edit(root: Path, file: str, change: Callable[[Document], object]) -> None:
    """Change annotations/FILE.json."""
    path = root / "annotations" / f"{file}.json"
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def expected(dataset: ImageDataset, categories: NDArray[np.int64]) -> NDArray[np.uint16]:
    """Category ids as concept ids, by the categories' names."""
    by_name = {concept.name: concept.id for concept in dataset.concepts}
    names = {**THINGS, **STUFF, **MERGED}
    return np.array([by_name.get(names.get(number, ""), 0) for number in range(200)], np.uint16)[categories]


def _write(
    root: Path,
    kind: str,
    name: str,
    images: int,
    size: tuple[int, int],
    annotations: list[Document],
    names: dict[int, str],
) -> None:
    listed = [
        {
            "license": 3,
            "file_name": image_name(number),
            "coco_url": f"http://images.cocodataset.org/{name}/{image_name(number)}",
            "height": size[0],
            "width": size[1],
            "date_captured": "2013-11-14 17:02:52",
            "id": 139 + 7 * number,
        }
        for number in range(images)
    ]
    for number in range(images):
        save(root / name / image_name(number), photo(*size, number))
    listed = listed[::-1]  # the public files are in no order
    document = {
        "info": {"description": "COCO 2017 Dataset", "version": "1.0", "year": 2017},
        "licenses": [{"url": "http://creativecommons.org/licenses/by/2.0/", "id": 4, "name": "Attribution License"}],
        "images": listed,
        "annotations": annotations,
        "categories": [{"supercategory": "x", "id": number, "name": text} for number, text in names.items()],
    }
    path = root / "annotations" / f"{kind}_{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document))
