"""Label maps to label planes: one grid, ids of concepts, and no concept twice at a pixel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from microtome.datasets.geometry import CropGeometry
from microtome.datasets.images import crop_labels
from microtome.storage.errors import SampleError


def stack_planes(maps: Mapping[int, NDArray[np.uint16]], planes: int) -> NDArray[np.uint16]:
    """(P, h, w) uint16 from concept ids (h, w) of some of the `planes`, on the grid of the largest map.

    Smaller maps are enlarged to the nearest pixel; planes without a map are 0; (P, 1, 1) where there is none at all.
    """
    height, width = max((found.shape for found in maps.values()), key=np.prod, default=(1, 1))
    stacked = np.zeros((planes, height, width), np.uint16)
    for plane, ids in maps.items():
        stacked[plane] = ids if ids.shape == (height, width) else resize_labels(ids[None], (height, width))[0]
    return stacked


def resize_labels(planes: NDArray[np.uint16], size: tuple[int, int]) -> NDArray[np.uint16]:
    """(P, h, w) planes on a grid of `size` (H, W) over the same field of view, to the nearest pixel."""
    if planes.shape[1:] == size:
        return planes
    return crop_labels(planes, CropGeometry(*size, size, 0, 0, size), size)


def shared_pairs(held: Sequence[NDArray[np.integer]]) -> tuple[tuple[int, int], ...]:
    """Pairs of planes (earlier, later) in which the same concept can occur; `held`: the concept ids of each plane."""
    concepts = [np.setdiff1d(ids, [0]) for ids in held]
    return tuple(
        (first, second)
        for second in range(len(concepts))
        for first in range(second)
        if np.intersect1d(concepts[first], concepts[second]).size
    )


def once_a_pixel(
    planes: NDArray[np.uint16],
    shared: Sequence[tuple[int, int]],
    image_labels: NDArray[np.uint16] | None = None,
) -> None:
    """In place: a concept that several planes give at a pixel stays in the first of them.

    shared: the pairs to look at, as `shared_pairs` gives them. Where image_labels (Q,) are given, a concept that the
    whole image has is taken out of the planes, and out of the later slots.
    """
    if image_labels is not None and image_labels.any():
        _, first = np.unique(image_labels, return_index=True)
        again = np.ones(len(image_labels), np.bool_)
        again[first] = False
        image_labels[again] = 0
        planes[np.isin(planes, image_labels[image_labels > 0])] = 0
    for earlier, later in shared:
        planes[later][planes[earlier] == planes[later]] = 0


def same_field_of_view(mask: tuple[int, int], image: tuple[int, int]) -> bool:
    """Whether two (height, width) have the same aspect ratio, up to the rounding of either when it was scaled."""

    def scaled_from(small: tuple[int, int], large: tuple[int, int]) -> bool:
        return (small[0] - 1) * large[1] < (small[1] + 1) * large[0] and (
            (small[1] - 1) * large[0] < (small[0] + 1) * large[1]
        )

    return scaled_from(mask, image) or scaled_from(image, mask)


def check_field_of_view(key: str, what: str, mask: tuple[int, ...], image: tuple[int, ...]) -> None:
    """Raise SampleError where a mask, called `what`, and the upright image differ in aspect ratio.

    mask, image: (height, width, ...) in pixels.
    """
    if not same_field_of_view((mask[0], mask[1]), (image[0], image[1])):
        raise SampleError(
            key,
            f"{what}: {mask[1]}x{mask[0]} pixels, the upright image {image[1]}x{image[0]}; not the same aspect ratio",
        )
