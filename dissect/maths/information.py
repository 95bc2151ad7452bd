"""The threshold of a unit that says most about a concept, in place of one that is exceeded on a fixed share.

For unit u with upsampled activation r_u and concept c with segmentation s_c

    t_{u,c} = argmax_t I(r_u > t; s_c) / H(r_u > t, s_c)

over pixels: mutual information by joint entropy (Bau, Zhu, Strobelt, Zhou, Tenenbaum, Freeman and Torralba, GAN
Dissection, ICLR 2019, section 3.1). It is chosen on one half of the samples, and IoU at it is taken from the other.

    edges = candidates(coarse)                           from what the thresholds are found with
    counts = count_information(acts, edges, ...)         for every shard; merge
    table = most_informative(counts, population, edges, category_of)

Which half a sample is in follows from its number alone (`halves_of`). Of the 2 x 2 table of a pair the pixels are those
of the samples that count for the concept's category: where it is annotated ("image", "mask"), or all ("all"). The IoU
is that of `scoring`, under the run's convention; under "mask" the mask pixels of a sample in which the mask touches
the category nowhere count as outside of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from microtome.dissect.maths import float16
from microtome.dissect.maths.cells import Categories, axis_cells
from microtome.dissect.maths.codes import Codes, code_labels
from microtome.dissect.maths.labels import check_labels, count_labels
from microtome.dissect.maths.levels import MAX_EDGES, Classes, count_levels, edge_steps
from microtome.dissect.maths.scoring import area_ceiling, intersection_over_union
from microtome.dissect.maths.tally import CONVENTIONS, Convention
from microtome.dissect.maths.thresholds import CoarseHistogram
from microtome.dissect.maths.upsample import axis_weights
from microtome.storage.errors import UsageError

CHOOSING, JUDGING = 0, 1
"""The halves: thresholds and labels are chosen on one, IoU is reported of the other."""
OCTAVES, STEPS = 12, 8
"""Candidates are exceeded on 1/2 of all positions down to 1/8000, in so many halvings of so many steps: 96 of them,
each on 6 to 12% fewer than the one before, so that they lie densely in the tail."""
EVEN = 31
"""And so many candidates lie evenly between the lowest of these and the maximum: where activations leave a gap (a unit
that is off or on), upsampled values lie in it."""
MIN_INFORMATION = 0.001
"""Pairs whose best ratio is below are no rows of the table: unit and concept say next to nothing about each other."""

Columns = dict[str, NDArray[np.generic]]


def halves_of(samples: ArrayLike) -> NDArray[np.int64]:
    """Half, 0 or 1, of each sample number: of every two neighbours (2k, 2k + 1) one is in either, which one by lot.

    So halves are equal, and no order of the data (classes that take turns) decides what is in them.
    """
    numbers = np.asarray(samples, dtype=np.int64)
    with np.errstate(over="ignore"):  # splitmix64 (Steele, Lea and Flood, 2014)
        z = (numbers >> 1).astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return (numbers & 1) ^ ((z >> np.uint64(63)).astype(np.int64))


def candidates(
    coarse: CoarseHistogram, steps: int = STEPS, also: NDArray[np.float16] | None = None
) -> NDArray[np.float32]:
    """(C, B) float32 ascending, filled up with +inf: values that may be thresholds.

    The shares of positions above them: 1/2, then half of that and so on, OCTAVES times, with `steps` even steps in each
    octave; EVEN values up to the maximum; and `also`: (C, T) float16, further candidates (a run's fixed thresholds),
    NaN = none. A quantile is read off the coarse histogram, as if the root of what is above fell evenly within a bin:
    it is near that and not exactly there (what is above it is counted all the same), and 0 where it is among the zeros.
    None is at or above the unit's maximum; dead and constant units have none. Every processor gives the same ones.
    """
    octave = np.arange(OCTAVES * steps) // steps
    shares = np.ldexp(1 - (np.arange(OCTAVES * steps) % steps) / (2 * steps), -1 - octave)
    extra = np.empty((coarse.nan.size, 0), np.float16) if also is None else np.asarray(also, np.float16)
    found = np.full((coarse.nan.size, len(shares) + EVEN + extra.shape[1]), np.inf, np.float32)
    for unit in range(coarse.nan.size):
        if coarse.lowest[unit] >= coarse.highest[unit] or coarse.highest[unit] == float16.ZERO:
            continue
        patterns = _quantiles(coarse.counts[unit], shares)
        own = extra[unit][~np.isnan(extra[unit])]
        own = np.concatenate([own, _between(int(patterns.min()), int(coarse.highest[unit]))])
        patterns = np.concatenate([patterns, float16.ordered_patterns(own).astype(np.int64)])
        patterns = np.clip(patterns, max(int(coarse.lowest[unit]), float16.LOWEST + 1), float16.HIGHEST - 1)
        patterns = np.unique(patterns[patterns < coarse.highest[unit]])
        found[unit, : len(patterns)] = float16.values_of_patterns(patterns.astype(np.uint16))
    return found


def _between(lowest: int, highest: int) -> NDArray[np.float16]:
    """EVEN values between those of two ordered patterns, infinities taken for the largest number."""
    ends = float16.values_of_patterns(np.array([lowest, highest], np.uint16)).astype(np.float64)
    low, high = np.clip(ends, -65504.0, 65504.0)
    found: NDArray[np.float16] = (low + (high - low) * np.arange(1, EVEN + 1) / (EVEN + 1)).astype(np.float16)
    return found


def _quantiles(counts: NDArray[np.int64], shares: NDArray[np.float64]) -> NDArray[np.int64]:
    """The ordered patterns above which about these shares of the values lie. counts: (256,) by high byte."""
    descending = np.cumsum(counts[::-1])
    wanted = shares * counts.sum()
    place = 255 - np.searchsorted(descending, wanted, side="right")
    here = descending[255 - place].astype(np.float64)  # at or above the bin
    root = np.sqrt(here)
    into = (root - np.sqrt(wanted)) / (root - np.sqrt(here - counts[place]))
    patterns = (place << 8) + np.clip((into * 256).astype(np.int64), 0, 255)
    return np.where((place == float16.ZERO >> 8) | (patterns == float16.NEGATIVE_ZERO), float16.ZERO, patterns)


@dataclass(frozen=True, slots=True)
class Population:
    """What there is to find, in each half; updated in place.

    pixels: (2, G+1) int64, pixels of the samples that count for a category, the last: of all samples
    concepts: (2, K+1) int64, pixels of each concept
    """

    pixels: NDArray[np.int64]
    concepts: NDArray[np.int64]

    @classmethod
    def empty(cls, concepts: int, categories: int) -> Population:
        """Nothing counted yet."""
        return cls(np.zeros((2, categories + 1), np.int64), np.zeros((2, concepts + 1), np.int64))

    def update(
        self,
        labels: NDArray[np.uint16],
        image_labels: NDArray[np.uint16],
        category_of: ArrayLike,
        annotated: NDArray[np.bool_],
        halves: NDArray[np.int64],
        convention: Convention = "image",
    ) -> None:
        """Add n samples; the arguments are those of `count_information`."""
        area = labels.shape[2] * labels.shape[3]
        known, categories = self.concepts.shape[1] - 1, self.pixels.shape[1] - 1
        for half in (CHOOSING, JUDGING):
            chosen = np.asarray(halves) == half
            if not chosen.any():
                continue
            counts = count_labels(
                labels[chosen], image_labels[chosen], known, np.asarray(category_of, np.int64), categories
            )
            self.concepts[half] += counts.pixels
            admitted = np.ones_like(annotated[chosen]) if convention == "all" else annotated[chosen]
            self.pixels[half] += area * np.append(admitted.sum(axis=0), len(admitted))

    def merge(self, other: Population) -> None:
        """Add what `other` has counted."""
        self.pixels[...] += other.pixels
        self.concepts[...] += other.concepts


def check_convention(convention: str) -> None:
    """Raise UsageError for an unknown IoU convention."""
    if convention not in CONVENTIONS:
        raise UsageError(f"no IoU convention {convention!r}; known: {', '.join(CONVENTIONS)}")


@dataclass(frozen=True, slots=True)
class CodedSamples:
    """The labels of n samples as `count_levels` takes them; the same for all layers and units."""

    codes: Codes
    classes: Classes
    categories: Categories

    @classmethod
    def of(
        cls,
        labels: NDArray[np.uint16],
        image_labels: NDArray[np.uint16],
        category_of: ArrayLike,
        annotated: NDArray[np.bool_],
        halves: NDArray[np.int64],
        convention: Convention = "image",
    ) -> CodedSamples:
        """The arguments are those of `count_information`; samples that count alike are of one class.

        Raises UsageError for an unknown convention and ids that do not exist, ValueError for shapes that do not fit.
        """
        check_convention(convention)
        n, known = len(labels), np.ascontiguousarray(category_of, dtype=np.int64)
        if len(image_labels) != n or len(halves) != n or len(annotated) != n or annotated.ndim != 2:
            raise ValueError(
                f"{n} label maps, but {len(image_labels)} rows of image labels, {len(halves)} halves and annotated "
                f"{annotated.shape}"
            )
        check_labels(labels, image_labels, len(known) - 1, known, annotated.shape[1])
        alike = np.column_stack([np.asarray(halves, np.int64), image_labels, annotated])
        if convention == "mask":  # what a mask touches is a question to every single sample
            alike = np.column_stack([np.arange(n), alike])
        _, example, class_of = np.unique(alike, axis=0, return_index=True, return_inverse=True)
        return cls(
            code_labels(labels, class_of.reshape(n)),
            (np.ascontiguousarray(halves, np.int64)[example], np.ascontiguousarray(image_labels[example])),
            (known, np.ascontiguousarray(annotated[example]), CONVENTIONS.index(convention)),
        )


@dataclass(frozen=True, slots=True)
class InformationCounts:
    """For C units, both halves, concepts 1 ... K, G categories and B candidates; updated in place.

    intersection: (C, 2, K+1, B) int64, pixels of the concept with edge b < value <= edge b+1
    unit_pixels: (C, 2, G+1, B) int64, pixels so, over the samples that count for the category; the last: over all
    """

    intersection: NDArray[np.int64]
    unit_pixels: NDArray[np.int64]
    convention: Convention = "image"

    @classmethod
    def empty(
        cls, units: int, concepts: int, categories: int, edges: int, convention: Convention = "image"
    ) -> InformationCounts:
        """Nothing counted yet. Raises UsageError for an unknown convention, ValueError beyond MAX_EDGES edges."""
        check_convention(convention)
        if edges > MAX_EDGES:
            raise ValueError(f"at most {MAX_EDGES} candidate thresholds a unit, not {edges}")
        return cls(
            np.zeros((units, 2, concepts + 1, edges), np.int64),
            np.zeros((units, 2, categories + 1, edges), np.int64),
            convention,
        )

    def update(self, acts: NDArray[np.float16], edges: NDArray[np.float32], samples: CodedSamples) -> None:
        """Add n samples. acts: (n, C, h, w) float16; edges: (C, B) float32 of `candidates`.

        Raises ValueError for shapes that do not fit.
        """
        raw, n, units, _ = float16.as_planes(acts)
        if edges.shape != (units, self.intersection.shape[3]) or len(self.intersection) != units:
            raise ValueError(f"edges must be {(units, self.intersection.shape[3])}, not {edges.shape}")
        if len(samples.codes[0]) != n:
            raise ValueError(f"{n} samples, but {len(samples.codes[0])} label maps")
        concepts, categories = self.intersection.shape[2] - 1, self.unit_pixels.shape[2] - 1
        category_of, annotated, convention = samples.categories
        if category_of.shape != (concepts + 1,) or annotated.shape[1] != categories:
            raise ValueError(f"samples must be of {concepts} concepts in {categories} categories, as the counts are")
        if CONVENTIONS[convention] != self.convention:
            raise UsageError(f"cannot add samples of convention {CONVENTIONS[convention]!r} to {self.convention!r}")
        if n == 0:
            return
        (h, w), (height, width) = acts.shape[2:], samples.codes[0].shape[2:]
        count_levels(
            raw,
            acts.shape,
            edge_steps(edges),
            (axis_cells(h, height), axis_cells(w, width), *axis_weights(w, width)[:2]),
            samples.codes,
            samples.classes,
            samples.categories,
            (self.intersection, self.unit_pixels),
        )

    def merge(self, other: InformationCounts) -> None:
        """Add what `other` has counted. Raises UsageError where it followed another convention."""
        if self.convention != other.convention:
            raise UsageError(f"cannot merge counts of conventions {self.convention!r} and {other.convention!r}")
        self.intersection[...] += other.intersection
        self.unit_pixels[...] += other.unit_pixels


def count_information(
    acts: NDArray[np.float16],
    edges: NDArray[np.float32],
    labels: NDArray[np.uint16],
    image_labels: NDArray[np.uint16],
    category_of: Sequence[int] | NDArray[np.integer],
    annotated: NDArray[np.bool_],
    halves: NDArray[np.int64],
    *,
    convention: Convention = "image",
) -> InformationCounts:
    """Sort the pixels of every unit's upsampled maps between its candidate thresholds, and count them by concept.

    acts: (n, C, h, w) float16; edges: (C, B) float32 of `candidates`; halves: (n,) of `halves_of`
    labels, image_labels, category_of, annotated: as for `tally`
    Raises ValueError for shapes that do not fit and UsageError for ids that do not exist.
    """
    samples = CodedSamples.of(labels, image_labels, category_of, annotated, halves, convention)
    concepts, categories = len(samples.categories[0]) - 1, annotated.shape[1]
    counts = InformationCounts.empty(acts.shape[1], concepts, categories, edges.shape[1], convention)
    counts.update(acts, edges, samples)
    return counts


def information_ratio(
    both: NDArray[np.int64], mask: NDArray[np.int64], concept: NDArray[np.int64], pixels: NDArray[np.int64]
) -> NDArray[np.float64]:
    """I(mask; concept) / H(mask, concept) of 2 x 2 tables, from 0 to 1; 0 where the joint entropy is 0.

    both: pixels in mask and concept, mask and concept: those in each, pixels: all of them; of shapes that broadcast.
    """
    total = np.maximum(pixels, 1).astype(np.float64)
    cells = (both, mask - both, concept - both, pixels - mask - concept + both)
    joint = sum((_surprise(cell / total) for cell in cells), np.zeros(()))
    margins = sum((_surprise(part / total) for part in (mask, pixels - mask, concept, pixels - concept)), np.zeros(()))
    informs = np.maximum(margins - joint, 0.0)
    return np.where(joint > 0, informs / np.where(joint > 0, joint, 1.0), 0.0)


def _surprise(share: NDArray[np.float64]) -> NDArray[np.float64]:
    """-p log p, 0 at 0."""
    return np.where(share > 0, -share * np.log(np.where(share > 0, share, 1.0)), 0.0)


def most_informative(
    counts: InformationCounts, population: Population, edges: NDArray[np.float32], category_of: ArrayLike
) -> Columns:
    """The threshold of most information of every pair, and IoU at it: rows by unit, then concept.

    Columns: unit, concept, intersection, unit_pixels, concept_pixels (int64), iou, ceiling (float64), all of the half
    that judges; threshold (float64, in the unit of `edges`), information (the ratio) and iou_half of the half that
    chose; share (float64), of all pixels of both that are above the threshold. Of equal ratios the lowest threshold
    counts. Pairs below MIN_INFORMATION, or that share no pixel in either half, are left out.
    """
    categories = np.asarray(category_of, dtype=np.int64)
    concepts = np.flatnonzero(categories >= 0)
    parts = [_pairs_of(unit, counts, population, edges, categories, concepts) for unit in range(len(edges))]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]} if parts else {}


def _pairs_of(
    unit: int,
    counts: InformationCounts,
    population: Population,
    edges: NDArray[np.float32],
    categories: NDArray[np.int64],
    concepts: NDArray[np.int64],
) -> Columns:
    """The rows of one unit."""
    within = categories[concepts]
    above = np.cumsum(counts.unit_pixels[unit, :, :, ::-1], axis=2)[:, :, ::-1]
    both = np.cumsum(counts.intersection[unit][:, concepts, ::-1], axis=2)[:, :, ::-1]
    area, truth, pixels = above[:, within], population.concepts[:, concepts], population.pixels[:, within]
    ratio = information_ratio(both[CHOOSING], area[CHOOSING], truth[CHOOSING, :, None], pixels[CHOOSING, :, None])
    best = np.argmax(ratio, axis=1)
    rows = np.arange(len(concepts))
    met = both[:, rows, best]
    kept = np.flatnonzero((ratio[rows, best] >= MIN_INFORMATION) & (met.sum(axis=0) > 0))
    met, at = met[:, kept], best[kept]
    masks, present = area[:, kept, at], truth[:, kept]
    iou = intersection_over_union(met, masks, present)
    everywhere = above[:, -1].sum(axis=0)[at] / max(int(population.pixels[:, -1].sum()), 1)
    return {
        "unit": np.full(len(kept), unit, np.int64),
        "concept": concepts[kept],
        "threshold": edges[unit, at].astype(np.float64),
        "information": ratio[kept, at],
        "share": everywhere,
        "iou_half": iou[CHOOSING],
        "iou": iou[JUDGING],
        "ceiling": area_ceiling(masks[JUDGING], present[JUDGING]),
        "intersection": met[JUDGING],
        "unit_pixels": masks[JUDGING],
        "concept_pixels": present[JUDGING],
    }
