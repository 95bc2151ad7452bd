"""`broden:PATH`: the Broadly and Densely Labeled Dataset of network dissection (Bau et al. 2017), and data like it.

    PATH/index.csv       image,split,ih,iw,sh,sw and a column a category; a cell holds entries joined by ";": a number
                         is a label of the whole image, a PNG is a label map below images/, R + 256 G a pixel
    PATH/label.csv       number,name,category,frequency,coverage,syns: what the numbers mean
    PATH/category.csv    the categories that count; without it every further column of index.csv does
    PATH/c_CATEGORY.csv  number and coverage of labels in that category: which is the primary one of a label
    PATH/images/         images and maps; maps may have another resolution than the image (224 and 112)

A label is one concept, of its primary category, and its pixels count in whichever category's map they stand. A
category has as many planes as any image has maps of it: object, part, part 2, ... The number 0 is unlabelled.
"""

from __future__ import annotations

import hashlib
import operator
import os
from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from microtome.datasets.base import Concept, Entry, Labels, Remark, Sample
from microtome.datasets.formats.broden.maps import read_map
from microtome.datasets.formats.broden.tables import (
    CATEGORIES,
    INDEX,
    LABELS,
    MAX_NUMBER,
    IndexTable,
    LabelTable,
    is_map,
    is_number,
    read_label_table,
)
from microtome.datasets.formats.reader import FileReader
from microtome.datasets.images import decode_image, image_size
from microtome.datasets.listing import file_state, size_and_time, walk
from microtome.datasets.planes import check_field_of_view, once_a_pixel, same_field_of_view, shared_pairs, stack_planes
from microtome.datasets.unknown import UnknownIds
from microtome.storage.errors import SampleError, UsageError

_STRAY = 65535
_LAYOUT = "expected PATH/index.csv, PATH/label.csv and PATH/images/"


class BrodenDataset(FileReader):
    """An ImageDataset over a Broden folder; see the module for its layout.

    Opening reads the tables; no image is opened before `read`. Raises UsageError where a table is not usable. Safe
    among threads; can be pickled.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._spec = f"broden:{os.fspath(path)}"
        self._root = Path(os.path.abspath(Path(path).expanduser()))
        self._images = str(self._root / "images")
        _check_layout(self._root)
        self._labels = read_label_table(self._root)
        self._index = IndexTable(self._root)
        self._plane_of = {
            plane: number
            for number, plane in enumerate(
                (category, position) for category, count in self._index.maps.items() for position in range(count)
            )
        }
        further = [name for name in self._index.categories if (name, 0) not in self._plane_of]
        self._unknown_at = {name: plane for (name, position), plane in self._plane_of.items() if not position}
        self._unknown_at |= {name: len(self._plane_of) + number for number, name in enumerate(further)}
        self._unknown = UnknownIds(len(self._index), (*self.plane_names, *further))
        self._count = len(self._plane_of)
        expected = {name: _expected(self._labels, name) for name in self._index.maps}
        self._expected = [expected[name] for name, _ in self._plane_of]
        held = [np.setdiff1d(lookup, [_STRAY]) for lookup in self._expected]
        self._possible = [frozenset(ids.tolist()) for ids in held]
        self._shared = shared_pairs(held)
        self._table_digest = _table_digest(self._root)
        self._fingerprint = ""

    @property
    def concepts(self) -> Sequence[Concept]:
        return self._labels.concepts

    @property
    def plane_names(self) -> Sequence[str]:
        return tuple(f"{name} {position + 1}" if position else name for name, position in self._plane_of)

    @property
    def image_label_slots(self) -> int:
        return self._index.image_labels

    def __len__(self) -> int:
        return len(self._index)

    def entry(self, index: int) -> Entry:
        """Key (the path below images/) and split of sample `index`; Broden has no class labels."""
        index = operator.index(index)
        return Entry(key=self._index.cell(index, "image"), split=self._index.cell(index, "split"))

    def read(self, index: int) -> Sample:
        """Decode image and label maps of sample `index`. Raises SampleError where one cannot be used.

        planes: (P, h, w), at the resolution of the largest map.
        """
        index = operator.index(index)
        key = self._index.cell(index, "image")
        image = decode_image(f"{self._images}/{key}", key)
        labels = self._read_labels(index, key, image.shape[:2])
        return Sample(image, labels.planes, labels.image_labels)

    def read_labels(self, index: int) -> Labels:
        """The labels of sample `index`; of the image its head alone is read."""
        index = operator.index(index)
        key = self._index.cell(index, "image")
        return self._read_labels(index, key, image_size(f"{self._images}/{key}", key))

    def unknown_ids(self) -> dict[str, dict[int, int]]:
        """Numbers in maps and cells that label.csv does not list: {plane or category: {number: images}}, ascending.

        Over the samples that this object has read so far, each counted once. They count as unlabelled.
        """
        return self._unknown.counts()

    def remarks(self) -> Sequence[Remark]:
        """Images without labels, columns that are no category, labels whose primary category is a guess."""
        found = []
        if len(bare := self._index.bare):
            keys = tuple(self._index.cell(index, "image") for index in bare[:5].tolist())
            found.append(Remark("images without labels in any category", len(bare), keys))
        if left_out := self._index.left_out:
            found.append(Remark("columns of index.csv that category.csv does not list", len(left_out), left_out[:5]))
        if guessed := self._labels.guessed:
            text = "labels in several categories without a coverage in c_*.csv: they go where they are most frequent"
            found.append(Remark(text, len(guessed), guessed[:5]))
        return found

    def fingerprint(self) -> str:
        """A hash of the tables' contents, and of path, size and modification time of every file below images/.

        Computed at the first call. Contents of images and maps are not read.
        """
        if not self._fingerprint:
            digest = hashlib.blake2b(b"broden 1\n", digest_size=16)
            digest.update(self._table_digest)
            digest.update(_file_digest(self._root / INDEX))
            for folder, files in walk(self._root / "images"):
                digest.update(os.fsencode(f"{folder}\n" + "".join(file_state(entry) for entry in files)))
            self._fingerprint = digest.hexdigest()
        return self._fingerprint

    def sample_fingerprint(self, index: int) -> int:
        """A hash of size and modification time of the image and its maps, its row, and the label tables."""
        index = operator.index(index)
        digest = hashlib.blake2b(self._table_digest, digest_size=8)
        digest.update(self._index.row(index).encode())
        maps = [entry for _, entry in self._index.entries(index) if is_map(entry)]
        for name in (self._index.cell(index, "image"), *maps):
            digest.update(f"\n{size_and_time(Path(self._images, name))}".encode())
        return int.from_bytes(digest.digest())

    def _read_labels(self, index: int, key: str, size: tuple[int, ...]) -> Labels:
        unknown: dict[int, set[int]] = {}
        entries = list(self._index.entries(index))
        once = list(dict.fromkeys(self._image_labels(key, entries, unknown)))
        slots = np.zeros(self._index.image_labels, np.uint16)
        slots[: len(once)] = once
        maps = dict(self._maps(index, key, entries, size))
        planes = stack_planes({plane: self._expected[plane].take(found) for plane, found in maps.items()}, self._count)
        shared: Sequence[tuple[int, int]] = [pair for pair in self._shared if pair[0] in maps and pair[1] in maps]
        covered = any(concept in self._possible[plane] for plane in maps for concept in once)
        if planes.max(initial=0) == _STRAY:
            planes = self._planes_with_strays(maps, unknown)
            shared, covered = tuple(combinations(sorted(maps), 2)), bool(once)
        if self._unknown.is_new(index):
            self._unknown.note(index, {plane: sorted(numbers) for plane, numbers in unknown.items()})
        once_a_pixel(planes, shared, slots if covered else None)
        return Labels(planes, slots)

    def _planes_with_strays(
        self, maps: dict[int, NDArray[np.uint16]], unknown: dict[int, set[int]]
    ) -> NDArray[np.uint16]:
        """The planes where a map has a number that label.csv lists in other categories alone, or not at all.

        Those that it does not list are added to `unknown`.
        """
        for plane, numbers in maps.items():
            present = np.unique(numbers)
            strange = present[~self._labels.known[present]].tolist()
            if strange:
                unknown.setdefault(plane, set()).update(strange)
        return stack_planes({plane: self._labels.lookup.take(found) for plane, found in maps.items()}, self._count)

    def _image_labels(self, key: str, entries: Sequence[tuple[str, str]], unknown: dict[int, set[int]]) -> list[int]:
        """The concepts that the whole image has; numbers without one are added to `unknown`."""
        concepts = []
        for category, entry in entries:
            if is_map(entry):
                continue
            if not is_number(entry):
                raise SampleError(
                    key, f"{category} is {entry[:40]!r} in {INDEX}; expected a label's number or a map's PNG"
                )
            number = int(entry)
            if number > MAX_NUMBER or not self._labels.known[number]:
                unknown.setdefault(self._unknown_at[category], set()).add(number)
            elif concept := int(self._labels.lookup[number]):
                concepts.append(concept)
        return concepts

    def _maps(
        self, index: int, key: str, entries: Sequence[tuple[str, str]], size: tuple[int, ...]
    ) -> Iterator[tuple[int, NDArray[np.uint16]]]:
        """(plane, numbers) of every map that the image, of `size`, has."""
        positions: dict[str, int] = {}
        for category, entry in entries:
            if not is_map(entry):
                continue
            position = positions[category] = positions.get(category, -1) + 1
            what = f"{category} map {entry}"
            numbers = read_map(f"{self._images}/{entry}", key, what)
            check_field_of_view(key, what, numbers.shape, size)
            listed = self._listed_size(index, key)
            if not same_field_of_view((numbers.shape[0], numbers.shape[1]), listed):
                raise SampleError(
                    key,
                    f"{what}: {numbers.shape[1]}x{numbers.shape[0]} pixels, {listed[1]}x{listed[0]} in {INDEX}; "
                    "not the same aspect ratio",
                )
            yield self._plane_of[category, position], numbers

    def _listed_size(self, index: int, key: str) -> tuple[int, int]:
        """(height, width) of the label maps as index.csv has them."""
        height, width = self._index.cell(index, "sh"), self._index.cell(index, "sw")
        if not (is_number(height) and is_number(width)):
            raise SampleError(
                key, f"sh and sw are {height[:20]!r} and {width[:20]!r} in {INDEX}; expected whole numbers"
            )
        return int(height), int(width)


def _expected(labels: LabelTable, category: str) -> NDArray[np.uint16]:
    """(65536,) the concept of each number that label.csv lists in `category`, _STRAY for all others, 0 for 0."""
    lookup = np.full(MAX_NUMBER + 1, _STRAY, np.uint16)
    numbers = [0, *labels.listed.get(category, ())]
    lookup[numbers] = labels.lookup[numbers]
    return lookup


def _check_layout(root: Path) -> None:
    if not root.is_dir():
        raise UsageError(f"broden {root} {'is not a folder' if root.exists() else 'does not exist'}; {_LAYOUT}")
    if not (root / INDEX).is_file():
        inner = sorted(path.parent for path in root.glob(f"*/{INDEX}"))
        advice = f"name the folder below it: broden:{inner[0]}" if inner else _LAYOUT
        raise UsageError(f"{root / INDEX} is missing; {advice}")
    if not (root / "images").is_dir():
        raise UsageError(f"{root / 'images'} is missing; {_LAYOUT}")


def _table_digest(root: Path) -> bytes:
    """A hash of the tables that say what the numbers mean."""
    digest = hashlib.blake2b(digest_size=16)
    for path in (root / LABELS, root / CATEGORIES, *sorted(root.glob("c_*.csv"))):
        digest.update(f"{path.name}\n".encode() + _file_digest(path))
    return digest.digest()


def _file_digest(path: Path) -> bytes:
    """A hash of a file's content; of nothing where it does not exist."""
    if not path.is_file():
        return b""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "blake2b").digest()
