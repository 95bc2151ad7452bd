"""Maps of runs that are too small for one: principal components, as stage map leaves them."""

from __future__ import annotations

from helpers.maps import plant_maps

from microtome.reports.maps.quality import FLAT
from microtome.storage.run import Run


def plant_flat(run: Run, layer: str) -> None:
    """Give every layer of `run` a map; that of `layer` is of principal components."""
    plant_maps(run)
    info = run.info["map"][layer]
    info["engine"] = FLAT
    info["aligned_to"] = run.layer_names[-1]
    table = run.layer_table(layer, "map")
    run.write_layer_table(layer, "map", table.assign(x=table["pca_x"], y=table["pca_y"]))
    run.save()
