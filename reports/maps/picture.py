"""A map as a PNG for papers: the dots, a legend, and a line that says what it shows and how far it is true.

The colours are those of the page. Classes and clusters are drawn in an order drawn by lot, so that none covers the
others; the highest activations, and the samples that show the concept, lie on top.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from microtome.reports.maps.canvas import Label, Legend, compose
from microtome.reports.maps.colours import CATEGORICAL, NONE, PRESENT, SEQUENTIAL, categorical, rgb, sequential
from microtome.reports.maps.points import VIEWS, Classes
from microtome.reports.maps.quality import is_flat, shown_quality
from microtome.reports.maps.raster import draw_dots, place, to_pixels
from microtome.reports.source import ReportRun
from microtome.storage.arrays import PEAKS, PRESENCE, layer_array
from microtome.storage.errors import UnknownNameError, UsageError
from microtome.storage.files import write_bytes
from microtome.storage.schema import LayerEntry, MapInfo

INCHES, DPI = 6.5, 300
"""Width of a picture, and its resolution."""
_LEAST_PIXELS, _MOST_PIXELS = 300, 12_000
_ENTRIES = 24
"""Rows of a legend, at most."""
_NAMED = 30
"""Clusters whose names stand on the map, at most."""
_SEED = 0
_COMPONENTS = "Principal components 1 and 2"
_VIEW_WORDS = {"tsne": "t-SNE", "pca": _COMPONENTS, "umap": "UMAP"}
_MOST_DIGITS = 9
"""Digits of a unit's number, at most."""
COLOURINGS = "none, class, cluster, concept:NAME or unit:NUMBER"


@dataclass(frozen=True)
class Colouring:
    """colours: (n, 3) float32 of each point; order: (n,) the first is drawn first; legend; labels: names on the map."""

    colours: NDArray[np.float32]
    order: NDArray[np.int64]
    legend: Legend
    labels: list[tuple[str, float, float]] = field(default_factory=list)


def write_picture(
    run: ReportRun,
    layer: str,
    path: Path,
    *,
    view: str = "tsne",
    colour: str | None = None,
    inches: float = INCHES,
    dpi: int = DPI,
    title: str | None = None,
) -> None:
    """Draw the map of `layer` to `path`, a PNG `inches` wide at `dpi`. The same run gives the same bytes.

    view: "tsne", "pca" or "umap"; colour: see COLOURINGS, None = by class where samples have one, else by cluster;
    title: None = the layer's name. Raises UsageError or UnknownNameError for what the run does not have.
    """
    made = run.info.get("map", {})
    if layer not in made:
        known = {entry["name"] for entry in run.info["layers"]}
        if layer not in known:
            raise UnknownNameError("layer", layer, known)
        raise UsageError(f"layer {layer} has no map; make it with: microtome map RUN --layer {layer}")
    table = run.layer_table(layer, "map").sort_values("sample", kind="stable", ignore_index=True)
    columns = _columns(layer, view, table)
    on_map = table[np.isfinite(table[columns].to_numpy(np.float32)).all(axis=1)]
    if on_map.empty:
        raise UsageError(f"the map of layer {layer} has no point to draw")
    chosen = colouring(run, layer, on_map, colour, view)
    image = render(
        on_map[columns].to_numpy(np.float32),
        chosen,
        title=layer if title is None else title,
        lines=caption(run, layer, made[layer], view, len(on_map)),
        pixels=_pixels(inches, dpi),
    )
    buffer = io.BytesIO()
    image.save(buffer, "PNG", dpi=(dpi, dpi), compress_level=6)
    write_bytes(path, buffer.getvalue())


def render(positions: NDArray[np.floating], chosen: Colouring, *, title: str, lines: list[str], pixels: int) -> Any:
    """The picture, a PIL image `pixels` wide, of points at `positions` (n, 2), finite; lines: below it."""
    side = max(2, round(pixels * 0.72))
    at, scale, middle = place(positions, side)
    dots = draw_dots(at, chosen.colours, chosen.order, side)
    cut = _empty_rows(at, side)
    dots = dots[cut : side - cut]
    spots = np.array([[x, y] for _, x, y in chosen.labels], np.float64).reshape(-1, 2)
    where = to_pixels(spots, side, scale, middle)
    labels = [
        Label(name, float(column), float(row) - cut)
        for (name, _, _), (column, row) in zip(chosen.labels, where, strict=True)
    ]
    return compose(dots, labels, chosen.legend, title, lines, pixels)


def _empty_rows(at: NDArray[np.float32], side: int) -> int:
    """How many rows above and below a wide map need not be drawn: half of the square stays at least."""
    across, down = (float(extent) for extent in np.ptp(at, axis=0))
    used = down + side - max(across, down)
    return int((side - max(used, side / 2)) / 2)


def caption(run: ReportRun, layer: str, made: MapInfo, view: str, points: int) -> list[str]:
    """What the picture shows, and how far it is to be believed (of the map itself, the view that is measured)."""
    model, data = run.info["model"], run.info["data"]
    untrained = "" if model["trained"] else " (untrained)"
    source, network = (info["spec"].rpartition("/")[2] for info in (data, model))
    words = _COMPONENTS if view == "tsne" and is_flat(made) else _VIEW_WORDS[view]
    images = f"{points:,} image{'' if points == 1 else 's'}"
    first = f"{words} of {images} of {source}; layer {layer} of {network}{untrained}."
    if view != "tsne":
        return [first]
    quality = shown_quality(made)
    if quality["trustworthiness"] is not None:
        first += (
            f" Trustworthiness {quality['trustworthiness']:.3f}, recall@{quality['k']} {quality['recall']:.3f} "
            f"between feature space and map, measured on {quality['sample']:,} of them."
        )
    return [first, *(f"Mind: {warning}" for warning in quality["warnings"])]


def check_colour(run: ReportRun, layer: str, colour: str) -> None:
    """Raise UsageError or UnknownNameError where the samples of `layer` cannot be coloured by `colour`, map or none."""
    kind, _, name = colour.partition(":")
    if kind == "class" and not name:
        if not (run.table("samples")["label"].astype("Int64").fillna(-1) >= 0).any():
            raise UsageError("the samples of this run have no classes to colour by; take cluster, concept:NAME or none")
    elif kind == "concept" and name:
        _concept(run, name)
        if not run.arrays.exists(PRESENCE):
            raise UsageError(
                "this run does not know which concepts occur in a sample: an earlier version made it; audit again"
            )
    elif kind == "unit" and name:
        _unit(run, layer, name)
    elif kind not in ("none", "cluster") or name:
        raise UsageError(f"colour {colour!r}: give {COLOURINGS}")


def colouring(run: ReportRun, layer: str, on_map: pd.DataFrame, colour: str | None, view: str) -> Colouring:
    """How points are coloured. on_map: the rows of map.parquet that are drawn. Raises UsageError, UnknownNameError."""
    samples = on_map["sample"].to_numpy(np.int64)
    classes = _classes(run, samples)
    if colour is None:
        colour = "class" if classes.names else "cluster"
    check_colour(run, layer, colour)
    kind, _, name = colour.partition(":")
    if kind == "class":
        return by_class(classes)
    if kind == "cluster":
        return by_cluster(
            on_map["cluster"].to_numpy(np.int64), run.layer_table(layer, "clusters"), named=view == "tsne"
        )
    if kind == "concept":
        number, full = _concept(run, name)
        return by_presence(_present(run, number)[samples], full)
    if kind == "unit":
        return by_activation(_peaks(run, layer, name)[samples], f"unit {int(name)}")
    return _plain(len(samples))


def by_class(classes: Classes) -> Colouring:
    """By class; of many, the most frequent ones in the legend."""
    numbers = classes.of_point
    counts = np.bincount(numbers[numbers >= 0], minlength=len(classes.names))
    shown = np.argsort(-counts, kind="stable") if (counts > 0).sum() > _ENTRIES else np.arange(len(counts))
    entries = [(number, classes.names[number], int(counts[number])) for number in shown.tolist()]
    return Colouring(categorical(numbers), _shuffled(len(numbers)), _listed("class", entries, int((numbers < 0).sum())))


def by_cluster(numbers: NDArray[np.int64], table: pd.DataFrame, *, named: bool) -> Colouring:
    """By cluster, with their names on the map. table: clusters.parquet."""
    rows = table.sort_values("cluster", kind="stable")
    entries = [
        (int(number), str(name), int(samples))
        for number, name, samples in zip(rows["cluster"], rows["name"], rows["samples"], strict=True)
    ]
    spots = zip(rows["name"], rows["x"], rows["y"], strict=True)
    labels = [(str(name), float(x), float(y)) for name, x, y in spots][:_NAMED] if named else []
    legend = _listed("cluster", entries, int((numbers < 0).sum()))
    return Colouring(categorical(numbers), _noise_first(numbers), legend, labels)


def by_presence(present: NDArray[np.bool_], name: str) -> Colouring:
    """The samples that show a concept, over those that do not."""
    colours = np.where(present[:, None], rgb(PRESENT), rgb(NONE)).astype(np.float32)
    shown = int(present.sum())
    entries = [(PRESENT, name, f"{shown:,}"), (NONE, "not there", f"{len(present) - shown:,}")]
    return Colouring(colours, np.argsort(present, kind="stable"), Legend("concept", entries))


def by_activation(values: NDArray[np.floating], name: str) -> Colouring:
    """By the peak of a unit's activation map, from 0 to its maximum; silent samples have no colour."""
    finite = np.nan_to_num(values.astype(np.float32), nan=0.0, posinf=0.0, neginf=0.0)
    most = float(finite.max(initial=0.0))
    share = finite / most if most > 0 else np.zeros_like(finite)
    silent = int((share <= 0).sum())
    entries = [(NONE, "0 or below", f"{silent:,}")]
    legend = Legend(f"peak of {name}", entries, ramp=SEQUENTIAL if most > 0 else (), low="0", high=f"{most:.4g}")
    return Colouring(sequential(share), np.argsort(share, kind="stable"), legend)


def _plain(count: int) -> Colouring:
    colours = np.repeat(rgb(CATEGORICAL[0]), count, axis=0)
    return Colouring(colours, np.arange(count), Legend("", []))


def _listed(what: str, entries: list[tuple[int, str, int]], without: int) -> Legend:
    """The first rows of a legend, and what it does not say."""
    shown = [(CATEGORICAL[number % len(CATEGORICAL)], name, f"{count:,}") for number, name, count in entries if count]
    plural = f"{what}es" if what.endswith("s") else f"{what}s"
    notes = []
    if len(shown) > _ENTRIES:
        notes.append(f"and {len(shown) - _ENTRIES:,} more {plural}")
    if len(entries) > len(CATEGORICAL):
        notes.append(f"{len(CATEGORICAL)} colours, which repeat")
    rest = [(NONE, f"no {what}", f"{without:,}")] if without else []
    return Legend(what, shown[:_ENTRIES] + rest, notes)


def _shuffled(count: int) -> NDArray[np.int64]:
    return np.random.default_rng(_SEED).permutation(count)


def _noise_first(numbers: NDArray[np.int64]) -> NDArray[np.int64]:
    order = _shuffled(len(numbers))
    return order[np.argsort(numbers[order] >= 0, kind="stable")]


def _columns(layer: str, view: str, table: pd.DataFrame) -> list[str]:
    if view not in VIEWS:
        raise UnknownNameError("view of a map", view, VIEWS)
    columns = list(VIEWS[view])
    if not set(columns) <= set(table.columns):
        raise UsageError(
            f"the map of layer {layer} has no {view}; make it with: microtome map RUN --layer {layer} --umap"
        )
    return columns


def _pixels(inches: float, dpi: int) -> int:
    pixels = round(inches * dpi)
    if not _LEAST_PIXELS <= pixels <= _MOST_PIXELS:
        raise UsageError(
            f"a picture {inches:g} inches wide at {dpi} dpi has {pixels:,} pixels; "
            f"give a size that has {_LEAST_PIXELS:,} to {_MOST_PIXELS:,}"
        )
    return pixels


def _classes(run: ReportRun, samples: NDArray[np.int64]) -> Classes:
    table = run.table("samples").sort_values("index", kind="stable")
    return Classes.of(table["label"].iloc[samples], run.info["data"]["class_names"])


def _concept(run: ReportRun, name: str) -> tuple[int, str]:
    """(id, name) of a concept by name or id."""
    table = run.table("concepts")
    found = table[(table["name"].astype(str) == name) | (table["id"].astype(str) == name)]
    if found.empty:
        raise UnknownNameError("concept", name, table["name"].astype(str))
    return int(found["id"].iloc[0]), str(found["name"].iloc[0])


def _present(run: ReportRun, concept: int) -> NDArray[np.bool_]:
    """(N,) whether each sample shows the concept."""
    bits = [run.arrays.read_shard(PRESENCE, shard)[:, concept // 8] for shard in range(run.plan.count)]
    return np.asarray((np.concatenate(bits) >> (concept % 8)) & 1, np.bool_)


def _unit(run: ReportRun, layer: str, name: str) -> LayerEntry:
    """The entry of `layer`, which has a unit of this number."""
    entry = next(entry for entry in run.info["layers"] if entry["name"] == layer)
    is_number = name.isascii() and name.isdecimal() and len(name) <= _MOST_DIGITS
    if not is_number or int(name) >= entry["units"]:
        raise UsageError(f"layer {layer} has no unit {name}; its units are 0 to {entry['units'] - 1}")
    return entry


def _peaks(run: ReportRun, layer: str, name: str) -> NDArray[np.float32]:
    """(N,) the peak of one unit in every sample."""
    entry = _unit(run, layer, name)
    array = layer_array(entry["folder"], PEAKS)
    peaks = [run.arrays.read_shard(array, shard)[:, int(name)] for shard in range(run.plan.count)]
    return np.concatenate(peaks).astype(np.float32) * np.float32(entry["scale"])
