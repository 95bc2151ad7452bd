"""Which members of a tar form a sample: the WebDataset convention.

A sample is a run of members whose paths agree up to the first dot of the base name: the key. Of these KEY.jpg (jpeg,
png, webp, ...) is the image, KEY.PLANE.png the mask of a plane, KEY.cls the class label as text; others are left alone.
A KEY.png is the image only where there is no other.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from microtome.datasets.base import Remark
from microtome.datasets.formats.webdataset.shards import Shards
from microtome.datasets.formats.webdataset.tar import BLOCK, Member, TarScan
from microtome.datasets.listing import IMAGE_SUFFIXES, printable
from microtome.storage.errors import UsageError

MOST_PLANES = 64
HIGHEST_LABEL = 999_999
_EXAMPLES = 5
_LONGEST_LABEL = 64
_LAYOUT = (
    "expected members KEY.jpg (or another image), KEY.PLANE.png for masks and KEY.cls for classes, those of a sample "
    "one after the other"
)

Kind = Literal["image", "png", "mask", "label", "part", "other"]


@dataclass(frozen=True)
class Survey:
    """What the headers of a set of tars tell: N samples in the order of the tars and of the samples in them.

    planes: every NAME of a member KEY.NAME.png, by name; damage: {sample: why}, those behind which a tar is damaged;
    keys, key_ends: the keys one after another, and (N + 1,) int64 where they end; tars: (N,) int64; labels: (N,) int64,
    -1 = none; places: for the image and each plane (N, 2) int64 offset and size in the tar, offset 0 = no mask
    """

    planes: tuple[str, ...]
    remarks: tuple[Remark, ...]
    damage: dict[int, str]
    keys: bytes
    key_ends: NDArray[np.int64]
    tars: NDArray[np.int64]
    labels: NDArray[np.int64]
    places: tuple[NDArray[np.int64], ...]


def survey(shards: Shards) -> Survey:
    """Read the headers of every tar, once, and the class labels.

    Raises UsageError where a tar is none, is missing or has changed, where a key comes twice in a tar, and where there
    is no sample at all.
    """
    gathered = _Gathered()
    for tar in range(len(shards)):
        with _opened(shards, tar) as scan:
            _survey_tar(scan, tar, shards, gathered)
    if not gathered.tars:
        found = gathered.remarks()
        seen = f"; found {found[0].text}: {', '.join(found[0].examples)}" if found else ""
        raise UsageError(f"{shards.root if len(shards) > 1 else shards.path(0)} holds no samples; {_LAYOUT}{seen}")
    return gathered.survey()


@contextmanager
def _opened(shards: Shards, tar: int) -> Iterator[TarScan]:
    path = shards.path(tar)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            status = os.fstat(descriptor)
            if (status.st_size, status.st_mtime_ns) != shards.states[tar]:
                raise UsageError(f"{path} has changed since the dataset was opened; open it again")
            yield TarScan(descriptor, status.st_size, path)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error


@dataclass(slots=True)
class _Group:
    """Consecutive members of one key, with where each content lies."""

    key: bytes
    at: dict[bytes, int] = field(default_factory=dict)
    images: list[tuple[int, int]] = field(default_factory=list)
    png: tuple[int, int] | None = None
    masks: dict[str, tuple[int, int]] = field(default_factory=dict)
    label: int = -1


def _survey_tar(scan: TarScan, tar: int, shards: Shards, gathered: _Gathered) -> None:
    name = printable(shards.names[tar])
    begins: dict[bytes, int] = {}
    group: _Group | None = None
    for member in scan:
        key, extension = _key_of(member[0])
        if not key:
            continue
        if group is None or key != group.key:
            gathered.add(group, tar, name)
            group = _Group(key)
            _check_new(key, begins, member, shards.path(tar))
        _check_new(extension, group.at, member, shards.path(tar))
        _add_member(group, extension, member, scan, gathered, name)
    gathered.add(group, tar, name)
    if scan.damage:
        gathered.notice("tars that are cut short or damaged, read up to there", f"{name} {scan.damage}")
        gathered.spoil(tar, f"{name} {scan.damage}; what follows is lost")
    if scan.trailing:
        gathered.notice("tars with something behind their end mark, as from cat; it is left out", name)
    if not begins and not scan.damage:
        gathered.notice("tars without samples", name)
    for link in scan.links:
        gathered.notice("links in tars, which have no content of their own; left out", f"{name}/{_text(link)}")


def _key_of(name: bytes) -> tuple[bytes, bytes]:
    """Key and extension of a member; no key where it is hidden or has no extension."""
    folder, slash, base = name.rpartition(b"/")
    stem, dot, extension = base.partition(b".")
    if not (stem and dot):
        return b"", b""
    while folder.startswith(b"./"):
        folder = folder[2:]
    return (stem if folder in (b"", b".") and not name.startswith(b"/") else folder + slash + stem), extension


def _check_new(what: bytes, places: dict[bytes, int], member: Member, path: str) -> None:
    """Note where `what`, a key or an extension, begins; UsageError where it was met before."""
    begin = member[1] - BLOCK
    before = places.setdefault(what, begin)
    if before != begin:
        raise UsageError(
            f"{path}: {_text(member[0])} at byte {begin} is of a sample that was met before, at byte {before}; the "
            "members of a sample have to follow one another, and keys have to differ (tar --sort=name does the first)"
        )


def _add_member(
    group: _Group, extension: bytes, member: Member, scan: TarScan, gathered: _Gathered, tar_name: str
) -> None:
    kind, plane = gathered.kind(extension)
    place = member[1], member[2]
    if kind == "image":
        group.images.append(place)
    elif kind == "png":
        group.png = place
    elif kind == "mask":
        group.masks[plane] = place
    elif kind == "label":
        content = scan.read(member[1], min(member[2], _LONGEST_LABEL + 1))
        if len(content) == member[2]:  # else the tar ends in it, or it is too long for a number
            group.label = _label(content)
        if group.label < 0:
            gathered.notice(
                f"class labels that are no whole number from 0 to {HIGHEST_LABEL}; taken as none",
                f"{tar_name}/{_text(member[0])}",
            )
    elif kind == "part":
        gathered.notice(
            "images KEY.PART.EXT, which are neither image nor mask; left out", f"{tar_name}/{_text(member[0])}"
        )


def _label(content: bytes) -> int:
    text = content.strip()
    return int(text) if text.isdigit() and int(text) <= HIGHEST_LABEL else -1


def _text(name: bytes) -> str:
    return printable(os.fsdecode(name))


class _Gathered:
    """The samples so far, a few numbers each."""

    def __init__(self) -> None:
        self.tars = array("q")
        self._damage: dict[int, str] = {}
        self._labels = array("q")
        self._keys = bytearray()
        self._key_ends = array("q", [0])
        self._images = array("q")
        self._masks: dict[str, array[int]] = {}
        self._kinds: dict[bytes, tuple[Kind, str]] = {}
        self._notices: dict[str, list[str]] = {}
        self._counts: dict[str, int] = {}

    def add(self, group: _Group | None, tar: int, tar_name: str) -> None:
        """Take in a sample; one without an image is noticed and left out."""
        if group is None:
            return
        images = group.images or ([group.png] if group.png else [])
        name = f"{tar_name}/{_text(group.key)}"
        if not images:
            self.notice("keys without an image; left out", name)
            return
        if len(images) + (group.png is not None and bool(group.images)) > 1:
            self.notice("samples with a second image, which is left out (a mask is KEY.PLANE.png)", name)
        for plane, place in group.masks.items():
            self._masks.setdefault(plane, array("q")).extend((len(self.tars), *place))
        self._images.extend(images[0])
        self.tars.append(tar)
        self._labels.append(group.label)
        self._keys += group.key
        self._key_ends.append(len(self._keys))

    def spoil(self, tar: int, why: str) -> None:
        """Note that the tar is damaged behind its last sample, of which a part may be lost, too."""
        if self.tars and self.tars[-1] == tar:
            self._damage[len(self.tars) - 1] = why

    def kind(self, extension: bytes) -> tuple[Kind, str]:
        """What a member is by its extension, and the plane of a mask."""
        found = self._kinds.get(extension)
        if found is None:
            found = self._kinds[extension] = _kind_of(_text(extension))
        return found

    def notice(self, text: str, example: str) -> None:
        """Count something odd."""
        examples = self._notices.setdefault(text, [])
        if len(examples) < _EXAMPLES:
            examples.append(example)
        self._counts[text] = self._counts.get(text, 0) + 1

    def remarks(self) -> tuple[Remark, ...]:
        """What was noticed."""
        return tuple(Remark(text, self._counts[text], tuple(names)) for text, names in self._notices.items())

    def survey(self) -> Survey:
        """All of it."""
        planes = tuple(sorted(self._masks))
        if len(planes) > MOST_PLANES:
            raise UsageError(
                f"masks KEY.PLANE.png of {len(planes)} planes ({', '.join(planes[:3])}, ...); at most {MOST_PLANES} "
                "are possible: a key may have no dot, since what follows the first dot is the extension"
            )
        places = [np.array(self._images, np.int64).reshape(-1, 2)]
        for plane in planes:
            rows = np.array(self._masks[plane], np.int64).reshape(-1, 3)
            dense = np.zeros_like(places[0])
            dense[rows[:, 0]] = rows[:, 1:]
            places.append(dense)
        return Survey(
            planes,
            self.remarks(),
            self._damage,
            bytes(self._keys),
            np.array(self._key_ends, np.int64),
            np.array(self.tars, np.int64),
            np.array(self._labels, np.int64),
            tuple(places),
        )


def _kind_of(extension: str) -> tuple[Kind, str]:
    plane, dot, last = extension.rpartition(".")
    last = last.lower()
    if dot:
        if last == "png" and plane:
            return "mask", plane
        return ("part" if f".{last}" in IMAGE_SUFFIXES else "other"), ""
    if last == "png":
        return "png", ""
    if last == "cls":
        return "label", ""
    return ("image" if f".{last}" in IMAGE_SUFFIXES else "other"), ""
