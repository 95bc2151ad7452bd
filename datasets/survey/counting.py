"""What is counted while the samples of a dataset pass by, in order; a few dozen bytes a sample stay."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from microtome.datasets.base import Concept
from microtome.datasets.survey.examples import Showcase
from microtome.datasets.survey.reading import Record

SOME = 5
"""How many examples a finding names."""

_READABLE, _FLAT, _SEEN = 1, 2, 4
_MOST_TROUBLES = 100
_NUMBER = re.compile(r"\d+")


@dataclass(slots=True)
class Tally:
    """How many samples something holds for, and the keys of the first of them."""

    count: int = 0
    examples: list[str] = field(default_factory=list)

    def add(self, key: str) -> None:
        """One more."""
        self.count += 1
        if len(self.examples) < SOME:
            self.examples.append(key)


@dataclass(slots=True)
class Trouble:
    """Why some samples cannot be read, reasons that differ in numbers alone taken together: the first one's words."""

    reason: str
    samples: Tally


class Counts:
    """Counts over the samples that were added, in the order of the dataset.

    images, pixels: (K + 1,) int64, by concept; annotated: by category, samples that have any label of it;
    splits, classes: samples by split in the order met, and by class label
    """

    def __init__(self, samples: int, concepts: Sequence[Concept], classes: int) -> None:
        self.categories = list(dict.fromkeys(concept.category for concept in concepts))
        numbers = [0, *(self.categories.index(concept.category) for concept in concepts)]
        self._category = np.array(numbers, np.int64)
        self.images = np.zeros(len(concepts) + 1, np.int64)
        self.pixels = np.zeros(len(concepts) + 1, np.int64)
        self.annotated = np.zeros(len(self.categories), np.int64)
        self.classes = np.zeros(classes, np.int64)
        self.splits: dict[str, int] = {}
        self._split_numbers: dict[str, int] = {}
        self.lowest_split = np.full(len(concepts) + 1, np.iinfo(np.int64).max)
        self.highest_split = np.full(len(concepts) + 1, -1, np.int64)
        self.troubles: dict[str, Trouble] = {}
        self.bare, self.flat, self.rescaled, self.classless = Tally(), Tally(), Tally(), Tally()
        self.unlabelled = 0.0
        self.showcase = Showcase(len(concepts))
        self.state = np.zeros(samples, np.uint8)
        self.split = np.zeros(samples, np.int32)
        self.size = np.zeros((samples, 2), np.uint32)
        self.grid = np.zeros((samples, 2), np.uint32)
        self.digest = np.zeros((samples, 2), np.uint64)
        self.hash = np.zeros(samples, np.uint64)

    @property
    def is_readable(self) -> NDArray[np.bool_]:
        """(N,) whether a sample could be read."""
        return (self.state & _READABLE) > 0

    @property
    def seen(self) -> NDArray[np.bool_]:
        """(N,) whether the image of a sample was decoded."""
        return (self.state & _SEEN) > 0

    @property
    def is_flat(self) -> NDArray[np.bool_]:
        """(N,) whether that image is of one colour."""
        return (self.state & _FLAT) > 0

    def add(self, record: Record) -> None:
        """Count the next sample."""
        entry, index = record.entry, record.index
        number = self._split_numbers.setdefault(entry.split, len(self._split_numbers))
        self.split[index] = number
        self.splits[entry.split] = self.splits.get(entry.split, 0) + 1
        if entry.label is not None:
            self.classes[entry.label] += 1
        elif len(self.classes):
            self.classless.add(entry.key)
        if record.reason:
            self._add_trouble(entry.key, record.reason)
            return
        self.state[index] |= _READABLE
        self._add_labels(record, number)
        self._add_image(record)

    def _add_trouble(self, key: str, reason: str) -> None:
        kind = _NUMBER.sub("#", reason)
        if kind not in self.troubles and len(self.troubles) >= _MOST_TROUBLES:
            kind, reason = "", "other reasons"
        self.troubles.setdefault(kind, Trouble(reason, Tally())).samples.add(key)

    def _add_labels(self, record: Record, split: int) -> None:
        ids = record.ids
        if not len(ids):
            self.bare.add(record.entry.key)
        self.images[ids] += 1
        self.pixels[ids] += record.pixels
        self.annotated[np.unique(self._category[ids])] += 1
        self.lowest_split[ids] = np.minimum(self.lowest_split[ids], split)
        self.highest_split[ids] = np.maximum(self.highest_split[ids], split)
        self.unlabelled += 1 - record.labelled
        self.grid[record.index] = record.grid or (0, 0)
        self.showcase.add(record)

    def _add_image(self, record: Record) -> None:
        if record.size is None or record.look is None:
            return
        index, key = record.index, record.entry.key
        self.size[index] = record.size
        if record.grid and record.grid != record.size:
            self.rescaled.add(key)
        self.state[index] |= _SEEN
        self.digest[index] = np.frombuffer(record.look.digest, np.uint64)
        if record.look.hash is None:
            self.state[index] |= _FLAT
            self.flat.add(key)
        else:
            self.hash[index] = record.look.hash
