"""Counting how a unit's mask and the labelled concepts overlap, without ever making the mask.

The mask of a unit is up(a) > T (Network Dissection, 2017, section 2.3). It is true on a fraction near tau of the
pixels, and only in grid cells with a corner above T; those alone are visited. Rounding cannot carry a pixel over T
where no corner is above it: l is at most 1 - 1/(2 dst), so fl(l * fl(b - a)) stays below b - a for label maps of up
to 65,536 pixels a side. The values themselves are those of `upsample`, bit for bit.

Counts are int64 and merge by addition. A concept must not occur at one pixel in two planes, nor both as a pixel
label and as an image label (readers see to that); an image label counts as all H*W pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from microtome.dissect.maths import float16
from microtome.dissect.maths.cells import Axis, axis_cells, tally_kernel
from microtome.dissect.maths.labels import LabelCounts, check_labels, count_labels
from microtome.storage.errors import UsageError

__all__ = ["CONVENTIONS", "Convention", "LabelCounts", "TallyCounts", "count_labels", "tally"]

Convention = Literal["image", "mask", "all"]
CONVENTIONS: tuple[Convention, ...] = get_args(Convention)


@dataclass(frozen=True, slots=True)
class TallyCounts:
    """For T taus, C units, concepts 1 ... K and G categories; updated in place.

    intersection: (T, C, K+1) int64, pixels in the mask and the concept
    unit_pixels: (T, C, G) int64, mask pixels over the samples that count for the category:
        "image": it is annotated there; "mask": the mask touches a label of it there; "all": every sample
    """

    intersection: NDArray[np.int64]
    unit_pixels: NDArray[np.int64]
    convention: Convention = "image"

    @classmethod
    def empty(
        cls, taus: int, units: int, concepts: int, categories: int, convention: Convention = "image"
    ) -> TallyCounts:
        """Nothing counted yet. Raises UsageError for an unknown convention."""
        if convention not in CONVENTIONS:
            raise UsageError(f"no IoU convention {convention!r}; known: {', '.join(CONVENTIONS)}")
        return cls(
            np.zeros((taus, units, concepts + 1), np.int64),
            np.zeros((taus, units, categories), np.int64),
            convention,
        )

    def update(
        self,
        acts: NDArray[np.float16],
        thresholds: NDArray[np.float16],
        saturated: NDArray[np.bool_],
        labels: NDArray[np.uint16],
        image_labels: NDArray[np.uint16],
        category_of: ArrayLike,
        annotated: NDArray[np.bool_],
    ) -> None:
        """Add n samples; the arguments are those of `tally`."""
        raw, n, units, _ = float16.as_planes(acts)
        taus, _, concepts = self.intersection.shape
        categories = np.ascontiguousarray(category_of, dtype=np.int64)
        if thresholds.shape != (units, taus) or saturated.shape != (units, taus):
            raise ValueError(f"thresholds and saturated must be {(units, taus)}: {thresholds.shape}, {saturated.shape}")
        if self.intersection.shape[1] != units:
            raise ValueError(f"counts are for {self.intersection.shape[1]} units, activations have {units}")
        if annotated.shape != (n, self.unit_pixels.shape[2]):
            raise ValueError(f"annotated must be {(n, self.unit_pixels.shape[2])}, not {annotated.shape}")
        if len(labels) != n or len(image_labels) != n:
            raise ValueError(f"{n} samples, but {len(labels)} label maps and {len(image_labels)} rows of image labels")
        check_labels(labels, image_labels, concepts - 1, categories, annotated.shape[1])
        values = np.asarray(thresholds, dtype=np.float16)
        patterns = float16.ordered_patterns(values).astype(np.int64)
        lowest = np.where(saturated, patterns, patterns + 1)
        lowest = np.where(np.isnan(values), 0xFFFF, lowest)
        lowest = np.where(lowest == float16.ZERO, float16.NEGATIVE_ZERO, lowest)
        rows: Axis = axis_cells(acts.shape[2], labels.shape[2])
        columns: Axis = axis_cells(acts.shape[3], labels.shape[3])
        tally_kernel(
            raw,
            acts.shape,
            (values.astype(np.float32), np.ascontiguousarray(saturated), lowest.min(axis=1)),
            (rows, columns),
            (np.ascontiguousarray(labels), np.ascontiguousarray(image_labels)),
            (categories, np.ascontiguousarray(annotated), CONVENTIONS.index(self.convention)),
            (self.intersection, self.unit_pixels),
        )

    def merge(self, other: TallyCounts) -> None:
        """Add what `other` has counted. Raises UsageError where it followed another convention."""
        if self.convention != other.convention:
            raise UsageError(f"cannot merge counts of conventions {self.convention!r} and {other.convention!r}")
        self.intersection[...] += other.intersection
        self.unit_pixels[...] += other.unit_pixels

    def to_arrays(self) -> dict[str, NDArray[np.generic]]:
        """The state, as named arrays."""
        return {
            "intersection": self.intersection,
            "unit_pixels": self.unit_pixels,
            "convention": np.array(CONVENTIONS.index(self.convention), np.int64),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[np.generic]]) -> TallyCounts:
        """The state again, from copies of `to_arrays`."""
        return cls(
            arrays["intersection"].astype(np.int64),
            arrays["unit_pixels"].astype(np.int64),
            CONVENTIONS[int(arrays["convention"].astype(np.int64))],
        )


def tally(
    acts: NDArray[np.float16],
    thresholds: NDArray[np.float16],
    saturated: NDArray[np.bool_],
    labels: NDArray[np.uint16],
    image_labels: NDArray[np.uint16],
    category_of: Sequence[int] | NDArray[np.integer],
    annotated: NDArray[np.bool_],
    *,
    convention: Convention = "image",
) -> TallyCounts:
    """Count masks against labels.

    acts: (n, C, h, w) float16; any grid, finer than the labels too
    thresholds: (C, T) float16, T taus in any order; NaN = the mask is empty (`Thresholds.for_masks`)
    saturated: (C, T) bool: a pixel is in the mask when every corner of non-zero weight equals the threshold
    labels: (n, P, H, W) uint16 concept ids, 0 = none; image_labels: (n, Q) uint16, 0 = none
    category_of: (K+1,) category index of each concept, -1 for id 0
    annotated: (n, G) bool, as `count_labels` gives it
    Raises ValueError for shapes that do not fit and UsageError for ids that do not exist.
    """
    concepts = np.shape(category_of)[0] - 1
    counts = TallyCounts.empty(thresholds.shape[1], acts.shape[1], concepts, annotated.shape[1], convention)
    counts.update(acts, thresholds, saturated, labels, image_labels, category_of, annotated)
    return counts
