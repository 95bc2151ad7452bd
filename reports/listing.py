"""What every page can find: layers, concepts, classes and pages by name, as data/index.js, and the list of concepts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from microtome.reports.alignment import is_baseline
from microtome.reports.concept_units import PER_FILE, ConceptUnits
from microtome.reports.pages import LayerFiles, category_classes
from microtome.reports.payload import DIGITS, SCHEMA_VERSION, Json
from microtome.reports.summaries import Concepts, LayerSummary


def layer_data(folder: str) -> str:
    """The name of a layer's data file: its address within data/, without ".js"."""
    return f"layers/{quote(folder)}"


def listing_payload(
    layers: Sequence[LayerSummary],
    units: Sequence[ConceptUnits],
    concepts: Concepts,
    bar: float,
    classes: Mapping[str, str],
    pages: Sequence[tuple[str, str]],
) -> Json:
    """classes, pages: names and their addresses in the report."""
    own = [number for number, layer in enumerate(layers) if not is_baseline(layer, layers)]
    return {
        "schema": SCHEMA_VERSION,
        "bar": bar,
        "tau": layers[0].first.tau if layers else None,
        "perFile": PER_FILE,
        "categories": concepts.categories,
        "categoryStyles": category_classes(concepts.categories),
        "layers": [_layer(layer, number in own) for number, layer in enumerate(layers)],
        "concepts": [_concept(row) for row in concept_rows(layers, units, concepts)],
        "classes": [[name, address] for name, address in classes.items()],
        "pages": [["Overview", "index.html"], *([name, address] for name, address in pages)],
    }


def _layer(layer: LayerSummary, own: bool) -> Json:
    files = LayerFiles.of(layer.entry["folder"])
    return {
        "name": layer.entry["name"],
        "data": layer_data(layer.entry["folder"]),
        "page": files.page,
        "strips": files.strips,
        "units": layer.entry["units"],
        "detectors": layer.first.detectors,
        "baseline": not own,
    }


def _concept(row: Mapping[str, Any]) -> Json:
    best = None if row["best"] is None else [row["best"][0], row["best"][1], float(f"{row['best'][2]:.{DIGITS}g}")]
    return [row["id"], row["name"], row["category_number"], row["images"], sum(row["counts"]), best]


def concept_rows(
    layers: Sequence[LayerSummary], units: Sequence[ConceptUnits], concepts: Concepts
) -> list[dict[str, Any]]:
    """Every annotated concept, best IoU first: counts of detectors in the network's own layers, and its best unit there
    as (layer, unit, IoU), None where no mask meets it."""
    own = [number for number, layer in enumerate(layers) if not is_baseline(layer, layers)]
    styles = category_classes(concepts.categories)
    rows: list[dict[str, Any]] = []
    for concept in range(1, len(concepts.names)):
        if not concepts.images[concept]:
            continue
        seen = [(number, best) for number in own if (best := units[number].best(concept)) is not None]
        number, best = max(seen, key=lambda item: (item[1][1], -item[0]), default=(0, None))
        category = int(concepts.category[concept])
        rows.append(
            {
                "id": concept,
                "name": concepts.names[concept],
                "category_number": category,
                "category": concepts.categories[category] if category >= 0 else "",
                "style": styles[category] if category >= 0 else "",
                "images": int(concepts.images[concept]),
                "counts": [int(units[number].detectors[concept]) for number in own],
                "best": None if best is None else (number, best[0], best[1]),
                "href": f"concept.html#concept={concept}",
            }
        )
    return sorted(rows, key=lambda row: (-(row["best"][2] if row["best"] else -1.0), row["id"]))
