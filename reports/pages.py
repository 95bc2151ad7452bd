"""The HTML pages: what the templates are given. Names, keys and messages are escaped by Jinja's autoescape."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Any, TypeAlias
from urllib.parse import quote

import numpy as np
import pandas as pd
from jinja2 import Environment, FunctionLoader, StrictUndefined

from microtome.reports.alignment import plain_name
from microtome.reports.heat import is_heat
from microtome.reports.summaries import CATEGORIES, STATES, Concepts, Labels, LayerSummary, concepts_found
from microtome.reports.text import shown
from microtome.reports.thumbnails import SIZE, LayerPatches, thumb_shape
from microtome.storage.schema import RunInfo

CONVENTIONS = {
    "image": "over the samples in which the concept’s category is annotated at all",
    "mask": "over the samples in which the unit’s mask itself touches a label of the concept’s category",
    "all": "over every sample",
}
TEASERS = 9
UNREADABLE_ROWS = 20
UNFOUND = 120
MAP_FILES = ("map.", "layermap.")
"""How the names of static files begin that only pages with maps need."""
GENERATOR_PAGE, ASK_PAGE = "gan.html", "ask.html"
"""Pages that only a server makes useful."""
_GENERATOR_FILES = ("gan.",)
"""How those begin that only the page of a generator needs."""
_OTHER_CATEGORIES = 4

Context: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class LayerFiles:
    """Addresses of a layer's files, relative to the report folder and percent-encoded for use in a page."""

    page: str
    data: str
    strips: str

    @classmethod
    def of(cls, folder: str) -> LayerFiles:
        """For the layer whose folder (percent-encoded already where file systems object) is `folder`."""
        safe = quote(folder)
        return cls(f"layers/{safe}.html", f"data/layers/{safe}.js", f"patches/{safe}/")


def package_file(folder: str, name: str) -> Traversable:
    """A file of this package's templates/ or static/."""
    return resources.files("microtome.reports").joinpath(folder, name)


def static_files(*, maps: bool = True, generator: bool = True) -> list[Traversable]:
    """Every static file that goes beside the pages; those of maps where there are any, and those of a generator's page
    where the run is one of a generator."""
    entries = resources.files("microtome.reports").joinpath("static").iterdir()
    left_out = (() if maps else MAP_FILES) + (() if generator else _GENERATOR_FILES)
    found = (entry for entry in entries if entry.is_file() and not entry.name.startswith(left_out))
    return sorted(found, key=lambda entry: entry.name)


@cache
def environment() -> Environment:
    """Jinja with autoescape for every template, text without controls, and an error for every missing variable.

    There is one a process, since it keeps the templates that it has compiled.
    """
    env = Environment(
        loader=FunctionLoader(lambda name: package_file("templates", name).read_text(encoding="utf-8")),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    env.filters["thousands"] = lambda value: f"{value:,}".replace(",", "\u202f")
    env.filters["iou"] = lambda value: f"{value:.3f}"
    env.filters["digits"] = lambda value: f"{value:.4g}"
    env.filters["points"] = points
    env.filters["percent"] = lambda value: f"{100 * value:.4g}%"
    return env


def points(value: float) -> str:
    """A share in percent, or a difference of shares in points, to one decimal."""
    text = f"{100 * value:.1f}"
    return "0.0" if text == "-0.0" else text.replace("-", "−")


def category_classes(categories: Sequence[str]) -> list[str]:
    """The style class of each category: the same colour for it on every page."""
    others = [c for c in categories if c not in CATEGORIES]
    return [f"cat-{c}" if c in CATEGORIES else f"cat-other-{others.index(c) % _OTHER_CATEGORIES}" for c in categories]


def patch_style(position: int, count: int, rows: int, columns: int, size: int) -> str:
    """The style that shows thumbnail `position` of a strip of `count` in a box of any width."""
    across, down = columns / size, rows / size
    place = 100 * position / (count - across) if count > across else 0.0
    return (
        f"width:{100 * across:.2f}%;height:{100 * down:.2f}%;"
        f"background-size:{100 * count / across:.2f}% {100 / down:.2f}%;background-position:{place:.4f}% 0"
    )


def shared_context(
    info: RunInfo, concepts: Concepts, layers: Sequence[LayerSummary], more_pages: Sequence[tuple[str, str]] = ()
) -> dict[str, Any]:
    """What every page knows. more_pages: name and address of pages beyond the index and those of layers."""
    config = info["config"]
    classes = category_classes(concepts.categories)
    return {
        "info": info,
        "taus": [float(tau) for tau in config["tau"]],
        "bar": float(config["min_iou"]),
        "convention": str(config["iou"]),
        "convention_words": CONVENTIONS.get(str(config["iou"]), "as its name says"),
        "untrained": not info["model"]["trained"],
        "categories": [{"name": n, "style": c} for n, c in zip(concepts.categories, classes, strict=True)],
        "layers": [layer_row(layer, concepts, classes) for layer in layers],
        "states": STATES,
        "more_pages": more_pages,
        "searchable": True,
    }


def layer_row(layer: LayerSummary, concepts: Concepts, classes: Sequence[str]) -> dict[str, Any]:
    """A layer in the comparison of layers."""
    taus = [
        {
            "tau": labels.tau,
            **_detectors(labels),
            "by_category": layer.unique_in(concepts, number),
            "best_by_category": labels.by_category,
        }
        for number, labels in enumerate(layer.labels)
    ]
    segments = [
        {"category": name, "style": style, "count": count}
        for name, style, count in zip(concepts.categories, classes, layer.unique_in(concepts), strict=True)
        if count
    ]
    return {
        "name": layer.entry["name"],
        "plain": plain_name(layer.entry),
        "layout": layer.entry.get("layout", ""),
        "heat": is_heat(layer.entry),
        "has_val": bool(np.isfinite(layer.first.iou_val).any()),
        "files": LayerFiles.of(layer.entry["folder"]),
        "kind": layer.entry["kind"],
        "units": layer.entry["units"],
        "grid": layer.entry["grid"],
        "field": field_words(layer.entry["receptive_field"]),
        "scale": layer.entry["scale"],
        "states": layer.states,
        "nan_units": int((layer.units["nan"].to_numpy() > 0).sum()),
        "segments": segments,
        "taus": taus,
        "informed": None if layer.informed is None else _detectors(layer.informed.labels),
        **{key: value for key, value in taus[0].items() if key != "tau"},
    }


def _detectors(labels: Labels) -> dict[str, int]:
    """Detectors, and unique detectors in both meanings."""
    return {
        "detectors": labels.detectors,
        "unique": len(labels.unique),
        "unique_sum": labels.unique_by_category_sum,
    }


def field_words(field: Mapping[str, Any]) -> str:
    """The size of a receptive field in words, "" where the run does not say."""
    if field.get("note"):
        return "not measured (patches show the whole image)"
    axes = [field.get("rows"), field.get("columns")]
    sizes = [axis.get("size") for axis in axes if isinstance(axis, Mapping)]
    if len(sizes) < 2 or None in sizes:
        return ""
    whole = all(axis.get("stride") == 0 for axis in axes if isinstance(axis, Mapping))
    return "whole image" if whole else f"{sizes[0]} × {sizes[1]} px"


def index_context(
    info: RunInfo,
    concepts: Concepts,
    layers: Sequence[LayerSummary],
    plans: Sequence[LayerPatches],
    samples: pd.DataFrame,
) -> dict[str, Any]:
    """What index.html shows of the network's own layers, beyond `shared_context`."""
    found = concepts_found(layers)
    classes = category_classes(concepts.categories)
    rows: list[dict[str, Any]] = []
    for item in found:
        layer = layers[item.layer]
        category = int(concepts.category[item.concept])
        rows.append(
            {
                "name": concepts.names[item.concept],
                "about": f"concept.html#concept={item.concept}",
                "category": concepts.categories[category] if category >= 0 else "",
                "style": classes[category] if category >= 0 else "",
                "layer": layer.entry["name"],
                "unit": item.unit,
                "href": f"{LayerFiles.of(layer.entry['folder']).page}#unit-{item.unit}",
                "iou": item.iou,
                "ceiling": float(layer.first.ceiling[item.unit]),
                "counts": item.counts,
                "number": item.layer,
            }
        )
    return {
        "found": rows,
        "teasers": [
            {**row, "patches": strip_styles(plans[row["number"]], row["unit"]), "strip": _strip(layers, row)}
            for row in rows[:TEASERS]
        ],
        **_unfound(concepts, layers, {item.concept for item in found}, float(info["config"]["min_iou"])),
        "unreadable": unreadable(samples),
        "settings": settings(info),
        "seconds": sum(s["seconds"] for name, s in info["stages"].items() if name != "report"),
        "total_units": sum(layer.entry["units"] for layer in layers),
        "total_detectors": sum(layer.first.detectors for layer in layers),
        "annotated_concepts": int((concepts.images[1:] > 0).sum()),
    }


def _unfound(concepts: Concepts, layers: Sequence[LayerSummary], found: Set[int], bar: float) -> dict[str, Any]:
    """Annotated concepts without a detector, apart: those that no mask of these sizes could have passed with."""
    classes = category_classes(concepts.categories)
    reach = np.fmax.reduce([layer.first.reach for layer in layers])
    beyond: list[dict[str, Any]] = []
    others: list[dict[str, Any]] = []
    for concept in np.flatnonzero(concepts.images > 0).tolist():
        if concept == 0 or concept in found:
            continue
        item = {
            "name": concepts.names[concept],
            "style": classes[concepts.category[concept]],
            "ceiling": float(reach[concept]),
        }
        (beyond if reach[concept] <= bar else others).append(item)
    return {
        "out_of_reach": beyond[:UNFOUND],
        "undetected": others[:UNFOUND],
        "undetected_more": max(len(others) - UNFOUND, 0),
    }


def _strip(layers: Sequence[LayerSummary], row: Mapping[str, Any]) -> str:
    return f"{LayerFiles.of(layers[row['number']].entry['folder']).strips}{row['unit']}.jpg"


def strip_styles(plan: LayerPatches, unit: int) -> list[str]:
    """The style of each patch of a unit, by rank."""
    mine = np.flatnonzero(plan.unit == unit)
    mine = mine[np.argsort(plan.rank[mine])]
    styles = []
    for position in mine.tolist():
        top, left, bottom, right = plan.box[position].tolist()
        rows, columns = thumb_shape(bottom - top, right - left)
        styles.append(patch_style(int(plan.rank[position]), len(mine), rows, columns, SIZE))
    return styles


def axis_ticks(widest: int) -> list[dict[str, float]]:
    """Three to six round numbers for an axis from 0 to `widest`, with their place in percent."""
    if widest < 1:
        return []
    step = 1
    for candidate in (step * 10**power for power in range(9) for step in (1, 2, 5)):
        step = candidate
        if widest / step <= 5:
            break
    return [{"value": value, "at": 100 * value / widest} for value in range(0, widest + 1, step)]


def unreadable(samples: pd.DataFrame) -> dict[str, Any]:
    """Samples that could not be read: how many, why, and the first of them."""
    bad = samples[samples["status"].astype(str) != "ok"]
    reasons = bad["error"].fillna("").astype(str)
    counts = sorted(reasons.value_counts().items(), key=lambda item: (-item[1], str(item[0])))
    first = bad.head(UNREADABLE_ROWS)
    return {
        "count": len(bad),
        "reasons": [{"reason": str(reason), "count": int(count)} for reason, count in counts[:UNREADABLE_ROWS]],
        "rows": [
            {"index": int(index), "key": str(key), "error": str(error)}
            for index, key, error in zip(first["index"], first["key"], first["error"].fillna(""), strict=True)
        ],
    }


def settings(info: RunInfo) -> list[tuple[str, str]]:
    """The resolved settings of the run as (name, value), without those that have their own place."""
    shown = {"model", "dataset"}
    return [(name, _words(value)) for name, value in info["config"].items() if name not in shown]


def _words(value: object) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(str(item) for item in value)
    return "—" if value is None else str(value)
