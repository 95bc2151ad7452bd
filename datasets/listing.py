"""Listing the files of a data set that may have a million of them, in little memory and in a stable order."""

from __future__ import annotations

import errno
import os
import stat
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from microtome.datasets.base import Remark

_JUNK = frozenset({"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "__macosx", "@eadir"})
_LONGEST_JUNK = max(map(len, _JUNK))

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif", ".ppm", ".pgm")
"""What the name of an image ends in, in lower case."""


class _Hash(Protocol):
    def update(self, data: bytes, /) -> None: ...


def is_junk(name: str) -> bool:
    """Whether a file or folder is hidden, or one that a system or a file manager leaves behind."""
    return name.startswith(".") or (len(name) <= _LONGEST_JUNK and name.casefold() in _JUNK)


def looks_like_image(file: os.DirEntry[str] | str) -> bool:
    """Whether a file has the name of an image."""
    name = file if isinstance(file, str) else file.name
    return name.lower().endswith(IMAGE_SUFFIXES) and not is_junk(name)


def printable(path: str) -> str:
    """A path, or any text, as text that every table can hold: what is not UTF-8 is written out."""
    try:
        return os.fsencode(path).decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # halves of characters, which JSON can write
        return path.encode("utf-8", "backslashreplace").decode()


def below(root: Path, relative: str) -> Path | None:
    """`root / relative`, or None where that is no path below `root`: absolute, or out of it by `..`."""
    if not relative or os.path.isabs(relative) or "\0" in relative:
        return None
    normal = os.path.normpath(relative)
    return None if normal == ".." or normal.startswith("../") else root / normal


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether this is a folder or a link to one; a link that cannot be followed, as one to itself, is a file."""
    try:
        return entry.is_dir()
    except OSError:
        if not entry.is_symlink():
            raise
        return False


def open_regular(path: str, flags: int = os.O_RDONLY) -> int:
    """As os.open, and for use as the `opener` of open: raises OSError where a pipe or device would be waited for."""
    descriptor = os.open(path, flags | os.O_NONBLOCK)
    if stat.S_IFMT(os.fstat(descriptor).st_mode) in (stat.S_IFREG, stat.S_IFDIR):  # reading a folder is an error anyway
        return descriptor
    os.close(descriptor)
    raise OSError(errno.EINVAL, "not a regular file", path)


def read_bytes(path: Path | str) -> bytes:
    """The bytes of a regular file. Raises OSError, also where it is a folder, a pipe or a device."""
    with open(path, "rb", opener=open_regular) as file:
        return file.read()


def file_state(entry: os.DirEntry[str]) -> str:
    """Name, size and modification time of a file, for fingerprints."""
    return f"{entry.name}\0{size_and_time(entry)}\n"


def hash_files(digest: _Hash, folder: Path | str, names: Sequence[str]) -> None:
    """Update `digest` with the `file_state` of the files `names` of `folder`."""
    start = os.path.join(folder, "")
    for name in names:
        digest.update(os.fsencode(f"{name}\0{size_and_time(start + name)}\n"))


def size_and_time(file: os.DirEntry[str] | Path | str) -> str:
    """Size and modification time of a file, or that it is missing."""
    try:
        status = os.stat(file)
    except OSError:
        return "missing"
    return f"{status.st_size} {status.st_mtime_ns}"


def walk(root: Path, folder: str = "") -> Iterator[tuple[str, list[os.DirEntry[str]]]]:
    """Every folder below `root` with its files: (relative folder, files), without junk.

    A folder comes in runs of files between its subfolders, so that the paths come in the order in which the
    relative paths themselves sort. Links are followed, but not into a folder that they lie in.
    """
    for below, names, entries in _walk(os.path.join(root, folder) if folder else str(root), folder, (), remember=True):
        yield below, [entries[name] for name in names]


def walk_names(root: Path, folder: str = "") -> Iterator[tuple[str, list[str]]]:
    """As `walk`, with the names alone: a third of the memory, which counts where a folder holds a million files."""
    for below, names, _ in _walk(os.path.join(root, folder) if folder else str(root), folder, (), remember=False):
        yield below, names


def _walk(
    path: str, folder: str, above: tuple[str, ...], *, remember: bool
) -> Iterator[tuple[str, list[str], dict[str, os.DirEntry[str]]]]:
    """(relative folder, names of files, all entries of the folder where they are to be remembered)."""
    with os.scandir(path) as listing:
        found: Iterable[os.DirEntry[str]] = list(listing) if remember else listing
        names = [
            f"{name}/" if is_folder(entry) else name
            for entry in found
            if (len(name := entry.name) > _LONGEST_JUNK and name[0] != ".") or not is_junk(name)  # the first is quicker
        ]
    entries = {entry.name: entry for entry in found} if remember else {}
    names.sort()
    above = (*above, os.path.realpath(path))
    start = 0
    for at in [at for at, name in enumerate(names) if name.endswith("/")]:
        if at > start:
            yield folder, names[start:at], entries
        start, name = at + 1, names[at][:-1]
        inner = os.path.join(path, name)
        if not os.path.islink(inner) or os.path.realpath(inner) not in above:
            yield from _walk(inner, f"{folder}/{name}" if folder else name, above, remember=remember)
    if len(names) > start:
        yield folder, names[start:] if start else names, entries


class LeftOut:
    """Files that a listing leaves out, or that are odd: how many, and the first of them."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._count = 0
        self._examples: list[str] = []

    def note(self, folder: str, names: Sequence[str]) -> None:
        """Count the files `names` of `folder`."""
        self._count += len(names)
        self._examples += [printable(os.path.join(folder, name)) for name in names[: 5 - len(self._examples)]]

    def remarks(self) -> list[Remark]:
        """One, with `text`; none where there is no such file."""
        return [Remark(self._text, self._count, tuple(self._examples))] if self._count else []


class PathList:
    """An immutable list of relative paths: a few bytes of overhead each, folders stored once.

    Built with `append` (in runs of one folder), then indexed.
    """

    def __init__(self) -> None:
        self._folders: list[str] = []
        self._starts: list[int] = []
        self._names = bytearray()
        self._ends = np.zeros(1, np.int64)
        self._count = 0

    def append(self, folder: str, names: list[str]) -> None:
        """Add the files `names` of `folder` ("" for the root)."""
        self._folders.append(folder)
        self._starts.append(self._count)
        needed = self._count + len(names)
        if needed > len(self._ends):
            self._ends = np.concatenate([self._ends, np.zeros(max(needed, len(self._ends)), np.int64)])
        together = "".join(names)
        sized: Sequence[str | bytes] = names if together.isascii() else [os.fsencode(name) for name in names]
        lengths = np.fromiter(map(len, sized), np.int64, len(sized))
        self._ends[self._count : needed] = len(self._names) + np.cumsum(lengths)
        self._names += os.fsencode(together)
        self._count = needed

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> str:
        if not 0 <= index < self._count:
            raise IndexError(index)
        start = int(self._ends[index - 1]) if index else 0
        name = os.fsdecode(bytes(self._names[start : int(self._ends[index])]))
        folder = self._folders[bisect_right(self._starts, index) - 1]
        return f"{folder}/{name}" if folder else name

    def nbytes(self) -> int:
        """Bytes held, roughly."""
        return len(self._names) + self._ends.nbytes + sum(len(folder) + 100 for folder in self._folders)
