"""Pictures as files: a PNG each, a contact sheet where there are several, and visualize.json, which tells of them."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from microtome.reports.contact import Tile, draw_grid
from microtome.reports.png import png_bytes
from microtome.reports.text import without_controls
from microtome.storage.files import folder_asked, json_bytes, write_asked
from microtome.storage.run import folder_name

SCHEMA_VERSION = 1
MOST_TILES, SIDE = 512, 160
"""Pictures on the contact sheet; those after them have their own files."""
LONGEST_NAME = 120
"""Bytes of a class's name in the name of its file."""


@dataclass(frozen=True)
class Picture:
    """One picture: the name of its file without .png, what is written beneath it, what visualize.json says of it.
    image: (H, W, 3) uint8, None where none could be made."""

    name: str
    title: str
    image: NDArray[np.uint8] | None
    told: dict[str, Any]


@dataclass
class Folder:
    """The folder `--out`: files of the same names are replaced, others stay. Raises UsageError if it cannot be."""

    path: Path
    _told: list[dict[str, Any]] = field(default_factory=list)
    _tiles: list[Tile] = field(default_factory=list)

    def __post_init__(self) -> None:
        folder_asked(self.path)

    def add(self, picture: Picture) -> None:
        """Write NAME.png at once."""
        name = None
        if picture.image is not None:
            name = f"{picture.name}.png"
            write_asked(self.path / name, png_bytes(picture.image))
        if len(self._tiles) < MOST_TILES:
            self._tiles.append(_tile(picture))
        self._told.append({"file": name, **{key: _plain(value) for key, value in picture.told.items()}})

    def finish(self, told: dict[str, Any]) -> dict[str, Any]:
        """Write the sheet, where there are several pictures, and visualize.json; what it holds."""
        sheet = None
        if len(self._tiles) > 1:
            left = len(self._told) - len(self._tiles)
            title = f"{told['model']} {told['layer'] or ''}" + (
                f" (the first {MOST_TILES}; {left} more)" if left else ""
            )
            sheet = "sheet.png"
            drawn = draw_grid(self._tiles, without_controls(title), side=SIDE, per_line=8)
            write_asked(self.path / sheet, png_bytes(drawn))
        whole = {"schema_version": SCHEMA_VERSION, **told, "sheet": sheet, "pictures": self._told}
        write_asked(self.path / "visualize.json", json_bytes(whole))
        return whole


def class_file_names(names: Sequence[str]) -> list[str]:
    """What the file of each class is called: its name, as file systems take it; with its number where it is too long,
    or where another's differs by nothing but capitals, which some disks ignore. All classes of a model are given,
    so that a class has the same file whichever are asked for."""
    found, numbered = [], []
    for name in names:
        whole = folder_name(name)
        found.append(whole.encode("utf-8", "ignore")[:LONGEST_NAME].decode("utf-8", "ignore"))
        numbered.append(found[-1] != whole)
    while True:
        files = [f"{each}-{number}" if numbered[number] else each for number, each in enumerate(found)]
        keys = [unicodedata.normalize("NFC", file).casefold() for file in files]
        counts = Counter(keys)
        shared = [counts[key] > 1 for key in keys]
        if not any(shared):
            return files
        numbered = [before or now for before, now in zip(numbered, shared, strict=True)]


def _tile(picture: Picture) -> Tile:
    """Of the size that the sheet shows, so that thousands take little memory."""
    small = None
    if picture.image is not None:
        image = Image.fromarray(picture.image)
        image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
        small = np.asarray(image)
    return Tile(small, [without_controls(picture.title)], missing="could not be driven")


def _plain(value: object) -> object:
    return None if isinstance(value, float) and not np.isfinite(value) else value
