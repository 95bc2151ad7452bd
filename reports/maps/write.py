"""Everything that a run's maps add to its report but the pages themselves: data, pictures, figures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote

import pandas as pd
from PIL import Image

from microtome.reports.maps.build import write_map
from microtome.reports.maps.candidates import shown_candidates, write_candidates
from microtome.reports.maps.files import picture_address
from microtome.reports.maps.page import MapPages, Picture
from microtome.reports.maps.picture import write_picture
from microtome.reports.maps.points import LayerMap
from microtome.reports.maps.variance import Variance
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
    pictures = {one.entry["name"]: _picture(run, one, root) for one in data.maps}
    shown = {sample for one in data.maps for sample in shown_candidates(one, data.points).tolist()}
    keys = samples.loc[samples["index"].isin(shown)].set_index("index")["key"].astype(str)
    return MapPages(data, keys, pictures, {one.entry["name"]: _variance(run, one) for one in data.maps})


def _picture(run: ReportRun, one: LayerMap, root: Path) -> Picture:
    """Draw the picture of a map."""
    address = picture_address(one.entry["folder"])
    path = root / unquote(address)
    write_picture(run, one.entry["name"], path)
    with Image.open(path) as image:
        return Picture(address, *image.size)


def _variance(run: ReportRun, one: LayerMap) -> Variance | None:
    name = one.entry["name"]
    if not run.has_layer_table(name, "components"):
        return None
    return Variance.of(run.layer_table(name, "components"))
