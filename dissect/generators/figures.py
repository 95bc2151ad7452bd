"""The figures of an ablation of a generator, as they are kept: concepts, dose curve, side effects."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from microtome.dissect.attribution.checks.intervals import bootstrap
from microtome.dissect.generators.effects import DILATION, Paired, Removed, removed, removed_on_average
from microtome.dissect.generators.looking import Looked
from microtome.dissect.generators.perceptual import NAMED
from microtome.dissect.models.segmenters import Segmenter

LEAST_AREA = 0.005
"""A concept below this share of the images is none of those that side effects are told by."""


def names_of(segmenter: Segmenter) -> list[str]:
    """A name for each label: with its category where several have the same."""
    count = Counter(segmenter.labels)
    return [
        label if count[label] == 1 else f"{label} ({category})"
        for label, category in zip(segmenter.labels, segmenter.categories, strict=True)
    ]


def concept_rows(segmenter: Segmenter, looked: Looked) -> dict[str, dict[str, Any]]:
    """What becomes of every concept that was there, or is there now, by name.

    area, area_after: mean share of the images; images: how many have any of it; removed: the share of its area that is
    gone, with the interval over latents; removed_random: the mean over the random sets, its interval over latents and
    sets, and the range of the sets. None where there was nothing to remove.
    """
    before, chosen, random = looked.areas.before, looked.areas.after[0], looked.areas.after[1:]
    mine = removed(before, chosen)
    others = removed_on_average(before, random) if len(random) else None
    rows: dict[str, dict[str, Any]] = {}
    for label, name in enumerate(names_of(segmenter)):
        if not before[:, label].any() and not looked.areas.after[:, :, label].any():
            continue
        rows[name] = {
            "category": segmenter.categories[label],
            "area": float(before[:, label].mean()),
            "area_after": float(chosen[:, label].mean()),
            "images": int((before[:, label] > 0).sum()),
            **share_told(mine, label, "removed", "interval"),
            **share_told(others, label, "removed_random", "random_interval"),
            "random_range": _range(before[:, label], random[:, :, label]),
        }
    return rows


def dose_points(concept: NDArray[np.int64], doses: Sequence[int], dose: Paired, draws: int) -> list[dict[str, Any]]:
    """How much of the concept goes with 1, 2, 4, ... of the best units, and of random ones beside them."""
    if not doses:
        return []
    before = dose.before[:, concept].sum(axis=1, keepdims=True)
    after = dose.after[:, :, concept].sum(axis=2, keepdims=True)
    points = []
    for number, size in enumerate(doses):
        first = number * (1 + draws)
        random = after[first + 1 : first + 1 + draws]
        points.append(
            {
                "units": size,
                **share_told(removed(before, after[first]), 0, "removed", "interval"),
                **share_told(
                    removed_on_average(before, random) if draws else None, 0, "removed_random", "random_interval"
                ),
                "samples": len(before),
            }
        )
    return points


def side_effects(segmenter: Segmenter, concept: NDArray[np.int64], looked: Looked) -> dict[str, Any]:
    """What else changes: the area that other concepts lose, the one that loses most, and images outside the mask."""
    before, after = looked.areas.before, looked.areas.after
    others = np.setdiff1d(np.arange(before.shape[1]), concept)
    lost = [_lost(before[:, others], one[:, others]) for one in after]
    random = [share for share in lost[1:] if share is not None]
    large = others[before[:, others].mean(axis=0) >= LEAST_AREA]
    most = None
    if len(large):
        shares = removed(before[:, large], after[0][:, large])
        at = int(np.argmax(shares.value))
        most = {"concept": names_of(segmenter)[large[at]], **share_told(shares, at, "removed", "interval")}
    return {
        "others_lose": lost[0],
        "others_lose_random": float(np.mean(random)) if random else None,
        "most": most,
        "outside": f"outside the concept's mask, grown by {DILATION:g} of the side" if len(concept) else "everywhere",
        "pixels": _change([one.pixels for one in looked.outside], "mean absolute difference, of 1"),
        "features": _change([one.features for one in looked.outside], f"mean squared distance of {NAMED}"),
    }


def _lost(before: NDArray[np.float64], after: NDArray[np.float64]) -> float | None:
    """The share of their area that those concepts lose that shrink, of the area of all."""
    was, now = before.sum(axis=0), after.sum(axis=0)
    return float(np.maximum(was - now, 0).sum() / was.sum()) if was.sum() else None


def _change(values: Sequence[NDArray[np.float64]], words: str) -> dict[str, Any]:
    mine = bootstrap(values[0])
    random = bootstrap(mean_of_known(np.stack(values[1:]))) if len(values) > 1 else None
    return {
        "of": words,
        "mean": _number(mine.mean),
        "interval": [_number(mine.low), _number(mine.high)],
        "mean_random": None if random is None else _number(random.mean),
    }


def mean_of_known(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """(m, n) -> (n,) means over those that are not NaN; NaN where all are."""
    known = ~np.isnan(values)
    total = np.where(known, values, 0.0).sum(axis=0)
    means: NDArray[np.float64] = np.full(total.shape, np.nan)
    np.divide(total, known.sum(axis=0), out=means, where=known.any(axis=0))
    return means


def share_told(found: Removed | None, label: int, value: str, interval: str) -> dict[str, Any]:
    """The removed share of a label as a result has it, under the names `value` and `interval`; None where it is not
    known."""
    if found is None or np.isnan(found.value[label]):
        return {value: None, interval: None}
    return {value: float(found.value[label]), interval: [_number(found.low[label]), _number(found.high[label])]}


def _range(before: NDArray[np.float64], random: NDArray[np.float64]) -> list[float] | None:
    if not len(random) or not before.sum():
        return None
    shares = 1 - random.sum(axis=1) / before.sum()
    return [float(shares.min()), float(shares.max())]


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
