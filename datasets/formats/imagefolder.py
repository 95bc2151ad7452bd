"""`imagefolder:PATH`: images in folders that are named after their classes, without masks.

    PATH/CLASS/NAME.EXT, PATH/SPLIT/CLASS/NAME.EXT      images in any format that Pillow reads

The folders of PATH are splits where all of them have such names (train, val, test, ...), else classes. What lies
deeper belongs to the class above it. Classes are numbered in the order of their names, over all splits, an empty
folder counts. Files that do not look like images, or lie in no class, are left out.
"""

from __future__ import annotations

import hashlib
import operator
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from microtome.datasets.base import Concept, Entry, Sample
from microtome.datasets.images import decode_image
from microtome.datasets.listing import (
    PathList,
    file_state,
    is_junk,
    looks_like_image,
    printable,
    size_and_time,
    walk,
)
from microtome.storage.errors import UsageError

SPLITS = frozenset({"train", "training", "val", "valid", "validation", "test", "testing", "dev"})
_LAYOUT = "expected PATH/CLASS/NAME.EXT, or PATH/SPLIT/CLASS/NAME.EXT with splits called train, val, test"


class ImageFolderDataset:
    """An ImageDataset over folders of classes; see the module for the layout.

    Opening lists the files; no image is opened before `read`. Raises UsageError where the layout is not usable. Safe
    among threads; can be pickled.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._spec = f"imagefolder:{os.fspath(path)}"
        self._root = Path(os.path.abspath(Path(path).expanduser()))
        if not self._root.is_dir():
            problem = "is not a folder" if self._root.exists() else "does not exist"
            raise UsageError(f"imagefolder {self._root} {problem}; {_LAYOUT}")
        try:
            self._splits, self._classes = _find_classes(self._root)
            self._images = _list_images(self._root, self._splits)
        except OSError as error:
            raise UsageError(f"{self._root} cannot be listed: {error.strerror} ({error.filename})") from error
        if not len(self._images):
            raise UsageError(f"{self._root} holds no images in folders of classes; {_LAYOUT}")
        self._number = {name: number for number, name in enumerate(self._classes)}
        self._fingerprint = ""

    @property
    def spec(self) -> str:
        return self._spec

    @property
    def concepts(self) -> Sequence[Concept]:
        return ()

    @property
    def plane_names(self) -> Sequence[str]:
        return ()

    @property
    def image_label_slots(self) -> int:
        return 0

    @property
    def class_names(self) -> Sequence[str]:
        return tuple(printable(name) for name in self._classes)

    def __len__(self) -> int:
        return len(self._images)

    def entry(self, index: int) -> Entry:
        """Key (the path below PATH), split and class of sample `index`."""
        path = self._images[operator.index(index)]
        parts = path.split("/")
        split = parts.pop(0) if self._splits else ""
        return Entry(key=printable(path), split=printable(split), label=self._number[parts[0]])

    def read(self, index: int) -> Sample:
        """Decode sample `index`. Raises SampleError where it cannot be used."""
        path = self._images[operator.index(index)]
        image = decode_image(self._root / path, printable(path))
        return Sample(image, np.zeros((0, *image.shape[:2]), np.uint16), np.zeros(0, np.uint16))

    def fingerprint(self) -> str:
        """A hash of the classes and of path, size and modification time of every image, computed at the first call."""
        if not self._fingerprint:
            digest = hashlib.blake2b(b"imagefolder 1\n", digest_size=16)
            digest.update(os.fsencode("\n".join(self._classes) + "\n\n"))
            for folder, files in walk(self._root):
                kept = "".join(file_state(entry) for entry in files if looks_like_image(entry))
                digest.update(os.fsencode(f"{folder}\n{kept}"))
            self._fingerprint = digest.hexdigest()
        return self._fingerprint

    def sample_fingerprint(self, index: int) -> int:
        """A hash of size and modification time of the image, and of its class."""
        path = self._images[operator.index(index)]
        digest = hashlib.blake2b(size_and_time(self._root / path).encode(), digest_size=8)
        label = self.entry(index).label
        digest.update(f"\n{label}".encode())
        return int.from_bytes(digest.digest())


def _find_classes(root: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(splits, classes) by name; no splits where the folders of `root` are the classes."""
    folders = _folders(root)
    if not folders:
        with os.scandir(root) as listing:
            loose = next((entry.name for entry in listing if looks_like_image(entry)), None)
        advice = f"; for images without classes ({loose}, ...) put them into images/ and name folder:{root}"
        raise UsageError(f"imagefolder {root} has no folders of classes; {_LAYOUT}{advice if loose else ''}")
    if not all(name.lower() in SPLITS for name in folders):
        return (), folders
    classes = {name for split in folders for name in _folders(root / split)}
    if not classes:  # folders that happen to be called like splits, and hold the images themselves
        return (), folders
    return folders, tuple(sorted(classes))


def _folders(path: Path) -> tuple[str, ...]:
    with os.scandir(path) as listing:
        return tuple(sorted(entry.name for entry in listing if entry.is_dir() and not is_junk(entry.name)))


def _list_images(root: Path, splits: tuple[str, ...]) -> PathList:
    """Every image that lies in a class."""
    images = PathList()
    for folder, files in walk(root):
        depth = len(folder.split("/")) if folder else 0
        names = [entry.name for entry in files if looks_like_image(entry)]
        if names and depth > bool(splits):
            images.append(folder, names)
    return images
