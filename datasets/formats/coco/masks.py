"""Pixels of COCO annotations: panoptic PNGs, polygons and run-length codes to maps of concept ids.

Polygons become run lengths by pycocotools, whose pixels are those that everybody counts; it is written in C and looks
at nothing that it is given, so coordinates are checked before. Run lengths go column by column and begin with those
outside of the region.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from microtome.datasets.images import MAX_PIXELS
from microtome.storage.errors import SampleError

UNLISTED_SEGMENT = -1
"""What segments of a panoptic PNG that segments_info does not list are counted as: their ids differ in every image."""

_MOST_CHARACTERS = 7
"""Characters of one run length in a compressed code: 35 bits, more than an image can have pixels."""


class MaskError(ValueError):
    """A segmentation that cannot be used; the text is a short reason."""


def panoptic_map(
    codes: NDArray[np.uint32], segments: object, concept_of: Mapping[int, int], key: str
) -> tuple[NDArray[np.uint16], list[int]]:
    """Concept ids (h, w) uint16 of a panoptic PNG, and the numbers met that nothing lists, ascending.

    codes: (h, w) R + 256·G + 65536·B, 0 = void; segments: the image's segments_info; concept_of: {category: concept
    id}, 0 = none. Unknown are categories that `concept_of` lacks, and UNLISTED_SEGMENT.
    """
    category_of = _categories(segments, key)
    flat = codes.ravel()
    firsts = np.concatenate(([0], np.flatnonzero(flat[1:] != flat[:-1]) + 1))
    lengths = np.diff(firsts, append=len(flat))
    present, which = np.unique(flat[firsts], return_inverse=True)
    ids = np.zeros(len(present), np.uint16)
    unknown: set[int] = set()
    for position, segment in enumerate(present.tolist()):
        if segment == 0:
            continue
        category = category_of.get(segment)
        if category is None:
            unknown.add(UNLISTED_SEGMENT)
        elif category in concept_of:
            ids[position] = concept_of[category]
        else:
            unknown.add(category)
    return np.repeat(ids[which], lengths).reshape(codes.shape), sorted(unknown)


def paint(
    annotations: Sequence[Mapping[str, Any]], size: tuple[int, int], concept_of: Mapping[int, int]
) -> tuple[NDArray[np.uint16], list[int]]:
    """Concept ids (h, w) uint16 of annotations with a segmentation, and categories that nothing lists, ascending.

    size: (h, w) of the image in the annotation file. Larger areas lie below smaller ones, crowds below all others,
    ties as in the file. What nothing lists is unlabelled, also where it lies on something else. Raises MaskError.
    """
    height, width = size
    if height * width > MAX_PIXELS:
        raise MaskError(f"too large: {width}x{height}, more than {MAX_PIXELS:,} pixels in all")
    regions = []
    unknown: set[int] = set()
    for number, annotation in enumerate(annotations):
        segmentation, category = annotation.get("segmentation"), annotation["category_id"]
        if not segmentation:
            continue
        runs = _runs(segmentation, size)
        if category not in concept_of:
            unknown.add(category)
        layer = (not annotation.get("iscrowd"), -int(runs[1::2].sum()), number)
        regions.append((layer, runs, concept_of.get(category, 0)))
    columns = np.zeros(width * height, np.uint16)
    for _, runs, concept in sorted(regions, key=lambda region: region[0]):
        region = runs[1:-1] if len(runs) % 2 else runs[1:]
        inside = np.repeat(np.arange(len(region)) % 2 == 0, region)
        columns[runs[0] : runs[0] + len(inside)][inside] = concept
    return np.ascontiguousarray(columns.reshape(width, height).T), sorted(unknown)


def _categories(segments: object, key: str) -> dict[int, int]:
    """{segment: category}."""
    found: dict[int, int] = {}
    for segment in segments if isinstance(segments, list) else [None]:
        number = segment.get("id") if isinstance(segment, dict) else None
        category = segment.get("category_id") if isinstance(segment, dict) else None
        if type(number) is not int or type(category) is not int:
            raise SampleError(key, "segments_info is not a list of objects with the whole numbers id and category_id")
        if found.setdefault(number, category) != category:
            raise SampleError(key, f"segments_info gives segment {number} two categories")
    return found


def _runs(segmentation: object, size: tuple[int, int]) -> NDArray[np.int64]:
    """The run lengths of a segmentation, which add up to the image's area. Raises MaskError."""
    if isinstance(segmentation, list):
        return _checked_runs(_runs_of_polygons([_polygon(points, size) for points in segmentation], size), size)
    if not isinstance(segmentation, dict):
        raise MaskError("a segmentation that is neither polygons nor run lengths")
    if segmentation.get("size") != list(size):
        raise MaskError(
            f"run lengths of size {str(segmentation.get('size'))[:40]}; expected {list(size)}, height and width"
        )
    counts = segmentation.get("counts")
    if isinstance(counts, str):
        return _checked_runs(_uncompressed(counts), size)
    if not isinstance(counts, list):
        raise MaskError("run lengths whose counts are neither text nor a list")
    return _checked_runs(_numbers(counts, "iu", "run lengths that are not whole numbers"), size)


def _runs_of_polygons(polygons: list[list[float]], size: tuple[int, int]) -> NDArray[np.int64]:
    """The run lengths of the union of checked polygons."""
    from pycocotools import mask as coco_mask

    to_codes: Any = coco_mask.frPyObjects
    union: Any = coco_mask.merge(to_codes(polygons, *size))
    return _uncompressed(union["counts"].decode("ascii"))


def _polygon(points: object, size: tuple[int, int]) -> list[float]:
    if not isinstance(points, list) or len(points) < 6 or len(points) % 2:
        raise MaskError("a polygon that is not a list of three or more pairs of coordinates")
    numbers = _numbers(points, "iuf", "a polygon with coordinates that are not numbers")
    coordinates = numbers.astype(np.float64)  # of the least int64, the absolute value is negative
    # The rasteriser's memory grows with the extent, and numbers beyond 32 bits overflow in it.
    reach = 2 * sum(size)
    if not (np.abs(coordinates) <= reach).all():
        raise MaskError("a polygon with coordinates far outside of the image")
    inside: list[float] = coordinates.tolist()
    return inside


def _numbers(values: list[Any], kinds: str, problem: str) -> NDArray[Any]:
    try:
        found = np.array(values)
    except (ValueError, OverflowError) as error:
        raise MaskError(problem) from error
    if found.ndim != 1 or (found.size and found.dtype.kind not in kinds):
        raise MaskError(problem)
    return found


def _checked_runs(runs: NDArray[Any], size: tuple[int, int]) -> NDArray[np.int64]:
    area = size[0] * size[1]
    if not runs.size or runs.min() < 0 or runs.max() > area or int(runs.sum()) != area:
        raise MaskError(f"run lengths that do not add up to the {area} pixels of the image")
    return runs.astype(np.int64)


def _uncompressed(text: str) -> NDArray[np.int64]:
    """The run lengths of a compressed code, as pycocotools would read them.

    Numbers in groups of 5 bits, least first, one a character from "0" on; 32 is set where the number goes on, and the
    last group's highest bit is its sign. From the fourth on each is the difference to the number two before.
    """
    if not text or not text.isascii():
        raise MaskError("a compressed code that is not ASCII text")
    groups = np.frombuffer(text.encode("ascii"), np.uint8).astype(np.int64) - 48
    if groups.min() < 0 or groups.max() > 63:
        raise MaskError("a compressed code with characters that do not belong in one")
    ends = np.flatnonzero(groups < 32)
    if not len(ends) or ends[-1] != len(groups) - 1:
        raise MaskError("a compressed code that ends within a number")
    starts = np.concatenate(([0], ends[:-1] + 1))
    lengths = ends - starts + 1
    if lengths.max() > _MOST_CHARACTERS:
        raise MaskError("a compressed code with a number that is too large")
    shifts = 5 * (np.arange(len(groups)) - np.repeat(starts, lengths))
    runs: NDArray[np.int64] = np.add.reduceat((groups & 31) << shifts, starts)
    runs -= (groups[ends] >> 4) << (5 * lengths)
    runs[1::2] = np.cumsum(runs[1::2])
    runs[2::2] = np.cumsum(runs[2::2])
    return runs
