"""One pass over all latents: areas with every set of edits, what changes outside the concept, and pairs to look at."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from microtome.dissect.generators.edits import Edit
from microtome.dissect.generators.effects import BATCH, Paired, Seen, Where, areas_of, mask_of, passes
from microtome.dissect.generators.generator import Generator
from microtome.dissect.generators.pairs import PAIRS, Pair
from microtome.dissect.generators.perceptual import Change, Eye, joined
from microtome.dissect.models.segmenters import Segmenter

COMPARED = 4
"""Sets of edits whose change outside the mask is measured: the chosen one, and three random ones."""

LEAST_SHOWN = 0.01
"""An image is shown where the concept covers so much of it."""


@dataclass(frozen=True, eq=False)
class Looked:
    """What was seen. areas: of each label; outside: the change outside the concept's grown mask (everywhere, without a
    concept), of the chosen units and then of some random sets; pairs: images that have some of the concept."""

    areas: Paired
    outside: list[Change]
    pairs: list[Pair]


@dataclass
class _Collected:
    before: list[NDArray[np.float64]] = field(default_factory=list)
    after: list[list[NDArray[np.float64]]] = field(default_factory=list)
    outside: list[list[Change]] = field(default_factory=list)
    pairs: list[Pair] = field(default_factory=list)


def look(
    generator: Generator,
    segmenter: Segmenter,
    seeds: Sequence[int],
    edits: Sequence[Sequence[Edit]],
    concept: NDArray[np.int64],
    where: Where | None,
    advance: Callable[[int], None],
) -> Looked:
    """Go through the images of `seeds`, untouched and with each set of edits: the chosen one, then random ones.

    concept: the ids of the concept that this is about, none for everything.
    """
    labels = len(segmenter.labels)
    eye = Eye(generator.device)
    found = _Collected()
    start = 0
    for untouched, changed in passes(generator, segmenter, seeds, edits, batch=BATCH, where=where):
        count = len(untouched.images)
        advance(count)
        outside = 1 - mask_of(untouched.ids, concept)
        features = eye.features(untouched.images)
        areas: list[NDArray[np.float64]] = []
        changes: list[Change] = []
        shown: list[Seen] = []
        for number, seen in enumerate(changed):
            areas.append(areas_of(seen.ids, labels))
            if number < COMPARED:
                changes.append(eye.change(untouched.images, seen.images, outside, features))
            shown += [seen] if number < 2 else []
            advance(count)
        found.before.append(areas_of(untouched.ids, labels))
        found.after.append(areas)
        found.outside.append(changes)
        part, most = seeds[start : start + count], PAIRS - len(found.pairs)
        found.pairs += _pairs(
            untouched, shown, concept, segmenter.labels[concept[0]] if len(concept) else "", part, most
        )
        start += count
    after = np.stack([np.concatenate(parts) for parts in zip(*found.after, strict=True)])
    return Looked(
        Paired(np.concatenate(found.before), after),
        [joined(parts) for parts in zip(*found.outside, strict=True)],
        found.pairs,
    )


def _pairs(
    untouched: Seen, changed: Sequence[Seen], concept: NDArray[np.int64], name: str, seeds: Sequence[int], most: int
) -> list[Pair]:
    """Up to `most` pairs of a batch, in the order of its seeds, of images that have some of the concept."""
    masks = [mask_of(seen.ids, concept, 0) > 0 for seen in (untouched, *changed)]
    shares = [mask.mean(axis=(1, 2)) for mask in masks]
    pictures = [_bytes(seen.images) for seen in (untouched, *changed)]
    rows = np.flatnonzero(shares[0] >= LEAST_SHOWN) if len(concept) else np.arange(len(seeds))
    pairs = []
    for row in rows[: max(most, 0)].tolist():
        said = [f"{name} {100 * share[row]:.0f} %" if name else "" for share in shares]
        lines = ([f"seed {seeds[row]}", said[0]], ["without", said[1]], ["random units", said[-1]])
        random = pictures[2][row] if len(pictures) > 2 else None
        mask = masks[0][row] if name else None
        pairs.append(Pair(pictures[0][row], pictures[1][row], random, mask, lines))
    return pairs


def _bytes(images: Tensor) -> NDArray[np.uint8]:
    """(B, 3, H, W) in [0, 1] -> (B, H, W, 3) uint8."""
    found: NDArray[np.uint8] = images.mul(255).round().byte().permute(0, 2, 3, 1).contiguous().cpu().numpy()
    return found
