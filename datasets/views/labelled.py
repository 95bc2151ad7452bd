"""A dataset with labels beside its own: the views that add them, in the order in which they build on each other."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from microtome.datasets.base import ImageDataset
from microtome.datasets.views.catalogue import Catalogue
from microtome.datasets.views.free import FreeConcepts
from microtome.datasets.views.ordered import OrderedDataset
from microtome.datasets.views.segmented import Segmented, Segments
from microtome.datasets.views.view import View


def with_labels(
    dataset: ImageDataset, free: Sequence[str], segments: Segments | None, concepts: Path | None
) -> ImageDataset:
    """`dataset` with concepts computed from pixels, room for those of a segmenter, and all as a catalogue has them."""
    if free:
        dataset = FreeConcepts(dataset, free)
    if segments is not None:
        dataset = Segmented(dataset, segments)
    return dataset if concepts is None else Catalogue(dataset, concepts)


def pictures(dataset: ImageDataset) -> ImageDataset:
    """`dataset` without the labels that a run has added: its images, in the same order."""
    while isinstance(dataset, View) and not isinstance(dataset, OrderedDataset):
        dataset = dataset.dataset
    return dataset
