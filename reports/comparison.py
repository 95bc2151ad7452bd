"""The page of two runs compared: concepts gained and lost, layers side by side, matched units with their top patches.

    FOLDER/index.html             opens from disk
    FOLDER/strips/a-0-12.jpg      top patches of unit 12 of run A, in the first pair of layers; from the run's report
    FOLDER/tables/matches-0.csv   every pair of units of the first pair of layers; concepts.csv: every concept
    FOLDER/figures/               each figure as SVG, PNG and CSV
    FOLDER/static/                style

The same two runs give the same bytes. An older page stays until the new one is built.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import quote

from microtome.reports.comparison_figures import (
    concepts_figure,
    detectors_figure,
    layer_title,
    matches_figure,
    ordered_categories,
)
from microtome.reports.figures.bitmap import png_of
from microtome.reports.figures.marks import Figure
from microtome.reports.figures.svg import svg_file, svg_on_page
from microtome.reports.figures.write import ShownFigure
from microtome.reports.folders import building_in, claim_folder
from microtome.reports.pages import LayerFiles, category_classes, environment, package_file
from microtome.reports.text import all_without_controls
from microtome.storage.run import REPORT, Run

_OURS = ("strips", "tables", "figures", "static", "index.html")
_STYLES = ("report.css", "figures.css")
CHANGED_PAIRS, LIKE_PAIRS, ALONE = 9, 6, 6
"""Cards of a layer: pairs whose labels differ, pairs that agree, and units without a counterpart, of each run."""
CHANGES = 40
"""Concepts gained, or lost, that are shown with their patches."""
_ROWS = 2000
_MATCH_COLUMNS = (
    *("a", "b", "correlation", "mutual", "above_chance", "label"),
    *("concept_a", "category_a", "iou_a", "concept_b", "category_b", "iou_b"),
)


def comparison_folder(folder: Path) -> Path:
    """Make sure that the page may be written to `folder`; see `claim_folder`."""
    return claim_folder(folder, _OURS)


def build_comparison_page(found: Mapping[str, Any], a: Run, b: Run, folder: Path) -> Path:
    """Write the page of what `compare_runs` found of `a` and `b` to `folder`, and return where it is.

    Patches are those of the runs' reports; where a run has none, the page is without them.
    """
    with building_in(folder, _OURS) as building:
        for name in ("tables", "figures", "static"):
            (building / name).mkdir()
        styles = _styles(found)
        strips = _Strips({"a": a, "b": b}, building / "strips", folder)
        context = {
            "found": found,
            "version": version("microtome"),
            "runs": {key: _run(found[key], run, folder) for key, run in (("a", a), ("b", b))},
            "figures": [_write_figure(figure, building) for figure in _figures(found)],
            "moves": {outcome: _moves(found, outcome, styles, strips) for outcome in ("gained", "lost")},
            "concepts": [_concept(change, styles) for change in found["concepts"][:_ROWS]],
            "layers": [_layer(number, layer, styles, strips) for number, layer in enumerate(found["layers"])],
        }
        page = environment().get_template("comparison.html").render(root="", **context)
        (building / "index.html").write_text(page, encoding="utf-8")
        _write_tables(found, building / "tables")
        for style in _STYLES:
            (building / "static" / style).write_bytes(package_file("static", style).read_bytes())
    return folder / "index.html"


@dataclass(frozen=True, slots=True)
class _Strips:
    """Patch strips of both runs' reports, copied when they are shown; addresses of units' places in those reports."""

    runs: Mapping[str, Run]
    folder: Path
    page: Path
    copied: dict[str, str] = field(default_factory=dict)

    def unit(self, key: str, number: int, layer: str, unit: int) -> dict[str, str]:
        """A unit as the page shows it: "layer", "strip" and "href", "" where there is none. number: of the layers."""
        run = self.runs[key]
        files = LayerFiles.of(run.layer(layer)["folder"])
        href = "" if run.place.path is None else _beside(run.place.path / REPORT, self.page)
        return {
            "layer": layer,
            "strip": self._copy(key, number, run, layer, unit),
            "href": f"{href}/{files.page}#unit-{unit}" if href else "",
        }

    def _copy(self, key: str, number: int, run: Run, layer: str, unit: int) -> str:
        address = f"strips/{key}-{number}-{unit}.jpg"
        if address not in self.copied:
            source = f"{REPORT}/patches/{run.layer(layer)['folder']}/{unit}.jpg"
            content = run.place.read_many([source]).get(source)
            if content is not None:
                self.folder.mkdir(exist_ok=True)
                (self.folder / f"{key}-{number}-{unit}.jpg").write_bytes(content)
            self.copied[address] = "" if content is None else address
        return self.copied[address]


def _beside(target: Path, page: Path) -> str:
    """The address of `target` from a page in the folder `page`."""
    return quote(Path(os.path.relpath(target.resolve(), page.resolve())).as_posix())


def _run(facts: Mapping[str, Any], run: Run, page: Path) -> dict[str, Any]:
    """A run as the head of the page shows it."""
    index = None if run.place.path is None else run.place.path / REPORT / "index.html"
    return {**facts, "href": _beside(index, page) if index is not None and index.exists() else ""}


def _styles(found: Mapping[str, Any]) -> dict[str, str]:
    """The style class of each category."""
    names = [change["category"] for change in found["concepts"]]
    for layer in found["layers"]:
        names += [row["category"] for key in ("units_a", "units_b") for row in layer[key] if row["category"]]
    categories = ordered_categories(names)
    return dict(zip(categories, category_classes(categories), strict=True))


def _figures(found: Mapping[str, Any]) -> list[Figure]:
    figures = [concepts_figure(found["concepts"], found["settings"]["bar"])] if found["concepts"] else []
    return [*figures, detectors_figure(found["layers"]), matches_figure(found["layers"])]


def _write_figure(figure: Figure, folder: Path) -> ShownFigure:
    path = folder / "figures" / figure.name
    path.with_suffix(".svg").write_text(svg_file(figure), encoding="utf-8")
    path.with_suffix(".csv").write_text(figure.csv(), encoding="utf-8", errors="replace", newline="")
    path.with_suffix(".png").write_bytes(png_of(figure))
    return ShownFigure(figure.name, figure.title, f"figures/{figure.name}", svg_on_page(figure))


def _moves(found: Mapping[str, Any], outcome: str, styles: Mapping[str, str], strips: _Strips) -> dict[str, Any]:
    """Concepts that are gained or lost: the clear ones, and those near the bar."""
    mine = [change for change in found["concepts"] if change["outcome"] == outcome]
    numbers = {
        key: {layer[key]: number for number, layer in reversed(list(enumerate(found["layers"])))} for key in "ab"
    }

    def shown(change: Mapping[str, Any]) -> dict[str, Any]:
        sides = {
            key: None
            if change[key] is None
            else {
                **change[key],
                **strips.unit(key, numbers[key][change[key]["layer"]], change[key]["layer"], change[key]["unit"]),
            }
            for key in "ab"
        }
        return {**_concept(change, styles), **sides}

    clear = [change for change in mine if change["clear"]]
    near = [change for change in mine if not change["clear"]]
    return {
        "count": len(mine),
        "cards": [shown(change) for change in clear[:CHANGES]],
        "near": [_concept(change, styles) for change in near[:CHANGES]],
        "more": max(len(clear) - CHANGES, 0) + max(len(near) - CHANGES, 0),
    }


def _concept(change: Mapping[str, Any], styles: Mapping[str, str]) -> dict[str, Any]:
    return {**change, "style": styles[change["category"]]}


def _layer(number: int, layer: Mapping[str, Any], styles: Mapping[str, str], strips: _Strips) -> dict[str, Any]:
    """A pair of layers: the figures of its row, and the pairs and units that are shown."""
    believed = [match for match in layer["matches"] if match["above_chance"]]
    other = [match for match in believed if match["label"] in ("changed", "gained", "lost")]
    other.sort(key=lambda match: (not match["mutual"], -max(match["iou_a"], match["iou_b"]), match["a"]))
    like = [match for match in believed if match["label"] == "same"]

    def pair(match: Mapping[str, Any]) -> dict[str, Any]:
        sides = {
            key: {
                "unit": match[key],
                "concept": match[f"concept_{key}"],
                "iou": match[f"iou_{key}"],
                "style": styles.get(match[f"category_{key}"] or "", ""),
                **strips.unit(key, number, layer[key], match[key]),
            }
            for key in "ab"
        }
        return {"correlation": match["correlation"], "mutual": match["mutual"], "label": match["label"], **sides}

    alone = {key: _alone(number, layer, key, styles, strips) for key in "ab"}
    return {
        **{name: value for name, value in layer.items() if name not in ("matches", "units_a", "units_b")},
        "title": layer_title(layer),
        "number": number,
        "table": f"tables/matches-{number}.csv",
        "pairs": len(layer["matches"]),
        "other": [pair(match) for match in other[:CHANGED_PAIRS]],
        "other_count": len(other),
        "like": [pair(match) for match in like[:LIKE_PAIRS]],
        "like_count": len(like),
        "alone": alone,
    }


def _alone(
    number: int, layer: Mapping[str, Any], key: str, styles: Mapping[str, str], strips: _Strips
) -> dict[str, Any]:
    """Detectors of one run that no unit of the other answers like: their best match is no better than chance."""
    high = layer["chance"]["high"]
    rows = [
        row
        for row in layer[f"units_{key}"]
        if row["detector"] and (row["correlation"] is None or high is None or row["correlation"] <= high)
    ]
    rows.sort(key=lambda row: (-row["iou"], row["unit"]))
    shown = [
        {
            "unit": row["unit"],
            "concept": row["concept"],
            "iou": row["iou"],
            "style": styles.get(row["category"] or "", ""),
            "correlation": row["correlation"],
            "why": row["no_correlation"],
            **strips.unit(key, number, layer[key], row["unit"]),
        }
        for row in rows[:ALONE]
    ]
    return {"count": len(rows), "units": shown}


def _write_tables(found: Mapping[str, Any], folder: Path) -> None:
    """Everything as CSV."""
    for number, layer in enumerate(found["layers"]):
        rows = [[match[name] for name in _MATCH_COLUMNS] for match in layer["matches"]]
        _write_csv(folder / f"matches-{number}.csv", _MATCH_COLUMNS, rows)
    columns = ["concept", "category", "outcome", "clear", "change", "images_a", "images_b"]
    best = ["layer", "unit", "iou", "labelled"]
    rows = [
        [change[name] for name in columns]
        + [None if change[key] is None else change[key][name] for key in "ab" for name in best]
        for change in found["concepts"]
    ]
    _write_csv(folder / "concepts.csv", [*columns, *(f"{name}_{key}" for key in "ab" for name in best)], rows)


def _write_csv(path: Path, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(all_without_controls(rows))
    path.write_text(text.getvalue(), encoding="utf-8", errors="replace", newline="")
