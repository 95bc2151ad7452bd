"""Where the files of a COCO download lie: annotation files, the images they are about, panoptic PNGs."""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from microtome.datasets.base import Remark
from microtome.datasets.formats.coco.index import PANOPTIC
from microtome.datasets.listing import is_junk, looks_like_image, printable
from microtome.datasets.tables import is_there
from microtome.storage.errors import UsageError

PLANES = {PANOPTIC: "panoptic", "instances": "objects", "stuff": "stuff"}
"""Kinds of annotation and the label plane that each gives, in the order of the planes."""

_FILE = re.compile(r"(panoptic|instances|stuff)_(.+)\.json")
_EXAMPLES = 5
LAYOUT = (
    "expected PATH/annotations/panoptic_NAME.json with the PNGs in PATH/annotations/panoptic_NAME/, or "
    "instances_NAME.json or stuff_NAME.json, and images in PATH/NAME/ or PATH/images/NAME/, such as NAME val2017"
)


@dataclass(frozen=True)
class Part:
    """A set of images with their annotation files, such as val2017.

    files: {kind: path}; images: the folder of the images; masks: the folder of the panoptic PNGs, if there is one
    """

    name: str
    files: dict[str, Path]
    images: Path
    masks: Path | None

    @property
    def split(self) -> str:
        """The name without its year."""
        return re.sub(r"(?<=.)[-_]?\d{4}$", "", self.name)


def find_parts(root: Path) -> tuple[tuple[Part, ...], tuple[str, ...], tuple[Remark, ...]]:
    """(parts by name, kinds of annotation to read, remarks on files left aside). Raises UsageError.

    Left aside are parts whose images are not there, and kinds that not every part has; where every part has panoptic
    annotations these alone are read.
    """
    files = _annotation_files(root)
    folders = {name: folder for name in files if (folder := _image_folder(root, name))}
    if not folders:
        names = ", ".join(sorted(files))
        raise UsageError(f"{root} holds annotations of {names}, but no folder of their images; {LAYOUT}")
    common = set.intersection(*(set(files[name]) for name in folders))
    kinds = (PANOPTIC,) if PANOPTIC in common else tuple(kind for kind in PLANES if kind in common)
    if not kinds:
        found = "; ".join(f"{name}: {', '.join(sorted(files[name]))}" for name in sorted(folders))
        raise UsageError(
            f"the parts of {root} have no kind of annotation in common ({found}); add the missing files to "
            f"{root / 'annotations'}, or move those of a part out of it"
        )
    parts = tuple(
        Part(name, {kind: files[name][kind] for kind in kinds}, folders[name], _mask_folder(root, name, kinds))
        for name in sorted(folders)
    )
    return parts, kinds, tuple(_left_aside(files, folders, kinds))


def check_images(part: Part, names: Sequence[str]) -> None:
    """Raise UsageError where none of a part's images is there; `names`: their file names."""
    if not any(os.path.isfile(part.images / name) for name in names):
        raise UsageError(f"{part.images} holds none of the images of {part.name}, such as {names[0]}; {LAYOUT}")


def image_remarks(parts: Sequence[Part], names: Sequence[Sequence[str]]) -> tuple[Remark, ...]:
    """Remarks on listed images that are not there, and on images that no part lists; `names`: file names of parts."""
    present: dict[Path, set[str]] = {}
    listed: dict[Path, set[str]] = {}
    missing: list[str] = []
    for part, files in zip(parts, names, strict=True):
        gone = _missing(part, files, present, listed)
        missing.extend(f"{part.name}/{printable(file)}" for file in gone)
    unlisted = sorted(
        printable(posixpath.join(folder.name, name))
        for folder, found in present.items()
        for name in found - listed[folder]
    )
    found = {
        "images in annotation files whose file is missing": missing,
        "images that no annotation file lists": unlisted,
    }
    return tuple(Remark(text, len(of), tuple(of[:_EXAMPLES])) for text, of in found.items() if of)


def _missing(
    part: Part, files: Sequence[str], present: dict[Path, set[str]], listed: dict[Path, set[str]]
) -> list[str]:
    """The `files` of a part that are not there; notes, by folder, the names of images present and those listed."""
    gone: list[str] = []
    for below, in_folder in groupby(files, key=posixpath.dirname):
        folder = part.images / below if below else part.images
        if folder not in present:
            present[folder] = _image_names(folder)
        names = {posixpath.basename(file) for file in in_folder}
        listed.setdefault(folder, set()).update(names)
        gone.extend(
            posixpath.join(below, name) for name in sorted(names - present[folder]) if not os.path.isfile(folder / name)
        )
    return gone


def _annotation_files(root: Path) -> dict[str, dict[str, Path]]:
    """{name of a part: {kind: file}}."""
    folder = root / "annotations"
    if not folder.is_dir():
        problem = (
            "has no folder annotations/" if root.is_dir() else "is no folder" if root.exists() else "does not exist"
        )
        above = f"; name the folder above it: coco:{root.parent}" if root.name == "annotations" else f"; {LAYOUT}"
        raise UsageError(f"coco {root} {problem}{above}")
    found: dict[str, dict[str, Path]] = {}
    try:
        for name in sorted(os.listdir(folder)):
            match = _FILE.fullmatch(name)
            if match and not is_junk(name) and is_there(folder / name):
                found.setdefault(match[2], {})[match[1]] = folder / name
    except OSError as error:
        raise UsageError(f"{folder} cannot be listed: {error.strerror}") from error
    if not found:
        raise UsageError(f"{folder} holds no panoptic_*.json, instances_*.json or stuff_*.json; {LAYOUT}")
    return found


def _image_folder(root: Path, name: str) -> Path | None:
    """PATH/NAME, PATH/images/NAME, or PATH/images where images lie in it directly."""
    for folder in (root / name, root / "images" / name):
        if folder.is_dir():
            return folder
    shared = root / "images"
    return shared if shared.is_dir() and _image_names(shared) else None


def _mask_folder(root: Path, name: str, kinds: Sequence[str]) -> Path | None:
    if PANOPTIC not in kinds:
        return None
    for folder in (root / "annotations" / f"panoptic_{name}", root / f"panoptic_{name}"):
        if folder.is_dir():
            return folder
    where = root / "annotations" / f"panoptic_{name}"
    raise UsageError(
        f"{where} is missing, the PNGs that panoptic_{name}.json is about; unpack panoptic_{name}.zip there"
    )


def _image_names(folder: Path) -> set[str]:
    try:
        with os.scandir(folder) as listing:
            return {entry.name for entry in listing if looks_like_image(entry)}
    except OSError:
        return set()


def _left_aside(
    files: dict[str, dict[str, Path]], folders: dict[str, Path], kinds: tuple[str, ...]
) -> Iterator[Remark]:
    bare = [path.name for name in sorted(files) if name not in folders for path in files[name].values()]
    if bare:
        yield Remark(
            "annotation files left aside, since the folder of their images is missing",
            len(bare),
            tuple(bare[:_EXAMPLES]),
        )
    if kinds == (PANOPTIC,):
        return
    uneven = [path.name for name in sorted(folders) for kind, path in sorted(files[name].items()) if kind not in kinds]
    if uneven:
        yield Remark(
            "annotation files left aside, since not every part has their kind", len(uneven), tuple(uneven[:_EXAMPLES])
        )
