"""Datasets of HuggingFace's library written to disk, with what they hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.images import encode, photo, regions
from numpy.typing import NDArray
from PIL import Image

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


def planted(row: int) -> NDArray[np.int64]:
    """The planes of a row as concept ids: car 1, tree 2, house 3, wheel 4."""
    objects = np.array([0, 1, 2, 3])[mask_of(row)]
    parts = np.array([0, 0, 2, 0, 4])[part_of(row)] if row % 3 else np.zeros_like(objects)
    parts[(parts == objects) & (parts > 0)] = 0
    return np.stack([objects, parts])


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


def offline(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the library from the network, and let it write to `cache` alone, whether or not it is imported already."""
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "HF_HUB_DISABLE_TELEMETRY"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setattr(import_module("huggingface_hub.constants"), "HF_HUB_OFFLINE", True)
    config = import_module("datasets.config")
    monkeypatch.setattr(config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(config, "HF_DATASETS_CACHE", cache)
