"""The data files of a report: what its scripts show of layers, units and concepts, as classic scripts in data/."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pandas as pd

from microtome.reports.concept_units import concept_files, depths
from microtome.reports.contents import Contents, ReportLayer
from microtome.reports.explained import layer_pictures
from microtome.reports.listing import layer_data, listing_payload
from microtome.reports.matrix import classes_payload
from microtome.reports.pages import LayerFiles, category_classes
from microtome.reports.payload import Json, data_file, layer_payload
from microtome.reports.strip_shapes import strip_shapes


def write_data(contents: Contents, folder: Path) -> None:
    """Write data/layers/, data/concepts/ and data/depths.js into the report `folder`."""
    (folder / "data" / "layers").mkdir(parents=True)
    keys = contents.samples.set_index("index")["key"]
    for number, layer in enumerate(contents.layers):
        _write(folder, layer_data(layer.folder), _layer(contents, number, layer, keys))
    (folder / "data" / "concepts").mkdir()
    shapes = [strip_shapes(layer.plan) for layer in contents.layers]
    for file, content in concept_files(contents.units, shapes, contents.concepts):
        _write(folder, f"concepts/{file}", content)
    _write(folder, "depths", depths(contents.units, shapes, contents.concepts))


def write_listing(
    contents: Contents, folder: Path, classes: Mapping[str, str], pages: Sequence[tuple[str, str]]
) -> None:
    """Write data/index.js, what can be searched. classes, pages: names and their addresses in the report."""
    listed = listing_payload(contents.summaries, contents.units, contents.concepts, contents.bar, classes, pages)
    _write(folder, "index", listed)


def _layer(contents: Contents, number: int, layer: ReportLayer, keys: pd.Series[Any]) -> Json:
    """What the file of a layer holds; keys: of the samples, by index."""
    used = sorted(set(layer.plan.sample.tolist()))
    payload = layer_payload(
        layer.summary,
        contents.concepts,
        layer.plan,
        contents.run.layer_table(layer.name, "histogram"),
        dict(zip(used, keys.reindex(used).astype(str), strict=True)),
        strips=LayerFiles.of(layer.folder).strips,
        bar=contents.bar,
    )
    payload.update(number=number, categoryStyles=category_classes(contents.concepts.categories))
    if contents.classes is not None and layer.importance is not None:
        addresses = contents.classes.addresses[layer.importance.layer]
        payload["classes"] = classes_payload(layer.importance, addresses)
    if contents.maps is not None and (address := contents.maps.units_address(number)):
        payload["map"] = address
    if contents.explained is not None and layer.name in contents.explained.layers:
        payload["explained"] = layer_pictures(contents.explained.layers[layer.name])
    return payload


def _write(folder: Path, name: str, value: Any) -> None:
    """Write the data file of that name, an address within data/."""
    (folder / "data" / f"{unquote(name)}.js").write_text(data_file(name, value), encoding="ascii")
