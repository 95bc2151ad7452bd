"""Which images are explained: files, folders, the images of a dataset, arrays; and what the results of each are called.

A folder gives the image files in it at any depth, in the order of their paths. Nothing is decoded here.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from microtome.datasets.factories import is_factory
from microtome.datasets.images import decode_image
from microtome.datasets.listing import looks_like_image, printable, walk_names
from microtome.datasets.specs import open_dataset, schemes
from microtome.storage.errors import MicrotomeError, UsageError

Pixels = NDArray[np.uint8]
Given = str | Path | Pixels

LONGEST_NAME = 150
"""Bytes of a name that files begin with; what is longer is cut, and ends in a digest of the whole."""

TAKEN = ("sheet", "filters", "explain")
"""Names of what belongs to no image."""


@dataclass(frozen=True)
class Source:
    """One image: `name`, as it is called in messages; `path`, relative where it came with others from one place; `read`
    decodes it, upright (H, W, 3) uint8, and raises SampleError."""

    name: str
    path: str
    read: Callable[[], Pixels]


def find_sources(given: Iterable[Given], *, limit: int | None = None, leave_out: Path | None = None) -> list[Source]:
    """The images of `given`, each file once: paths of files and folders, dataset specs, arrays (H, W, 3) uint8.

    limit: only the first so many; leave_out: where results go; what lies there is nothing to explain if it is inside a
    folder of images. Raises UsageError for a path where nothing is, a folder without images, an array of another kind,
    and an image right where results go, which might replace it.
    """
    found: dict[object, Source] = {}
    apart = None if leave_out is None else leave_out.resolve()
    for each in given:
        try:
            for key, source in _sources(each, apart, len(found)):
                if limit is not None and len(found) >= limit:
                    return list(found.values())
                found.setdefault(key, source)
        except MicrotomeError:
            raise
        except (OSError, RuntimeError) as error:  # a folder that may not be read, a name too long, ~nobody
            said = getattr(error, "strerror", None) or error
            raise UsageError(f"{printable(str(each))} cannot be looked into ({said}); give another") from error
    return list(found.values())


def _sources(given: Given, apart: Path | None, number: int) -> Iterator[tuple[object, Source]]:
    """What `given` stands for, with a key that is the same for the same image."""
    if isinstance(given, np.ndarray):
        if given.ndim != 3 or given.shape[2] != 3 or given.dtype != np.uint8 or 0 in given.shape:
            raise UsageError(f"an image is an array (H, W, 3) uint8, not {given.shape} {given.dtype}")
        yield ("array", number), Source(f"image-{number}", f"image-{number}", lambda: given)
        return
    path = Path(given).expanduser()
    if path.is_dir():
        yield from _of_folder(path, apart)
    elif path.exists():
        yield path.resolve(), _of_file(path, printable(str(given)), printable(str(path)), apart)
    elif _is_dataset(spec := str(given)):
        yield from _of_dataset(spec)
    else:
        raise UsageError(f"{printable(str(given))} is no file and no folder; give images, or folders of them")


def _is_dataset(spec: str) -> bool:
    scheme, colon, _ = spec.partition(":")
    return bool(colon) and (scheme in schemes() or is_factory(spec))


def _of_file(path: Path, name: str, inner: str, apart: Path | None) -> Source:
    if path.parent.resolve() == apart:
        raise UsageError(f"{name} lies where results would go, and might be replaced by one; give another --out")
    return Source(name, inner, lambda: decode_image(path, name))


def _of_folder(folder: Path, apart: Path | None) -> Iterator[tuple[object, Source]]:
    any_image = False
    inside = apart if apart is not None and folder.resolve() in apart.parents else None
    for inner, names in walk_names(folder):
        if inside is not None and (folder / inner).resolve().is_relative_to(inside):
            continue
        for name in filter(looks_like_image, names):
            path = folder / inner / name
            any_image = True
            shown = printable(f"{inner}/{name}" if inner else name)
            yield path.resolve(), _of_file(path, printable(str(path)), shown, apart)
    if not any_image:
        raise UsageError(f"there is no image in the folder {printable(str(folder))}; give another, or files")


def _of_dataset(spec: str) -> Iterator[tuple[object, Source]]:
    dataset = open_dataset(spec)
    for index in range(len(dataset)):
        key = dataset.entry(index).key
        yield (spec, index), Source(key, key, lambda index=index: dataset.read(index).image)  # type: ignore[misc]


def names_of(sources: Sequence[Source], methods: Iterable[str]) -> list[str]:
    """What the files of each image begin with, in UTF-8 and without slashes: the stem of its file's name; where stems
    are the same, or would be taken for results of another, its whole path; a number where that is not enough."""
    stems = [_safe(PurePosixPath(source.path).stem) for source in sources]
    endings = tuple(f".{method}" for method in methods)
    counts = Counter(stem.casefold() for stem in stems)
    names: list[str] = []
    used: set[str] = set(TAKEN)
    for source, stem in zip(sources, stems, strict=True):
        lonely = counts[stem.casefold()] == 1 and stem.casefold() not in used and not stem.endswith(endings)
        first = stem if lonely else _safe(_whole(source.path))
        name, number = first, 2
        while name.casefold() in used or name.endswith(endings):
            name, number = f"{first}-{number}", number + 1
        used.add(name.casefold())
        names.append(name)
    return names


def _whole(path: str) -> str:
    parts = [part for part in PurePosixPath(path).parts if part not in ("/", "..", ".")]
    return "_".join(parts)


def _safe(text: str) -> str:
    """A name that every file system takes: no separators, no controls, not hidden, not too long."""
    plain = "".join(character if character.isprintable() else "_" for character in text)
    plain = plain.replace("/", "_").replace("\\", "_").replace(":", "_").strip().lstrip(".") or "image"
    if len(plain.encode()) <= LONGEST_NAME:
        return plain
    digest = hashlib.sha256(plain.encode()).hexdigest()[:8]
    return f"{plain.encode()[: LONGEST_NAME - 9].decode(errors='ignore')}~{digest}"
