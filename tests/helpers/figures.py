"""Layers made up for figures: any number of them, with any names, and labels that are known."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import pandas as pd

from microtome.reports.summaries import Concepts, Labels, LayerSummary

HOSTILE_NAMES = (
    "<script>alert(1)</script>",
    "</title></svg><img src=x onerror=alert(2)>",
    "a\u202eb\u2066c",
    "x" * 10_000,
    "\u05d0\u05d1\u05d2",
    "模型层" * 30,
    "$\\frac{a}{b}$",
    "line\nbreak\ttab",
    "\x00\x1b[31m\ufffe\ud800",
    "&amp;\"'../../etc",
)


def made_concepts(categories: Sequence[str] = ("object", "part", "mood")) -> Concepts:
    """Four concepts of each category."""
    names = [f"{category} {number}" for category in categories for number in range(4)]
    return Concepts.of(
        pd.DataFrame(
            {
                "id": np.arange(1, len(names) + 1),
                "name": names,
                "category": np.repeat(list(categories), 4),
                "images": 5,
                "pixels": 50,
            }
        )
    )


def made_layer(name: str, concepts: Concepts, *, units: int = 24, seed: int = 0, best: float = 0.3) -> LayerSummary:
    """A layer whose units have an IoU of up to `best`; the first has no label at all."""
    rng = np.random.default_rng(seed)
    concept = rng.integers(1, len(concepts.names), units)
    iou = rng.uniform(0, best, units)
    concept[:1], iou[:1] = 0, np.nan
    nothing = np.full(units, np.nan)
    labels = Labels(
        tau=0.005,
        concept=concept,
        iou=iou,
        ceiling=nothing,
        iou_val=nothing,
        detector=iou > 0.04,
        best=concept[:, None],
        best_iou=iou[:, None],
        best_ceiling=nothing[:, None],
        threshold=nothing,
        realised=nothing,
        by_category=[0] * len(concepts.categories),
        reach=np.full(len(concepts.names), np.nan),
    )
    entry = cast("Any", {"name": name, "units": units, "folder": "made"})
    return LayerSummary(entry, pd.DataFrame({"unit": range(units)}), [labels])
