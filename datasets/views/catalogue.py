"""The concept catalogue: synonyms and hierarchies by a table of the user's.

    name,category,into,into_category,keep
    car wheel,part,wheel,,              car wheel becomes wheel, of the same category
    bicycle wheel,part,wheel,,
    dog,object,animal,,yes              a dog stays a dog and is an animal besides
    misc,,,,                            misc, of any category, is no concept any more

Only `name` and `into` are required columns. Rows apply to what others give: a row for wheel holds for every concept
that became wheel. What is given twice at a pixel counts once.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from microtome.datasets.base import Concept, ImageDataset, Labels, Remark, Sample
from microtome.datasets.planes import once_a_pixel
from microtome.datasets.tables import read_text
from microtome.datasets.views.view import View
from microtome.storage.errors import UsageError

_REQUIRED, _OPTIONAL = ("name", "into"), ("category", "into_category", "keep")
_COLUMNS = (*_REQUIRED, *_OPTIONAL)
_YES, _NO = frozenset({"yes", "true", "1"}), frozenset({"", "no", "false", "0"})


class Lines(Protocol):
    """What csv.reader gives."""

    line_num: int

    def __iter__(self) -> Iterator[list[str]]: ...
    def __next__(self) -> list[str]: ...


Name = tuple[str, str]
"""A concept's name and category."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One line: concepts of this name ("" for any category) become `into` (None: no concept), or are that besides."""

    line: int
    name: str
    category: str
    into: Name | None
    keep: bool

    def applies_to(self, concept: Name) -> bool:
        """Whether this line is about `concept`."""
        return self.name == concept[0] and self.category in ("", concept[1])

    def target(self, concept: Name) -> Name | None:
        """What `concept` becomes: where the line gives no category, one of its own."""
        return None if self.into is None else (self.into[0], self.into[1] or concept[1])


class Catalogue(View):
    """`dataset` with its concepts renamed, merged, dropped and put under others as the CSV file `path` says.

    Raises UsageError, with file and line, for a table that cannot be used, contradicts itself or runs in a circle.
    """

    def __init__(self, dataset: ImageDataset, path: Path) -> None:
        super().__init__(dataset)
        rules = read_rules(path)
        sources: list[Name] = [(concept.name, concept.category) for concept in dataset.concepts]
        resolution = _Resolution(rules, path)
        become = [resolution.become(concept) for concept in sources]
        numbers: dict[Name, int] = {}
        for names in become:
            for name in names:
                numbers.setdefault(name, len(numbers) + 1)
        self._concepts = tuple(Concept(number, *name) for name, number in numbers.items())
        self._copies = max(1, *(len(names) for names in become)) if become else 1
        self._lookup = np.zeros((self._copies, len(sources) + 1), np.uint16)
        for source, names in enumerate(become, start=1):
            for copy, name in enumerate(names):
                self._lookup[copy, source] = numbers[name]
        self._merges = np.count_nonzero(np.bincount(self._lookup[self._lookup > 0].astype(np.int64)) > 1) > 0
        self._unused = [rule for rule in rules if rule.line not in resolution.met]
        self._path = path
        self._digest = hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()

    @property
    def concepts(self) -> Sequence[Concept]:
        return self._concepts

    @property
    def plane_names(self) -> Sequence[str]:
        own = tuple(self.dataset.plane_names)
        names = list(own)
        for copy in range(1, self._copies):
            names += [_free(f"{name} above" + f" {copy}" * (copy > 1), names) for name in own]
        return tuple(names)

    @property
    def image_label_slots(self) -> int:
        return self.dataset.image_label_slots * self._copies

    def mark(self) -> str:
        """The table's contents."""
        return f"catalogue 1 {self._digest}"

    def read(self, index: int) -> Sample:
        """Sample `index` with the labels that the catalogue gives."""
        sample = self.dataset.read(index)
        planes, image_labels = self._relabel(sample.planes, sample.image_labels)
        return Sample(sample.image, planes, image_labels)

    def read_labels(self, index: int) -> Labels:
        """The labels of sample `index`."""
        labels = super().read_labels(index)
        return Labels(*self._relabel(labels.planes, labels.image_labels))

    def relabel(self, planes: NDArray[np.uint16]) -> NDArray[np.uint16]:
        """Planes (..., P, H, W) of the dataset as (..., P * copies, H, W) of this view, each plane by itself."""
        return np.concatenate([lookup[planes] for lookup in self._lookup], axis=-3)

    def remarks(self) -> Sequence[Remark]:
        """The dataset's, and lines of the table that are about no concept of it."""
        own = tuple(super().remarks())
        if not self._unused:
            return own
        examples = tuple(f"line {rule.line}: {rule.name}" for rule in self._unused[:5])
        return (*own, Remark(f"lines of {self._path.name} name no concept of the dataset", len(self._unused), examples))

    def _relabel(
        self, planes: NDArray[np.uint16], image_labels: NDArray[np.uint16]
    ) -> tuple[NDArray[np.uint16], NDArray[np.uint16]]:
        labels = self.relabel(planes)
        of_image = np.concatenate([lookup[image_labels] for lookup in self._lookup])
        if self._merges:
            filled = np.flatnonzero(labels.any(axis=(1, 2))).tolist()
            pairs = [(first, second) for second in filled for first in filled if first < second]
            once_a_pixel(labels, pairs, of_image)
        return labels, of_image


def read_rules(path: Path) -> list[Rule]:
    """The lines of a catalogue. Raises UsageError, with file and line, where one cannot be used."""
    lines = csv.reader(read_text(path).splitlines(keepends=True), skipinitialspace=True, strict=True)
    try:
        return _rules(lines, path)
    except csv.Error as error:
        raise UsageError(f"{path}, line {lines.line_num}: not comma-separated values: {error}") from error


def _rules(lines: Lines, path: Path) -> list[Rule]:
    header = [cell.strip().lower() for cell in next(lines, [])]
    missing = [name for name in _REQUIRED if name not in header]
    strangers = [name for name in header if name not in _COLUMNS]
    twice = [name for name in _COLUMNS if header.count(name) > 1]
    if missing or strangers or twice:
        what = f"no column {missing[0]}" if missing else f"a column {(strangers or twice)[0]!r} too many"
        raise UsageError(f"{path}, line 1: {what}; expected name,into and perhaps {','.join(_OPTIONAL)}")
    rules = []
    for cells in lines:
        if len(cells) > len(header):
            raise UsageError(f"{path}, line {lines.line_num}: {len(cells)} cells, the header has {len(header)}")
        cell = dict.fromkeys(_COLUMNS, "") | {name: text.strip() for name, text in zip(header, cells, strict=False)}
        if any(cell.values()):
            rules.append(_rule(cell, path, lines.line_num))
    _refuse_contradictions(rules, path)
    return rules


def _rule(cell: dict[str, str], path: Path, line: int) -> Rule:
    if not cell["name"]:
        raise UsageError(f"{path}, line {line}: the name is empty; expected the name of a concept")
    keep = cell["keep"].lower()
    if keep not in _YES | _NO:
        raise UsageError(f"{path}, line {line}: keep is {cell['keep']!r}; expected yes or no")
    into = (cell["into"], cell["into_category"].lower()) if cell["into"] else None
    if into is None and keep in _YES:
        raise UsageError(
            f"{path}, line {line}: {cell['name']} is to be kept, but into is empty; name what it is besides"
        )
    return Rule(line, cell["name"], cell["category"].lower(), into, keep in _YES)


def _refuse_contradictions(rules: Sequence[Rule], path: Path) -> None:
    """A concept becomes one other; it may be several others besides."""
    seen: dict[Name, Rule] = {}
    for rule in rules:
        if rule.keep:
            continue
        first = seen.setdefault((rule.name, rule.category), rule)
        if first.into != rule.into:
            raise UsageError(
                f"{path}, line {rule.line}: {rule.name} becomes {_text(rule.into)}, but {_text(first.into)} in line "
                f"{first.line}; to be both, say keep=yes in both lines"
            )


def _text(name: Name | None) -> str:
    return "no concept" if name is None else f"{name[0]} ({name[1]})" if name[1] else name[0]


@dataclass
class _Resolution:
    """Concepts to what they become; `met`: the lines that were about any of them."""

    rules: Sequence[Rule]
    path: Path
    met: set[int] = field(default_factory=set)

    def become(self, concept: Name) -> list[Name]:
        """What `concept` is in the end, itself or what it became first, then what it is besides, each once."""
        trail = self._trail(concept)
        itself = trail[-1]
        found = [itself] if itself is not None else []
        names = [name for name in trail if name is not None]
        for name in names:  # grows while it is walked: parents have parents
            for rule in self.rules:
                if not rule.keep or not rule.applies_to(name):
                    continue
                self.met.add(rule.line)
                parent = rule.target(name)
                above = None if parent is None else self._trail(parent)[-1]
                if above is not None and above == itself:
                    raise self._wrong(rule, f"{_text(itself)} would lie under itself")
                if above is not None and above not in found:
                    found.append(above)
                    names.append(above)
        return found

    def _trail(self, concept: Name) -> list[Name | None]:
        """What `concept` is called, and is called in the end; None where it is dropped."""
        trail: list[Name | None] = [concept]
        while (last := trail[-1]) is not None:
            rule = _first(rule for rule in self.rules if not rule.keep and rule.applies_to(last))
            if rule is None:
                break
            self.met.add(rule.line)
            name = rule.target(last)
            if name == last:
                break
            if name in trail:
                circle = " -> ".join(_text(step) for step in (*trail[trail.index(name) :], name))
                raise self._wrong(rule, f"{circle} runs in a circle")
            trail.append(name)
        return trail

    def _wrong(self, rule: Rule, what: str) -> UsageError:
        return UsageError(f"{self.path}, line {rule.line}: {what}")


def _first(rules: Iterable[Rule]) -> Rule | None:
    """The rule for just this category, else the one for any."""
    found = list(rules)
    return next((rule for rule in found if rule.category), found[0] if found else None)


def _free(name: str, taken: Sequence[str]) -> str:
    while name in taken:
        name += "+"
    return name


__all__ = ["Catalogue", "Rule", "read_rules"]
