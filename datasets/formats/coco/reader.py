"""`coco:PATH`: COCO's panoptic, instance and stuff annotations, and other data sets in the same form.

    PATH/annotations/panoptic_NAME.json     with PATH/annotations/panoptic_NAME/*.png: id = R + 256·G + 65536·B
    PATH/annotations/instances_NAME.json    polygons and run-length codes of things
    PATH/annotations/stuff_NAME.json        the same of stuff
    PATH/NAME/, PATH/images/NAME/           the images; NAME is train2017, val2017 or any other

A part NAME is of the split that it is called after, without the year. Where every part has panoptic annotations these
alone are read (plane "panoptic"); else of instances (plane "objects") and stuff (plane "stuff") those that every part
has. What is left aside that way, or because its images are missing, is in the remarks; pixel maps of stuff are not
needed. Annotations belong to the images as they stand upright.

Every category is a concept of category "object", things and stuff alike, and one concept where several have the same
name. Unlabelled are id 0 of panoptic PNGs and the category "other" of stuff annotations, which covers all things. Of
overlapping instances the smaller lies on top; crowds lie below all others. COCO (Lin et al. 2014, arXiv:1405.0312),
COCO-Stuff (Caesar et al. 2018), panoptic segmentation (Kirillov et al. 2019).
"""

from __future__ import annotations

import hashlib
import json
import operator
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from microtome.datasets.base import Concept, Entry, Labels, Remark, Sample
from microtome.datasets.classes import MAX_ID
from microtome.datasets.formats.coco.index import PANOPTIC, AnnotationFile, index_file
from microtome.datasets.formats.coco.layout import PLANES, Part, check_images, find_parts, image_remarks
from microtome.datasets.formats.coco.masks import MaskError, paint, panoptic_map
from microtome.datasets.formats.reader import FileReader
from microtome.datasets.images import decode_channels, decode_image, image_size
from microtome.datasets.listing import PathList, hash_files, printable, size_and_time, walk_names
from microtome.datasets.planes import check_field_of_view, once_a_pixel, shared_pairs, stack_planes
from microtome.datasets.unknown import UnknownIds
from microtome.storage.errors import SampleError, UsageError

_CATEGORY = "object"
_THINGS_IN_STUFF = "other"
_EXAMPLES = 5

_Maps = tuple[dict[int, NDArray[np.uint16]], dict[int, list[int]]]
"""Concept ids (h, w) of some planes, and the unknown numbers met in them."""


@dataclass(frozen=True)
class _Annotated:
    """A part's annotations of one kind; `rows` (n,) int64: the image's place in the file, -1 where it is not there."""

    file: AnnotationFile
    rows: NDArray[np.int64]

    def texts(self, row: int, key: str) -> list[bytes]:
        """The annotations of image `row` of the part as JSON. Raises SampleError."""
        return self.file.texts(int(self.rows[row]), key) if self.rows[row] >= 0 else []

    def annotations(self, row: int, key: str) -> list[dict[str, Any]]:
        """The annotations of image `row` of the part. Raises SampleError."""
        texts = self.texts(row, key)
        try:
            return [json.loads(text) for text in texts]
        except ValueError as error:
            raise SampleError(key, f"{self.file.path.name} has changed since the dataset was opened") from error

    def size(self, row: int) -> tuple[int, int]:
        """(height, width) that the file gives image `row` of the part, (0, 0) where it gives none."""
        height, width = self.file.sizes[self.rows[row]].tolist() if self.rows[row] >= 0 else (0, 0)
        return height, width

    def counts(self) -> NDArray[np.int64]:
        """(n,) annotations of each image of the part."""
        counts = np.append(np.diff(self.file.starts), 0)
        return counts[self.rows]


class CocoDataset(FileReader):
    """An ImageDataset over annotation files in COCO's form; see the module for layout and meaning.

    Opening reads the annotation files and no image; an index of large files is kept in the cache folder. Held are 16
    bytes an annotation and 60 an image. Raises UsageError where files are missing or not usable. Safe among threads;
    can be pickled.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._spec = f"coco:{os.fspath(path)}"
        root = Path(os.path.abspath(Path(path).expanduser()))
        self._parts, self._kinds, remarks = find_parts(root)
        self._annotated: list[tuple[_Annotated, ...]] = []
        self._images = PathList()
        starts = [0]
        for part in self._parts:
            names, annotated = _open_part(part)
            check_images(part, names)
            self._images.append(part.name, names)
            self._annotated.append(annotated)
            starts.append(len(self._images))
        self._starts = np.array(starts)
        self._remarks = (*remarks, *self._file_remarks())
        categories = [
            _categories(kind, [part[at].file for part in self._annotated]) for at, kind in enumerate(self._kinds)
        ]
        self._concepts, self._concept_of = _number(categories)
        self._shared = shared_pairs([np.array([*numbers.values()], np.int64) for numbers in self._concept_of])
        self._meaning = hashlib.blake2b(repr((self._concepts, self._concept_of)).encode()).digest()
        self._unknown = UnknownIds(len(self._images), self.plane_names)
        self._fingerprint = ""

    @property
    def concepts(self) -> Sequence[Concept]:
        return self._concepts

    @property
    def plane_names(self) -> Sequence[str]:
        return tuple(PLANES[kind] for kind in self._kinds)

    def __len__(self) -> int:
        return len(self._images)

    def entry(self, index: int) -> Entry:
        """Key (NAME/file name, such as val2017/000000000139.jpg) and split of sample `index`."""
        path = self._images[operator.index(index)]
        return Entry(key=printable(path), split=printable(self._parts[self._place(index)[0]].split))

    def read(self, index: int) -> Sample:
        """Decode image and labels of sample `index`. Raises SampleError where one cannot be used.

        planes: (P, h, w) at the resolution of the PNG, or at the size that the annotation file gives.
        """
        index = operator.index(index)
        key = self.entry(index).key
        image = decode_image(self._image_path(index), key)
        labels = self._labels(index, key, image.shape[:2])
        return Sample(image, labels.planes, labels.image_labels)

    def read_labels(self, index: int) -> Labels:
        """The labels of sample `index`; of the image its head alone is read."""
        index = operator.index(index)
        key = self.entry(index).key
        return self._labels(index, key, image_size(self._image_path(index), key))

    def unknown_ids(self) -> dict[str, dict[int, int]]:
        """Category ids that the list of categories lacks: {plane: {id: images}}, ascending.

        Segments of a panoptic PNG that segments_info does not list are counted as -1. Over the samples that this
        object has read so far, each counted once. They count as unlabelled.
        """
        return self._unknown.counts()

    def remarks(self) -> Sequence[Remark]:
        """What was left aside, images that are missing, unlisted or without annotation, annotations of no image.

        Lists the image folders.
        """
        return (*self._remarks, *image_remarks(self._parts, [self._names(at) for at in range(len(self._parts))]))

    def fingerprint(self) -> str:
        """A hash of the annotation files' contents, and of size and time of every listed image and panoptic PNG.

        Computed at the first call. The content of a large annotation file is hashed when it is indexed, and again
        when its size or modification time changes.
        """
        if not self._fingerprint:
            digest = hashlib.blake2b(b"coco 1\n", digest_size=16)
            for at, part in enumerate(self._parts):
                digest.update(os.fsencode(f"{part.name}\n"))
                digest.update(b"".join(one.file.digest for one in self._annotated[at]))
                hash_files(digest, part.images, self._names(at))
                if part.masks:
                    for folder, files in walk_names(part.masks):
                        digest.update(os.fsencode(f"{folder}\n"))
                        hash_files(digest, part.masks / folder, files)
            self._fingerprint = digest.hexdigest()
        return self._fingerprint

    def sample_fingerprint(self, index: int) -> int:
        """A hash of size and time of the image and its PNG, of its annotations and of the concepts."""
        index = operator.index(index)
        key = self.entry(index).key
        digest = hashlib.blake2b(self._meaning, digest_size=8)
        digest.update(size_and_time(self._image_path(index)).encode())
        at, row = self._place(index)
        try:
            for one in self._annotated[at]:
                digest.update(f"\n{one.size(row)}\n".encode() + b"\n".join(one.texts(row, key)))
            if mask := self._mask_path(index, key):
                digest.update(size_and_time(mask).encode())
        except SampleError as error:
            digest.update(error.reason.encode())
        return int.from_bytes(digest.digest())

    def _file_remarks(self) -> list[Remark]:
        """What the annotation files themselves show, and images without annotations in a plane."""
        found: list[Remark] = []
        for at, kind in enumerate(self._kinds):
            bare: list[int] = []
            for start, annotated in zip(self._starts.tolist(), self._annotated, strict=False):
                found.extend(annotated[at].file.remarks)
                bare.extend((start + np.flatnonzero(annotated[at].counts() == 0)).tolist())
            if bare:
                keys = tuple(printable(self._images[index]) for index in bare[:_EXAMPLES])
                found.append(Remark(f"images without an annotation in plane {PLANES[kind]}", len(bare), keys))
        return found

    def _place(self, index: int) -> tuple[int, int]:
        """The number of a sample's part, and of the sample in there."""
        at = int(np.searchsorted(self._starts, index, "right")) - 1
        return at, index - int(self._starts[at])

    def _names(self, at: int) -> list[str]:
        """The file names of a part's images."""
        start, end = self._starts[at : at + 2].tolist()
        return [self._images[index].removeprefix(f"{self._parts[at].name}/") for index in range(start, end)]

    def _image_path(self, index: int) -> Path:
        part = self._parts[self._place(index)[0]]
        return part.images / self._images[index].removeprefix(f"{part.name}/")

    def _mask_path(self, index: int, key: str) -> Path | None:
        """The panoptic PNG of a sample, if it has one."""
        at, row = self._place(index)
        folder = self._parts[at].masks
        annotations = self._annotated[at][0].annotations(row, key) if folder else []
        return folder / annotations[0]["file_name"] if folder and annotations else None

    def _labels(self, index: int, key: str, size: tuple[int, ...]) -> Labels:
        read = self._panoptic if self._kinds == (PANOPTIC,) else self._painted
        maps, unknown = read(index, key, size)
        if self._unknown.is_new(index):
            self._unknown.note(index, unknown)
        planes = stack_planes(maps, len(self._kinds))
        once_a_pixel(planes, self._shared)
        return Labels(planes, np.zeros(0, np.uint16))

    def _panoptic(self, index: int, key: str, size: tuple[int, ...]) -> _Maps:
        at, row = self._place(index)
        annotations = self._annotated[at][0].annotations(row, key)
        folder = self._parts[at].masks
        if not annotations or folder is None:
            return {}, {}
        try:
            channels = decode_channels(folder / annotations[0]["file_name"], key)
        except SampleError as error:
            raise SampleError(key, f"panoptic PNG: {error.reason}") from error
        check_field_of_view(key, "panoptic PNG", channels.shape, size)
        red, green, blue = (channels[..., channel].astype(np.uint32) for channel in range(3))
        codes = red + np.uint32(256) * green + np.uint32(65536) * blue
        ids, unknown = panoptic_map(codes, annotations[0]["segments_info"], self._concept_of[0], key)
        return {0: ids}, {0: unknown}

    def _painted(self, index: int, key: str, size: tuple[int, ...]) -> _Maps:
        at, row = self._place(index)
        maps, unknown = {}, {}
        for plane, one in enumerate(self._annotated[at]):
            annotations = one.annotations(row, key)
            if not annotations:
                continue
            what = f"annotations of plane {self.plane_names[plane]}"
            drawn_at = one.size(row)
            check_field_of_view(key, what, drawn_at, size)
            try:
                maps[plane], unknown[plane] = paint(annotations, drawn_at, self._concept_of[plane])
            except MaskError as error:
                raise SampleError(key, f"{what}: {error}") from error
        return maps, unknown


def _open_part(part: Part) -> tuple[list[str], tuple[_Annotated, ...]]:
    """The file names of a part's images, sorted, and its annotations of each kind; files are matched by these names."""
    files = [index_file(path, kind) for kind, path in part.files.items()]
    names = list(files[0].names)
    if any(file.names != names for file in files):
        names = sorted({name for file in files for name in file.names})
    annotated = []
    for file in files:
        rows = np.arange(len(names))
        if file.names != names:
            row_of = {name: row for row, name in enumerate(file.names)}
            rows = np.fromiter((row_of.get(name, -1) for name in names), np.int64, len(names))
        annotated.append(_Annotated(replace(file, names=()), rows))
    return names, tuple(annotated)


def _categories(kind: str, files: Sequence[AnnotationFile]) -> dict[int, str]:
    """{category id: name, "" for no concept} of one kind, over all parts. Raises UsageError where they disagree."""
    found: dict[int, str] = {}
    for file in files:
        for number, name in file.categories.items():
            if found.setdefault(number, name) != name:
                raise UsageError(
                    f"{file.path}: category {number} is {name!r}, but {found[number]!r} in {files[0].path.name}; "
                    "all parts need the same categories"
                )
    hidden = {_THINGS_IN_STUFF} if kind == "stuff" else set()
    return {number: "" if found[number] in hidden else found[number] for number in sorted(found)}


def _number(categories: Sequence[dict[int, str]]) -> tuple[tuple[Concept, ...], list[dict[int, int]]]:
    """The concepts by plane and category id, and {category id: concept id or 0} of each plane."""
    numbers: dict[str, int] = {}
    for name in (name for of_kind in categories for name in of_kind.values() if name):
        numbers.setdefault(name, len(numbers) + 1)
    if len(numbers) > MAX_ID:
        raise UsageError(f"the annotation files have {len(numbers)} categories; at most {MAX_ID} are possible")
    concepts = tuple(Concept(number, name, _CATEGORY) for name, number in numbers.items())
    return concepts, [{category: numbers.get(name, 0) for category, name in of.items()} for of in categories]
