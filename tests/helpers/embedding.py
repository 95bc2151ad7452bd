"""Runs whose layers have the means that a test wants."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from helpers.runs import write_run
from numpy.typing import NDArray

from microtome.storage.arrays import MEANS, layer_array
from microtome.storage.run import Run


def run_with_means(path: Path, means: NDArray[np.floating], unreadable: int = 3) -> tuple[Run, str]:
    """A run whose first layer has `means` (N, C); its last samples are unreadable."""
    samples = len(means)
    run = write_run(path, samples=samples, unreadable=unreadable)
    entry = run.info["layers"][0]
    entry["units"] = means.shape[1]
    stored = means.astype(np.float32)
    stored[samples - unreadable :] = np.nan
    name = layer_array(entry["folder"], MEANS)
    run.arrays.create(name, means.shape[1:], "float32")
    for shard, rows in enumerate(run.plan):
        run.arrays.write_shard(name, shard, stored[rows.start : rows.stop])
    return run, entry["name"]
