"""A layer of one run beside a layer of another: units matched, and what became of their labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from microtome.dissect.comparing.common import Common
from microtome.dissect.comparing.concepts import layer_detectors
from microtome.dissect.comparing.correlation import without_correlation
from microtome.dissect.comparing.matching import Best, Chance, best_matches, chance_of_best, one_to_one
from microtome.dissect.comparing.streaming import correlate, in_step
from microtome.dissect.query.dissection import Dissection
from microtome.storage.errors import UsageError

MOST_PAIRS = 1 << 28
"""Pairs of units of two layers: so many correlations are 2 GB."""

SAME, CHANGED, GAINED, LOST, NONE = "same", "changed", "gained", "lost", "none"
"""What became of a label between matched units: both detect it; both detect, but not the same; only the second detects
its label; only the first; neither."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What a comparison goes by: "means" or "peaks", the fraction that labels, and the IoU that makes a detector."""

    by: str
    tau: float
    bar: float


def compare_layers(
    a: Dissection,
    b: Dissection,
    pair: tuple[str, str],
    common: Common,
    terms: Terms,
    on_samples: Callable[[int], None],
) -> dict[str, Any]:
    """Everything that is said of a pair of layers, as JSON values; on_samples: told how many more samples are done."""
    units = a.run.layer(pair[0])["units"], b.run.layer(pair[1])["units"]
    if units[0] * units[1] > MOST_PAIRS:
        raise UsageError(
            f"layers {pair[0]} and {pair[1]} have {units[0]:,} and {units[1]:,} units: too many pairs to correlate "
            f"({MOST_PAIRS:,} at most); name other layers with --layer"
        )
    blocks = in_step(a.run, pair[0], b.run, pair[1], common, terms.by)
    moments, rows = correlate(blocks, units, len(common), on_samples)
    correlation = moments.correlation()
    chance = chance_of_best(*rows)
    frames = a.units(pair[0], terms.tau), b.units(pair[1], terms.tau)
    reasons = without_correlation(moments.a), without_correlation(moments.b)
    best = best_matches(correlation), best_matches(correlation.T)
    matches = _matches(one_to_one(correlation), best, frames, chance, terms.bar)
    return {
        "a": pair[0],
        "b": pair[1],
        "samples": int(moments.count[0]),
        "detectors_a": layer_detectors(frames[0], terms.bar),
        "detectors_b": layer_detectors(frames[1], terms.bar),
        "comparable_a": sum(not why for why in reasons[0]),
        "comparable_b": sum(not why for why in reasons[1]),
        **_summary(matches),
        "chance": {"median": chance.median, "high": chance.high, "samples": chance.samples, "draws": chance.draws},
        "matches": matches,
        "units_a": _unit_rows(frames[0], best[0], reasons[0], terms.bar),
        "units_b": _unit_rows(frames[1], best[1], reasons[1], terms.bar),
    }


def _summary(matches: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """How many pairs are better than chance, how well they agree, and what became of their labels."""
    believed = [match for match in matches if match["above_chance"]]
    values = [match["correlation"] for match in believed]
    labels = [match["label"] for match in believed]
    return {
        "matched": len(believed),
        "mutual": sum(match["mutual"] for match in believed),
        "median_correlation": float(np.median(values)) if values else None,
        "labels": {word: labels.count(word) for word in (SAME, CHANGED, GAINED, LOST, NONE)},
    }


def _matches(
    match: Best, best: tuple[Best, Best], frames: tuple[pd.DataFrame, pd.DataFrame], chance: Chance, bar: float
) -> list[dict[str, Any]]:
    """The one-to-one pairs, best first, with the labels of both units and what became of them.

    mutual: each is the other's best match, too
    """
    found = []
    order = np.argsort(-match.value, kind="stable")
    one, other = (frame.set_index("unit") for frame in frames)
    labels = [list(zip(frame["concept"], frame["category"], frame["iou"], strict=True)) for frame in (one, other)]
    for unit in order[match.unit[order] >= 0].tolist():
        partner = int(match.unit[unit])
        value = float(match.value[unit])
        label_a, label_b = labels[0][unit], labels[1][partner]
        found.append(
            {
                "a": unit,
                "b": partner,
                "correlation": value,
                "mutual": bool(best[0].unit[unit] == partner and best[1].unit[partner] == unit),
                "above_chance": chance.high is not None and value > chance.high,
                "concept_a": _text(label_a[0]),
                "category_a": _text(label_a[1]),
                "iou_a": _iou(label_a[2]),
                "concept_b": _text(label_b[0]),
                "category_b": _text(label_b[1]),
                "iou_b": _iou(label_b[2]),
                "label": _label_change(label_a, label_b, bar),
            }
        )
    return found


def _label_change(label_a: tuple[Any, Any, float], label_b: tuple[Any, Any, float], bar: float) -> str:
    detects_a, detects_b = label_a[2] > bar, label_b[2] > bar
    if detects_a and detects_b:
        return SAME if label_a[:2] == label_b[:2] else CHANGED
    return LOST if detects_a else GAINED if detects_b else NONE


def _unit_rows(frame: pd.DataFrame, best: Best, reasons: Sequence[str], bar: float) -> list[dict[str, Any]]:
    """Each unit of a layer: its label, and the other layer's unit that answers most alike."""
    columns = zip(frame["concept"], frame["category"], frame["iou"], frame["state"], strict=True)
    return [
        {
            "unit": unit,
            "state": str(state),
            "concept": _text(concept),
            "category": _text(category),
            "iou": _iou(iou),
            "detector": bool(iou > bar),
            "best": None if best.unit[unit] < 0 else int(best.unit[unit]),
            "correlation": None if best.unit[unit] < 0 else float(best.value[unit]),
            "no_correlation": reasons[unit] or None,
        }
        for unit, (concept, category, iou, state) in enumerate(columns)
    ]


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _iou(value: float) -> float:
    return 0.0 if np.isnan(value) else float(value)
