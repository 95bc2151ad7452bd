"""The JSON files of the full ADE20K: what the numbers in the masks are called, and the scene of each image.

    {"annotation": {"scene": ["outdoor", "urban", "street"],
                    "object": [{"name": "door", "name_ndx": 774, "parts": {"part_level": 1, ...}, ...}, ...], ...}}

27,000 files of 50 KB take half a minute, so what they say is kept in the cache. Some are Latin-1 rather than UTF-8,
and a list of one may be written as its only element.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from microtome.datasets.base import Remark
from microtome.datasets.caches import cached
from microtome.datasets.formats.ade20k.names import Scenes, scene_name
from microtome.datasets.listing import LeftOut, PathList, size_and_time

MOST = 25 * 256 + 255
"""The greatest number that the masks can hold: (R // 10) * 256 + G."""

_VERSION = 1


@dataclass
class Index:
    """What all JSON files say together.

    names: {number: name with its synonyms}; objects, parts: the numbers that occur as objects, and as parts of any
    level; scenes: in the order of the images
    """

    names: dict[int, str] = field(default_factory=dict)
    objects: set[int] = field(default_factory=set)
    parts: set[int] = field(default_factory=set)
    scenes: Scenes = field(default_factory=lambda: Scenes.of(()))
    remarks: list[Remark] = field(default_factory=list)


def read_index(root: Path, images: PathList) -> Index:
    """The index of all images (paths below `root`), from the cache where nothing changed."""
    digest = hashlib.blake2b(f"{_VERSION}\n".encode() + os.fsencode(root), digest_size=16)
    for index in range(len(images)):
        path = json_path(images[index])
        digest.update(os.fsencode(f"\n{path}\0{size_and_time(root / path)}"))
    saved = cached("ade20k", digest.hexdigest(), ".json", lambda partial: _save(_gather(root, images), partial))
    try:
        return _load(saved)
    except (OSError, ValueError, LookupError, TypeError, AttributeError):  # somebody damaged or deleted it
        return _gather(root, images)


def json_path(image: str) -> str:
    """The JSON file of an image."""
    return os.path.splitext(image)[0] + ".json"


def _gather(root: Path, images: PathList) -> Index:
    """Read every JSON file; where two disagree on a name, the first in the order of the images holds."""
    index = Index()
    missing = LeftOut("images without a JSON file: their labels have the names that other images give")
    broken = LeftOut("JSON files that cannot be read: their labels have the names that other images give")
    differing = LeftOut("numbers that JSON files give several names: the first one holds")
    unnamed = LeftOut("images without a scene")
    others: dict[int, str] = {}

    def scenes() -> Iterator[str]:
        for number in range(len(images)):
            path = json_path(images[number])
            annotation = None
            if not (root / path).is_file():
                missing.note("", [path])
            else:
                annotation = _annotation(root / path)
                broken.note("", [path] if annotation is None else [])
            _note_objects(annotation or {}, index, others)
            scene = scene_name(_texts((annotation or {}).get("scene"))) or _scene_of_folder(images[number])
            unnamed.note("", [] if scene else [images[number]])
            yield scene

    index.scenes = Scenes.of(scenes())
    differing.note("", [f"{number}: {index.names[number]} / {others[number]}" for number in sorted(others)])
    index.remarks = [remark for noticed in (missing, broken, differing, unnamed) for remark in noticed.remarks()]
    return index


def _annotation(path: Path) -> dict[str, object] | None:
    """The contents of a JSON file, None where they cannot be made out."""
    try:
        raw = path.read_bytes()
        try:
            text = raw.decode("utf-8-sig")
        except UnicodeDecodeError:
            text = raw.decode("latin-1")
        found = json.loads(text, strict=False)
    except (OSError, ValueError, RecursionError):
        return None
    annotation = found.get("annotation") if isinstance(found, dict) else None
    return annotation if isinstance(annotation, dict) else None


def _note_objects(annotation: dict[str, object], index: Index, others: dict[int, str]) -> None:
    for item in _items(annotation.get("object")):
        number, name = _whole(item.get("name_ndx")), item.get("name")
        if not 1 <= number <= MOST or not isinstance(name, str) or not name.strip():
            continue
        name = name.strip()
        if index.names.setdefault(number, name) != name:
            others.setdefault(number, name)
        (index.parts if _is_part(item.get("parts")) else index.objects).add(number)


def _is_part(parts: object) -> bool:
    if not isinstance(parts, dict):
        return False
    return _whole(parts.get("part_level")) > 0 or (
        "part_level" not in parts and parts.get("ispartof") not in ([], None)
    )


def _items(value: object) -> list[dict[str, object]]:
    found = value if isinstance(value, list) else [value]
    return [item for item in found if isinstance(item, dict)]


def _texts(value: object) -> list[str]:
    found = value if isinstance(value, list) else [value]
    return [text for text in found if isinstance(text, str)]


def _whole(value: object) -> int:
    """A number that may be written as text; 0 where there is none."""
    text = str(value)
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0


def _scene_of_folder(image: str) -> str:
    """images/ADE/SPLIT/GROUP/SCENE/NAME: the scene; "" where an image lies in no such folder."""
    return scene_name(image.split("/")[3:-1])


def _save(index: Index, path: Path) -> None:
    contents = {
        "names": index.names,
        "objects": sorted(index.objects),
        "parts": sorted(index.parts),
        "scenes": index.scenes.names,
        "at": index.scenes.at.tolist(),
        "remarks": [[remark.text, remark.count, remark.examples] for remark in index.remarks],
    }
    path.write_text(json.dumps(contents), encoding="ascii")


def _load(path: Path) -> Index:
    contents = json.loads(path.read_bytes())
    return Index(
        names={int(number): name for number, name in contents["names"].items()},
        objects=set(contents["objects"]),
        parts=set(contents["parts"]),
        scenes=Scenes(tuple(contents["scenes"]), np.array(contents["at"], np.int32)),
        remarks=[Remark(text, count, tuple(examples)) for text, count, examples in contents["remarks"]],
    )
