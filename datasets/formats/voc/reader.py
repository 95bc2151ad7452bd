"""`voc:PATH`: PASCAL VOC with its class masks, and with Pascal-Context and Pascal-Part where they are present.

    PATH/JPEGImages/NAME.jpg
    PATH/SegmentationClass/NAME.png                  1 ... 20 the classes, 0 background, 255 border: both unlabelled
    PATH/ImageSets/Segmentation/{train,val}.txt      names, one a line (without these: trainval.txt, else test.txt)
    PATH/trainval/NAME.mat, PATH/labels.txt          Pascal-Context; see `context` for its other forms
    PATH/Annotations_Part/NAME.mat                   Pascal-Part; see `parts`

PATH is VOCdevkit/VOC2012, or a folder above it; several VOC20xx in it are read together, keys then begin with the
year. The planes are objects, context and parts. What is annotated in Context or Part and is in none of the lists above
is a sample too, its split from the lists of ImageSets/SegmentationContext or ImageSets/Main.
"""

from __future__ import annotations

import hashlib
import operator
import os
from collections.abc import Sequence, Set
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from microtome.datasets.base import Concept, Entry, Labels, Remark, Sample
from microtome.datasets.classes import ClassTable, Row, class_table
from microtome.datasets.formats.reader import FileReader
from microtome.datasets.formats.voc.context import ContextLabels, find_context
from microtome.datasets.formats.voc.layout import (
    BORDER,
    CLASSES,
    Names,
    find_years,
    other_splits,
    read_names,
    stems,
)
from microtome.datasets.formats.voc.masks import read_class_mask
from microtome.datasets.formats.voc.parts import find_parts, part_names, read_parts
from microtome.datasets.images import decode_image, image_size
from microtome.datasets.listing import PathList, printable, size_and_time
from microtome.datasets.planes import check_field_of_view, once_a_pixel, stack_planes
from microtome.datasets.unknown import UnknownIds
from microtome.storage.errors import SampleError, UsageError

_PLANES = ("objects", "context", "parts")
_OBJECTS, _CONTEXT, _PARTS = range(3)
_SPLITS = ("", "train", "val", "test")


class _Year:
    """One VOC20xx: where its files lie. Names are those of images, without a suffix."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.context: ContextLabels | None = find_context(root)
        self.parts: str | None = find_parts(root)

    def image(self, name: str) -> Path:
        return self.root / "JPEGImages" / f"{name}.jpg"

    def labels(self, plane: int, name: str) -> Path:
        """The file of a plane's labels, which may not exist."""
        if plane == _CONTEXT and self.context:
            return self.context.path(self.root, name)
        if plane == _PARTS and self.parts is not None:
            return self.root / self.parts / f"{name}.mat"
        return self.root / "SegmentationClass" / f"{name}.png"

    def labelled(self) -> tuple[set[str], set[str], set[str]]:
        """The names that have labels, by plane."""
        context = self.context.find(self.root) if self.context else set()
        parts = stems(self.root / self.parts, ".mat") if self.parts is not None else set()
        return stems(self.root / "SegmentationClass", ".png"), context, parts


class VocDataset(FileReader):
    """An ImageDataset over a VOCdevkit; see the module for its layout.

    Opening lists the files and reads the lists; no image is opened before `read`. The first opening with Pascal-Part
    reads its annotations for the names of the parts. Raises UsageError where the layout is not usable. Safe among
    threads; can be pickled.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._spec = f"voc:{os.fspath(path)}"
        root = Path(os.path.abspath(Path(path).expanduser()))
        self._remarks: list[Remark] = []
        try:
            found = find_years(root)
            self._prefixes = tuple(found)
            self._years = tuple(_Year(folder) for folder in found.values())
            self._list()
            self._classes = _class_table(self._years)
            self._parts = self._number_parts()
        except OSError as error:
            raise UsageError(f"{root} cannot be listed: {error.strerror} ({error.filename})") from error
        used = self._has.any(0) | np.array([True, False, False])
        self._planes = tuple(np.flatnonzero(used).tolist())
        self._shared = ((0, 1),) if used[_CONTEXT] and any(first == 0 for first, _ in self._classes.shared) else ()
        self._unknown = UnknownIds(len(self._names), self.plane_names)
        self._meaning = hashlib.blake2b(repr((self._classes.concepts, self._parts)).encode()).digest()
        self._fingerprint = ""

    @property
    def concepts(self) -> Sequence[Concept]:
        parts = (Concept(number, name, "part") for name, number in self._parts.items())
        return (*self._classes.concepts, *parts)

    @property
    def plane_names(self) -> Sequence[str]:
        return tuple(_PLANES[plane] for plane in self._planes)

    def __len__(self) -> int:
        return len(self._names)

    def entry(self, index: int) -> Entry:
        """Key (the name, after its year where there are several) and split of sample `index`."""
        key = self._names[operator.index(index)]
        return Entry(key=printable(key), split=_SPLITS[self._split[index]])

    def read(self, index: int) -> Sample:
        """Decode image and labels of sample `index`. Raises SampleError where one cannot be used.

        planes: (P, h, w), at the resolution of the largest map; 0 where an image has no labels of a plane.
        """
        year, name, key = self._place(operator.index(index))
        image = decode_image(year.image(name), key)
        labels = self._labels(operator.index(index), image.shape[:2])
        return Sample(image, labels.planes, labels.image_labels)

    def read_labels(self, index: int) -> Labels:
        """The labels of sample `index`; of the image its head alone is read."""
        year, name, key = self._place(operator.index(index))
        return self._labels(operator.index(index), image_size(year.image(name), key))

    def unknown_ids(self) -> dict[str, dict[int, int]]:
        """Numbers in the masks of objects beyond 0 ... 20 and 255, and in maps of context that its list has not.

        {plane: {number: images}}, ascending, over the samples that this object has read so far, each counted once.
        """
        return self._unknown.counts()

    def remarks(self) -> Sequence[Remark]:
        """Listed images that are missing, images without labels in a plane, and what was left out."""
        found = list(self._remarks)
        for place, plane in enumerate(self._planes):
            bare = np.flatnonzero(~self._has[:, plane])
            if len(bare):
                keys = tuple(self.entry(index).key for index in bare[:5].tolist())
                found.append(Remark(f"images without labels in plane {self.plane_names[place]}", len(bare), keys))
        return found

    def fingerprint(self) -> str:
        """A hash of key, split, and size and modification time of every image and its labels, and of the concepts.

        Computed at the first call. Contents of images are not read.
        """
        if not self._fingerprint:
            digest = hashlib.blake2b(b"voc 1\n" + self._meaning, digest_size=16)
            for index in range(len(self)):
                digest.update(os.fsencode(f"{self._names[index]}\0{self._split[index]}\0{self._state(index)}\n"))
            self._fingerprint = digest.hexdigest()
        return self._fingerprint

    def sample_fingerprint(self, index: int) -> int:
        """A hash of size and modification time of the image and its labels, and of the concepts."""
        state = self._state(operator.index(index))
        return int.from_bytes(hashlib.blake2b(self._meaning + state.encode(), digest_size=8).digest())

    def _state(self, index: int) -> str:
        year, name, _ = self._place(index)
        files = [year.labels(plane, name) for plane in np.flatnonzero(self._has[index]).tolist()]
        return "\0".join(size_and_time(file) for file in (year.image(name), *files))

    def _place(self, index: int) -> tuple[_Year, str, str]:
        """Year, name and key of sample `index`."""
        key = self._names[index]
        year = self._year_of[index]
        prefix = self._prefixes[year]
        return self._years[year], key[len(prefix) + 1 :] if prefix else key, printable(key)

    def _list(self) -> None:
        """Set for every sample its name, year and split, and (N, 3) which planes it has labels in.

        A plane of objects that a list promises counts as there: its mask may turn out to be missing.
        """
        self._names = PathList()
        splits: list[int] = []
        years: list[int] = []
        has: list[tuple[bool, bool, bool]] = []
        earlier: set[str] = set()
        for number, (prefix, year) in enumerate(zip(self._prefixes, self._years, strict=True)):
            listed = read_names(year.root)
            images = stems(year.root / "JPEGImages", ".jpg")
            _check_listed(year.root, listed, images)
            objects, context, parts = year.labelled()
            known = _with_others(listed, year.root, (context | parts) & images)
            self._names.append(prefix, list(known))
            splits += [_SPLITS.index(split) for split in known.values()]
            years += [number] * len(known)
            due = {name for name, split in listed.splits.items() if split != "test"} | objects
            has += [(name in due, name in context, name in parts) for name in known]
            where = f"{prefix}/" if prefix else ""
            self._note("images of the lists that JPEGImages/ has not", where, known.keys() - images)
            self._note(
                "lists that ImageSets/Segmentation/ lacks: their images are left out", where, set(listed.missing)
            )
            left_out = "images of test.txt, left out because train.txt or val.txt is there"
            self._note(left_out, where, set(listed.left_out) - known.keys())
            self._note("images that an earlier year has too", where, earlier & known.keys())
            earlier |= known.keys()
        self._split, self._year_of = np.array(splits, np.uint8), np.array(years, np.uint8)
        self._has = np.array(has, np.bool_).reshape(-1, 3)

    def _note(self, text: str, where: str, names: Set[str]) -> None:
        if names:
            keys = tuple(printable(where + name) for name in sorted(names)[:5])
            self._remarks.append(Remark(text, len(names), keys))

    def _number_parts(self) -> dict[str, int]:
        """The concept id of each part by its name."""
        places = [self._place(index) for index in np.flatnonzero(self._has[:, _PARTS]).tolist()]
        names = part_names([year.labels(_PARTS, name) for year, name, _ in places]) if places else []
        first = len(self._classes.concepts) + 1
        return {name: first + place for place, name in enumerate(names)}

    def _labels(self, index: int, size: tuple[int, ...]) -> Labels:
        maps: dict[int, NDArray[np.uint16]] = {}
        unlisted: dict[int, list[int]] = {}
        for place, plane in enumerate(self._planes):
            found = self._read_plane(index, plane) if self._has[index, plane] else None
            if found is None:
                continue
            check_field_of_view(self._place(index)[2], f"labels of plane {_PLANES[plane]}", found.shape, size)
            if plane == _PARTS:
                maps[place] = found
                continue
            row = self._year_of[index] + 1 if plane == _CONTEXT else 0
            maps[place] = self._classes.lookup[row][found]
            if self._unknown.is_new(index):
                present = np.flatnonzero(np.bincount(found.ravel()))
                unlisted[place] = present[~self._classes.known[row][present]].tolist()
        self._unknown.note(index, unlisted)
        planes = stack_planes(maps, len(self._planes))
        once_a_pixel(planes, self._shared)
        return Labels(planes, np.zeros(0, np.uint16))

    def _read_plane(self, index: int, plane: int) -> NDArray[np.uint16] | None:
        year, name, key = self._place(index)
        try:
            if plane == _OBJECTS:
                return read_class_mask(year.labels(plane, name), key)
            if plane == _PARTS:
                return read_parts(year.labels(plane, name), self._parts, key)
            return year.context.read(year.root, name, key) if year.context else None
        except SampleError as error:
            raise SampleError(key, f"labels of plane {_PLANES[plane]}: {error.reason}") from error


def _check_listed(root: Path, listed: Names, images: Set[str]) -> None:
    if not listed.splits.keys() & images:
        raise UsageError(
            f"{root / 'JPEGImages'} holds none of the {len(listed.splits)} images that the lists name, such as "
            f"{next(iter(listed.splits))}.jpg; expected names without .jpg in ImageSets/Segmentation"
        )


def _with_others(listed: Names, root: Path, annotated: set[str]) -> dict[str, str]:
    """The split of every sample of a year: the listed ones, then those `annotated` elsewhere, sorted."""
    others = sorted(annotated - listed.splits.keys())
    splits = other_splits(root) if others else {}
    return {**listed.splits, **{name: splits.get(name, "") for name in others}}


def _class_table(years: Sequence[_Year]) -> ClassTable:
    """What numbers mean: row 0 of the lookup for objects, row 1 + y for the context of year y."""
    rows = [Row(0, number, name, "object", "objects") for number, name in enumerate(CLASSES, start=1)]
    rows.append(Row(0, BORDER, "border", "", "objects"))
    for number, year in enumerate(years):
        names = year.context.names if year.context else {}
        rows += [
            Row(0, index, name or "unlabelled", "object" if name else "", f"context {number}")
            for index, name in sorted(names.items())
        ]
    return class_table(rows, ("objects", *(f"context {number}" for number in range(len(years)))), years[0].root)
