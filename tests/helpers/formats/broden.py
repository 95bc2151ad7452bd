"""Small Broden folders, written as the published program writes them: tables, images, and maps in red and green."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from helpers.images import encode, photo, regions, save
from numpy.typing import NDArray
from PIL import Image

CATEGORIES = ("color", "object", "part", "material", "scene", "texture")
NAMES = {
    1: "black-c",
    2: "red-c",
    3: "green-c",
    4: "wall",
    6: "sky",
    7: "fabric",
    9: "car",
    255: "wheel",
    256: "window",
    300: "door",
    301: "wood",
    777: "street",
    778: "bedroom",
    1196: "striped",
    1197: "dotted",
}
"""Number: name. Numbers above 255 need green; 7 is met in maps of objects and of materials."""

Entry = int | NDArray[np.uint16]
"""A label of the whole image, or an (h, w) map."""


@dataclass(frozen=True)
class Picture:
    """One row: the image's path below images/ (DATASET/NAME.jpg), its pixels, and its entries in each category."""

    name: str
    split: str
    pixels: NDArray[np.uint8]
    cells: Mapping[str, Sequence[Entry]] = field(default_factory=dict)


def encode_rg(numbers: NDArray[np.uint16]) -> NDArray[np.uint8]:
    """(h, w) numbers as (h, w, 3): the low byte in red, the high byte in green."""
    pixels = np.zeros((*numbers.shape, 3), np.uint8)
    pixels[..., 0] = numbers % 256
    pixels[..., 1] = numbers // 256
    return pixels


def write_broden(root: Path, pictures: Sequence[Picture], names: Mapping[int, str] = NAMES) -> Path:
    """Images, maps and the tables index.csv, label.csv, category.csv and c_CATEGORY.csv, with counts that are true."""
    maps = [entry for picture in pictures for cell in picture.cells.values() for entry in cell if np.ndim(entry)]
    height, width = np.shape(maps[0]) if maps else (1, 1)
    rows = []
    for picture in pictures:
        save(root / "images" / picture.name, encode(Image.fromarray(picture.pixels), "JPEG", quality=95))
        row: dict[str, object] = {"image": picture.name, "split": picture.split, "sh": height, "sw": width}
        row |= {"ih": picture.pixels.shape[0], "iw": picture.pixels.shape[1]}
        row |= {category: _save_cell(root, picture, category) for category in picture.cells}
        rows.append(row)
    write_csv(root / "index.csv", ("image", "split", "ih", "iw", "sh", "sw", *CATEGORIES), rows)
    _write_labels(root, pictures, names)
    (root / "README.txt").write_text("joined segmentation data set\n", encoding="utf-8")
    return root


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, object]]) -> None:
    """A table as Python's csv module writes it: lines that end in CR LF, quotes where needed."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)


def _save_cell(root: Path, picture: Picture, category: str) -> str:
    """What stands in the table; maps are numbered where there are several."""
    cell = picture.cells[category]
    count = sum(isinstance(entry, np.ndarray) for entry in cell)
    texts = []
    for number, entry in enumerate(cell, 1):
        if isinstance(entry, np.ndarray):
            suffix = f"_{category}_{number}.png" if count > 1 else f"_{category}.png"
            save(root / "images" / picture.name.replace(".jpg", suffix), encode_rg(entry))
            texts.append(picture.name.replace(".jpg", suffix))
        else:
            texts.append(str(entry))
    return ";".join(texts)


def _write_labels(root: Path, pictures: Sequence[Picture], names: Mapping[int, str]) -> None:
    frequency: dict[tuple[int, str], int] = defaultdict(int)
    coverage: dict[tuple[int, str], float] = defaultdict(float)
    for picture in pictures:
        for category, cell in picture.cells.items():
            of_picture: dict[int, float] = defaultdict(float)
            for entry in cell:
                for number, count in zip(*np.unique(entry, return_counts=True), strict=True):
                    of_picture[int(number)] += count / np.size(entry)
            for number in of_picture.keys() & names.keys():
                frequency[number, category] += 1
                coverage[number, category] += of_picture[number]
    rows = []
    for number, name in names.items():
        found = sorted((c for n, c in frequency if n == number), key=lambda c: -frequency[number, c])
        row: dict[str, object] = {"number": number, "name": name, "syns": f"{name}, as seen" if number == 9 else ""}
        row["category"] = ";".join(f"{category}({frequency[number, category]})" for category in found)
        row["frequency"] = sum(frequency[number, category] for category in found)
        row["coverage"] = f"{sum(coverage[number, category] for category in found):f}"
        if found:
            rows.append(row)
    write_csv(root / "label.csv", ("number", "name", "category", "frequency", "coverage", "syns"), rows)
    categories = []
    for category in CATEGORIES:
        numbers = sorted(number for number, c in frequency if c == category)
        if numbers:
            total = sum(frequency[number, category] for number in numbers)
            first = {"name": category, "first": numbers[0], "last": numbers[-1]}
            categories.append(first | {"count": len(numbers), "frequency": total})
        dense = [
            {
                "code": code,
                "number": number,
                "name": names[number],
                "frequency": frequency[number, category],
                "coverage": coverage[number, category],
            }
            for code, number in enumerate(sorted(numbers, key=lambda n: -frequency[n, category]), 1)
        ]
        write_csv(root / f"c_{category}.csv", ("code", "number", "name", "frequency", "coverage"), dense)
    write_csv(root / "category.csv", ("name", "first", "last", "count", "frequency"), categories)


def drawn(size: int, seed: int, numbers: Sequence[int]) -> NDArray[np.uint16]:
    """A (size, size) map of rectangles of some of `numbers`, by chance; parts of it are 0."""
    return np.array([0, *numbers], np.uint16)[regions(size, size, seed, len(numbers) + 1)]


def pictures(count: int = 12, size: int = 112, grid: int = 56) -> list[Picture]:
    """Rows of four kinds, as of the four sources: which categories an image has, and how many maps, depends on it."""
    rows = []
    for number in range(count):
        seed = 100 * number
        cells: dict[str, list[Entry]] = {"color": [drawn(grid, seed, (1, 2, 3))]}
        source = ("ade20k", "dtd", "opensurfaces", "pascal")[number % 4]
        if source in ("ade20k", "pascal"):
            cells["object"] = [drawn(grid, seed + 1, (4, 6, 7, 9))]
        if source == "ade20k":
            cells["part"] = [drawn(grid, seed + 2 + i, (255, 256, 300)) for i in range(1 + number // 4 % 3)]
            cells["scene"] = [777 if number % 8 else 778]
        if source == "dtd":
            cells["texture"] = [1196, 1197] if number % 8 == 1 else [1197]
        if source == "opensurfaces":
            material = drawn(grid, seed + 9, (7, 301))
            cells["material"] = [
                np.where(material == 0, np.uint16(7), material)
            ]  # covers more than fabric as an object
        if source == "pascal":
            cells["part"] = [drawn(grid, seed + 5, (255, 300)), drawn(grid, seed + 6, (255, 256))]
        split = "val" if number % 3 == 2 else "train"
        rows.append(Picture(f"{source}/{number:05}.jpg", split, photo(size, size, number), cells))
    return rows
