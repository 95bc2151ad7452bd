"""What becomes of units that are forced to a high value at a place: where a concept can be painted in.

The experiment with doors of Bau, Zhu, Strobelt, Zhou, Tenenbaum, Freeman and Torralba, "GAN Dissection", ICLR 2019,
section 4.3: the same units, forced in the same way at one place after the other, draw their object in some contexts and
not in others. The context of a place is the concept that most of it showed before.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from microtome.dissect.generators.edits import Edit, Region
from microtome.dissect.generators.effects import BATCH, DRAWS, INTERVAL, areas_of, passes, resampled, tell
from microtome.dissect.generators.generator import Generator
from microtome.dissect.models.segmenters import Segmenter
from microtome.storage.errors import UsageError

Box = tuple[float, float, float, float]
"""Top, left, bottom, right, as fractions of the image."""

UNLABELLED = -1
TOOK = 0.1
"""An insertion took where the concept newly covers so much of the place."""

LEAST_LATENTS = 5
"""Of fewer latents there is no interval, and no verdict."""


@dataclass(frozen=True, eq=False)
class Inserted:
    """What insertions brought, for n latents, R places and m sets of units, the first of them the chosen ones.

    context: (n, R) int64, the label that most of the place showed before, UNLABELLED for none; held: (n, R), the share
    of the place that was the concept already; new: (m, n, R), the share of the place that newly is; anywhere:
    (m, n, R), the share of the whole image that newly is; changed: (m, n, R), how much the pixels of the place change,
    the mean absolute difference in [0, 1]; all float64.
    """

    context: NDArray[np.int64]
    held: NDArray[np.float64]
    new: NDArray[np.float64]
    anywhere: NDArray[np.float64]
    changed: NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A mean and its 95 % interval (percentile bootstrap over latents, which keeps the places of a latent together);
    None of fewer than LEAST_LATENTS latents."""

    mean: float
    interval: tuple[float, float] | None


@dataclass(frozen=True)
class Context:
    """What insertions brought in one context: over `places` pairs of a latent and a place, of `latents` latents.

    new, anywhere, took, changed: by the chosen units; random: `new` by random units; gain: new less random, paired.
    """

    label: int | None
    places: int
    latents: int
    held: Estimate
    new: Estimate
    anywhere: Estimate
    took: Estimate
    changed: Estimate
    random: Estimate | None
    random_took: Estimate | None
    gain: Estimate | None

    @property
    def verdict(self) -> str:
        """takes: the concept came beyond doubt, more than by random units, and to TOOK of the place on average;
        refuses: beyond doubt it did not come to TOOK of it; else seldom or unclear."""
        if self.new.interval is None:
            return "too few"
        low, high = self.new.interval
        beyond_random = self.gain is None or (self.gain.interval is not None and self.gain.interval[0] > 0)
        if low >= TOOK and beyond_random:
            return "takes"
        return "refuses" if high < TOOK else "unclear"


def grid_of_places(rows: int, columns: int, size: tuple[float, float]) -> list[Box]:
    """Boxes of `size` (height, width, as fractions of the image) at evenly spaced places, from one corner to the other,
    row by row. Raises UsageError where they do not fit."""
    height, width = size
    if min(rows, columns) < 1 or not (0 < height <= 1 and 0 < width <= 1):
        raise UsageError(
            f"a grid of {rows}x{columns} places of {height:g} by {width:g} of the image: give 1x1 or more, and a size "
            "above 0 and up to 1"
        )
    tops, lefts = (_starts(count, side) for count, side in ((rows, height), (columns, width)))
    return [(top, left, min(top + height, 1.0), min(left + width, 1.0)) for top in tops for left in lefts]


def _starts(count: int, side: float) -> list[float]:
    if count == 1:
        return [(1 - side) / 2]
    return [(1 - side) * number / (count - 1) for number in range(count)]


def pixels_of(box: Box, size: tuple[int, int]) -> NDArray[np.bool_]:
    """(H, W) the pixels whose centres lie in the box; where there is none, the pixel at its middle."""
    top, left, bottom, right = box
    rows, columns = ((np.arange(side) + 0.5) / side for side in size)
    inside = np.outer((rows >= top) & (rows < bottom), (columns >= left) & (columns < right))
    if not inside.any():
        inside[int((top + bottom) / 2 * size[0]), int((left + right) / 2 * size[1])] = True
    return inside


def insert(
    generator: Generator,
    segmenter: Segmenter,
    seeds: Sequence[int],
    sets: Sequence[Edit],
    places: Sequence[Box],
    concept: NDArray[np.int64],
    *,
    batch: int = BATCH,
    advance: Callable[[int], None] | None = None,
) -> Inserted:
    """Apply each of `sets` (without regions, the chosen units first) at each place, in the image of each seed.

    concept: the segmenter's ids of what is to appear; advance: told how many images are done, of
    len(seeds) * (1 + len(sets) * len(places)).
    """
    edits = [
        [Edit(one.layer, one.units, one.values, Region.box(*place), one.strength)] for one in sets for place in places
    ]
    count, held_places = len(seeds), len(places)
    context = np.empty((count, held_places), np.int64)
    held = np.empty((count, held_places))
    new, anywhere, changes = np.empty((3, len(edits), count))
    masks = torch.from_numpy(np.stack([pixels_of(place, generator.size) for place in places]))
    start = 0
    for untouched, changed in passes(generator, segmenter, seeds, edits, batch=batch):
        ids = untouched.ids
        rows = slice(start, start + len(ids))
        start = rows.stop
        wanted, inside = torch.from_numpy(concept).to(ids.device), masks.to(ids.device)
        before = torch.isin(ids, wanted).any(1)
        context[rows] = contexts(ids, inside, len(segmenter.labels))
        held[rows] = _shares(before, inside)
        tell(advance, len(ids))
        for number, seen in enumerate(changed):
            came = torch.isin(seen.ids, wanted).any(1) & ~before
            place = number % held_places
            new[number, rows] = _shares(came, inside[place : place + 1])[:, 0]
            difference = (seen.images - untouched.images).abs().mean(1)
            changes[number, rows] = _shares(difference, inside[place : place + 1])[:, 0]
            anywhere[number, rows] = came.double().mean((1, 2)).cpu().numpy()
            tell(advance, len(ids))
    shape = (len(sets), held_places, count)
    return Inserted(
        context, held, *(found.reshape(shape).transpose(0, 2, 1).copy() for found in (new, anywhere, changes))
    )


def contexts(ids: Tensor, places: Tensor, labels: int) -> NDArray[np.int64]:
    """What most of each place shows: ids (B, P, H, W), places (R, H, W) bool -> (B, R) labels, of equals the first;
    UNLABELLED where more pixels have no label in any plane than have the commonest one."""
    found = np.empty((len(ids), len(places)), np.int64)
    for number, inside in enumerate(places):
        here = ids[:, :, inside]
        shares = areas_of(here.unsqueeze(2), labels)
        unlabelled = (here < 0).all(1).double().mean(1).cpu().numpy()
        found[:, number] = np.where(unlabelled > shares.max(axis=1), UNLABELLED, shares.argmax(axis=1))
    return found


def _shares(values: Tensor, places: Tensor) -> NDArray[np.float64]:
    """values (B, H, W), places (R, H, W) bool -> (B, R): means over each place; of a mask, the share that it covers."""
    inside = places.flatten(1).double()
    shares: NDArray[np.float64] = ((values.flatten(1).double() @ inside.T) / inside.sum(1)).cpu().numpy()
    return shares


def by_context(found: Inserted, *, draws: int = DRAWS, seed: int = 0) -> list[Context]:
    """The contexts that occur, those first in which most is new (those of few latents last)."""
    weights = resampled(len(found.context), draws, seed)
    rows = [_context(found, int(label), weights) for label in np.unique(found.context)]
    return sorted(rows, key=lambda row: (row.new.interval is None, -row.new.mean, row.label or 0))


def overall(found: Inserted, *, draws: int = DRAWS, seed: int = 0) -> Context:
    """All places together, whatever they showed."""
    return _context(found, None, resampled(len(found.context), draws, seed))


def _context(found: Inserted, label: int | None, weights: NDArray[np.float64]) -> Context:
    inside = np.ones_like(found.context, np.bool_) if label is None else found.context == label

    def estimate(values: NDArray[np.float64]) -> Estimate:
        return _estimate(values, inside, weights)

    new = found.new
    random = new[1:].mean(axis=0) if len(new) > 1 else None
    return Context(
        label=label,
        places=int(inside.sum()),
        latents=int(inside.any(axis=1).sum()),
        held=estimate(found.held),
        new=estimate(new[0]),
        anywhere=estimate(found.anywhere[0]),
        took=estimate((new[0] >= TOOK).astype(np.float64)),
        changed=estimate(found.changed[0]),
        random=None if random is None else estimate(random),
        random_took=None if random is None else estimate((new[1:] >= TOOK).mean(axis=0)),
        gain=None if random is None else estimate(new[0] - random),
    )


def _estimate(values: NDArray[np.float64], inside: NDArray[np.bool_], weights: NDArray[np.float64]) -> Estimate:
    """Mean of values (n, R) over the pairs `inside` (n, R), latents drawn with `weights` (draws, n)."""
    sums, counts = np.where(inside, values, 0.0).sum(axis=1), inside.sum(axis=1)
    mean = float(sums.sum() / counts.sum())
    if (counts > 0).sum() < LEAST_LATENTS:
        return Estimate(mean, None)
    drawn = weights @ counts
    means = (weights @ sums)[drawn > 0] / drawn[drawn > 0]
    low, high = np.percentile(means, INTERVAL).tolist()
    return Estimate(mean, (low, high))
