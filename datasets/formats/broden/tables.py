"""The tables of a Broden folder: what labels there are (label.csv, c_*.csv), and what each image has (index.csv)."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from microtome.datasets.base import Concept
from microtome.datasets.listing import below
from microtome.datasets.tables import first_repeated, is_there, line_of, read_csv
from microtome.storage.errors import UsageError

INDEX, LABELS, CATEGORIES = "index.csv", "label.csv", "category.csv"
MAX_NUMBER = 65535
"""The largest number that a map's red and green can hold."""

T = TypeVar("T", bound=np.generic)

_FIXED = ("image", "split", "ih", "iw", "sh", "sw")
_MAP_SUFFIXES = (".png", ".PNG")
_SHARE = re.compile(r"([^()/]{1,60}?)\s*(?:\((\d{1,18})\))?")
_MOST_DIGITS = 18


@dataclass(frozen=True)
class LabelTable:
    """The concepts, and which of them each number in index.csv and in the maps means.

    lookup: (65536,) uint16 concept id, 0 = none; known: (65536,) bool, listed or the number 0;
    listed: {category: the numbers that label.csv lists in it}
    guessed: names of labels in several categories whose coverage no c_*.csv tells, so that frequency decided
    """

    concepts: tuple[Concept, ...]
    lookup: NDArray[np.uint16]
    known: NDArray[np.bool_]
    listed: dict[str, list[int]]
    guessed: tuple[str, ...]


def read_label_table(root: Path) -> LabelTable:
    """label.csv, with the coverages of c_*.csv. Raises UsageError, with file and line, where one cannot be used.

    A label belongs to the one of its categories that it covers most of (Bau et al. 2017, as published with the data:
    its primary category); where it is the same, to the last of them in category.csv, as in their program; where no
    coverage is told, to the one in which it is most frequent.
    """
    path = root / LABELS
    table = read_csv(path, ("number", "name", "category"))
    rows = zip(*(table[name].to_pylist() for name in ("number", "name", "category")), strict=True)
    place = {name: number for number, name in enumerate(_listed_categories(root))}
    coverages: dict[str, dict[int, float]] = {}
    numbers: dict[tuple[str, str], int] = {}
    guessed: list[str] = []
    listed: dict[str, list[int]] = {}
    lookup, known = np.zeros(MAX_NUMBER + 1, np.uint16), np.zeros(MAX_NUMBER + 1, np.bool_)
    known[0] = True
    seen: set[int] = set()
    for row, (text, name, cell) in enumerate(rows):
        number, name = _number(text, path, row), name.strip()
        if number in seen:
            raise UsageError(f"{path}, line {line_of(path, row)}: the number {number} stands there twice")
        seen.add(number)
        if number == 0:
            continue
        if not name:
            raise UsageError(f"{path}, line {line_of(path, row)}: label {number} has no name")
        shares = _shares(cell, path, row)
        found = {category: _coverage(root, category, coverages).get(number, 0.0) for category in shares}
        decides = found if any(found.values()) else shares
        category = max(shares, key=lambda category: (decides[category], place.get(category, -1), shares[category]))
        if len(shares) > 1 and decides is shares:
            guessed.append(name)
        lookup[number] = numbers.setdefault((name, category.lower()), len(numbers) + 1)
        known[number] = True
        for category in shares:
            listed.setdefault(category, []).append(number)
    if not numbers:
        raise UsageError(f"{path} lists no labels; expected lines of number,name,category,frequency,coverage,syns")
    concepts = tuple(Concept(number, name, category) for (name, category), number in numbers.items())
    return LabelTable(concepts, lookup, known, listed, tuple(guessed))


def _number(text: str, path: Path, row: int) -> int:
    text = text.strip()
    if not (text.isascii() and text.isdigit() and len(text) <= 9 and int(text) <= MAX_NUMBER):
        where = f"{path}, line {line_of(path, row)}"
        raise UsageError(f"{where}: the number is {text[:40]!r}; expected a whole number, 1 to {MAX_NUMBER}")
    return int(text)


def _shares(cell: str, path: Path, row: int) -> dict[str, int]:
    """{category: images} of a cell such as "object(3);part(1)"."""
    shares: dict[str, int] = {}
    for entry in filter(None, map(str.strip, cell.split(";"))):
        match = _SHARE.fullmatch(entry)
        if match is None:
            raise UsageError(
                f"{path}, line {line_of(path, row)}: the category is {cell[:80]!r}; expected such as object(3);part(1)"
            )
        shares.setdefault(match[1], int(match[2] or 0))
    if not shares:
        raise UsageError(f"{path}, line {line_of(path, row)}: no category; expected such as object(3);part(1)")
    return shares


def _coverage(root: Path, category: str, found: dict[str, dict[int, float]]) -> dict[int, float]:
    """{number: coverage} of c_CATEGORY.csv, empty where there is no such file; kept in `found`."""
    if category not in found:
        path = root / f"c_{category}.csv"
        found[category] = {}
        if is_there(path):
            table = read_csv(path, ("number", "coverage"))
            for row, (text, share) in enumerate(
                zip(table["number"].to_pylist(), table["coverage"].to_pylist(), strict=True)
            ):
                number = _number(text, path, row)
                if number in found[category]:
                    raise UsageError(f"{path}, line {line_of(path, row)}: the number {number} stands there twice")
                found[category][number] = _share_covered(share, path, row)
    return found[category]


def _share_covered(text: str, path: Path, row: int) -> float:
    try:
        coverage = float(text or 0)
    except ValueError:
        coverage = -1.0
    if not 0 <= coverage < float("inf"):
        raise UsageError(
            f"{path}, line {line_of(path, row)}: the coverage is {text[:40]!r}; expected a number, 0 or more"
        )
    return coverage


class IndexTable:
    """index.csv, one row an image, kept as Arrow columns. Safe among threads; can be pickled.

    categories: those with a column, in its order; left_out: columns that category.csv does not know;
    maps: {category: the most label maps that an image has}, for categories with any;
    image_labels: the most image-level labels that an image has; bare: rows without any label
    """

    def __init__(self, root: Path) -> None:
        """Raises UsageError where index.csv or category.csv cannot be used as they are."""
        path = root / INDEX
        table = read_csv(path, _FIXED)
        self.categories, self.left_out = _categories(root, table.column_names)
        if not table.num_rows:
            raise UsageError(f"{path} lists no images; expected a line an image below the header")
        self._columns = {name: table[name] for name in ("image", "split", "sh", "sw", *self.categories)}
        repeated = first_repeated(table["image"])
        if repeated is not None:
            first, second = np.flatnonzero(pc.equal(table["image"], repeated).to_numpy())[:2].tolist()
            raise UsageError(
                f"{path}, line {line_of(path, second)}: {repeated} is listed twice, first in line "
                f"{line_of(path, first)}; leave one of the two out"
            )
        for name in ("image", *self.categories):
            _check_paths(path, name, table[name])
        self.maps: dict[str, int] = {}
        all_maps, all_labels = np.zeros(table.num_rows, np.int32), np.zeros(table.num_rows, np.int32)
        for name in self.categories:
            maps, labels = _counts(table[name])
            if maps.any():
                self.maps[name] = int(maps.max())
            all_maps += maps
            all_labels += labels
        self.image_labels = int(all_labels.max())
        self.bare = np.flatnonzero(all_maps + all_labels == 0)

    def __len__(self) -> int:
        return len(self._columns["image"])

    def cell(self, index: int, column: str) -> str:
        """The text of `column` (image, split, sh, sw or a category) in row `index`. Raises IndexError."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        text: str = self._columns[column][index].as_py()
        return text

    def entries(self, index: int) -> Iterator[tuple[str, str]]:
        """(category, entry) of row `index`, in the order of the columns: numbers, and paths of maps."""
        for category in self.categories:
            for entry in self.cell(index, category).split(";"):
                if entry:
                    yield category, entry

    def row(self, index: int) -> str:
        """All that the row says of image `index`, for fingerprints."""
        return "\0".join(self.cell(index, column) for column in self._columns)


def is_number(entry: str) -> bool:
    """Whether an entry of index.csv is an image-level label."""
    return entry.isascii() and entry.isdigit() and len(entry) <= _MOST_DIGITS


def is_map(entry: str) -> bool:
    """Whether an entry of index.csv is the path of a label map."""
    return entry.endswith(_MAP_SUFFIXES)


def _listed_categories(root: Path) -> list[str]:
    """The names in category.csv; none where there is no such file."""
    path = root / CATEGORIES
    return [name.strip() for name in read_csv(path, ("name",))["name"].to_pylist()] if is_there(path) else []


def _categories(root: Path, header: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(columns that are categories, columns that category.csv does not list)."""
    found = tuple(name for name in header if name not in _FIXED)
    path = root / CATEGORIES
    if is_there(path):
        listed = _listed_categories(root)
        missing = [name for name in listed if name not in found]
        if missing:
            raise UsageError(f"{root / INDEX}, line 1: no column {missing[0]}, a category that {path} lists")
        found, left_out = tuple(name for name in found if name in listed), tuple(set(found) - set(listed))
    else:
        left_out = ()
    if not found:
        raise UsageError(
            f"{root / INDEX}, line 1: no column of a category; expected {','.join(_FIXED)},color,object,..."
        )
    return found, tuple(sorted(left_out))


def _check_paths(path: Path, name: str, column: pa.ChunkedArray) -> None:
    """Raise UsageError where an entry is a path out of images/, or an image has none, or one not in its normal form.

    An image written in two ways would be two samples.
    """
    start = 0
    for chunk in column.chunks:
        for row, cell in enumerate(chunk.to_pylist()) if _may_wander(chunk, name == "image") else ():
            for entry in [cell] if name == "image" else filter(None, cell.split(";")):
                expected = ""
                if below(path.parent, entry) is None:
                    expected = "a path below images/"
                elif name == "image" and (normal := posixpath.normpath(entry)) != entry:
                    expected = f"the same path in its normal form, {normal!r}"
                if expected:
                    where = f"{path}, line {line_of(path, start + row)}"
                    raise UsageError(f"{where}: {name} is {entry!r}; expected {expected}")
        start += len(chunk)


def _may_wander(chunk: pa.StringArray, filled: bool) -> bool:
    """Whether some entry might be a path out of its folder or not in its normal form, from the bytes alone.

    filled: an empty cell is one too.
    """
    ends, text = _bytes(chunk)
    lengths = np.diff(ends)
    starts, lasts = (at[lengths > 0] - ends[0] for at in (ends[:-1], ends[1:] - 1))
    steps = text | 1 == ord("/")  # a dot or a slash, which differ in the lowest bit
    return bool(
        (filled and len(starts) < len(lengths))
        or (text[starts] == ord("/")).any()
        or (text[lasts] == ord("/")).any()
        or (steps[:-1] & steps[1:]).any()
        or ((text[:-1] == ord(";")) & (text[1:] == ord("/"))).any()
        or (text == 0).any()
    )


def _bytes(chunk: pa.StringArray) -> tuple[NDArray[np.int32], NDArray[np.uint8]]:
    """(n + 1,) where the texts of a chunk begin and end, and all their bytes, one text after the other."""
    _, ends, text = chunk.buffers()
    where = np.frombuffer(ends, np.int32)[chunk.offset : chunk.offset + len(chunk) + 1]
    return where, np.frombuffer(text or b"", np.uint8)[where[0] : where[-1]]


def _counts(column: pa.ChunkedArray) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """(maps, image-level labels other than 0) in each cell of a category's column, (N,) each."""
    maps, labels = np.zeros(len(column), np.int32), np.zeros(len(column), np.int32)
    start = 0
    for chunk in column.chunks:
        entries, rows = chunk, np.arange(len(chunk))
        if (_bytes(chunk)[1] == ord(";")).any():
            cells = pc.split_pattern(chunk, ";")
            entries, rows = pc.list_flatten(cells), _values(pc.list_parent_indices(cells), np.dtype(np.int64))
        pictured = np.logical_or.reduce([_flags(pc.ends_with(entries, suffix)) for suffix in _MAP_SUFFIXES])
        maps[start : start + len(chunk)] = np.bincount(rows[pictured], minlength=len(chunk))
        if not pictured.all():
            given = _flags(pc.match_substring_regex(entries, "^0*[1-9][0-9]*$"))
            labels[start : start + len(chunk)] = np.bincount(rows[given], minlength=len(chunk))
        start += len(chunk)
    return maps, labels


def _flags(found: pa.BooleanArray) -> NDArray[np.bool_]:
    return _values(pc.cast(found, pa.uint8()), np.dtype(np.uint8)).view(np.bool_)


def _values(numbers: pa.Array, dtype: np.dtype[T]) -> NDArray[T]:
    """The numbers of an Arrow array; its own `to_numpy` imports pandas, which takes a quarter of a second."""
    values = np.frombuffer(numbers.buffers()[1] or b"", dtype)
    return values[numbers.offset : numbers.offset + len(numbers)]
