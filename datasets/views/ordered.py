"""A dataset in another order: the samples of a grown run keep their places, whatever has come between them since.

Photographs that are added to a folder sort in between those that were there. A run that grows keeps its samples
where they are and puts the new ones behind them; this view shows the folder in that order.
"""

from __future__ import annotations

import hashlib
import operator
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from microtome.datasets.base import Entry, ImageDataset, Labels, Sample, read_labels
from microtome.datasets.views.view import View
from microtome.storage.errors import UsageError


class OrderedDataset(View):
    """`dataset`, beginning with its samples `first`; the others follow in the dataset's own order.

    first: (n,) int64 positions in `dataset`, each once.
    """

    def __init__(self, dataset: ImageDataset, first: NDArray[np.int64]) -> None:
        super().__init__(dataset)
        if len(first) and not 0 <= int(first.min()) <= int(first.max()) < len(dataset):
            raise UsageError(f"{dataset.spec} has {len(dataset):,} images; the order names one beyond them")
        others = np.ones(len(dataset), np.bool_)
        others[first] = False
        self.order = np.concatenate([first.astype(np.int64), np.flatnonzero(others)])
        if len(self.order) != len(dataset):
            raise UsageError(f"{dataset.spec}: the order names an image twice")
        self._digest = hashlib.blake2b(np.ascontiguousarray(first, "<i8").tobytes(), digest_size=16).hexdigest()

    def entry(self, index: int) -> Entry:
        """What the dataset says of the sample that stands at `index` here."""
        return self.dataset.entry(self._position(index))

    def read(self, index: int) -> Sample:
        """Read the sample that stands at `index` here."""
        return self.dataset.read(self._position(index))

    def read_labels(self, index: int) -> Labels:
        """The labels of the sample that stands at `index` here."""
        return read_labels(self.dataset, self._position(index))

    def fingerprint(self) -> str:
        """A hash of the dataset's own fingerprint and of the order."""
        words = f"ordered {self._digest} {self.dataset.fingerprint()}"
        return hashlib.blake2b(words.encode(), digest_size=16).hexdigest()

    def places(self, indices: Sequence[int]) -> Sequence[int]:
        """Where the samples `indices` stand in the dataset's own order. The order is no part of a sample's mark."""
        found: list[int] = self.order[np.asarray(indices, np.int64)].tolist()
        return found

    def _position(self, index: int) -> int:
        index = operator.index(index)
        if not 0 <= index < len(self.order):
            raise IndexError(index)
        return int(self.order[index])
