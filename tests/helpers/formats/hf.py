"""Datasets of HuggingFace's library written to disk, with what they hold."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from helpers.images import encode, photo, regions
from numpy.typing import NDArray
from PIL import Image

os.environ["HF_HUB_OFFLINE"] = os.environ["HF_DATASETS_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"

HEIGHT, WIDTH = 24, 32
CLASSES = "index,name,category,plane\n1,car,object,mask\n2,tree,object,\n3,house,object,mask\n4,wheel,part,seg_parts\n"
NAMES = ("street", "garden")

Cell = Mapping[str, bytes | str | None]


def library() -> Any:
    return import_module("datasets")


def cell(pixels: NDArray[np.generic] | bytes, *, form: str = "PNG") -> Cell:
    """A cell of a column of images: the bytes of a file, without a path."""
    return {"bytes": pixels if isinstance(pixels, bytes) else encode(Image.fromarray(pixels), form), "path": None}


def image_of(row: int) -> NDArray[np.uint8]:
    return photo(HEIGHT, WIDTH, row)


def mask_of(row: int) -> NDArray[np.uint16]:
    return regions(HEIGHT, WIDTH, row, ids=4)


def part_of(row: int) -> NDArray[np.uint16]:
    """Numbers 0, 2 and 4: a tree in both planes, and wheels."""
    return regions(HEIGHT, WIDTH, row + 99, ids=3) * np.uint16(2)


def rows(count: int, first: int = 0) -> dict[str, list[Any]]:
    """Columns of `count` rows: image, mask, seg_parts (every third has none), label (-1 in the last row), name."""
    numbers = range(first, first + count)
    return {
        "image": [cell(image_of(n)) for n in numbers],
        "mask": [cell(mask_of(n).astype(np.uint8)) for n in numbers],
        "seg_parts": [None if n % 3 == 0 else cell(part_of(n).astype(np.uint8)) for n in numbers],
        "label": [n % 2 for n in numbers[:-1]] + [-1],
        "name": [f"row {n}" for n in numbers],
    }


def dataset(columns: Mapping[str, Sequence[object]], *, names: Sequence[str] = NAMES) -> Any:
    """A dataset in which image-like columns are images, label is a class label, and others are text."""
    found = library()
    kinds: dict[str, Any] = {}
    for name, cells in columns.items():
        held = next((value for value in cells if value is not None), None)
        kinds[name] = found.Image() if isinstance(held, Mapping) or held is None else found.Value("string")
    if "label" in columns:
        kinds["label"] = found.ClassLabel(names=list(names))
    found.disable_progress_bars()
    return found.Dataset.from_dict(dict(columns), features=found.Features(kinds))


def save_one(path: Path, columns: Mapping[str, Sequence[object]] | None = None) -> Path:
    """Dataset.save_to_disk: one table without a split."""
    dataset(columns if columns is not None else rows(5)).save_to_disk(str(path), max_shard_size="4KB")
    return path


def save_splits(path: Path, *, train: int = 4, val: int = 3) -> Path:
    """DatasetDict.save_to_disk with the splits train and val; val goes on counting where train ends."""
    splits = {"train": dataset(rows(train)), "val": dataset(rows(val, train))}
    library().DatasetDict(splits).save_to_disk(str(path))
    return path


def save_parquet(path: Path) -> Path:
    """A folder as it lies on the hub: data/train-00000-of-00001.parquet."""
    (path / "data").mkdir(parents=True)
    dataset(rows(5)).to_parquet(str(path / "data" / "train-00000-of-00001.parquet"))
    return path
