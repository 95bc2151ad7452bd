"""Numbers in masks that nothing lists: counted while samples are read."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence

import numpy as np


class UnknownIds:
    """Which numbers were met in which plane, and in how many images, each image counted once.

    Safe among threads; can be pickled (with the counts). A byte a sample.
    """

    def __init__(self, samples: int, plane_names: Sequence[str]) -> None:
        self._names = tuple(plane_names)
        self._surveyed = np.zeros(samples, np.bool_)
        self._counts: dict[tuple[int, int], int] = {}
        self._lock = threading.Lock()

    def is_new(self, index: int) -> bool:
        """Whether sample `index` was not noted yet."""
        return not self._surveyed[index]

    def note(self, index: int, numbers: Mapping[int, Sequence[int]]) -> None:
        """Note the unknown `numbers` of every plane ({plane: numbers}) of sample `index`; the first time counts."""
        with self._lock:
            if self._surveyed[index]:
                return
            self._surveyed[index] = True
            for plane, found in numbers.items():
                for number in found:
                    self._counts[plane, number] = self._counts.get((plane, number), 0) + 1

    def counts(self) -> dict[str, dict[int, int]]:
        """{plane: {number: images}}, ascending."""
        with self._lock:
            found = sorted(self._counts.items())
        result: dict[str, dict[int, int]] = {}
        for (plane, number), images in found:
            result.setdefault(self._names[plane], {})[number] = images
        return result

    def __getstate__(self) -> dict[str, object]:
        return {name: value for name, value in vars(self).items() if name != "_lock"}

    def __setstate__(self, state: dict[str, object]) -> None:
        vars(self).update(state)
        self._lock = threading.Lock()
