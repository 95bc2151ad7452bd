"""classes.csv: which number in which mask plane means which concept.

    index,name,category[,plane]
    0,sky,object
    3,road,object
    7,wheel,part,parts

The order of the rows is the order of the concept ids, 1 ... K. The same name and category under two indexes is
one concept. Without a plane a row holds for every plane; a row with one goes before it there. A row named void or
unlabelled with an empty category says that the index is known and no concept.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from microtome.datasets.base import Concept
from microtome.datasets.planes import shared_pairs
from microtome.datasets.tables import read_text
from microtome.storage.errors import UsageError

MAX_ID = 65535
_COLUMNS = ("index", "name", "category")
_NO_CONCEPT = frozenset({"void", "unlabelled", "unlabeled"})


@dataclass(frozen=True, slots=True)
class Row:
    """One line of classes.csv; `plane` is "" for every plane, `category` is "" for no concept."""

    line: int
    index: int
    name: str
    category: str
    plane: str


@dataclass(frozen=True)
class ClassTable:
    """The concepts, and for each plane which concept each number in a mask means.

    lookup: (P, 65536) uint16 concept id, 0 = none; known: (P, 65536) bool, listed or the number 0;
    shared: pairs of planes (earlier, later) in which the same concept can occur
    """

    concepts: tuple[Concept, ...]
    lookup: NDArray[np.uint16]
    known: NDArray[np.bool_]
    shared: tuple[tuple[int, int], ...]


def read_rows(path: Path) -> list[Row]:
    """The rows of a classes.csv. Raises UsageError, with file and line, where one cannot be used."""
    text = read_text(path)
    lines = csv.reader(text.splitlines(keepends=True), skipinitialspace=True, strict=True)
    try:
        header = [cell.strip().lower() for cell in next(lines, [])]
        _check_header(header, path)
        at = {name: header.index(name) for name in (*_COLUMNS, "plane") if name in header}
        return [_row(cells, at, path, lines.line_num) for cells in lines if any(cell.strip() for cell in cells)]
    except csv.Error as error:
        raise UsageError(f"{path}, line {lines.line_num}: not comma-separated values: {error}") from error


def class_table(rows: Sequence[Row], planes: Sequence[str], path: Path) -> ClassTable:
    """Number the concepts and lay out the lookup of each plane. Raises UsageError for contradictory rows."""
    _check_planes(rows, planes, path)
    numbers: dict[tuple[str, str], int] = {}
    for row in rows:
        if row.category:
            numbers.setdefault((row.name, row.category), len(numbers) + 1)
    if len(numbers) > MAX_ID:
        raise UsageError(f"{path} lists {len(numbers)} concepts; at most {MAX_ID} are possible")
    lookup = np.zeros((len(planes), MAX_ID + 1), np.uint16)
    known = np.zeros((len(planes), MAX_ID + 1), np.bool_)
    known[:, 0] = True
    for number, row in _by_precedence(rows, numbers, path):
        which = [p for p, plane in enumerate(planes) if row.plane in ("", plane)]
        lookup[which, row.index] = number
        known[which, row.index] = True
    concepts = tuple(Concept(number, name, category) for (name, category), number in numbers.items())
    return ClassTable(concepts, lookup, known, shared_pairs(list(lookup)))


def example_rows(ids: Sequence[int]) -> str:
    """What to write into a classes.csv for these numbers, as lines of text."""
    lines = [f"    {number},NAME,object" for number in ids]
    return "\n".join(["    index,name,category", *lines])


def _check_header(header: list[str], path: Path) -> None:
    if len(header) == 1 and ";" in header[0]:
        raise UsageError(f"{path}, line 1: separated by semicolons; expected commas: index,name,category")
    missing = [name for name in _COLUMNS if name not in header]
    if missing:
        found = ",".join(header) or "nothing"
        raise UsageError(
            f"{path}, line 1: no column {', '.join(missing)}; expected the header index,name,category "
            f"(and plane, where masks/ has several), found {found}"
        )
    twice = [name for name in (*_COLUMNS, "plane") if header.count(name) > 1]
    if twice:
        raise UsageError(f"{path}, line 1: two columns are called {twice[0]}")


def _row(cells: list[str], at: dict[str, int], path: Path, line: int) -> Row:
    cell = {name: cells[column].strip() if column < len(cells) else "" for name, column in at.items()}
    if len(cells) == 1 and ";" in cells[0]:
        raise UsageError(f"{path}, line {line}: separated by semicolons; expected commas: index,name,category")
    index, name, category = cell["index"], cell["name"], cell["category"].lower()
    if not (index.isascii() and index.isdigit()):
        raise UsageError(f"{path}, line {line}: the index is {index!r}; expected a whole number, 0 to {MAX_ID}")
    if len(index) > 9 or int(index) > MAX_ID:
        raise UsageError(f"{path}, line {line}: the index {index} is above {MAX_ID}, the most that a mask can hold")
    if not name:
        raise UsageError(f"{path}, line {line}: the name of index {index} is empty")
    if not category and name.casefold() not in _NO_CONCEPT:
        raise UsageError(
            f"{path}, line {line}: {name} has no category; expected object, part, material, texture, color, "
            "scene or one of your own"
        )
    return Row(line, int(index), name, category, cell.get("plane", ""))


def _check_planes(rows: Sequence[Row], planes: Sequence[str], path: Path) -> None:
    for row in rows:
        if row.plane and row.plane not in planes and planes:
            raise UsageError(
                f"{path}, line {row.line}: there is no mask plane {row.plane!r}; masks/ has {', '.join(planes)}"
            )


def _by_precedence(rows: Sequence[Row], numbers: dict[tuple[str, str], int], path: Path) -> Iterator[tuple[int, Row]]:
    """(concept id or 0, row), rows for every plane first, each (plane, index) once."""
    seen: dict[tuple[str, int], Row] = {}
    for row in sorted(rows, key=lambda row: bool(row.plane)):
        first = seen.setdefault((row.plane, row.index), row)
        if (first.name, first.category) != (row.name, row.category):
            raise UsageError(
                f"{path}, line {row.line}: index {row.index} is {row.name} ({row.category}), but "
                f"{first.name} ({first.category}) in line {first.line}"
            )
        yield numbers.get((row.name, row.category), 0), row
