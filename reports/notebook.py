"""Results of a run as a notebook shows them: a unit, a layer, a concept, the rows of a query, the run itself.

HTML without a style sheet or a script: a notebook keeps a cell's output and nothing else, in light colours or dark ones
that nobody tells it of. So text takes the colour of the text around it, and pictures are within the text as data.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
from jinja2.environment import TemplateModule

from microtome.reports.alignment import is_rotation
from microtome.reports.figures.colours import LIGHT
from microtome.reports.figures.depth import concept_figure
from microtome.reports.figures.svg import svg_in_notebook
from microtome.reports.figures.text import brief
from microtome.reports.histograms import BINS, LEVELS, encode_histograms
from microtome.reports.pages import category_classes, environment, field_words
from microtome.reports.patch_sheets import PatchRun, Pictures, unit_pictures
from microtome.reports.summaries import STATES, Concepts

CARDS, CONCEPTS, LAYERS = 4, 6, 60
"""Units that an answer shows with their patches; concepts of a unit; layers of a run."""
_ACROSS, _PATCHES = 6, 12
_HISTOGRAM, _PITCH = 50.0, 5.0
_GREY = "#808a95"


@dataclass(frozen=True, slots=True)
class _Look:
    """What answers of one run share: the colour of each category, and the bar of detectors."""

    run: PatchRun
    colours: Mapping[str, str]
    bar: float

    @classmethod
    def of(cls, run: PatchRun) -> _Look:
        names = Concepts.of(run.table("concepts")).categories
        styles = [style.removeprefix("cat-") for style in category_classes(names)]
        colours = {name: LIGHT[style] for name, style in zip(names, styles, strict=True)}
        return cls(run, colours, float(run.info["config"]["min_iou"]))

    def colour(self, category: object) -> str:
        return self.colours.get(str(category), _GREY)

    def parts(self, units: pd.DataFrame) -> list[dict[str, Any]]:
        """Unique detectors of each category among `units`."""
        found = units.loc[units["is_detector"].to_numpy(np.bool_), ["concept", "category"]].drop_duplicates()
        counts = found["category"].astype(str).value_counts()
        return [
            {"category": name, "colour": colour, "count": int(counts[name])}
            for name, colour in self.colours.items()
            if name in counts
        ]

    def cards(self, rows: pd.DataFrame, count: int = CARDS) -> list[dict[str, Any]]:
        """The first rows as units with their patches."""
        shown = rows.head(count).to_dict("records")
        end = _end([float(row["iou"]) for row in shown])
        return [
            {**self.card(row, end), "pictures": self.pictures(str(row["layer"]), int(row["unit"]), _ACROSS)}
            for row in shown
        ]

    def card(self, row: Mapping[Any, Any], end: float) -> dict[str, Any]:
        """A unit in a line; end: the IoU at the end of its meter."""
        label = row["concept"] if isinstance(row["concept"], str) and float(row["iou"]) > 0 else None
        return {
            "title": f"{brief(str(row['layer']))}, unit {int(row['unit'])}",
            "label": None if label is None else brief(label),
            "colour": self.colour(row["category"]),
            **_scores(row, end),
            "detector": bool(row["is_detector"]),
            "labelled": _other_label(row),
            "state": str(row["state"]),
        }

    def pictures(self, layer: str, unit: int, count: int) -> Pictures:
        return unit_pictures(self.run, layer, unit, count, _ACROSS)


def unit_html(run: PatchRun, unit: Mapping[Any, Any], scores: pd.DataFrame, tau: str) -> str:
    """One unit. unit: its row among those of its layer; scores: concepts that it meets, best first; tau: in words."""
    look = _Look.of(run)
    rows = scores.head(CONCEPTS).to_dict("records")
    end = _end([float(row["iou"]) for row in rows])
    layer, number = str(unit["layer"]), int(unit["unit"])
    shown = {
        **look.card(unit, end),
        "words": f"{unit['state']}, at {tau}",
        "bar": f"{look.bar:g}",
        "pictures": look.pictures(layer, number, _PATCHES),
        "concepts": [
            {"name": brief(str(row["concept"])), "colour": look.colour(row["category"]), **_scores(row, end)}
            for row in rows
        ],
        "histogram": _histogram(run, layer, number, unit, look.colour(unit["category"])),
    }
    return _render("unit", shown)


def layer_html(run: PatchRun, units: pd.DataFrame, layer: str, tau: str) -> str:
    """One layer. units: all of its units with their labels."""
    look = _Look.of(run)
    entry = next(entry for entry in run.info["layers"] if entry["name"] == layer)
    states = units["state"].astype(str).value_counts()
    odd = [f"{int(states[state])} {state}" for state in STATES[1:] if state in states]
    parts = look.parts(units)
    field = field_words(entry["receptive_field"])
    words = [entry["kind"], f"grid {' × '.join(map(str, entry['grid']))}", f"at {tau}"]
    shown = {
        "title": brief(layer),
        "words": ", ".join([*words, f"receptive field {field}"] if field else words),
        "units": len(units),
        "detectors": int(units["is_detector"].sum()),
        "unique": sum(part["count"] for part in parts),
        "parts": parts,
        "states": ", ".join(odd),
        "cards": look.cards(_best(units)),
    }
    return _render("layer", shown)


def concept_html(run: PatchRun, units: pd.DataFrame, name: str, ids: Sequence[int], tau: str) -> str:
    """One concept in the network's own layers. units: every unit with its IoU with it, highest first; ids: of the
    concepts of that name."""
    look = _Look.of(run)
    concepts = run.table("concepts").set_index("id").loc[list(ids)]
    layers = run.info["layers"]
    every = {entry["name"] for entry in layers}
    names = [entry["name"] for entry in layers if not is_rotation(entry, every)]
    units = units[units["layer"].isin(names)]
    highest = units.groupby("layer")["iou"].max()
    labelled = units[(units["label"] == units["concept"]) & units["is_detector"].to_numpy(np.bool_)]
    detecting = labelled["layer"].value_counts()
    best = [float(highest[layer]) if highest.get(layer, 0.0) > 0 else None for layer in names]
    counts = [int(detecting.get(layer, 0)) for layer in names]
    figure = concept_figure(name, names, best, counts, look.bar)
    key = hashlib.sha256(repr((name, names, best, counts)).encode("utf-8", "replace")).hexdigest()[:12]
    total, seen = sum(counts), sum(count > 0 for count in counts)
    labelled_so = f"the label of {total} detector{'' if total == 1 else 's'}"
    shown = {
        "title": brief(name),
        "words": f"{labelled_so} in {seen} of {len(names)} layers, at {tau}",
        "categories": [
            {"name": str(row["category"]), "colour": look.colour(row["category"]), **_counts(row)}
            for row in concepts.to_dict("records")
        ],
        "figure": svg_in_notebook(figure, f"microtome-{key}"),
        "cards": look.cards(_best(units)),
    }
    return _render("concept", shown)


def query_html(run: PatchRun, rows: pd.DataFrame, expression: str) -> str:
    """The rows of a query, in their order."""
    look = _Look.of(run)
    count = f"{len(rows):,} unit{'' if len(rows) == 1 else 's'}".replace(",", "\u202f")
    shown = {
        "title": count if len(rows) else "No unit",
        "words": f"for {brief(expression)}" if expression.strip() else "in all layers",
        "cards": look.cards(rows),
        "more": max(len(rows) - CARDS, 0),
    }
    return _render("query", shown)


def run_html(run: PatchRun, layers: Mapping[str, pd.DataFrame], tau: str) -> str:
    """A run. layers: the units of each layer with their labels, in the network's order."""
    look = _Look.of(run)
    rows = []
    for name, units in list(layers.items())[:LAYERS]:
        parts = look.parts(units)
        unique, detectors = sum(part["count"] for part in parts), int(units["is_detector"].sum())
        rows.append(
            {"name": brief(name), "units": len(units), "detectors": detectors, "unique": unique, "parts": parts}
        )
    info = run.info
    read = info["data"]["samples"] - info["data"]["unreadable"]
    shown = {
        "title": brief(info["model"]["spec"]),
        "words": f"dissected over {brief(info['data']['spec'])}",
        "untrained": not info["model"]["trained"],
        "facts": f"{read:,} images, weights {brief(info['model']['weights'])}, labels at {tau}",
        "layers": rows,
        "widest": max([1, *(row["unique"] for row in rows)]),
        "categories": [{"name": brief(name), "colour": colour} for name, colour in look.colours.items()],
        "more": max(len(layers) - LAYERS, 0),
    }
    return _render("run", shown)


@cache
def _macros() -> TemplateModule:
    return environment().get_template("notebook.html").module


def _render(macro: str, shown: Mapping[str, Any]) -> str:
    return str(getattr(_macros(), macro)(shown))


def _best(units: pd.DataFrame) -> pd.DataFrame:
    """Units that overlap something, highest IoU first."""
    met = units[units["iou"] > 0]
    return met.sort_values("iou", ascending=False, kind="stable")


def _end(values: Sequence[float]) -> float:
    """The end of a meter that holds these IoU."""
    known = [value for value in values if np.isfinite(value)]
    return min(1.0, max([0.05, *(1.25 * value for value in known)]))


def _scores(row: Mapping[Any, Any], end: float) -> dict[str, float]:
    iou, ceiling = (float(row[name]) if np.isfinite(row[name]) else 0.0 for name in ("iou", "ceiling"))
    return {"iou": iou, "ceiling": ceiling, "end": end}


def _other_label(row: Mapping[Any, Any]) -> str:
    """The label of a unit that is shown by its IoU with another concept, else nothing."""
    label = row.get("label")
    return brief(label) if isinstance(label, str) and label != row["concept"] else ""


def _counts(row: Mapping[Any, Any]) -> dict[str, int]:
    return {name: int(row[name]) for name in ("images", "pixels")}


def _histogram(run: PatchRun, layer: str, unit: int, row: Mapping[Any, Any], colour: str) -> dict[str, Any] | None:
    """The activations of a unit as bars; None where the run does not have them."""
    low, high, threshold = (float(row[name]) for name in ("minimum", "maximum", "threshold"))
    table = run.layer_table(layer, "histogram")
    table = table[table["unit"] == unit].assign(unit=0)
    if table.empty or not (np.isfinite(low) and np.isfinite(high)):
        return None
    (heights,) = encode_histograms(pd.DataFrame({"minimum": [low], "maximum": [high]}), table)
    bars = []
    for place, character in enumerate(heights):
        height = _HISTOGRAM * LEVELS.index(character) / (len(LEVELS) - 1)
        above = low + (high - low) * (place + 0.5) / BINS > threshold
        if height:
            bars.append(
                {"x": _PITCH * place, "y": round(_HISTOGRAM - height, 1), "height": round(height, 1), "above": above}
            )
    within = high > low and low <= threshold <= high
    return {
        "bars": bars,
        "colour": colour,
        "low": f"{low:.3g}",
        "high": f"{high:.3g}",
        "threshold": f"{threshold:.4g}",
        "realised": f"{100 * float(row['realised']):.3g}%",
        "at": round(_PITCH * BINS * (threshold - low) / (high - low), 1) if within else None,
    }
