"""Where things lie in a VOCdevkit: its years, the lists of names, and the names of the classes.

M. Everingham et al., The PASCAL Visual Object Classes Challenge (IJCV 2010 and 2015), and its development kit.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from microtome.datasets.listing import below, is_junk
from microtome.datasets.tables import is_there
from microtome.storage.errors import UsageError

CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog"),
    *("horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
"""The classes of the numbers 1 ... 20 in masks; 0 is background."""

BORDER = 255
"""The number of pixels at borders and of objects that are not to be judged."""

LAYOUT = (
    "expected PATH/JPEGImages/NAME.jpg, PATH/SegmentationClass/NAME.png and PATH/ImageSets/Segmentation/train.txt and "
    "val.txt, where PATH is VOCdevkit/VOC2012 or a folder above it"
)


@dataclass(frozen=True)
class Names:
    """The names of one year's lists, in their order, with the split of each.

    left_out: names of test.txt beside train.txt or val.txt, which have no published labels
    missing: the one of train.txt and val.txt that is not there beside the other
    """

    splits: dict[str, str]
    left_out: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)


def find_years(path: Path) -> dict[str, Path]:
    """The VOC20xx folders at or below `path` by the start of their keys, which is "" where there is one alone.

    Raises UsageError where there is none.
    """
    if not path.is_dir():
        raise UsageError(f"voc folder {path} {'is not a folder' if path.exists() else 'does not exist'}; {LAYOUT}")
    if _is_year(path):
        return {"": path}
    kit = path / "VOCdevkit" if (path / "VOCdevkit").is_dir() else path
    years = sorted(name for name in os.listdir(kit) if re.fullmatch(r"VOC\d{4}", name) and _is_year(kit / name))
    if not years:
        raise UsageError(f"voc folder {path} has no folder JPEGImages/, and no VOC20xx with one; {LAYOUT}")
    return {"": kit / years[0]} if len(years) == 1 else {name: kit / name for name in years}


def read_names(root: Path) -> Names:
    """The names in ImageSets/Segmentation: train and val; without them trainval (no split), without that test.

    Raises UsageError where there is no list, or one cannot be used.
    """
    lists = root / "ImageSets" / "Segmentation"
    both = {split: lists / f"{split}.txt" for split in ("train", "val")}
    found = {split: path for split, path in both.items() if is_there(path)}
    if found:
        test = lists / "test.txt"
        missing = [both[split].name for split in both.keys() - found.keys()]
        return Names(_merged(found), _read_list(test) if is_there(test) else [], missing)
    for split, name in (("", "trainval"), ("test", "test")):
        if is_there(lists / f"{name}.txt"):
            return Names(_merged({split: lists / f"{name}.txt"}))
    raise UsageError(f"{lists} has no train.txt or val.txt, nor trainval.txt or test.txt; {LAYOUT}")


def other_splits(root: Path) -> dict[str, str]:
    """The split of every name in the lists of other tasks, as far as they are there: for names in no other list."""
    splits: dict[str, str] = {}
    for task in ("SegmentationContext", "Main"):
        for split in ("train", "val", "test"):
            path = root / "ImageSets" / task / f"{split}.txt"
            for name in _read_list(path) if is_there(path) else ():
                splits.setdefault(name, split)
    return splits


def stems(folder: Path, suffix: str) -> set[str]:
    """The names without `suffix` of the files in `folder` that have it; none where there is no such folder."""
    if not folder.is_dir():
        return set()
    with os.scandir(folder) as listing:
        return {e.name.removesuffix(suffix) for e in listing if e.name.endswith(suffix) and not is_junk(e.name)}


def first_of(root: Path, folders: Iterable[str], suffix: str) -> str | None:
    """The first of `folders` below `root` that holds files of `suffix` directly."""
    return next((folder for folder in folders if stems(root / folder, suffix)), None)


def read_text(path: Path) -> str:
    """A text file that comes with the data. Raises UsageError where it cannot be read or is not UTF-8."""
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise UsageError(f"{path}, line {line}: not UTF-8 text; save it as UTF-8") from error
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error


def _is_year(path: Path) -> bool:
    return (path / "JPEGImages").is_dir()


def _merged(lists: dict[str, Path]) -> dict[str, str]:
    splits: dict[str, str] = {}
    for split, path in lists.items():
        for name in _read_list(path):
            if name in splits:
                raise UsageError(f"{name} is in {splits[name]}.txt and in {path} too; keep it in one of them")
            splits[name] = split
    return splits


def _read_list(path: Path) -> list[str]:
    """The names in a list, one a line. Raises UsageError for a name that is there twice or is no name of a file."""
    lines: dict[str, int] = {}
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        name = line.strip()
        if not name:
            continue
        if name in lines:
            raise UsageError(f"{path}, line {number}: {name} is in line {lines[name]} already; keep one of them")
        if below(Path(), name) is None:
            problem = "is no name of a file" if "\0" in name else "leads out of the folder"
            raise UsageError(f"{path}, line {number}: {name[:80]!r} {problem}; expected a name without .jpg")
        lines[name] = number
    if not lines:
        raise UsageError(f"{path} holds no names; expected the name of an image without .jpg in every line")
    return list(lines)
