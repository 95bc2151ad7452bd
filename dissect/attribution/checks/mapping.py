"""Which classes of a model stand for which concepts of a dataset, where the names alone do not tell."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from microtome.datasets.base import Concept
from microtome.dissect.attribution.subject import class_number
from microtome.storage.errors import UnknownNameError, UsageError

Classes = Mapping[int, tuple[int, ...]]
"""Numbers of classes by the id of a concept."""


def read_classes(path: Path, concepts: Sequence[Concept], class_names: Sequence[str]) -> Classes:
    """A CSV file with the columns `concept` and `class`, as many rows for a concept as it has classes.

    A class is its name, its number, or a range of numbers such as 151-268, both ends in it. Raises UnknownNameError,
    and UsageError for a file that is not like that.
    """
    known = {concept.name: concept.id for concept in concepts}
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{path} cannot be read as a table of concepts and classes ({error})") from error
    if not rows or not {"concept", "class"} <= set(rows[0]):
        raise UsageError(f"{path} has no columns concept and class; give a CSV file with a line such as dog,151-268")
    found: dict[int, list[int]] = {}
    for row in rows:
        name, text = (row["concept"] or "").strip(), (row["class"] or "").strip()
        if name not in known:
            raise UnknownNameError("concept", name, known)
        found.setdefault(known[name], []).extend(_numbers(text, class_names, path))
    return {concept: tuple(dict.fromkeys(numbers)) for concept, numbers in found.items()}


def _numbers(text: str, class_names: Sequence[str], path: Path) -> list[int]:
    span = re.fullmatch(r"(\d+)-(\d+)", text)
    if span is not None and text not in class_names:
        return list(range(int(span[1]), int(span[2]) + 1))
    number = class_number(text, class_names) if text else None
    if number is None:
        raise UsageError(f"{path}: {text!r} is no class; give its name, its number, or a range such as 151-268")
    return [number]
