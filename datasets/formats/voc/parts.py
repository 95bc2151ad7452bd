"""Pascal-Part: the parts of the objects in VOC's images.

X. Chen et al., Detect What You Can: Detecting and Representing Objects using Holistic Models and Body Parts (CVPR
2014). Annotations_Part/NAME.mat holds a struct `anno` (imname, objects), `objects` structs (class, class_ind, mask,
parts), `parts` structs (part_name, mask). A part is called by its class and its published name without the number of
a repeated part: "car wheel" for wheel_1 and wheel_2, "person lear" for the left ear.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from microtome.datasets.caches import cached
from microtome.datasets.formats.voc.layout import first_of
from microtome.datasets.formats.voc.mat import Matrix, load_variable
from microtome.datasets.listing import size_and_time
from microtome.storage.errors import SampleError


def find_parts(root: Path) -> str | None:
    """The folder below a year's that holds the annotations; None where there is none."""
    return first_of(root, ("Annotations_Part", "trainval/Annotations_Part", "Pascal-Part/Annotations_Part"), ".mat")


def part_names(files: Sequence[Path]) -> list[str]:
    """The names of all parts in `files`, sorted. Files that cannot be used are passed over.

    All files are read, some 100 a second, and what was found is cached until one of them changes. A cache that
    somebody damaged is made again.
    """
    state = "".join(f"{path}\0{size_and_time(path)}\n" for path in files)

    def make(target: Path) -> None:
        target.write_text(json.dumps(_gather(files)), encoding="utf-8")

    for _ in range(2):
        saved = cached("voc-parts", f"1\n{state}", ".json", make)
        try:
            names = json.loads(saved.read_bytes())
            if isinstance(names, list) and all(isinstance(name, str) for name in names):
                return names
        except (OSError, ValueError, RecursionError):
            pass
        with suppress(OSError):
            saved.unlink()
    return _gather(files)


def read_parts(path: Path, ids: Mapping[str, int], key: str) -> NDArray[np.uint16] | None:
    """The concept ids of the parts of one image, (h, w), smaller parts over larger ones; None where it has no object.

    ids: of the names of parts. Raises SampleError for `key` where the file cannot be used.
    """
    anno = load_variable(path, "anno", key)
    with _explained(key):
        objects = list(_objects(anno))
        parts = [(name, _mask(part)) for thing in objects for name, part in _parts_of(thing)]
        shapes = {mask.shape for _, mask in parts} | {_mask(thing).shape for thing in objects}
        if len(shapes) > 1:
            raise ValueError("masks of several sizes")
    if not shapes:
        return None
    plane = np.zeros(shapes.pop(), np.uint16, order="F")
    for name, mask in sorted(parts, key=lambda part: -np.count_nonzero(part[1])):
        plane[mask] = ids.get(name, 0)
    return plane


def _gather(files: Sequence[Path]) -> list[str]:
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return sorted(set().union(*pool.map(_names_in, files)))


def _names_in(path: Path) -> set[str]:
    try:
        anno = load_variable(path, "anno", "")
        with _explained(""):
            return {name for thing in _objects(anno) for name, _ in _parts_of(thing)}
    except SampleError:
        return set()


@contextmanager
def _explained(key: str) -> Iterator[None]:
    """Make SampleErrors of what goes wrong in a file that is built otherwise."""
    try:
        yield
    except (ValueError, KeyError) as error:
        text = f"no field {error}" if isinstance(error, KeyError) else str(error)[:80]
        raise SampleError(key, f"not an annotation of Pascal-Part ({text})") from error


def _objects(anno: Matrix) -> Iterator[dict[str, Matrix]]:
    for image in anno.records():
        yield from image["objects"].records()


def _parts_of(thing: dict[str, Matrix]) -> Iterator[tuple[str, dict[str, Matrix]]]:
    """The parts of an object, by the names of their concepts."""
    owner = thing["class"].text().strip()
    for part in thing["parts"].records():
        name = re.sub(r"_[0-9]+$", "", part["part_name"].text().strip())
        if not owner or not name:
            raise ValueError("a part without a name")
        yield f"{owner} {name}", part


def _mask(record: dict[str, Matrix]) -> NDArray[np.bool_]:
    value = record["mask"].numbers()
    if value.ndim != 2 or not value.size:
        raise ValueError(f"a mask of shape {value.shape}")
    mask: NDArray[np.bool_] = value != 0
    return mask
