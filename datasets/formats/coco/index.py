"""What an annotation file of COCO holds for which image: a compact index, and single annotations read when needed.

Of each annotation the index keeps where it stands in the file. An index of a large file is kept from one start to the
next (see `caches`): reading hundreds of megabytes of JSON takes seconds.
"""

from __future__ import annotations

import io
import itertools
import json
import os
import posixpath
import zipfile
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from microtome.datasets.base import Remark
from microtome.datasets.caches import cached
from microtome.datasets.formats.coco.json_lists import JsonLists
from microtome.datasets.listing import below, printable
from microtome.storage.errors import SampleError, UsageError

PANOPTIC = "panoptic"
_LISTS = ("images", "annotations", "categories")
_FORM = {True: "image_id, file_name, segments_info", False: "image_id, category_id, segmentation"}
_WORTH_CACHING = 8 << 20
_VERSION = 1
_EXAMPLES = 5


@dataclass(frozen=True)
class AnnotationFile:
    """One file, such as instances_val2017.json; its images are in the order of their names.

    names:      file names of the N images, normalised
    sizes:      (N, 2) int64 height and width, 0 where the file does not give them
    starts:     (N + 1,) int64: the annotations of image i are starts[i] ... starts[i + 1] - 1
    spans:      (A, 2) int64: the bytes [from, to) of each annotation
    categories: {id: name}, ids ascending
    state:      size and modification time of the file that was read
    """

    path: Path
    state: tuple[int, int]
    digest: bytes
    names: Sequence[str]
    sizes: NDArray[np.int64]
    starts: NDArray[np.int64]
    spans: NDArray[np.int64]
    categories: Mapping[int, str]
    remarks: tuple[Remark, ...]

    def texts(self, row: int, key: str) -> list[bytes]:
        """The annotations of image `row` as JSON. Raises SampleError where the file is not what it was."""
        spans = self.spans[self.starts[row] : self.starts[row + 1]].tolist()
        if not spans:
            return []
        try:
            with self.path.open("rb", buffering=0) as file:
                if _state(os.fstat(file.fileno())) != self.state:
                    raise SampleError(key, f"{self.path.name} has changed since the dataset was opened")
                return [os.pread(file.fileno(), end - start, start) for start, end in spans]
        except OSError as error:
            raise SampleError(key, f"{self.path.name} cannot be read: {error.strerror}") from error


def index_file(path: Path, kind: str) -> AnnotationFile:
    """Index an annotation file of a kind: panoptic, instances or stuff. Raises UsageError where it is not usable."""
    try:
        size, time = state = _state(path.stat())
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error
    if size < _WORTH_CACHING:
        return _Indexer(path, kind, state).result()

    def make(target: Path) -> None:
        target.write_bytes(_packed(_Indexer(path, kind, state).result()))

    for _ in range(2):
        file = cached("coco", f"{_VERSION} {kind} {path} {size} {time}", ".npz", make)
        try:
            return _unpacked(file, path)
        except (OSError, ValueError, KeyError, zipfile.BadZipFile):
            file.unlink(missing_ok=True)
    return _Indexer(path, kind, state).result()


class _Indexer:
    """Reads a file once, and checks every element's form on the way."""

    def __init__(self, path: Path, kind: str, state: tuple[int, int]) -> None:
        self._path, self._panoptic, self._state = path, kind == PANOPTIC, state
        self._row_of: dict[int, int] = {}
        self._names: list[str] = []
        self._sizes = array("q")
        self._image_ids, self._spans = array("q"), array("q")
        self._categories: dict[int, str] = {}
        self._used: set[int] = set()
        self._boxes: list[int] = []

    def result(self) -> AnnotationFile:
        lists = JsonLists(self._path, _LISTS)
        add: dict[str, Callable[[dict[str, Any], str, int, int], None]] = {
            "images": self._add_image,
            "annotations": self._add_annotation,
            "categories": self._add_category,
        }
        numbers = dict.fromkeys(_LISTS, 0)
        for name, element, start, end in lists:
            where = f"{name}[{numbers[name]}]"
            numbers[name] += 1
            if not isinstance(element, dict):
                raise self._error(f"{where} is not an object")
            add[name](element, where, start, end)
        missing = [name for name in _LISTS if name not in lists.found]
        if missing:
            raise self._error(f"no list {' and no list '.join(missing)}; expected {', '.join(_LISTS)}")
        for name in ("images", "categories"):
            if not numbers[name]:
                raise self._error(f"the list {name} is empty")
        return self._sorted(lists.digest)

    def _add_image(self, image: dict[str, Any], where: str, start: int, end: int) -> None:
        number = self._whole(image, "id", where)
        name = self._file_name(image, where)
        height, width = image.get("height"), image.get("width")
        if not (_is_length(height) and _is_length(width)):
            if not self._panoptic:
                where = f"{where} ({printable(name)})"
                raise self._error(f"{where}: height and width are {height} and {width}; expected whole numbers from 1")
            height, width = 0, 0
        if self._row_of.setdefault(number, len(self._names)) != len(self._names):
            other = self._names[self._row_of[number]]
            raise self._error(f"{where}: the image id {number} occurs twice, for {other} and {name}")
        self._names.append(name)
        self._sizes.extend((height, width))

    def _add_annotation(self, annotation: dict[str, Any], where: str, start: int, end: int) -> None:
        image = self._whole(annotation, "image_id", where)
        if self._panoptic:
            self._file_name(annotation, where)
            segments = annotation.get("segments_info")
            if not isinstance(segments, list):
                raise self._error(f"{where}: no list segments_info; expected {_FORM[True]}")
            self._used.update(
                category
                for segment in segments
                if isinstance(segment, dict) and type(category := segment.get("category_id")) is int
            )
        else:
            self._used.add(self._whole(annotation, "category_id", where))
            if not annotation.get("segmentation"):
                self._boxes.append(image)
        self._image_ids.append(image)
        self._spans.extend((start, end))

    def _add_category(self, category: dict[str, Any], where: str, start: int, end: int) -> None:
        number = self._whole(category, "id", where)
        name = category.get("name")
        if not isinstance(name, str) or not name.strip() or not _is_text(name):
            raise self._error(f"{where}: the name of category {number} is {name!r}; expected text")
        name = name.strip()
        if self._categories.setdefault(number, name) != name:
            raise self._error(f"{where}: the category id {number} is {self._categories[number]!r} and {name!r}")

    def _whole(self, element: dict[str, Any], name: str, where: str) -> int:
        value = element.get(name)
        if type(value) is not int or not -(1 << 63) <= value < 1 << 63:
            found = "is missing" if name not in element else f"is {str(value)[:40]!r}"
            kind = where.partition("[")[0]
            form = {"images": "id, file_name, height, width", "categories": "id, name"}.get(kind, _FORM[self._panoptic])
            raise self._error(f"{where}: {name} {found}; expected {form}, with whole numbers as ids")
        return value

    def _file_name(self, element: dict[str, Any], where: str) -> str:
        name = element.get("file_name")
        if not isinstance(name, str) or not name or not _is_text(name):
            raise self._error(f"{where}: file_name is {str(name)[:40]!r}; expected the name of a file")
        if below(Path(), name) is None or posixpath.normpath(name) == ".":
            raise self._error(f"{where}: the file_name {name!r} leads out of its folder; expected a path below it")
        return posixpath.normpath(name)

    def _sorted(self, digest: bytes) -> AnnotationFile:
        """The index with its images in the order of their names, and the annotations in that of their images."""
        count = len(self._names)
        order = sorted(range(count), key=self._names.__getitem__)
        names = [self._names[row] for row in order]
        for first, second in itertools.pairwise(names):
            if first == second:
                raise self._error(f"two images have the file_name {printable(first)}")
        rank = np.empty(count + 1, np.int64)
        rank[order] = np.arange(count)
        rank[count] = -1
        spans = np.frombuffer(self._spans, np.int64).reshape(-1, 2)
        rows = rank[[self._row_of.get(number, count) for number in self._image_ids]] if len(spans) else rank[:0]
        remarks = self._remarks([self._image_ids[at] for at in np.flatnonzero(rows < 0).tolist()])
        by_image = np.argsort(rows, kind="stable")
        by_image = by_image[np.count_nonzero(rows < 0) :]
        counts = np.bincount(rows[by_image], minlength=count)
        if self._panoptic and counts.max() > 1:
            raise self._error(f"{printable(names[int(counts.argmax())])} has {counts.max()} annotations; expected one")
        return AnnotationFile(
            path=self._path,
            state=self._state,
            digest=digest,
            names=names,
            sizes=np.array(self._sizes, np.int64).reshape(-1, 2)[order],
            starts=np.concatenate(([0], np.cumsum(counts))).astype(np.int64),
            spans=spans[by_image],
            categories=dict(sorted(self._categories.items())),
            remarks=remarks,
        )

    def _remarks(self, strangers: list[int]) -> tuple[Remark, ...]:
        name = self._path.name
        idle = sorted(self._categories.keys() - self._used)
        found = (
            (f"annotations in {name} of image ids that it does not list", sorted(strangers)),
            (f"annotations in {name} without a segmentation (by image id)", sorted(self._boxes)),
            (f"categories in {name} that no annotation has", [self._categories[number] for number in idle]),
        )
        return tuple(Remark(text, len(of), tuple(map(str, of[:_EXAMPLES]))) for text, of in found if of)

    def _error(self, problem: str) -> UsageError:
        return UsageError(f"{self._path}: {problem}")


def _state(status: os.stat_result) -> tuple[int, int]:
    return status.st_size, status.st_mtime_ns


def _is_length(value: object) -> TypeGuard[int]:
    return type(value) is int and 0 < value < 1 << 31


def _is_text(name: str) -> bool:
    """Whether UTF-8 can hold it: JSON can write halves of characters."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _packed(index: AnnotationFile) -> bytes:
    remarks = [(remark.text, remark.count, remark.examples) for remark in index.remarks]
    rest = json.dumps([index.state, list(index.categories.items()), remarks, index.digest.hex()])
    stream = io.BytesIO()
    np.savez(
        stream,
        names=np.frombuffer("\0".join(index.names).encode(), np.uint8),
        sizes=index.sizes,
        starts=index.starts,
        spans=index.spans,
        rest=np.frombuffer(rest.encode(), np.uint8),
    )
    return stream.getvalue()


def _unpacked(file: Path, path: Path) -> AnnotationFile:
    with file.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
        state, categories, remarks, digest = json.loads(arrays["rest"].tobytes())
        return AnnotationFile(
            path=path,
            state=(state[0], state[1]),
            digest=bytes.fromhex(digest),
            names=arrays["names"].tobytes().decode().split("\0"),
            sizes=arrays["sizes"],
            starts=arrays["starts"],
            spans=arrays["spans"],
            categories=dict(categories),
            remarks=tuple(Remark(text, count, tuple(examples)) for text, count, examples in remarks),
        )
