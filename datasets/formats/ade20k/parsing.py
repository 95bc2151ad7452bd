"""The scene parsing benchmark of ADE20K, ADEChallengeData2016: 150 object classes, and the scene of each image.

    PATH/images/{training,validation}/ADE_train_00000001.jpg
    PATH/annotations/{training,validation}/ADE_train_00000001.png      8-bit grey; 1 ... 150, 0 = other
    PATH/objectInfo150.txt         Idx, Ratio, Train, Val, Stuff and Name, separated by tabs
    PATH/sceneCategories.txt       "ADE_train_00000001 airport_terminal", one line an image; may be missing

A concept has the first of its synonyms as name. A folder of images without one under annotations/ (testing/) is not
annotated; elsewhere an image without a mask is an image that cannot be read.
"""

from __future__ import annotations

import operator
import os
from collections.abc import Iterator, Sequence
from io import StringIO
from pathlib import Path

from microtome.datasets.base import Entry, Remark
from microtome.datasets.classes import MAX_ID
from microtome.datasets.formats.ade20k.names import SPLITS, Numbering, Scenes, scene_name, short_names
from microtome.datasets.formats.masked import (
    IdTable,
    MaskedImages,
    MaskFile,
    Meaning,
    file_names,
    tree,
    unique_stems,
)
from microtome.datasets.listing import LeftOut, PathList, looks_like_image, printable
from microtome.datasets.tables import is_there, line_of, read_csv, read_text
from microtome.storage.errors import UsageError

_OBJECTS = "objectInfo150.txt"
_SCENES = "sceneCategories.txt"
_EXAMPLE = "'ADE_train_00000001 airport_terminal'"


class Ade20kParsingDataset(MaskedImages):
    """An ImageDataset over ADEChallengeData2016; see the module for its layout.

    Opening reads the two tables and lists the files. Raises UsageError where one is not usable. Safe among threads;
    can be pickled.
    """

    def __init__(self, root: Path, spec: str) -> None:
        _check_layout(root)
        names = _object_names(root / _OBJECTS)
        images, self._annotated, remarks = _list_images(root)
        scenes, more_remarks = _scenes(root / _SCENES, images)
        super().__init__(spec, root, images, _meaning(names, scenes), [*remarks, *more_remarks])

    def entry(self, index: int) -> Entry:
        """Key (the path below images/, without its ending) and split of sample `index`; there are no class labels."""
        stem = _stem(self._images[operator.index(index)])
        folder, slash, _ = stem.partition("/")
        return Entry(key=printable(stem), split=printable(SPLITS.get(folder, folder)) if slash else "")

    def _masks(self, index: int, path: str) -> Sequence[MaskFile]:
        stem = _stem(path)
        return (MaskFile(0, f"annotations/{stem}.png"),) if os.path.dirname(stem) in self._annotated else ()


def _stem(path: str) -> str:
    """FOLDER/NAME of an image's path, which both its key and its mask have."""
    return os.path.splitext(path)[0].partition("/")[2]


def _check_layout(root: Path) -> None:
    if not (root / _OBJECTS).is_file():
        raise UsageError(
            f"{root / _OBJECTS} is missing: the table that says what the numbers in annotations/ mean (Idx to Name, "
            "tab-separated); it comes in ADEChallengeData2016.zip, put it there"
        )
    for name, what in (("images", "ADE_*.jpg in training/ and validation/"), ("annotations", "a mask for each image")):
        if not (root / name).is_dir():
            raise UsageError(f"{root} has no folder {name}/; expected {what}, as in ADEChallengeData2016.zip")


def _object_names(path: Path) -> dict[int, str]:
    """{number in the masks: name with all synonyms}, in the order of the table."""
    table = read_csv(path, ("Idx", "Name"), delimiter="\t")
    names: dict[int, str] = {}
    for row, (cell, name) in enumerate(zip(table["Idx"].to_pylist(), table["Name"].to_pylist(), strict=True)):
        text, name = cell.strip(), name.strip()
        problem = ""
        if not (text.isascii() and text.isdigit() and len(text) <= len(str(MAX_ID)) and 0 < int(text) <= MAX_ID):
            problem = f"Idx is {text!r}; expected a whole number, 1 to {MAX_ID}"
        elif not name:
            problem = f"the Name of Idx {text} is empty; write one, or take the line out"
        elif names.setdefault(int(text), name) != name:
            problem = f"Idx {text} is {name}, but {names[int(text)]} in an earlier line; keep one"
        if problem:
            raise UsageError(f"{path}, line {line_of(path, row)}: {problem}")
    if not names:
        raise UsageError(f"{path} lists no classes; expected a line for each, Idx to Name, tab-separated")
    return names


def _list_images(root: Path) -> tuple[PathList, frozenset[str], list[Remark]]:
    """Every image by path, the folders that are annotated, and what was noticed."""
    images = PathList()
    annotated: set[str] = set()
    matched = 0
    bare = LeftOut("images whose mask is missing: they cannot be read")
    unannotated = LeftOut("images in folders without annotations: they are not annotated")
    orphans = LeftOut("masks without an image")
    for folder, files in tree(root, "images"):
        below = folder.partition("/")[2]
        names = [name for name in files if looks_like_image(name)]
        stems = unique_stems(root / folder, names)
        images.append(folder, names)
        if not (root / "annotations" / below).is_dir():
            unannotated.note(below, stems)
            continue
        annotated.add(below)
        found = file_names(root / "annotations" / below)
        masks = {name.removesuffix(".png") for name in found if name.endswith(".png")}
        bare.note(below, [stem for stem in stems if stem not in masks])
        matched += len(masks)
        masks.difference_update(stems)
        matched -= len(masks)
        orphans.note(below, sorted(masks))
    if not len(images):
        raise UsageError(f"{root / 'images'} holds no images; expected ADE_*.jpg in training/ and validation/")
    if not matched:
        raise UsageError(
            f"no mask in {root / 'annotations'} belongs to an image: {images[0]} would have "
            f"{_stem(images[0])}.png there"
        )
    return images, frozenset(annotated), [*bare.remarks(), *unannotated.remarks(), *orphans.remarks()]


def _scenes(path: Path, images: PathList) -> tuple[Scenes | None, list[Remark]]:
    """The scene of each image, and what was noticed."""
    if not is_there(path):
        return None, [Remark(f"images without a scene: {_SCENES} is missing", len(images))]
    listed = _scene_lines(path)
    bare = LeftOut(f"images without a scene: {_SCENES} does not list them")
    absent = LeftOut(f"images that {_SCENES} lists and that are not there")
    used: set[str] = set()

    def found() -> Iterator[str]:
        for index in range(len(images)):
            stem = _stem(images[index])
            name = os.path.basename(stem)
            scene = listed.get(name, "")
            if scene:
                used.add(name)
            else:
                bare.note("", [stem])
            yield scene

    scenes = Scenes.of(found())
    absent.note("", [name for name in listed if name not in used])
    return scenes, [*bare.remarks(), *absent.remarks()]


def _scene_lines(path: Path) -> dict[str, str]:
    """{image's name: scene in words}."""
    words: dict[str, str] = {}
    scenes: dict[str, str] = {}
    for number, line in enumerate(StringIO(read_text(path)), 1):
        name, _, scene = line.strip().partition(" ")
        if not name:
            continue
        if scene not in words:
            words[scene] = scene_name([scene])
        if not words[scene]:
            raise UsageError(f"{path}, line {number}: {line.strip()!r}; expected NAME SCENE, such as {_EXAMPLE}")
        if scenes.setdefault(name, words[scene]) != words[scene]:
            both = f"{words[scene]}, but {scenes[name]} in an earlier line"
            raise UsageError(f"{path}, line {number}: {name} is {both}; keep one")
    if not scenes:
        raise UsageError(f"{path} is empty; expected one line an image, such as {_EXAMPLE}, or no such file")
    return scenes


def _meaning(names: dict[int, str], scenes: Scenes | None) -> Meaning:
    numbering = Numbering()
    table = IdTable.of(numbering.numbers(short_names(names), "object"))
    image_labels = scenes.image_labels(numbering) if scenes else None
    return Meaning(numbering.concepts(), ("objects",), (table,), ((0,),), image_labels)
