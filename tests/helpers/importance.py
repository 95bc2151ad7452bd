"""Importance and ablations planted into a made-up run, in the form that `microtome importance` and `ablate` write."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import pandas as pd

from microtome.storage.run import Run

Falls = Mapping[tuple[int, int], tuple[float, float]]
"""(unit, class) -> fall in accuracy, fall in probability; all others are 0."""


def plant_importance(
    run: Run,
    layer: str,
    classes: Sequence[str],
    falls: Falls,
    *,
    images: int | Sequence[int] = 20,
    accuracy: float = 0.9,
    truth: str = "labels",
) -> None:
    """Write importance.parquet of `layer` and what run.json says of it."""
    units, count = run.layer(layer)["units"], len(classes)
    of_class = np.full(count, images, np.int64) if isinstance(images, int) else np.array(images, np.int64)
    unit, number = np.divmod(np.arange(units * count), count)
    fall, probability_fall = np.zeros((2, units, count))
    for place, (lost, probability) in falls.items():
        fall[place], probability_fall[place] = lost, probability
    table = _table(unit, number, of_class[number], accuracy, fall.ravel(), probability_fall.ravel())
    whole = [(values @ of_class) / of_class.sum() for values in (fall, probability_fall)]
    total = np.full(units, of_class.sum())
    overall = _table(np.arange(units), np.full(units, -1), total, accuracy, whole[0], whole[1])
    frame = pd.concat([table[table["images"] > 0], overall]).sort_values(["unit", "class"], ignore_index=True)
    run.write_layer_table(layer, "importance", frame)
    info = cast("dict[str, Any]", run.info)
    info.setdefault("importance", {})[layer] = {
        "classes": list(classes),
        "truth": truth,
        "value": "zero",
        "images": int(of_class.sum()),
        "seconds": 1.5,
        "accuracy": accuracy,
    }
    run.save()


def _table(unit: Any, number: Any, images: Any, accuracy: float, fall: Any, probability_fall: Any) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "unit": unit,
            "class": number,
            "images": images,
            "accuracy": accuracy,
            "accuracy_without": accuracy - fall,
            "fall": fall,
            "probability": 0.8,
            "probability_without": 0.8 - probability_fall,
            "probability_fall": probability_fall,
        }
    )


def ablation(name: str, layer: str, units: Sequence[int], falls: Mapping[str, float], **other: Any) -> dict[str, Any]:
    """What `microtome ablate` keeps; random sets lose 1 point in the middle."""
    random = {"mean": 0.01, "low": -0.005, "high": 0.03, "min": -0.01, "max": 0.04}
    rows = [
        {
            "class": which,
            "images": 100 if which == "all" else 20,
            "accuracy": 0.9,
            "accuracy_without": 0.9 - fall,
            "fall": fall,
            "random": dict(random),
        }
        for which, fall in falls.items()
    ]
    return {
        "schema_version": 1,
        "name": name,
        "layer": layer,
        "units": list(units),
        "chosen_by": "the units that beach needs most",
        "value": "zero",
        "truth": "labels",
        "images": 100,
        "draws": 20,
        "seed": 0,
        "rows": rows,
        **other,
    }


def keep_ablation(run: Run, content: object, name: str = "first") -> None:
    """Write RUN/ablations/NAME.json; bytes go there as they are."""
    data = content if isinstance(content, bytes) else json.dumps(content).encode()
    run.place.write(f"ablations/{name}.json", data)
