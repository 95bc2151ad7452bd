"""`webdataset:PATH`: samples in tar shards, millions of images without millions of files.

    PATH/[SPLIT/]NAME.tar       plain tars; PATH may also be one tar, or a pattern: shards-{000..099}.tar, *.tar
      KEY.jpg                   the image (jpg, jpeg, png, webp, tif, tiff, bmp, gif, ppm, pgm)
      KEY.PLANE.png             the mask of a plane: numbers, in grey or indexed PNGs
      KEY.cls                   the class label: a whole number as text
    PATH/classes.csv            index,name,category[,plane]: what the numbers of masks mean (see `classes`)
    PATH/classes.txt            names of the classes, one a line, from 0 on (may be missing)

The members of a sample are consecutive and agree up to the first dot of the base name (the WebDataset convention);
others, such as KEY.json and KEY.txt, are left alone. Nothing is unpacked: the tars' headers are read once, and where
everything lies is kept in an index in the cache. A plane that no row of classes.csv speaks of is left out.

Of a tar that is cut short or damaged the samples before the damage are read, but the last of them cannot be used: it
may have lost members itself, and its error says that what follows is lost.
"""

from __future__ import annotations

import hashlib
import operator
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from microtome.datasets.base import Concept, Entry, Labels, Remark, Sample
from microtome.datasets.classes import Row, class_table, example_rows, read_rows
from microtome.datasets.formats.reader import FileReader
from microtome.datasets.formats.webdataset.index import open_index
from microtome.datasets.formats.webdataset.reading import TarFiles
from microtome.datasets.formats.webdataset.shards import find_shards
from microtome.datasets.images import decode_image, image_size
from microtome.datasets.listing import printable, read_bytes
from microtome.datasets.masks import MaskPlanes, some_numbers
from microtome.storage.errors import SampleError, UsageError


class WebDataset(FileReader):
    """An ImageDataset over tar shards; see the module for the layout.

    Opening reads the tars' headers the first time, and maps the index to memory from then on. Raises UsageError where
    the tars, classes.csv or classes.txt are not usable. Safe among threads; can be pickled.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._spec = f"webdataset:{os.fspath(path)}"
        self._shards = find_shards(os.fspath(path))
        self._index = open_index(self._shards)
        self._files = TarFiles(self._shards)
        rows = self._rows()
        held = [plane for plane in self._index.planes if any(row.plane in ("", plane) for row in rows)]
        self._planes = tuple(held)
        self._at = tuple(1 + self._index.planes.index(plane) for plane in held)
        self._classes = class_table(rows, held or self._index.planes, self._shards.root / "classes.csv")
        self._masks = MaskPlanes(self._classes, self._planes, len(self._index))
        self._names = self._class_names()
        self._tables = _tables_digest(self._shards.root)

    @property
    def concepts(self) -> Sequence[Concept]:
        return self._classes.concepts

    @property
    def plane_names(self) -> Sequence[str]:
        return self._planes

    @property
    def class_names(self) -> Sequence[str]:
        """The lines of classes.txt; without it the numbers themselves, up to the highest."""
        return self._names

    def __len__(self) -> int:
        return len(self._index)

    def entry(self, index: int) -> Entry:
        """Key (TAR/KEY, the tar by its path below PATH), split and class of sample `index`."""
        row = self._row(index)
        tar, label = int(self._index.tars[row]), int(self._index.labels[row])
        named = 0 <= label < len(self._names)
        return Entry(self._key(row), printable(self._shards.split(tar)), label if named else None)

    def read(self, index: int) -> Sample:
        """Decode image and masks of sample `index`. Raises SampleError where one cannot be used.

        planes: (P, h, w), at the resolution of the largest mask.
        """
        row, key = self._readable(index)
        image = decode_image(self._bytes(row, 0, key, "image"), key)
        labels = self._labels(row, key, image.shape[:2])
        return Sample(image, labels.planes, labels.image_labels)

    def read_labels(self, index: int) -> Labels:
        """The labels of sample `index`; the image's head is looked at where there is a mask."""
        row, key = self._readable(index)
        masked = any(self._index.places[at][row, 0] for at in self._at)
        size = image_size(self._bytes(row, 0, key, "image"), key) if masked else (1, 1)
        return self._labels(row, key, size)

    def unknown_ids(self) -> dict[str, dict[int, int]]:
        """Numbers that masks held and classes.csv does not list: {plane: {number: images}}, ascending.

        Over the samples that this object has read so far, each counted once. They count as unlabelled.
        """
        return self._masks.unknown_ids()

    def remarks(self) -> Sequence[Remark]:
        """What was noticed in the tars, planes that are left out, images without a mask, labels without a name."""
        found = list(self._index.remarks)
        unnamed = np.flatnonzero(self._index.labels >= len(self._names))
        if len(unnamed):
            found.append(self._remark("class labels that classes.txt does not name; taken as none", unnamed))
        left_out = [plane for plane in self._index.planes if plane not in self._planes]
        if left_out:
            found.append(Remark("mask planes that classes.csv does not list; left out", len(left_out), tuple(left_out)))
        for plane, at in zip(self._planes, self._at, strict=True):
            bare = np.flatnonzero(self._index.places[at][:, 0] == 0)
            if len(bare):
                found.append(self._remark(f"images without a mask in plane {plane}", bare))
        return found

    def fingerprint(self) -> str:
        """A hash of path, size and modification time of every tar, and of classes.csv and classes.txt."""
        digest = hashlib.blake2b(b"webdataset 1\n" + self._tables, digest_size=16)
        for name, state in zip(self._shards.names, self._shards.states, strict=True):
            digest.update(os.fsencode(f"{name}\0{state}\n"))
        return digest.hexdigest()

    def sample_fingerprint(self, index: int) -> int:
        """A hash of size and time of the tar, where image and masks lie in it, class, classes.csv and classes.txt.

        It changes for all samples of a tar that is written anew.
        """
        row = self._row(index)
        digest = hashlib.blake2b(self._tables, digest_size=8)
        digest.update(f"{self._shards.states[int(self._index.tars[row])]} {self._index.labels[row]}".encode())
        for name, places in zip(("", *self._index.planes), self._index.places, strict=True):
            if places[row, 0]:
                digest.update(f"\n{name} {places[row].tolist()}".encode("utf-8", "surrogateescape"))
        return int.from_bytes(digest.digest())

    def __getstate__(self) -> dict[str, object]:
        return {name: value for name, value in vars(self).items() if name != "_index"}

    def __setstate__(self, state: dict[str, object]) -> None:
        vars(self).update(state)
        self._index = open_index(self._shards)

    def _row(self, index: int) -> int:
        row = operator.index(index)
        if not 0 <= row < len(self._index):
            raise IndexError(index)
        return row

    def _readable(self, index: int) -> tuple[int, str]:
        """Row and key of sample `index`. Raises SampleError where it is the last one before its tar is damaged."""
        row = self._row(index)
        key = self._key(row)
        if row in self._index.damage:
            raise SampleError(key, self._index.damage[row])
        return row, key

    def _key(self, row: int) -> str:
        tar = self._shards.names[int(self._index.tars[row])]
        return f"{printable(tar)}/{printable(os.fsdecode(self._index.key(row)))}"

    def _bytes(self, row: int, at: int, key: str, what: str) -> bytes:
        offset, size = self._index.places[at][row].tolist()
        return self._files.read(int(self._index.tars[row]), offset, size, key, what)

    def _labels(self, row: int, key: str, size: tuple[int, ...]) -> Labels:
        masks = {
            plane: self._bytes(row, at, key, self._masks.what(plane))
            for plane, at in enumerate(self._at)
            if self._index.places[at][row, 0]
        }
        return self._masks.labels(row, key, masks, size)

    def _remark(self, text: str, rows: NDArray[np.int64]) -> Remark:
        return Remark(text, len(rows), tuple(self._key(row) for row in rows[:5].tolist()))

    def _rows(self) -> list[Row]:
        table = self._shards.root / "classes.csv"
        if table.exists():
            return read_rows(table)
        if self._index.planes:
            planes = ", ".join(self._index.planes)
            raise UsageError(
                f"{table} is missing, so the numbers in the masks ({planes}) have no names; write it, one line a "
                f"number (the header alone leaves the masks out):\n{example_rows(some_numbers(self._first_masks()))}"
            )
        return []

    def _first_masks(self, *, masks: int = 5) -> Iterator[bytes]:
        for at in range(1, len(self._index.places)):
            for row in np.flatnonzero(self._index.places[at][:, 0])[:masks].tolist():
                with suppress(SampleError):
                    yield self._bytes(row, at, "", "mask")

    def _class_names(self) -> tuple[str, ...]:
        table = self._shards.root / "classes.txt"
        if not table.exists():
            return tuple(map(str, range(int(self._index.labels.max()) + 1)))
        try:
            lines = read_bytes(table).decode("utf-8-sig").rstrip().splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"{table} cannot be read as UTF-8 text: {error}; expected a name a line") from error
        names = tuple(line.strip() for line in lines)
        if "" in names or not names:
            raise UsageError(f"{table}, line {names.index('') + 1 if names else 1}: empty; expected a name a line")
        return names


def _tables_digest(root: Path) -> bytes:
    tables = [root / name for name in ("classes.csv", "classes.txt")]
    contents = [hashlib.blake2b(table.read_bytes()).digest() if table.exists() else b"" for table in tables]
    return b"\n".join(contents)
