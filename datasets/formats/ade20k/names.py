"""What both releases of ADE20K share: splits, the names of concepts and of scenes, and how they are numbered."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from microtome.datasets.base import Concept

SPLITS = {"training": "train", "validation": "val", "testing": "test"}
"""Split by folder; other folders are splits of their own name."""

_SIDES = frozenset({"indoor", "outdoor", "interior", "exterior"})


class Numbering:
    """Concepts in the order in which they are met; the same name and category is one concept."""

    def __init__(self) -> None:
        self._ids: dict[tuple[str, str], int] = {}

    def number(self, name: str, category: str) -> int:
        """The id of a concept, 1 ... K."""
        return self._ids.setdefault((name, category), len(self._ids) + 1)

    def numbers(self, names: Mapping[int, str], category: str) -> dict[int, int]:
        """{number in masks: concept id} from {number in masks: name}."""
        return {number: self.number(name, category) for number, name in names.items()}

    def concepts(self) -> tuple[Concept, ...]:
        """All of them, by id."""
        return tuple(Concept(number, name, category) for (name, category), number in self._ids.items())


@dataclass(frozen=True)
class Scenes:
    """The scene of each image. names: by name; at: (N,) int32 index into names, -1 where an image has no scene."""

    names: tuple[str, ...]
    at: NDArray[np.int32]

    @classmethod
    def of(cls, found: Iterable[str]) -> Scenes:
        """From the scene of every image, "" for none."""
        index: dict[str, int] = {}
        met = np.fromiter((index.setdefault(name, len(index)) if name else -1 for name in found), np.int32)
        names = sorted(index)
        place = np.zeros(len(index) + 1, np.int32)
        place[[index[name] for name in names]] = np.arange(len(names))
        place[-1] = -1  # where an index of -1 leads
        return cls(tuple(names), place[met])

    def image_labels(self, numbering: Numbering) -> NDArray[np.uint16]:
        """(N,) concept id of each image's scene, 0 = none."""
        ids = [*(numbering.number(name, "scene") for name in self.names), 0]
        return np.array(ids, np.uint16)[self.at]


def short_names(names: Mapping[int, str]) -> dict[int, str]:
    """The first synonym of each name; where names with other synonyms begin alike, the second one in brackets.

    "car, auto, automobile" is car; "screen, silver screen" beside "screen, CRT screen" is screen (silver screen).
    """
    synonyms = {number: _synonyms(name) for number, name in names.items()}
    firsts = Counter(said[0] for said in set(synonyms.values()))
    return {
        number: said[0] if firsts[said[0]] == 1 or len(said) == 1 else f"{said[0]} ({said[1]})"
        for number, said in synonyms.items()
    }


def _synonyms(name: str) -> tuple[str, ...]:
    return tuple(word for part in name.split(",") if (word := words(part))) or (words(name),)


def words(text: str) -> str:
    """The text with single spaces between its words; what is no character is written out."""
    return " ".join(text.encode("utf-8", "backslashreplace").decode().split())


def scene_name(path: Iterable[str]) -> str:
    """The name of a scene from its path, such as ("cultural", "apse__indoor"): the last part, in words.

    A last part that only says indoor or outdoor follows the part before it. "" where there is no part.
    """
    parts = [words(part.replace("_", " ")) for step in path for part in step.split("/")]
    parts = [part for part in parts if part]
    if len(parts) > 1 and parts[-1] in _SIDES and parts[-2] not in _SIDES:
        return f"{parts[-2]} {parts[-1]}"
    return parts[-1] if parts else ""
