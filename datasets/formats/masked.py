"""What readers share whose images each have mask files with numbers: reading, unknown numbers, fingerprints.

A reader of a format lists its images, lays out what the numbers mean, and says which masks belong to an image; see
`MaskedImages`.
"""

from __future__ import annotations

import hashlib
import operator
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from microtome.datasets.base import Concept, Entry, Labels, Remark, Sample
from microtome.datasets.classes import MAX_ID
from microtome.datasets.formats.reader import FileReader
from microtome.datasets.images import decode_image, decode_mask, image_size
from microtome.datasets.listing import PathList, is_folder, is_junk, size_and_time
from microtome.datasets.planes import check_field_of_view, once_a_pixel, shared_pairs, stack_planes
from microtome.datasets.unknown import UnknownIds
from microtome.storage.errors import SampleError, UsageError

Names = list[str]


@dataclass(frozen=True, slots=True)
class MaskFile:
    """One mask of an image. `path` is relative to the dataset's root; `table` says which IdTable its numbers have."""

    plane: int
    path: str
    table: int = 0


@dataclass(frozen=True)
class IdTable:
    """What the numbers of a kind of mask mean.

    lookup: (65536,) uint16 concept id, 0 = none; known: (65536,) bool, a concept or one that is to be ignored
    """

    lookup: NDArray[np.uint16]
    known: NDArray[np.bool_]

    @classmethod
    def of(cls, concepts: Mapping[int, int], ignored: Iterable[int] = (0,)) -> IdTable:
        """From {number: concept id} and the numbers that mean nothing."""
        lookup = np.zeros(MAX_ID + 1, np.uint16)
        lookup[list(concepts)] = list(concepts.values())
        known = lookup > 0
        known[list(ignored)] = True
        return cls(lookup, known)

    def unknown(self, mask: NDArray[np.uint16]) -> list[int]:
        """The numbers of `mask` that are neither concepts nor ignored, ascending."""
        present = np.zeros(len(self.known), np.bool_)
        present[mask] = True
        found: list[int] = np.flatnonzero(present & ~self.known).tolist()
        return found


@dataclass(frozen=True)
class Meaning:
    """What a dataset's labels mean: its concepts, its planes, the table of each plane's masks, image-level labels.

    tables: those that MaskFile.table counts; planes: the tables that may occur in each plane
    image_labels: (N,) uint16 concept id of each whole image, 0 = none; None where the format has no such labels
    """

    concepts: tuple[Concept, ...]
    plane_names: tuple[str, ...]
    tables: tuple[IdTable, ...]
    planes: tuple[tuple[int, ...], ...]
    image_labels: NDArray[np.uint16] | None = None

    def shared(self) -> tuple[tuple[int, int], ...]:
        """The pairs of planes in which the same concept can occur."""
        return shared_pairs([np.concatenate([self.tables[t].lookup for t in tables]) for tables in self.planes])

    def digest(self) -> bytes:
        """A hash of everything but the image-level labels."""
        digest = hashlib.blake2b(
            repr((self.concepts, self.plane_names, self.planes)).encode("utf-8", "surrogateescape")
        )
        for table in self.tables:
            digest.update(table.lookup.astype("<u2").tobytes() + table.known.tobytes())
        return digest.digest()


class MaskedImages(FileReader, ABC):
    """An ImageDataset over image files that have masks; a format gives `entry` and `_masks`.

    images: paths relative to `root`. A mask that `_masks` names and that cannot be used is a SampleError. Safe among
    threads; can be pickled.
    """

    def __init__(
        self, spec: str, root: Path, images: PathList, meaning: Meaning, remarks: Sequence[Remark] = ()
    ) -> None:
        self._spec = spec
        self._root = root
        self._images = images
        self._meaning = meaning
        self._remarks = tuple(remarks)
        self._shared = meaning.shared()
        self._meaning_digest = meaning.digest()
        self._unknown = UnknownIds(len(images), meaning.plane_names)
        self._fingerprint = ""

    @abstractmethod
    def entry(self, index: int) -> Entry:
        """Key and split of sample `index`."""

    @abstractmethod
    def _masks(self, index: int, path: str) -> Sequence[MaskFile]:
        """The masks that sample `index`, whose image is `path`, should have, whether they can be read or not."""

    def _decode_mask(self, path: Path, key: str) -> NDArray[np.uint16]:
        """The numbers of a mask, (h, w) uint16; SampleError where it is of another kind."""
        return decode_mask(path, key)

    @property
    def concepts(self) -> Sequence[Concept]:
        return self._meaning.concepts

    @property
    def plane_names(self) -> Sequence[str]:
        return self._meaning.plane_names

    @property
    def image_label_slots(self) -> int:
        return int(self._meaning.image_labels is not None)

    def __len__(self) -> int:
        return len(self._images)

    def read(self, index: int) -> Sample:
        """Decode image and masks of sample `index`. Raises SampleError where one cannot be used.

        planes: (P, h, w), at the resolution of the largest mask.
        """
        key = self.entry(index).key
        image = decode_image(self._root / self._images[operator.index(index)], key)
        labels = self._labels(operator.index(index), key, image.shape[:2])
        return Sample(image, labels.planes, labels.image_labels)

    def read_labels(self, index: int) -> Labels:
        """The labels of sample `index`; of the image its head alone is read."""
        key = self.entry(index).key
        size = image_size(self._root / self._images[operator.index(index)], key)
        return self._labels(operator.index(index), key, size)

    def unknown_ids(self) -> dict[str, dict[int, int]]:
        """Numbers in masks that the dataset's own list does not know: {plane: {number: images}}, ascending.

        Over the samples that this object has read so far, each counted once. They count as unlabelled.
        """
        return self._unknown.counts()

    def remarks(self) -> Sequence[Remark]:
        """What was noticed at opening."""
        return self._remarks

    def fingerprint(self) -> str:
        """A hash of path, size and modification time of every image and mask, and of what the labels mean.

        Computed at the first call. Contents of images are not read.
        """
        if not self._fingerprint:
            digest = hashlib.blake2b(f"{type(self).__name__} 1\n".encode(), digest_size=16)
            digest.update(self._meaning_digest)
            for index in range(len(self)):
                path = self._images[index]
                digest.update(os.fsencode(f"{path}\n{self._state(index, path)}"))
            self._fingerprint = digest.hexdigest()
        return self._fingerprint

    def sample_fingerprint(self, index: int) -> int:
        """A hash of size and modification time of the image and its masks, and of what the labels mean."""
        state = self._state(operator.index(index), self._images[operator.index(index)])
        return int.from_bytes(hashlib.blake2b(self._meaning_digest + os.fsencode(state), digest_size=8).digest())

    def _state(self, index: int, path: str) -> str:
        root = os.path.join(self._root, "")
        masks = (f"{mask.path} {size_and_time(root + mask.path)}\n" for mask in self._masks(index, path))
        labels = self._image_labels(index).tolist()
        return f"{size_and_time(root + path)}\n{''.join(masks)}{labels}\n"

    def _image_labels(self, index: int) -> NDArray[np.uint16]:
        labels = self._meaning.image_labels
        return np.zeros(0, np.uint16) if labels is None else labels[index : index + 1].copy()

    def _labels(self, index: int, key: str, size: tuple[int, ...]) -> Labels:
        masks = [(mask, self._read_mask(mask, key, size)) for mask in self._masks(index, self._images[index])]
        tables = self._meaning.tables
        if self._unknown.is_new(index):
            self._unknown.note(index, {mask.plane: tables[mask.table].unknown(numbers) for mask, numbers in masks})
        ids = {mask.plane: tables[mask.table].lookup[numbers] for mask, numbers in masks}
        planes = stack_planes(ids, len(self.plane_names))
        image_labels = self._image_labels(index)
        once_a_pixel(planes, self._shared, image_labels)
        return Labels(planes, image_labels)

    def _read_mask(self, mask: MaskFile, key: str, size: tuple[int, ...]) -> NDArray[np.uint16]:
        what = f"mask of plane {self.plane_names[mask.plane]}"
        try:
            numbers = self._decode_mask(self._root / mask.path, key)
        except SampleError as error:
            raise SampleError(key, f"{what}: {error.reason}") from error
        check_field_of_view(key, what, numbers.shape, size)
        return numbers


def tree(
    root: Path, folder: str, skip: Callable[[Names], Collection[str]] | None = None
) -> Iterator[tuple[str, Names]]:
    """Every folder at and below `root / folder`, once, with all its files by name: (relative folder, names).

    A folder comes before its subfolders, which come by name; junk is left out. skip: names of subfolders not to
    enter, told by the files beside them. Links are followed, but not into a folder that they lie in. Raises
    UsageError where a folder cannot be listed.
    """
    try:
        yield from _tree(root, folder, skip, ())
    except OSError as error:
        raise UsageError(f"{root} cannot be listed: {error.strerror} ({error.filename})") from error


def _tree(
    root: Path, folder: str, skip: Callable[[Names], Collection[str]] | None, above: tuple[str, ...]
) -> Iterator[tuple[str, Names]]:
    files: Names = []
    folders: Names = []
    with os.scandir(root / folder) as listing:
        for entry in listing:
            if not is_junk(entry.name):
                (folders if is_folder(entry) else files).append(entry.name)
    files.sort()
    yield folder, files
    above = (*above, os.path.realpath(root / folder))
    skipped = skip(files) if skip else ()
    for name in sorted(folders):
        inner = root / folder / name
        if name not in skipped and not (inner.is_symlink() and os.path.realpath(inner) in above):
            yield from _tree(root, f"{folder}/{name}", skip, above)


def file_names(folder: Path) -> Names:
    """The names of what lies in a folder, sorted, without junk; empty where there is no such folder.

    Raises UsageError where it cannot be listed.
    """
    if not folder.is_dir():
        return []
    try:
        return sorted(name for name in os.listdir(folder) if not is_junk(name))
    except OSError as error:
        raise UsageError(f"{folder} cannot be listed: {error.strerror}") from error


def unique_stems(folder: Path, names: Names) -> list[str]:
    """The images `names` of a folder without their endings.

    Raises UsageError where two have the same: it would be one key, and one mask.
    """
    stems = [os.path.splitext(name)[0] for name in names]
    if len(set(stems)) < len(stems):
        last = dict(zip(stems, names, strict=True))
        one, other = next((name, last[stem]) for stem, name in zip(stems, names, strict=True) if last[stem] != name)
        raise UsageError(f"{folder} has {one} and {other}, which would be one sample with one mask; keep one")
    return stems
