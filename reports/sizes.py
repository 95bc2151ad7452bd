"""How large a report is, by what its files are for."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from microtome.reports.single_file import NAME

PARTS = {
    "pages": "pages",
    "single": "all of it in one file",
    "static": "scripts and styles",
    "data": "units and concepts",
    "patches": "patches",
    "explanations": "pictures that explain",
    "ablations": "pictures of ablations",
    "figures": "figures",
    "maps": "pictures of maps",
    "map": "map: places, classes",
    "units": "map: units",
    "concepts": "map: concepts",
    "keys": "map: names of samples",
    "sprites": "map: thumbnails",
}
"""Parts in the order they are listed: the folders of a report and those below map/; `pages` are its .html files."""
OTHER = "other files"

_THOUSAND = 1000


class PartSize(NamedTuple):
    """A part of a report: in words, its files, and their bytes."""

    part: str
    files: int
    bytes: int


def report_sizes(folder: Path) -> list[PartSize]:
    """The parts of the report in `folder` that have any file."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return sizes_of((path.relative_to(folder).as_posix(), path.stat().st_size) for path in files)


def sizes_of(files: Iterable[tuple[str, int]]) -> list[PartSize]:
    """The parts of a report whose `files` are (address below the report, bytes)."""
    counts: dict[str, tuple[int, int]] = {}
    for name, size in files:
        part = _part_of(name)
        number, total = counts.get(part, (0, 0))
        counts[part] = number + 1, total + size
    return [PartSize(part, *counts[part]) for part in [*PARTS.values(), OTHER] if part in counts]


def size_lines(parts: Iterable[PartSize]) -> list[str]:
    """The parts and their sum as aligned lines of text."""
    parts = list(parts)
    parts.append(PartSize("report", sum(part.files for part in parts), sum(part.bytes for part in parts)))
    wide = max(len(part.part) for part in parts)
    return [
        f"  {part.part:<{wide}}  {size_words(part.bytes):>8}  {part.files:>9,} {'file' if part.files == 1 else 'files'}"
        for part in parts
    ]


def size_words(size: int) -> str:
    """Bytes in decimal units, to three digits: 812 B, 4.71 MB."""
    value, unit = float(size), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if value < _THOUSAND - 0.5:
            break
        value, unit = value / _THOUSAND, larger
    return f"{size} B" if unit == "B" else f"{value:.{2 if value < 9.995 else 1 if value < 99.95 else 0}f} {unit}"


def _part_of(name: str) -> str:
    """The part of the file `name`."""
    if name.endswith(".html"):
        return PARTS["single" if name == NAME else "pages"]
    folder, *below = name.split("/")[:-1] or [""]
    if folder == "map" and "units" in below[1:]:
        return PARTS["units"]
    if folder == "map" and below:
        return PARTS[below[0]] if below[0] in ("concepts", "keys", "sprites") else PARTS["map"]
    return PARTS.get(folder, OTHER)
