"""How far results move when the model computes in less than float32: the same audit in each arithmetic, compared."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pandas as pd

from microtome.dissect import AuditConfig, run_audit

MODEL = "builtin:scenes-cnn"
LAYERS = ("block?",)
TAU = 0.04
LESS = ("bfloat16", "float16")


def run(quick: bool) -> dict[str, Any]:
    """Thresholds, IoUs and labels of every unit that is not dead or constant, against those of float32."""
    count = 100 if quick else 500
    with tempfile.TemporaryDirectory() as folder:
        exact, *others = (_units(precision, count, Path(folder)) for precision in ("float32", *LESS))
        rows = [_compared(precision, exact, units) for precision, units in zip(LESS, others, strict=True)]
    return {"audit": f"{MODEL}, {', '.join(LAYERS)}, {count} scenes, tau {TAU}, on the CPU", "against float32": rows}


def _units(precision: str, count: int, folder: Path) -> pd.DataFrame:
    config = AuditConfig(
        model=MODEL,
        dataset=f"scenes:{count}",
        layers=LAYERS,
        out=folder / precision,
        tau=(TAU,),
        precision=precision,
        device="cpu",
    )
    done = run_audit(config).run
    return pd.concat([done.layer_table(name, "units") for name in done.layer_names], ignore_index=True)


def _compared(precision: str, exact: pd.DataFrame, units: pd.DataFrame) -> dict[str, object]:
    well = (exact["state"] == "ok") & (units["state"] == "ok")
    one, other = exact[well], units[well]
    thresholds = (other["threshold"] - one["threshold"]).abs() / one["threshold"].abs()
    ious = (other["iou"] - one["iou"]).abs()
    return {
        "precision": precision,
        "units": int(well.sum()),
        "states that differ": int((exact["state"] != units["state"]).sum()),
        "threshold, median": float(thresholds.median()),
        "threshold, largest": float(thresholds.max()),
        "IoU, median": float(ious.median()),
        "IoU, largest": float(ious.max()),
        "labels that differ": int((one["concept_id"] != other["concept_id"]).sum()),
        "detectors that differ": int((one["is_detector"] != other["is_detector"]).sum()),
    }
