"""`folder:PATH`: a folder of images with label masks, as people keep them.

    PATH/images/[SPLIT/]NAME.EXT          images in any format that Pillow reads; SPLIT and below: any folders
    PATH/masks/[PLANE/][SPLIT/]NAME.png   numbers, in grey or indexed PNGs; a plane's mask may be missing
    PATH/classes.csv                      index,name,category[,plane]: what the numbers mean (see `classes`)

A folder directly under masks/ is a split if images/ has one of that name, else a plane; masks without a plane
folder form the plane "labels". Images without masks/ are allowed. Masks belong to the image as it stands upright.
"""

from __future__ import annotations

import hashlib
import operator
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from microtome.datasets.base import Concept, Entry, Labels, Remark, Sample
from microtome.datasets.classes import Row, class_table, example_rows, read_rows
from microtome.datasets.formats.reader import FileReader
from microtome.datasets.images import decode_image, image_size
from microtome.datasets.listing import (
    LeftOut,
    PathList,
    hash_files,
    is_folder,
    is_junk,
    looks_like_image,
    printable,
    size_and_time,
    walk_names,
)
from microtome.datasets.masks import MaskPlanes, some_numbers
from microtome.storage.errors import UsageError

DEFAULT_PLANE = "labels"
"""The plane of masks that lie in masks/ or masks/SPLIT/ directly."""

_SUFFIXES = ("", ".png", ".PNG")
_LAYOUT = (
    "expected PATH/images/[SPLIT/]NAME.EXT, PATH/masks/[PLANE/][SPLIT/]NAME.png and PATH/classes.csv "
    "(masks and classes.csv may be missing)"
)


class FolderDataset(FileReader):
    """An ImageDataset over a folder; see the module for its layout.

    Opening lists the files and reads classes.csv; no image is opened before `read`. Raises UsageError where the
    layout or classes.csv is not usable. Safe among threads; can be pickled.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._spec = f"folder:{os.fspath(path)}"
        self._root = Path(os.path.abspath(Path(path).expanduser()))
        _check_layout(self._root)
        try:
            self._planes = _find_planes(self._root)
            self._images, self._masks = _list_images(self._root, self._planes)
        except OSError as error:
            raise UsageError(f"{self._root} cannot be listed: {error.strerror} ({error.filename})") from error
        _check_found(self._root, self._images, self._planes, self._masks)
        self._classes = class_table(self._rows(), self.plane_names, self._root / "classes.csv")
        self._mask_planes = MaskPlanes(self._classes, self.plane_names, len(self._images))
        self._fingerprint = ""
        self._table_digest = _table_digest(self._root)

    @property
    def concepts(self) -> Sequence[Concept]:
        return self._classes.concepts

    @property
    def plane_names(self) -> Sequence[str]:
        return tuple(plane or DEFAULT_PLANE for plane in self._planes)

    def __len__(self) -> int:
        return len(self._images)

    def entry(self, index: int) -> Entry:
        """Key (the path below images/) and split of sample `index`; a folder has no class labels."""
        path = self._images[operator.index(index)]
        split, slash, _ = path.partition("/")
        return Entry(key=printable(path), split=printable(split) if slash else "")

    def read(self, index: int) -> Sample:
        """Decode image and masks of sample `index`. Raises SampleError where one cannot be used.

        planes: (P, h, w), at the resolution of the largest mask.
        """
        path = self._images[operator.index(index)]
        image = decode_image(self._root / "images" / path, printable(path))
        labels = self._labels(operator.index(index), image.shape[:2])
        return Sample(image, labels.planes, labels.image_labels)

    def read_labels(self, index: int) -> Labels:
        """The labels of sample `index`; of the image its head alone is read."""
        path = self._images[operator.index(index)]
        size = image_size(self._root / "images" / path, printable(path))
        return self._labels(operator.index(index), size)

    def unknown_ids(self) -> dict[str, dict[int, int]]:
        """Numbers that masks held and classes.csv does not list: {plane: {number: images}}, ascending.

        Over the samples that this object has read so far, each counted once. They count as unlabelled.
        """
        return self._mask_planes.unknown_ids()

    def remarks(self) -> Sequence[Remark]:
        """Images without a mask in a plane (they are not annotated there), and files that are out of place.

        Looks through the names once more: a second or two for a million images.
        """
        found = [*self._odd_names(), *self._stray_masks()]
        for name, marks in zip(self.plane_names, self._masks, strict=True):
            bare = np.flatnonzero(marks == 0)
            if len(bare):
                keys = tuple(self.entry(index).key for index in bare[:5].tolist())
                found.append(Remark(f"images without a mask in plane {name}", len(bare), keys))
        return found

    def fingerprint(self) -> str:
        """A hash of path, size and modification time of every image and mask, and of classes.csv.

        Computed at the first call. Contents of images are not read.
        """
        if not self._fingerprint:
            self._fingerprint = _fingerprint(self._root)
        return self._fingerprint

    def sample_fingerprint(self, index: int) -> int:
        """A hash of size and modification time of the image and its masks, and of classes.csv."""
        path = self._images[operator.index(index)]
        digest = hashlib.blake2b(self._table_digest, digest_size=8)
        digest.update(size_and_time(self._root / "images" / path).encode())
        for plane in np.flatnonzero(self._masks[:, index]).tolist():
            mask = self._mask_path(index, plane)
            digest.update(f"\n{self._planes[plane]} {size_and_time(mask)}".encode("utf-8", "surrogateescape"))
        return int.from_bytes(digest.digest())

    def _odd_names(self) -> list[Remark]:
        odd = LeftOut("files in images/ that are no images by their names; each is a sample all the same")
        for folder, names in walk_names(self._root / "images"):
            odd.note(folder, [name for name in names if not looks_like_image(name)])
        return odd.remarks()

    def _stray_masks(self) -> list[Remark]:
        """What lies in masks/ and is not used."""
        stray = LeftOut("masks that belong to no image")
        others = LeftOut("files in masks/ that are no PNG; left out")
        folders = walk_names(self._root / "masks") if self._planes else ()
        for folder, names in folders:
            plane, _, below = folder.partition("/")
            below = below if plane in self._planes else folder
            stems = _stems(self._root / "images" / below)
            masks = [name for name in names if name.endswith(_SUFFIXES[1:])]
            stray.note(folder, [name for name in masks if os.path.splitext(name)[0] not in stems])
            others.note(folder, [name for name in names if not name.endswith(_SUFFIXES[1:])])
        return [*stray.remarks(), *others.remarks()]

    def _rows(self) -> list[Row]:
        table = self._root / "classes.csv"
        if table.exists():
            return read_rows(table)
        if self._planes:
            ids = self._first_ids()
            raise UsageError(
                f"{table} is missing, so the numbers in masks/ have no names; write it, one line a number "
                f"(those that name nothing are left out):\n{example_rows(ids)}"
            )
        return []

    def _first_ids(self, *, masks: int = 5) -> list[int]:
        """Some of the numbers in the first masks, ascending."""
        first = np.argwhere(self._masks)[:masks].tolist()
        return some_numbers(self._mask_path(index, plane) for plane, index in first)

    def _mask_path(self, index: int, plane: int) -> Path:
        stem = os.path.splitext(self._images[index])[0]
        return self._root / "masks" / self._planes[plane] / (stem + _SUFFIXES[self._masks[plane, index]])

    def _labels(self, index: int, size: tuple[int, ...]) -> Labels:
        masks = {plane: self._mask_path(index, plane) for plane in np.flatnonzero(self._masks[:, index]).tolist()}
        return self._mask_planes.labels(index, printable(self._images[index]), masks, size)


def _check_layout(root: Path) -> None:
    if not root.is_dir():
        raise UsageError(f"folder {root} {'is not a folder' if root.exists() else 'does not exist'}; {_LAYOUT}")
    if (root / "images").is_dir():
        return
    if root.name == "images":
        advice = f"name the folder above it: folder:{root.parent}"
    else:
        with os.scandir(root) as listing:
            loose = next((e.name for e in listing if looks_like_image(e)), None)
        advice = f"move the images ({loose}, ...) into {root / 'images'}" if loose else _LAYOUT
    raise UsageError(f"folder {root} has no folder images/; {advice}")


def _find_planes(root: Path) -> tuple[str, ...]:
    """The folders of the planes below masks/, by name; "" (the default plane) first where it exists."""
    masks = root / "masks"
    if not masks.is_dir():
        return ()
    with os.scandir(root / "images") as listing:
        splits = {entry.name for entry in listing if is_folder(entry)}
    names: set[str] = set()
    others = ""
    for folder, files in walk_names(masks):
        plane = folder.partition("/")[0]
        plane = "" if plane in splits else plane
        if any(name.endswith(_SUFFIXES[1:]) for name in files):
            names.add(plane)
        else:
            others = others or f"{folder}/{files[0]}".lstrip("/")
    if not names and others:
        raise UsageError(f"{masks} holds no PNG ({others}, ...); masks have to be NAME.png, grey or indexed")
    if "" in names and DEFAULT_PLANE in names:
        raise UsageError(
            f"{masks} has masks outside of plane folders, which form the plane {DEFAULT_PLANE!r}, and a folder "
            f"{DEFAULT_PLANE}/ too; rename that folder"
        )
    return tuple(sorted(names))


def _list_images(root: Path, planes: Sequence[str]) -> tuple[PathList, NDArray[np.uint8]]:
    """Every image by path, and for each plane (P, N) which suffix its mask has: an index into _SUFFIXES."""
    images = PathList()
    marks: list[list[NDArray[np.uint8]]] = [[] for _ in planes]
    current, suffixes = "", [_mask_suffixes(root, plane, "") for plane in planes]
    for folder, files in walk_names(root / "images"):
        if folder != current:
            current, suffixes = folder, [_mask_suffixes(root, plane, folder) for plane in planes]
        images.append(folder, files)
        for mark, suffix_of in zip(marks, suffixes, strict=True):
            found = (suffix_of.get(os.path.splitext(name)[0], 0) for name in files)
            mark.append(np.fromiter(found, np.uint8, len(files)))
    stacked = np.zeros((len(planes), len(images)), np.uint8)
    for row, mark in zip(stacked, marks, strict=True):
        np.concatenate(mark, out=row) if mark else None
    return images, stacked


def _mask_suffixes(root: Path, plane: str, folder: str) -> dict[str, int]:
    """The masks in one folder of a plane: {stem: index into _SUFFIXES}."""
    found: dict[str, int] = {}
    where = root / "masks" / plane / folder
    if not where.is_dir():
        return found
    with os.scandir(where) as listing:
        for entry in listing:
            stem, suffix = os.path.splitext(entry.name)
            if suffix in _SUFFIXES[1:] and not is_junk(entry.name):
                found[stem] = min(_SUFFIXES.index(suffix), found.get(stem, len(_SUFFIXES)))
    return found


def _stems(folder: Path) -> frozenset[str]:
    """The names in a folder without their endings; none where there is no such folder."""
    with suppress(FileNotFoundError, NotADirectoryError):
        return frozenset(os.path.splitext(name)[0] for name in os.listdir(folder))
    return frozenset()


def _check_found(root: Path, images: PathList, planes: Sequence[str], masks: NDArray[np.uint8]) -> None:
    if not len(images):
        raise UsageError(f"{root / 'images'} holds no images; {_LAYOUT}")
    for plane, marks in zip(planes, masks, strict=True):
        if not marks.any():
            raise UsageError(
                f"no mask in {root / 'masks' / plane} belongs to an image: images/{images[0]} would have "
                f"{os.path.splitext(images[0])[0]}.png there (a folder under masks/ is a split if images/ has one "
                "of that name, else a plane)"
            )


def _fingerprint(root: Path) -> str:
    digest = hashlib.blake2b(b"folder 1\n", digest_size=16)
    digest.update(_table_digest(root))
    for part in ("images", "masks"):
        for folder, files in walk_names(root / part) if (root / part).is_dir() else ():
            digest.update(os.fsencode(f"{part}/{folder}\n"))
            hash_files(digest, root / part / folder, files)
    return digest.hexdigest()


def _table_digest(root: Path) -> bytes:
    table = root / "classes.csv"
    return hashlib.blake2b(table.read_bytes() if table.exists() else b"").digest()
