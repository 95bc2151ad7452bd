"""Masks that hold the numbers of a classes.csv, to the label planes of one image."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray

from microtome.datasets.base import Labels
from microtome.datasets.classes import ClassTable
from microtome.datasets.images import Source, decode_mask
from microtome.datasets.planes import check_field_of_view, once_a_pixel, stack_planes
from microtome.datasets.unknown import UnknownIds
from microtome.storage.errors import SampleError


class MaskPlanes:
    """Decodes the masks of a sample, one for each of some planes, and counts the numbers that nothing lists.

    classes: what the numbers mean; plane_names: P names; samples: how many the dataset has. Safe among threads; can be
    pickled.
    """

    def __init__(self, classes: ClassTable, plane_names: Sequence[str], samples: int) -> None:
        self._classes = classes
        self._names = tuple(plane_names)
        self._unknown = UnknownIds(samples, self._names)

    def labels(self, index: int, key: str, masks: Mapping[int, Source], size: tuple[int, ...]) -> Labels:
        """The planes of sample `index` from {plane: mask}, on the grid of the largest mask.

        size: (height, width, ...) of the upright image. Raises SampleError where a mask cannot be used.
        """
        numbers = {plane: self._read(key, plane, masks[plane], size) for plane in sorted(masks)}
        if self._unknown.is_new(index):
            self._unknown.note(index, {plane: self._unlisted(plane, mask) for plane, mask in numbers.items()})
        ids = {plane: self._classes.lookup[plane][mask] for plane, mask in numbers.items()}
        planes = stack_planes(ids, len(self._names))
        once_a_pixel(planes, self._classes.shared)
        return Labels(planes, np.zeros(0, np.uint16))

    def unknown_ids(self) -> dict[str, dict[int, int]]:
        """Numbers that masks held and nothing lists: {plane: {number: images}}, over the samples read so far."""
        return self._unknown.counts()

    def what(self, plane: int) -> str:
        """How the mask of `plane` is called in errors."""
        return f"mask of plane {self._names[plane]}"

    def _read(self, key: str, plane: int, source: Source, size: tuple[int, ...]) -> NDArray[np.uint16]:
        try:
            mask = decode_mask(source, key)
        except SampleError as error:
            raise SampleError(key, f"{self.what(plane)}: {error.reason}") from error
        check_field_of_view(key, self.what(plane), mask.shape, size)
        return mask

    def _unlisted(self, plane: int, mask: NDArray[np.uint16]) -> list[int]:
        present = np.zeros(self._classes.known.shape[1], np.bool_)
        present[mask] = True
        unlisted: list[int] = np.flatnonzero(present & ~self._classes.known[plane]).tolist()
        return unlisted


def some_numbers(masks: Iterable[Source], *, limit: int = 8) -> list[int]:
    """The lowest numbers in `masks`, ascending, at most `limit`; 0 and 1 where none can be read."""
    numbers: set[int] = set()
    for mask in masks:
        with suppress(SampleError):
            numbers.update(int(number) for number in np.unique(decode_mask(mask, "")))
    return sorted(numbers)[:limit] or [0, 1]
