"""The full ADE20K of 2021, ADE20K_2021_17_01: 3,000 object classes, their parts, parts of parts, and scenes.

    PATH/images/ADE/{training,validation}/GROUP/SCENE/
        ADE_train_00000001.jpg
        ADE_train_00000001_seg.png             RGB: object class (R // 10) * 256 + G, 0 = unlabelled; B = instance
        ADE_train_00000001_parts_1.png, ...    the same for parts of level 1, 2, ...: planes "parts 1", "parts 2"
        ADE_train_00000001.json                what the numbers are called, and the scene (see `index`)
        ADE_train_00000001/                    masks of single instances, which are not read

A number that occurs as an object and as a part is two concepts, of category object and of category part; a number
that no JSON file names in that role is unknown. index_ade20k.pkl is a pickle and never opened. A split without any
*_seg.png is not annotated; elsewhere an image without one is an image that cannot be read.
"""

from __future__ import annotations

import operator
import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from microtome.datasets.base import Entry, Remark
from microtome.datasets.formats.ade20k.index import Index, read_index
from microtome.datasets.formats.ade20k.names import SPLITS, Numbering, short_names
from microtome.datasets.formats.masked import (
    IdTable,
    MaskedImages,
    MaskFile,
    Meaning,
    Names,
    tree,
    unique_stems,
)
from microtome.datasets.images import decode_channels
from microtome.datasets.listing import LeftOut, PathList, printable
from microtome.storage.errors import UsageError

_IMAGES = "images/ADE"
_SUFFIXES = (".jpg", ".jpeg")
_MASK = re.compile(r"(.+)_(?:seg|parts_([1-9]))\.png")
_LAYOUT = "expected images/ADE/{training,validation}/GROUP/SCENE/ADE_*.jpg with ADE_*_seg.png and ADE_*.json"


class Ade20kFullDataset(MaskedImages):
    """An ImageDataset over ADE20K_2021_17_01; see the module for its layout.

    Opening lists the files and reads every JSON file the first time. Raises UsageError where the layout is not
    usable. Safe among threads; can be pickled.
    """

    def __init__(self, root: Path, spec: str) -> None:
        images, self._marks, remarks = _list_images(root)
        index = read_index(root, images)
        self._levels = [level for level in range(1, 10) if (self._marks >> level & 1).any()]
        self._plain, more_remarks = _unmasked(images, self._marks)
        meaning = _meaning(index, self._levels)
        super().__init__(spec, root, images, meaning, [*remarks, *more_remarks, *index.remarks])

    def entry(self, index: int) -> Entry:
        """Key (the path below images/ADE/, without its ending) and split of sample `index`; no class labels."""
        stem = _stem(self._images[operator.index(index)])
        folder, slash, _ = stem.partition("/")
        return Entry(key=printable(stem), split=printable(SPLITS.get(folder, folder)) if slash else "")

    def _masks(self, index: int, path: str) -> Sequence[MaskFile]:
        stem = os.path.splitext(path)[0]
        if self._plain[index]:
            return ()
        parts = (
            MaskFile(plane, f"{stem}_parts_{level}.png", table=1)
            for plane, level in enumerate(self._levels, 1)
            if self._marks[index] >> level & 1
        )
        return (MaskFile(0, f"{stem}_seg.png"), *parts)

    def _decode_mask(self, path: Path, key: str) -> NDArray[np.uint16]:
        channels = decode_channels(path, key)
        return (channels[..., 0] // 10).astype(np.uint16) * np.uint16(256) + channels[..., 1]


def _stem(path: str) -> str:
    """SPLIT/GROUP/SCENE/NAME of an image's path."""
    return os.path.splitext(path)[0].removeprefix(f"{_IMAGES}/")


def _list_images(root: Path) -> tuple[PathList, NDArray[np.uint16], list[Remark]]:
    """Every image by path, the masks of each one (bit 0: _seg, bit n: _parts_n), and what was noticed."""
    images = PathList()
    marks: list[NDArray[np.uint16]] = [np.zeros(0, np.uint16)]
    orphans = LeftOut("masks without an image")
    for folder, files in tree(root, _IMAGES, _instance_folders):
        names = [name for name in files if name.lower().endswith(_SUFFIXES)]
        stems = unique_stems(root / folder, names)
        masks = _mask_levels(files)
        images.append(folder, names)
        marks.append(np.array([masks.get(stem, 0) for stem in stems], np.uint16))
        orphans.note(folder[len(_IMAGES) + 1 :], sorted(masks.keys() - set(stems)))
    found = np.concatenate(marks)
    if not len(images):
        raise UsageError(f"{root / _IMAGES} holds no images; {_LAYOUT}")
    if not (found & 1).any():
        raise UsageError(f"{root / _IMAGES} holds no mask of an image: {images[0]} would have *_seg.png; {_LAYOUT}")
    return images, found, orphans.remarks()


def _instance_folders(files: Names) -> set[str]:
    """The folders that may hold the instances of an image: they are called like it, and there are thousands."""
    pairs = (os.path.splitext(name) for name in files)
    return {stem for stem, suffix in pairs if suffix.lower() in (*_SUFFIXES, ".json")} | _mask_levels(files).keys()


def _mask_levels(files: Names) -> dict[str, int]:
    """{image's stem: its masks as bits}."""
    levels: dict[str, int] = {}
    for name in files:
        found = _MASK.fullmatch(name)
        if found:
            levels[found[1]] = levels.get(found[1], 0) | 1 << int(found[2] or 0)
    return levels


def _unmasked(images: PathList, marks: NDArray[np.uint16]) -> tuple[NDArray[np.bool_], list[Remark]]:
    """Which images lie in a split that is not annotated at all, and what was noticed of those without a _seg."""
    splits = [_stem(images[index]).partition("/")[0] for index in range(len(images))]
    annotated = {splits[index] for index in np.flatnonzero(marks & 1).tolist()}
    plain = np.fromiter((split not in annotated for split in splits), np.bool_, len(images))
    bare = LeftOut("images whose *_seg.png is missing: they cannot be read")
    bare.note("", [_stem(images[index]) for index in np.flatnonzero(~plain & (marks & 1 == 0)).tolist()])
    unannotated = LeftOut("images in splits without annotations: they are not annotated")
    unannotated.note("", [_stem(images[index]) for index in np.flatnonzero(plain).tolist()])
    return plain, [*bare.remarks(), *unannotated.remarks()]


def _meaning(index: Index, levels: Sequence[int]) -> Meaning:
    names = short_names(index.names)
    numbering = Numbering()
    tables = tuple(
        IdTable.of(numbering.numbers({number: names[number] for number in sorted(numbers)}, category))
        for numbers, category in ((index.objects, "object"), (index.parts, "part"))
    )
    image_labels = index.scenes.image_labels(numbering)
    plane_names = ("objects", *(f"parts {level}" for level in levels))
    return Meaning(numbering.concepts(), plane_names, tables, ((0,), *((1,) for _ in levels)), image_labels)
