"""`images:PATH`: every image below a folder, and nothing else: no masks, no classes, no splits.

    PATH/[ANY/FOLDERS/]NAME.EXT      images in any format that Pillow reads, known by their names' endings

Concepts come from elsewhere: colours and textures from the pixels, or labels by a model. Other files are left out.
"""

from __future__ import annotations

import hashlib
import operator
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from microtome.datasets.base import Concept, Entry, Labels, Remark, Sample
from microtome.datasets.formats.reader import FileReader
from microtome.datasets.images import decode_image
from microtome.datasets.listing import (
    IMAGE_SUFFIXES,
    LeftOut,
    PathList,
    hash_files,
    looks_like_image,
    printable,
    size_and_time,
    walk_names,
)
from microtome.datasets.planes import stack_planes
from microtome.storage.errors import UsageError


class ImageFiles(FileReader):
    """What datasets of images without any masks share: the files of a folder, listed once.

    Opening lists the files; no image is opened before `read`. Raises UsageError where there is no image. Safe among
    threads; can be pickled.
    """

    SCHEME = "images"
    LAYOUT = "expected a folder with images in it, at any depth"

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._spec = f"{self.SCHEME}:{os.fspath(path)}"
        self._root = Path(os.path.abspath(Path(path).expanduser()))
        self._images = PathList()
        self._no_images = LeftOut("files that are no images by their names; left out")
        self._fingerprint = ""
        if not self._root.is_dir():
            problem = "is not a folder" if self._root.exists() else "does not exist"
            raise UsageError(f"{self.SCHEME} {self._root} {problem}; {self.LAYOUT}")
        try:
            self._list()
        except OSError as error:
            raise UsageError(f"{self._root} cannot be listed: {error.strerror} ({error.filename})") from error

    @property
    def concepts(self) -> Sequence[Concept]:
        return ()

    @property
    def plane_names(self) -> Sequence[str]:
        return ()

    def __len__(self) -> int:
        return len(self._images)

    def entry(self, index: int) -> Entry:
        """Key (the path below PATH) of sample `index`."""
        return Entry(key=printable(self._images[operator.index(index)]))

    def read(self, index: int) -> Sample:
        """Decode sample `index`. Raises SampleError where it cannot be used. planes: (0, 1, 1)."""
        path = self._images[operator.index(index)]
        image = decode_image(self._root / path, printable(path))
        labels = self.read_labels(index)
        return Sample(image, labels.planes, labels.image_labels)

    def read_labels(self, index: int) -> Labels:
        """The labels of sample `index`: none. Its file is not looked at."""
        _ = self._images[operator.index(index)]
        return Labels(stack_planes({}, 0), np.zeros(0, np.uint16))

    def unknown_ids(self) -> dict[str, dict[int, int]]:
        """None, as there are no masks."""
        return {}

    def remarks(self) -> Sequence[Remark]:
        """Files that are left out as their names are not those of images."""
        return self._no_images.remarks()

    def fingerprint(self) -> str:
        """A hash of path, size and modification time of every image, computed at the first call."""
        if not self._fingerprint:
            digest = hashlib.blake2b(self._head(), digest_size=16)
            for folder, names in walk_names(self._root):
                images = [name for name in names if looks_like_image(name)]
                if images:
                    digest.update(os.fsencode(f"{folder}\n"))
                    hash_files(digest, self._root / folder, images)
            self._fingerprint = digest.hexdigest()
        return self._fingerprint

    def sample_fingerprint(self, index: int) -> int:
        """A hash of size and modification time of the image."""
        state = size_and_time(self._root / self._images[operator.index(index)])
        return int.from_bytes(hashlib.blake2b(f"{state}{self._meaning(index)}".encode(), digest_size=8).digest())

    def _head(self) -> bytes:
        """What the fingerprint begins with."""
        return f"{self.SCHEME} 1\n".encode()

    def _meaning(self, index: int) -> str:
        """What a sample's fingerprint holds besides its file."""
        return ""

    def _list(self) -> None:
        """Fill the list of images."""
        for folder, names in walk_names(self._root):
            self._take(folder, names)

    def _take(self, folder: str, names: list[str]) -> None:
        """Add the images among the files `names` of `folder`."""
        images = [name for name in names if name.lower().endswith(IMAGE_SUFFIXES)]  # no junk comes out of a walk
        if images:
            self._images.append(folder, images)
        if len(images) < len(names):
            self._no_images.note(folder, [name for name in names if not looks_like_image(name)])


class ImagesDataset(ImageFiles):
    """An ImageDataset over all images below a folder; see the module. Raises UsageError where there is none."""

    def _list(self) -> None:
        super()._list()
        if not len(self._images):
            raise UsageError(f"{self._root} holds no images; {self.LAYOUT}: names that end in {_endings()}")


def _endings() -> str:
    return ", ".join(IMAGE_SUFFIXES)
