"""Everything that a run's maps add to its report but the pages themselves: data, pictures, figures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from microtome.reports.maps.build import write_map
from microtome.reports.maps.candidates import write_candidates
from microtome.reports.maps.page import MapPages
from microtome.reports.source import Progress, ReadImage, ReportRun
from microtome.reports.summaries import Concepts, LayerSummary


def write_map_files(
    run: ReportRun,
    read_image: ReadImage,
    root: Path,
    layers: Sequence[LayerSummary],
    concepts: Concepts,
    samples: pd.DataFrame,
    workers: int,
    progress: Progress | None,
) -> MapPages | None:
    """Write them below the report folder `root`; None, and no file, where the run has no map. See `write_map`."""
    data = write_map(run, root, layers, concepts, samples, workers=workers, progress=progress)
    if data is None:
        return None
    write_candidates(data.maps, data.points, read_image, run.info["model"]["preprocess"], root, workers)
    return MapPages(data, samples.set_index("index")["key"].astype(str), {}, {})
