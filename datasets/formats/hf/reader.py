"""`hf:PLACE`: datasets of HuggingFace's `datasets` with columns of images and masks; needs the extra microtome[hf].

    hf:PATH          a folder made by Dataset.save_to_disk or DatasetDict.save_to_disk, or one with Parquet files
    hf:user/name     a dataset on the hub, from the library's cache or downloaded into it

Options follow after "?", joined by "&":

    image=COLUMN     of the images; else the only one, or the one called image, img or pixel_values
    mask=COLUMN,...  of the masks, a plane each; else those called mask, annotation, label, segmentation or alike
    label=COLUMN     of the class labels; else the only one, or the one called label or labels
    classes=FILE     what the numbers in masks mean: a classes.csv (see `classes`) whose planes are the mask columns
    split=NAME       one split only; config=NAME: which of the configurations on the hub

Rows are read from the library's Arrow files when they are needed. Streaming datasets are not supported.
"""

from __future__ import annotations

import hashlib
import operator
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from microtome.datasets.base import Concept, Entry, Labels, Remark, Sample
from microtome.datasets.classes import Row, class_table, example_rows, read_rows
from microtome.datasets.formats.hf.columns import choose_columns
from microtome.datasets.formats.hf.load import load_tables
from microtome.datasets.formats.hf.options import HfOptions, parse_spec
from microtome.datasets.formats.hf.rows import ArrowRows
from microtome.datasets.formats.reader import FileReader
from microtome.datasets.images import Source, decode_image, decode_mask, image_size
from microtome.datasets.listing import size_and_time
from microtome.datasets.planes import check_field_of_view, once_a_pixel, stack_planes
from microtome.datasets.unknown import UnknownIds
from microtome.storage.errors import SampleError, UsageError


class HfDataset(FileReader):
    """An ImageDataset over the rows of a HuggingFace dataset; see the module for its spec.

    Opening reads the class labels; no image is decoded before `read`. Raises UsageError where the library, the dataset,
    a column or a name for a number is missing. Safe among threads; can be pickled, and then reads without the library.
    """

    def __init__(self, text: str) -> None:
        options = parse_spec(text)
        tables = load_tables(options)
        self._spec = options.spec
        self._columns = choose_columns(tables, options)
        self._splits = tuple(table.split for table in tables)
        self._tables = tuple(ArrowRows(table.files) for table in tables)
        for table, rows in zip(tables, self._tables, strict=True):
            if len(rows) != table.rows:
                raise UsageError(f"{self._spec}: its files hold {len(rows)} rows, not {table.rows}; save it again")
        self._starts = np.cumsum([0, *(len(rows) for rows in self._tables)])
        self._class_labels = self._read_class_labels()
        listed, path = self._class_rows(options)
        self._classes = class_table(listed, self._columns.masks, path)
        self._unknown = UnknownIds(len(self), self._columns.masks)
        meaning = [(row.index, row.name, row.category, row.plane) for row in listed]
        self._meaning = hashlib.blake2b(repr((self._columns, meaning)).encode()).digest()
        self._state = "\n".join(f"{table.split}\0{table.rows}\0{table.state}" for table in tables)

    @property
    def concepts(self) -> Sequence[Concept]:
        return self._classes.concepts

    @property
    def plane_names(self) -> Sequence[str]:
        return self._columns.masks

    @property
    def class_names(self) -> Sequence[str]:
        return self._columns.class_names

    def __len__(self) -> int:
        return int(self._starts[-1])

    def entry(self, index: int) -> Entry:
        """Key (split and number of the row in it), split and class of sample `index`."""
        table, row = self._place(index)
        split = self._splits[table]
        label = int(self._class_labels[index]) if len(self._class_labels) else -1
        return Entry(
            key=f"{split}/{row:06}" if split else f"{row:06}",
            split=split,
            label=label if 0 <= label < len(self._columns.class_names) else None,
        )

    def read(self, index: int) -> Sample:
        """Decode image and masks of sample `index`. Raises SampleError where one cannot be used.

        planes: (P, h, w), at the resolution of the largest mask; 0 where the row has no mask.
        """
        source, key = self._image(index)
        image = decode_image(source, key)
        labels = self._labels(index, image.shape[:2])
        return Sample(image, labels.planes, labels.image_labels)

    def read_labels(self, index: int) -> Labels:
        """The labels of sample `index`; of the image its head alone is read."""
        source, key = self._image(index)
        return self._labels(index, image_size(source, key))

    def unknown_ids(self) -> dict[str, dict[int, int]]:
        """Numbers in masks that classes.csv does not list: {plane: {number: images}}, ascending.

        Over the samples that this object has read so far, each counted once. They count as unlabelled.
        """
        return self._unknown.counts()

    def remarks(self) -> Sequence[Remark]:
        """Rows without an image or a mask, and columns of images that are not used."""
        found = []
        wanted = {self._columns.image: "rows without an image"}
        wanted |= {name: f"images without a mask in plane {name}" for name in self._columns.masks}
        for column, text in wanted.items():
            bare = np.flatnonzero(np.concatenate([rows.missing(column) for rows in self._tables]))
            if len(bare):
                keys = tuple(self.entry(index).key for index in bare[:5].tolist())
                found.append(Remark(text, len(bare), keys))
        if self._columns.unused:
            text = "columns of images that are not used; mask=COLUMN makes a plane of one"
            found.append(Remark(text, len(self._columns.unused), self._columns.unused[:5]))
        return found

    def fingerprint(self) -> str:
        """A hash of the columns in use, classes.csv, and the rows' state.

        That is size and modification time of the Arrow files of a saved dataset, else the library's own fingerprint.
        """
        return hashlib.blake2b(b"hf 1\n" + self._meaning + self._state.encode(), digest_size=16).hexdigest()

    def sample_fingerprint(self, index: int) -> int:
        """A hash of the bytes of the image and its masks, its class, the columns in use and classes.csv.

        A row that names a file instead counts with that file's size and modification time.
        """
        table, row = self._place(index)
        digest = hashlib.blake2b(self._meaning, digest_size=8)
        digest.update(f"{self.entry(index).label}".encode())
        for column in (self._columns.image, *self._columns.masks):
            source = _source(self._tables[table].cell(row, column))
            held = f"{source} {size_and_time(Path(source))}".encode() if isinstance(source, str) else source or b""
            digest.update(f"\n{len(held)}\n".encode() + held)
        return int.from_bytes(digest.digest())

    def _place(self, index: int) -> tuple[int, int]:
        """Which table holds sample `index`, and in which row."""
        number = operator.index(index)
        if not 0 <= number < len(self):
            raise IndexError(index)
        table = int(np.searchsorted(self._starts, number, side="right")) - 1
        return table, number - int(self._starts[table])

    def _image(self, index: int) -> tuple[Source, str]:
        """The image of sample `index` as bytes or path, and its key."""
        table, row = self._place(index)
        key = self.entry(index).key
        source = _source(self._tables[table].cell(row, self._columns.image))
        if source is None:
            raise SampleError(key, f"the row has no image in the column {self._columns.image}")
        return _within_reach(source, key), key

    def _labels(self, index: int, size: tuple[int, ...]) -> Labels:
        masks = {}
        for plane in range(len(self._columns.masks)):
            mask = self._read_mask(index, plane, size)
            if mask is not None:
                masks[plane] = mask
        if self._unknown.is_new(index):
            self._unknown.note(index, {plane: self._unlisted(plane, mask) for plane, mask in masks.items()})
        ids = {plane: self._classes.lookup[plane][mask] for plane, mask in masks.items()}
        planes = stack_planes(ids, len(self._columns.masks))
        once_a_pixel(planes, self._classes.shared)
        return Labels(planes, np.zeros(0, np.uint16))

    def _read_mask(self, index: int, plane: int, size: tuple[int, ...]) -> NDArray[np.uint16] | None:
        column, key = self._columns.masks[plane], self.entry(index).key
        what = f"mask of plane {column}"
        table, row = self._place(index)
        source = _source(self._tables[table].cell(row, column))
        if source is None:
            return None
        try:
            mask = decode_mask(_within_reach(source, key), key)
        except SampleError as error:
            raise SampleError(key, f"{what}: {error.reason}") from error
        check_field_of_view(key, what, mask.shape, size)
        return mask

    def _unlisted(self, plane: int, mask: NDArray[np.uint16]) -> list[int]:
        present = np.flatnonzero(np.bincount(mask.ravel()))
        unlisted: list[int] = present[~self._classes.known[plane][present]].tolist()
        return unlisted

    def _read_class_labels(self) -> NDArray[np.int64]:
        """The class of every sample, -1 for none; empty without a column of class labels."""
        if not self._columns.label:
            return np.zeros(0, np.int64)
        return np.concatenate([rows.integers(self._columns.label) for rows in self._tables])

    def _class_rows(self, options: HfOptions) -> tuple[list[Row], Path]:
        """What classes.csv says, and where it is. Raises UsageError where there are masks and it does not fit."""
        masks = self._columns.masks
        path = Path(options.classes or "classes.csv").expanduser()
        if not masks:
            if options.classes is not None:
                raise UsageError(f"{self._spec} has no column of masks for {path}; name it with mask=COLUMN")
            return [], path
        if options.classes is None:
            raise UsageError(
                f"{self._spec}: the numbers in {', '.join(masks)} have no names; write a CSV file, one line a number "
                f"(those that name nothing are left out), and add classes=FILE (or mask= for the images alone):\n"
                f"{example_rows(self._first_ids())}"
            )
        if not path.is_file():
            raise UsageError(
                f"{self._spec}: {path} does not exist; expected a CSV file that names the numbers in masks"
            )
        rows = read_rows(path)
        for row in rows:
            if row.plane and row.plane not in masks:
                which = ", ".join(masks)
                raise UsageError(
                    f"{path}, line {row.line}: there is no mask plane {row.plane!r}; the masks are {which}"
                )
        return rows, path

    def _first_ids(self, *, masks: int = 5, limit: int = 8) -> list[int]:
        """Some of the numbers in the first masks, ascending."""
        ids: set[int] = set()
        for column in self._columns.masks:
            for row in range(min(masks, len(self._tables[0]))):
                source = _source(self._tables[0].cell(row, column))
                try:
                    ids.update(np.unique(decode_mask(source, "")).tolist() if source is not None else ())
                except SampleError:
                    continue
        return sorted(ids)[:limit] or [0, 1]


def _source(cell: object) -> bytes | str | None:
    """The bytes of an image's cell, else the path that it names; None where there is neither."""
    found = (cell.get("bytes") or cell.get("path")) if isinstance(cell, dict) else cell
    return found if isinstance(found, bytes | str) and found else None


def _within_reach(source: bytes | str, key: str) -> Source:
    if isinstance(source, str) and not os.path.isabs(source):
        raise SampleError(key, "its bytes are not in the dataset, and no path on this machine; expected one of them")
    return source
