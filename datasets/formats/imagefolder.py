"""`imagefolder:PATH`: images in folders that are named after their classes, without masks.

    PATH/CLASS/NAME.EXT, PATH/SPLIT/CLASS/NAME.EXT      images in any format that Pillow reads

The folders of PATH are splits where all of them have such names (train, val, test, ...), else classes. What lies
deeper belongs to the class above it. Classes are numbered in the order of their names, over all splits, an empty
folder counts. Files that do not look like images, or lie in no class, are left out.
"""

from __future__ import annotations

import operator
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from microtome.datasets.base import Entry, Remark
from microtome.datasets.formats.images import ImageFiles
from microtome.datasets.listing import LeftOut, is_folder, is_junk, looks_like_image, printable, walk_names
from microtome.storage.errors import UsageError

SPLITS = frozenset({"train", "training", "val", "valid", "validation", "test", "testing", "dev"})
_LAYOUT = "expected PATH/CLASS/NAME.EXT, or PATH/SPLIT/CLASS/NAME.EXT with splits called train, val, test"


class ImageFolderDataset(ImageFiles):
    """An ImageDataset over folders of classes; see the module for the layout.

    Opening lists the files; no image is opened before `read`. Raises UsageError where the layout is not usable. Safe
    among threads; can be pickled.
    """

    SCHEME = "imagefolder"
    LAYOUT = _LAYOUT

    @property
    def class_names(self) -> Sequence[str]:
        return tuple(printable(name) for name in self._classes)

    def entry(self, index: int) -> Entry:
        """Key (the path below PATH), split and class of sample `index`."""
        path = self._images[operator.index(index)]
        parts = path.split("/")
        split = parts.pop(0) if self._splits else ""
        return Entry(key=printable(path), split=printable(split), label=self._number[parts[0]])

    def remarks(self) -> Sequence[Remark]:
        """Files that are left out (no images by their names, or in no class), and classes without an image."""
        found = [*super().remarks(), *self._in_no_class.remarks()]
        empty = [printable(name) for name, images in zip(self._classes, self._sizes, strict=True) if not images]
        if empty:
            found.append(Remark("classes without an image", len(empty), tuple(empty[:5])))
        return found

    def _meaning(self, index: int) -> str:
        return f"\n{self.entry(index).label}"

    def _head(self) -> bytes:
        return super()._head() + os.fsencode("\n".join(self._classes) + "\n\n")

    def _list(self) -> None:
        self._splits, self._classes = _find_classes(self._root)
        self._number = {name: number for number, name in enumerate(self._classes)}
        self._sizes = np.zeros(len(self._classes), np.int64)
        self._in_no_class = LeftOut("images that lie in no class; left out")
        for folder, names in walk_names(self._root):
            parts = folder.split("/") if folder else []
            if len(parts) > bool(self._splits):
                before = len(self._images)
                self._take(folder, names)
                self._sizes[self._number[parts[bool(self._splits)]]] += len(self._images) - before
            else:
                self._in_no_class.note(folder, [name for name in names if looks_like_image(name)])
                self._no_images.note(folder, [name for name in names if not looks_like_image(name)])
        if not len(self._images):
            raise UsageError(f"{self._root} holds no images in folders of classes; {_LAYOUT}")


def _find_classes(root: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(splits, classes) by name; no splits where the folders of `root` are the classes."""
    folders = _folders(root)
    if not folders:
        with os.scandir(root) as listing:
            loose = next((entry.name for entry in listing if looks_like_image(entry)), None)
        advice = f"; for images without classes ({loose}, ...) name images:{root}"
        raise UsageError(f"imagefolder {root} has no folders of classes; {_LAYOUT}{advice if loose else ''}")
    if not all(name.lower() in SPLITS for name in folders):
        return (), folders
    classes = {name for split in folders for name in _folders(root / split)}
    if not classes:  # folders that happen to be called like splits, and hold the images themselves
        return (), folders
    return folders, tuple(sorted(classes))


def _folders(path: Path) -> tuple[str, ...]:
    with os.scandir(path) as listing:
        return tuple(sorted(entry.name for entry in listing if is_folder(entry) and not is_junk(entry.name)))
