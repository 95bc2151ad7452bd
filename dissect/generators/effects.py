"""What edits of a generator change: the area of every concept, before and after, on the same latents.

    segmenter = segmenter_of_run(run)
    found = paired(generator, segmenter, range(100_000, 100_256), [[ablation("layer4", (3, 17))]])
    removed(found.before, found.after[0]).value  # (K,) share of each concept's area that is gone

Images are measured as they would be written, in 8 bits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from microtome.dissect.audit.job import same_segmenter
from microtome.dissect.generators.edits import Edit, applied
from microtome.dissect.generators.generator import Generator, of_seeds
from microtome.dissect.models.generators import Latents
from microtome.dissect.models.segmenters import Segmenter
from microtome.storage.errors import UnknownNameError, UsageError
from microtome.storage.run import Run

BATCH = 32
DRAWS = 1000
INTERVAL = (2.5, 97.5)
DILATION = 1 / 32
"""A concept's mask is grown by so much of the image's shorter side before units are edited within it."""

Where = Callable[[Tensor], NDArray[np.float64]]
"""Ids of untouched images (B, P, H, W) -> how much of each pixel may be edited, (B, H, W) in [0, 1]."""


@dataclass(frozen=True, eq=False)
class Seen:
    """A batch of images and what the segmenter sees in them. images: (B, 3, H, W) float in [0, 1], in steps of 1/255;
    ids: (B, P, H, W) int64."""

    images: Tensor
    ids: Tensor


@dataclass(frozen=True, eq=False)
class Paired:
    """Areas before and after. before: (n, K), after: (m, n, K) float64, for n latents, K labels, m sets of edits."""

    before: NDArray[np.float64]
    after: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Removed:
    """Share of a concept's area that is gone, negative where there is more of it, NaN where there was none before;
    low, high: 95 % interval (percentile bootstrap over latents). Arrays of one shape, (K,)."""

    value: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]


def segmenter_of_run(run: Run, device: torch.device | None = None) -> Segmenter:
    """The run's segmenter, which sees images as it did in the audit: at its size, with its confidence.

    Raises UsageError where the run has none, RunMismatchError where it is another one now.
    """
    info = run.info.get("segmenter")
    if info is None:
        raise UsageError(
            f"{run.url} was made without a segmenter, so that nothing says what its images show; audit the generator "
            "with --segmenter SPEC"
        )
    segmenter = same_segmenter(info)
    if device is not None:
        segmenter.to(device)
    size, confidence = (info["size"][0], info["size"][1]), info["confidence"]

    def call(images: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        if (height, width) == size:
            return segmenter(images, confidence)
        seen = F.interpolate(images, size, mode="bilinear", align_corners=False, antialias=True)
        ids = segmenter(seen, confidence)
        return F.interpolate(ids.to(torch.float64), (height, width), mode="nearest-exact").long()

    return replace(segmenter, call=call)


def label_ids(segmenter: Segmenter, concept: str) -> NDArray[np.int64]:
    """The ids that carry a concept's name, in any category. Raises UnknownNameError."""
    found = np.flatnonzero([label == concept for label in segmenter.labels])
    if not len(found):
        raise UnknownNameError("concept of the segmenter", concept, segmenter.labels)
    return found.astype(np.int64)


def rivals_of(segmenter: Segmenter, concept: NDArray[np.int64]) -> NDArray[np.int64]:
    """The other labels of the categories of a concept (its ids)."""
    categories = {segmenter.categories[label] for label in concept.tolist()}
    mine = [label for label, category in enumerate(segmenter.categories) if category in categories]
    return np.setdiff1d(np.array(mine, np.int64), concept)


def areas_of(ids: Tensor, labels: int) -> NDArray[np.float64]:
    """Of ids (B, P, H, W), the share of the pixels of each of K `labels`: (B, K) float64.

    A label counts once at a pixel, however many planes carry it.
    """
    batch, planes = ids.shape[:2]
    flat = ids.flatten(2)
    rows = torch.arange(batch, device=ids.device).view(-1, 1) * (labels + 1)
    counts = torch.zeros(batch * (labels + 1), dtype=torch.int64, device=ids.device)
    for plane in range(planes):
        mine = flat[:, plane]
        again = (flat[:, :plane] == mine[:, None]).any(1)
        places = torch.where(again, 0, mine + 1) + rows  # what is unlabelled counts at 0, and is dropped
        counts += torch.bincount(places.flatten(), minlength=len(counts))
    found: NDArray[np.int64] = counts.view(batch, labels + 1)[:, 1:].cpu().numpy()
    return found / flat.shape[2]


def mask_of(ids: Tensor, concept: NDArray[np.int64], dilation: float = DILATION) -> NDArray[np.float64]:
    """Where a concept (its ids) is, grown by `dilation` of the shorter side: (B, H, W), 0 or 1."""
    wanted = torch.from_numpy(concept).to(ids.device)
    mask = torch.isin(ids, wanted).any(1, keepdim=True).float()
    reach = max(1, round(dilation * min(mask.shape[-2:]))) if dilation > 0 else 0
    grown = F.max_pool2d(mask, 2 * reach + 1, stride=1, padding=reach)[:, 0]
    return grown.double().cpu().numpy()


def paired(
    generator: Generator,
    segmenter: Segmenter,
    seeds: Sequence[int],
    edits: Sequence[Sequence[Edit]],
    *,
    batch: int = BATCH,
    where: Where | None = None,
    advance: Callable[[int], None] | None = None,
) -> Paired:
    """Areas of every label in the images of `seeds`, untouched and with each set of edits.

    where: limits the edits of an image by what is in it untouched (`mask_of`); advance: told how many images are done,
    of len(seeds) * (1 + len(edits)).
    """
    labels = len(segmenter.labels)
    before = np.empty((len(seeds), labels))
    after = np.empty((len(edits), len(seeds), labels))
    start = 0
    for untouched, changed in passes(generator, segmenter, seeds, edits, batch=batch, where=where):
        rows = slice(start, start + len(untouched.images))
        start = rows.stop
        before[rows] = areas_of(untouched.ids, labels)
        tell(advance, len(untouched.images))
        for number, seen in enumerate(changed):
            after[number, rows] = areas_of(seen.ids, labels)
            tell(advance, len(seen.images))
    return Paired(before, after)


def passes(
    generator: Generator,
    segmenter: Segmenter,
    seeds: Sequence[int],
    edits: Sequence[Sequence[Edit]],
    *,
    batch: int = BATCH,
    where: Where | None = None,
) -> Iterator[tuple[Seen, Iterator[Seen]]]:
    """The images of `seeds` batch by batch: untouched, and one after the other with each set of edits."""
    for start in range(0, len(seeds), batch):
        part = seeds[start : start + batch]
        latents = generator.latents(part)
        with of_seeds(part):
            images = images_of(generator, latents)
        untouched = seen_by(segmenter, images)
        limits = None if where is None else where(untouched.ids)

        def changed(latents: Latents = latents, limits: NDArray[np.float64] | None = limits) -> Iterator[Seen]:
            for one in edits:
                with applied(generator.model, one, limits):
                    images = images_of(generator, latents)
                yield seen_by(segmenter, images)

        yield untouched, changed()


def seen_by(segmenter: Segmenter, images: Tensor) -> Seen:
    """Images with their ids."""
    return Seen(images, segmenter(images))


def removed(before: NDArray[np.float64], after: NDArray[np.float64], *, draws: int = DRAWS, seed: int = 0) -> Removed:
    """The share of area removed, 1 - sum(after) / sum(before), over latents (n, K) each.

    The interval is the percentile bootstrap (Efron, 1979) over latents.
    """
    weights = resampled(len(before), draws, seed)
    value = _share_removed(before.sum(axis=0), after.sum(axis=0))
    low, high = _interval(_share_removed(weights @ before, weights @ after))
    return Removed(value, low, high)


def removed_on_average(
    before: NDArray[np.float64], after: NDArray[np.float64], *, draws: int = DRAWS, seed: int = 0
) -> Removed:
    """The mean of the share removed over sets of edits, after (m, n, K); its interval resamples latents and sets."""
    weights = resampled(len(before), draws, seed)
    each = _share_removed(before.sum(axis=0), after.sum(axis=1))
    sets = resampled(len(after), draws, seed + 1) / len(after)
    drawn_before = weights @ before
    drawn = np.stack([weights @ one for one in after])  # (m, draws, K)
    mixed = np.einsum("dm,mdk->dk", sets, drawn)
    low, high = _interval(_share_removed(drawn_before, mixed))
    return Removed(each.mean(axis=0), low, high)


def images_of(generator: Generator, latents: Latents) -> Tensor:
    """Images in steps of 1/255, as they would be written, (B, 3, H, W) in [0, 1]. Raises NonFiniteImageError."""
    with torch.no_grad():
        images: Tensor = generator.images(latents).mul(255.0).add_(0.5).floor_().div_(255.0)
    return images


def resampled(count: int, draws: int, seed: int) -> NDArray[np.float64]:
    """(draws, count) float64: how often each of `count` is drawn, in draws of as many with replacement."""
    return np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), draws).astype(np.float64)


def _share_removed(before: NDArray[np.float64], after: NDArray[np.float64]) -> NDArray[np.float64]:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(before > 0, 1 - after / before, np.nan)


def _interval(drawn: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Percentiles over the first axis; draws without the concept are left out, NaN where all are."""
    low, high = np.full((2, drawn.shape[1]), np.nan)
    known = ~np.isnan(drawn)
    for column in np.flatnonzero(known.any(axis=0)).tolist():
        low[column], high[column] = np.percentile(drawn[known[:, column], column], INTERVAL)
    return low, high


def tell(advance: Callable[[int], None] | None, images: int) -> None:
    """Let whoever wants to know hear that so many more images are done."""
    if advance is not None:
        advance(images)
