"""Tables of thresholds of most information for runs that helpers.runs makes up."""

from __future__ import annotations

import numpy as np
import pandas as pd
from helpers.runs import NAMES

from microtome.storage.run import Run
from microtome.storage.schema import StageInfo


def add_information(run: Run, *, seed: int = 0) -> None:
    """Write information.parquet of every layer: several concepts for each unit but every fifth."""
    rng = np.random.default_rng(seed)
    for layer in run.info["layers"]:
        rows = []
        for unit in range(layer["units"]):
            for concept in rng.permutation(len(NAMES))[: 0 if unit % 5 == 4 else 4].tolist():
                half, threshold = round(float(rng.random()), 2), float(rng.uniform(0, 3))
                iou, share, ratio = half * 0.9, float(rng.uniform(0.01, 0.5)), half / 2
                rows.append((unit, concept + 1, threshold, ratio, share, half, iou, iou, 90, 100, 90))
        columns = ["unit", "concept", "threshold", "information", "share", "iou_half", "iou", "ceiling"]
        columns += ["intersection", "unit_pixels", "concept_pixels"]
        run.write_layer_table(layer["name"], "information", pd.DataFrame(rows, columns=columns))
        run.write_layer_table(layer["name"], "units", run.layer_table(layer["name"], "units").assign(infinite=0))
    run.info["stages"]["information"] = StageInfo(state="done", seconds=1.0)
    run.save()
