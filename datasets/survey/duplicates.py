"""Equal images and images that look alike, within the splits of a dataset and across them.

Groups, not pairs: a hundred black images are one group of a hundred. Which samples are concerned is exact; of each
group one pair is shown.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from microtome.datasets.survey.look import NEAR
from microtome.datasets.survey.pairs import FAR, Neighbours, neighbours

_MOST_SPLITS = 64


@dataclass(frozen=True, slots=True)
class Pair:
    """Two samples that look alike: their indices, how many bits their hashes differ in, whether they are equal."""

    first: int
    second: int
    distance: int
    equal: bool


@dataclass(frozen=True, slots=True)
class Repeats:
    """The samples that repeat another one, of one kind.

    samples: (m,) int64 indices, ascending; groups: how many groups they form; largest: samples of the largest;
    pairs: a pair of some of the groups, nearest first
    """

    samples: NDArray[np.int64]
    groups: int
    largest: int
    pairs: tuple[Pair, ...]


@dataclass(frozen=True, slots=True)
class Duplicates:
    """Samples with an equal image (`equal`), or one that looks alike or is equal (`alike`), in another split or in
    their own. Images of one colour look like nothing, and are in `equal` alone."""

    equal_across: Repeats
    equal_within: Repeats
    alike_across: Repeats
    alike_within: Repeats


def find_duplicates(
    index: NDArray[np.int64],
    split: NDArray[np.int64],
    digest: NDArray[np.uint64],
    hashes: NDArray[np.uint64],
    flat: NDArray[np.bool_],
    *,
    pairs: int,
    distance: int = NEAR,
) -> Duplicates:
    """The duplicates among m samples, all arrays of length m.

    index: of the samples, ascending; split: numbers from 0, in the order in which splits are first met (those beyond
    the 63rd are taken for one); digest: (m, 2); hashes: what images look like, meaningless where `flat`; pairs: the
    most pairs of each kind; distance: bits that hashes of images that look alike may differ in.
    """
    split = np.minimum(split, _MOST_SPLITS - 1)
    _, image = np.unique(digest, axis=0, return_inverse=True)
    image = image.ravel().astype(np.int64)
    equal = _Samples(index, split, image, image, None)
    looks = np.flatnonzero(~flat)
    values, look = np.unique(hashes[looks], return_inverse=True)
    near = neighbours(values, _tags(look, split[looks], len(values)), distance)
    alike = _Samples(index[looks], split[looks], image[looks], look.astype(np.int64), near)
    return Duplicates(
        equal_across=_repeats(equal, pairs, across=True),
        equal_within=_repeats(equal, pairs, across=False),
        alike_across=_repeats(alike, pairs, across=True),
        alike_within=_repeats(alike, pairs, across=False),
    )


@dataclass(frozen=True, slots=True)
class _Samples:
    """m samples: index, split, number of the image (equal images have the same) and number of its value.

    value: the image again, or its look; near: how the values hang together, None where they do not
    """

    index: NDArray[np.int64]
    split: NDArray[np.int64]
    image: NDArray[np.int64]
    value: NDArray[np.int64]
    near: Neighbours | None

    @property
    def values(self) -> int:
        return int(self.value.max(initial=-1)) + 1


def _tags(value: NDArray[np.int64], split: NDArray[np.int64], values: int) -> NDArray[np.uint64]:
    """(values,) the splits in which each value occurs, a bit each."""
    tags = np.zeros(values, np.uint64)
    np.bitwise_or.at(tags, value, np.uint64(1) << split.astype(np.uint64))
    return tags


def _concerned(samples: _Samples, *, across: bool) -> NDArray[np.bool_]:
    """(m,) whether a sample repeats another one, of another split or of its own."""
    value, near = samples.value, samples.near
    own = np.uint64(1) << samples.split.astype(np.uint64)
    others = near.tags[value] if near else np.zeros(len(value), np.uint64)
    concerned: NDArray[np.bool_]
    if across:
        concerned = ((_tags(value, samples.split, samples.values)[value] | others) & ~own) != 0
        return concerned
    _, place, count = np.unique(value * _MOST_SPLITS + samples.split, return_inverse=True, return_counts=True)
    concerned = (count[place] > 1) | ((others & own) != 0)
    return concerned


def _repeats(samples: _Samples, limit: int, *, across: bool) -> Repeats:
    concerned = _concerned(samples, across=across)
    group = samples.near.group[samples.value] if samples.near else samples.value
    _, sizes = np.unique(group[concerned], return_counts=True)
    return Repeats(
        samples=samples.index[concerned],
        groups=len(sizes),
        largest=int(sizes.max(initial=0)),
        pairs=tuple(_pairs(samples, concerned, limit, across=across)),
    )


def _pairs(samples: _Samples, concerned: NDArray[np.bool_], limit: int, *, across: bool) -> Iterator[Pair]:
    """The nearest pair of up to `limit` groups, from the nearest to the farthest of all groups evenly."""
    alone, partner, distance = _partners(samples, across=across)
    reach = np.where(alone, 0, distance)
    values = np.unique(samples.value[concerned])
    values = values[reach[values] < FAR]
    group = samples.near.group[values] if samples.near else values
    order = np.lexsort((values, reach[values], group))
    nearest = values[order][np.unique(group[order], return_index=True)[1]]
    nearest = nearest[np.argsort(reach[nearest], kind="stable")]
    shown = np.unique(np.linspace(0, len(nearest) - 1, min(limit, len(nearest))).round().astype(np.int64))
    members = np.argsort(samples.value, kind="stable")
    starts = np.searchsorted(samples.value[members], np.arange(samples.values + 1))
    for value in nearest[shown].tolist():
        others = [(value, 0)] if alone[value] else []
        if distance[value] < FAR:
            others.append((int(partner[value]), int(distance[value])))
        for other, apart in others:
            mine, theirs = (members[starts[v] : starts[v + 1]] for v in (value, other))
            found = _pick(samples, mine, theirs, across=across)
            if found:
                a, b = sorted(found)
                equal = bool(samples.image[a] == samples.image[b])
                yield Pair(int(samples.index[a]), int(samples.index[b]), apart, equal)
                break


def _partners(samples: _Samples, *, across: bool) -> tuple[NDArray[np.bool_], NDArray[np.int64], NDArray[np.int64]]:
    """For each value: whether two samples of it may be a pair, its nearest other value, and how far that is.

    Among looks, pairs of equal images do not count: those are shown as such.
    """
    if samples.near is None:
        none = np.full(samples.values, -1, np.int64)
        return np.ones(samples.values, np.bool_), none, np.full(samples.values, FAR, np.int64)
    pairs = np.unique(np.column_stack([samples.value, samples.image]), axis=0)
    varied = np.bincount(pairs[:, 0], minlength=samples.values) > 1
    near = samples.near
    return (varied, near.across, near.across_distance) if across else (varied, near.within, near.within_distance)


def _pick(
    samples: _Samples, mine: NDArray[np.int64], theirs: NDArray[np.int64], *, across: bool
) -> tuple[int, int] | None:
    """One of `mine` and one of `theirs` that make a pair; None where there is no such pair."""
    for first in mine[np.unique(samples.split[mine], return_index=True)[1]].tolist():
        fits = (samples.split[theirs] == samples.split[first]) != across
        fits &= theirs != first
        if samples.near is not None:
            fits &= samples.image[theirs] != samples.image[first]
        if fits.any():
            return first, int(theirs[np.argmax(fits)])
    return None
