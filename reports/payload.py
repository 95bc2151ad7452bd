"""The data of a layer page: one classic script that assigns an object, so that it loads from disk.

Pages opened from disk cannot fetch; a `<script src>` can. The text is JSON that is safe inside HTML too.
"""

from __future__ import annotations

import json
import math
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from microtome.reports.histograms import LEVELS, encode_histograms
from microtome.reports.summaries import STATES, Concepts, Informed, Labels, LayerSummary
from microtome.reports.text import all_without_controls
from microtome.reports.thumbnails import SIZE, LayerPatches, thumb_shape

SCHEMA_VERSION = 1
DIGITS = 7
"""Significant digits of what pages round to three themselves: fewer would round some values twice, to another third."""

Json: TypeAlias = Any

_UNSAFE = str.maketrans({"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"})


def safe_json(value: Json) -> str:
    """JSON in ASCII that cannot end a script element or start a comment, whatever its strings hold."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"), sort_keys=True)
    return text.translate(_UNSAFE)


def data_script(name: str, value: Json) -> str:
    """A classic script that sets `window.NAME`; its strings are without controls."""
    return f"window.{name}={safe_json(all_without_controls(value))};\n"


def data_file(name: str, value: Json) -> str:
    """A classic script that hands `value` to the pages as the data file `name`: data/NAME.js in the report."""
    return (
        f"(window.MICROTOME=window.MICROTOME||[]).push([{safe_json(name)},{safe_json(all_without_controls(value))}]);\n"
    )


def rounded(values: NDArray[np.float64], digits: int = DIGITS) -> list[float | None]:
    """To `digits` significant digits; what is not finite becomes None."""
    return [float(f"{v:.{digits}g}") if math.isfinite(v) else None for v in values.astype(np.float64).tolist()]


def layer_payload(
    summary: LayerSummary,
    concepts: Concepts,
    plan: LayerPatches,
    histogram: pd.DataFrame,
    keys: dict[int, str],
    *,
    strips: str,
    bar: float,
) -> Json:
    """Everything that a layer's page and those of its units show, by column.

    strips: address of the folder with the patch strips. All addresses in it are seen from the folder of the report.
    """
    units = summary.units
    informed = summary.informed
    every = summary.labels if informed is None else [*summary.labels, informed.labels]
    used = np.unique(np.concatenate([np.r_[labels.concept, labels.best.ravel()] for labels in every]))
    used = used[used > 0]
    local = np.full(len(concepts.names), -1, np.int64)
    local[used] = np.arange(len(used))
    return {
        "schema": SCHEMA_VERSION,
        "layer": summary.entry["name"],
        "categories": concepts.categories,
        "concepts": [[concepts.names[c], int(concepts.category[c]), c] for c in used.tolist()],
        "states": list(STATES),
        "state": [STATES.index(state) if state in STATES else 0 for state in units["state"].astype(str)],
        "minimum": rounded(units["minimum"].to_numpy(np.float64)),
        "maximum": rounded(units["maximum"].to_numpy(np.float64)),
        "mean": rounded(units["mean"].to_numpy(np.float64)),
        "std": rounded(units["std"].to_numpy(np.float64)),
        "dead": rounded(units["dead_share"].to_numpy(np.float64)),
        "nan": [int(count) for count in units["nan"]],
        "positions": [int(count) for count in units["positions"]],
        "levels": LEVELS,
        "histogram": encode_histograms(units, histogram),
        "bar": bar,
        "taus": [_labels_payload(labels, local) for labels in summary.labels]
        + ([] if informed is None else [_informed_payload(informed, local)]),
        "strips": strips,
        "patches": _patches_payload(plan, keys),
    }


def _labels_payload(labels: Labels, local: NDArray[np.int64]) -> Json:
    has_val = bool(np.isfinite(labels.iou_val).any())
    return {
        "tau": labels.tau,
        "label": local[labels.concept].tolist(),
        "iou": rounded(labels.iou),
        "ceiling": rounded(labels.ceiling),
        "val": rounded(labels.iou_val) if has_val else None,
        "detector": labels.detector.astype(int).tolist(),
        "threshold": rounded(labels.threshold),
        "realised": rounded(labels.realised, 5),
        "best": local[labels.best].tolist(),
        "bestIou": [rounded(row) for row in labels.best_iou],
        "bestCeiling": [rounded(row) for row in labels.best_ceiling],
    }


def _informed_payload(informed: Informed, local: NDArray[np.int64]) -> Json:
    """The last of the "taus", whose tau is None: labels by thresholds of most information."""
    return {
        **_labels_payload(informed.labels, local),
        "tau": None,
        "information": rounded(informed.information),
        "half": rounded(informed.half),
    }


def _patches_payload(plan: LayerPatches, keys: dict[int, str]) -> Json:
    """By unit, in the order of ranks: sample (position in `keys`), value, and the share of its cell that is used."""
    order = np.lexsort((plan.rank, plan.unit))
    samples, sample = np.unique(plan.sample, return_inverse=True)
    sizes = (plan.box[:, 2:] - plan.box[:, :2])[order].tolist()
    by_unit: list[list[Json]] = [[] for _ in range(plan.units)]
    shown = (plan.unit[order].tolist(), sample[order].tolist(), rounded(plan.value[order], 4), sizes)
    for unit, at, value, (height, width) in zip(*shown, strict=True):
        rows, columns = thumb_shape(height, width)
        by_unit[unit].append([at, value, columns, rows])
    names = [keys[sample] for sample in samples.tolist()]
    return {"keys": names, "samples": samples.tolist(), "size": SIZE, "units": by_unit}
