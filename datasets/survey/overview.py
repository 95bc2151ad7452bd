"""A survey of a dataset: one pass over all samples, in threads, that counts what is there and finds what is odd.

Counted are the labels as they are stored, before any crop or resize. A label of the whole image counts as all
pixels of the sample's label grid; where nothing is labelled in its planes, as all pixels of the image itself. The
result does not depend on the number of threads.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from microtome.datasets.base import Concept, ImageDataset
from microtome.datasets.survey.counting import Counts
from microtome.datasets.survey.duplicates import Duplicates, find_duplicates
from microtome.datasets.survey.findings import Finding, find
from microtome.datasets.survey.reading import read_all

Progress = Callable[[int], None]
"""Called with the number of samples that were read since the last call."""

PAIRS = 12
EXAMPLES = 16


@dataclass(frozen=True, slots=True)
class Sizes:
    """(height, width) of the smallest and the largest by area, the middle one, and how many different sizes."""

    smallest: tuple[int, int]
    median: tuple[int, int]
    largest: tuple[int, int]
    different: int

    @classmethod
    def of(cls, sizes: NDArray[np.uint32]) -> Sizes | None:
        """Of (n, 2) sizes, in which (0, 0) stands for none; None where there is none."""
        sizes = sizes[sizes[:, 0] > 0].astype(np.int64)
        if not len(sizes):
            return None
        ordered = sizes[np.lexsort((sizes[:, 1], sizes[:, 0], sizes.prod(axis=1)))]
        smallest, median, largest = ((int(h), int(w)) for h, w in ordered[[0, (len(ordered) - 1) // 2, -1]])
        return cls(smallest, median, largest, len(np.unique(ordered, axis=0)))

    def to_dict(self) -> dict[str, Any]:
        """As plain values, heights first."""
        return {
            "smallest": list(self.smallest),
            "median": list(self.median),
            "largest": list(self.largest),
            "different": self.different,
        }


@dataclass(frozen=True, slots=True)
class ConceptCount:
    """In how many images a concept is, and on how many pixels of their label grids."""

    concept: Concept
    images: int
    pixels: int

    def to_dict(self) -> dict[str, Any]:
        """As plain values."""
        concept = self.concept
        named = {"id": concept.id, "name": concept.name, "category": concept.category}
        return {**named, "images": self.images, "pixels": self.pixels}


@dataclass(frozen=True, slots=True)
class Category:
    """A category of concepts: how many are listed, and how many images have a label of any of them."""

    name: str
    concepts: int
    annotated: int


@dataclass(frozen=True, slots=True)
class Survey:
    """What is in a dataset.

    samples:     how many were looked at, those that cannot be read among them; of total
    unlabelled:  mean over readable samples of the share of the label grid that no plane labels; None without planes
    image_sizes: None where no image was decoded; grid_sizes: of the label planes, None where none has a label
    examples:    samples that show the concepts, ascending
    """

    spec: str
    samples: int
    total: int
    unreadable: int
    images_seen: bool
    concepts: tuple[ConceptCount, ...]
    categories: tuple[Category, ...]
    planes: tuple[str, ...]
    splits: tuple[tuple[str, int], ...]
    classes: tuple[tuple[str, int], ...]
    unlabelled: float | None
    without_labels: int
    image_sizes: Sizes | None
    grid_sizes: Sizes | None
    findings: tuple[Finding, ...]
    examples: tuple[int, ...]

    def to_dict(self) -> dict[str, Any]:
        """As plain values, for JSON."""
        sizes = {"images": self.image_sizes, "labels": self.grid_sizes}
        return {
            "dataset": self.spec,
            "samples": self.samples,
            "total": self.total,
            "unreadable": self.unreadable,
            "concepts": [concept.to_dict() for concept in self.concepts],
            "categories": [{"name": c.name, "concepts": c.concepts, "images": c.annotated} for c in self.categories],
            "planes": list(self.planes),
            "splits": [{"name": name, "samples": count} for name, count in self.splits],
            "classes": [{"name": name, "samples": count} for name, count in self.classes],
            "unlabelled": {"share": self.unlabelled, "samples": self.without_labels},
            "sizes": {name: size.to_dict() if size else None for name, size in sizes.items()},
            "findings": [
                {"kind": f.kind, "level": f.level, "text": f.text, "count": f.count, "examples": list(f.examples)}
                for f in self.findings
            ],
        }


def survey(
    dataset: ImageDataset,
    *,
    limit: int | None = None,
    duplicates: bool = True,
    examples: int = EXAMPLES,
    workers: int = 1,
    progress: Progress | None = None,
) -> Survey:
    """Read every sample of `dataset`, or the first `limit`, and tell what is there.

    duplicates: decode the images as well as the labels, and look for those that are equal or look alike; else only
    labels are read, where the dataset can, and damaged images may pass unnoticed. examples: the most samples to
    choose. workers: threads.
    """
    samples = len(dataset) if limit is None else min(limit, len(dataset))
    counts = Counts(samples, dataset.concepts, len(dataset.class_names))
    for block in read_all(dataset, samples, images=duplicates, workers=workers):
        for record in block:
            counts.add(record)
        if progress is not None:
            progress(len(block))
    copies = _duplicates(counts) if duplicates else None
    readable = int(np.count_nonzero(counts.is_readable))
    return Survey(
        spec=dataset.spec,
        samples=samples,
        total=len(dataset),
        unreadable=samples - readable,
        images_seen=duplicates,
        concepts=tuple(
            ConceptCount(concept, int(counts.images[concept.id]), int(counts.pixels[concept.id]))
            for concept in dataset.concepts
        ),
        categories=tuple(_categories(dataset.concepts, counts)),
        planes=tuple(dataset.plane_names),
        splits=tuple(counts.splits.items()),
        classes=tuple(zip(dataset.class_names, counts.classes.tolist(), strict=True)),
        unlabelled=counts.unlabelled / readable if readable and dataset.plane_names else None,
        without_labels=counts.bare.count,
        image_sizes=Sizes.of(counts.size),
        grid_sizes=Sizes.of(counts.grid),
        findings=find(dataset, counts, copies, whole=samples == len(dataset)),
        examples=tuple(_examples(counts, examples)),
    )


def _categories(concepts: Sequence[Concept], counts: Counts) -> Iterator[Category]:
    listed = Counter(concept.category for concept in concepts)
    for name, annotated in zip(counts.categories, counts.annotated.tolist(), strict=True):
        yield Category(name, listed[name], annotated)


def _duplicates(counts: Counts) -> Duplicates:
    seen = np.flatnonzero(counts.seen)
    return find_duplicates(
        seen,
        counts.split[seen].astype(np.int64),
        counts.digest[seen],
        counts.hash[seen],
        counts.is_flat[seen],
        pairs=PAIRS,
    )


def _examples(counts: Counts, limit: int) -> list[int]:
    """The samples that show the concepts and, up to `limit`, others from the first to the last of the dataset."""
    chosen = counts.showcase.choose(limit)
    others = np.setdiff1d(np.flatnonzero(counts.is_readable), chosen)
    more = min(limit - len(chosen), len(others))
    places = np.linspace(0, len(others) - 1, more).astype(np.int64)
    return sorted([*chosen, *others[places].tolist()])
