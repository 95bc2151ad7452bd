"""What became of images that were repaired: scores and Frechet distances, before, after and by random sets."""

from __future__ import annotations

from typing import Any

import numpy as np

from microtome.dissect.attribution.checks.intervals import bootstrap
from microtome.dissect.generators.features import Features, Frechet

FRECHET_DRAWS = 40
"""Draws of latents behind the interval of a difference of Frechet distances."""


def scored(scores: Features, sign: int, share: float) -> dict[str, Any]:
    """Of scores (2 + draws, n): before, after and by random sets; of all images, and of those worst before.

    change: after less before, with its interval over latents, as the score is given; better: by how much less bad.
    """
    count = max(1, round(share * scores.shape[1]))
    worst = np.argsort(-sign * scores[0], kind="stable")[:count]
    return {"all": _change(scores, sign), "worst": _change(scores[:, worst], sign)}


def _change(scores: Features, sign: int) -> dict[str, Any]:
    before, after, random = scores[0], scores[1], scores[2:]
    change = bootstrap(after - before)
    row: dict[str, Any] = {
        "images": scores.shape[1],
        "before": float(before.mean()),
        "after": float(after.mean()),
        "change": change.mean,
        "interval": [change.low, change.high],
        "random": None,
        "verdict": verdict((sign * change.low, sign * change.high), None),
    }
    if len(random):
        each = (random - before).mean(axis=1)
        apart = bootstrap((after - random).mean(axis=0))
        row["random"] = {"change": float(each.mean()), "range": [float(each.min()), float(each.max())]}
        row["verdict"] = verdict((sign * change.low, sign * change.high), (sign * apart.low, sign * apart.high))
    return row


def verdict(change: tuple[float, float], apart: tuple[float, float] | None) -> str:
    """Of the intervals of what became worse, after the repair and against random sets: better, no better than random,
    unclear or worse."""
    if max(change) < 0:
        return "better" if apart is None or max(apart) < 0 else "no better than random"
    return "worse" if min(change) > 0 else "unclear"


def frechet_of(real: Features, features: Features, seed: int) -> dict[str, Any]:
    """The Frechet distances of features (2 + draws, n, d) to real ones; the difference's interval is over latents."""
    distance = Frechet(real)
    before, after, *random = (distance(one) for one in features)
    chances = np.random.default_rng(seed)
    count = features.shape[1]
    drawn = []
    for _ in range(FRECHET_DRAWS):
        rows = chances.integers(0, count, count)
        drawn.append(distance(features[1, rows]) - distance(features[0, rows]))
    low, high = np.percentile(drawn, [2.5, 97.5]).tolist()
    beyond = None if not random else (-1.0, -1.0) if after < min(random) else (0.0, 0.0)
    return {
        "before": before,
        "after": after,
        "interval": [low, high],
        "random": None if not random else {"mean": float(np.mean(random)), "range": [min(random), max(random)]},
        "verdict": verdict((low, high), beyond),
        "images": count,
        "few": count <= features.shape[2],
    }
