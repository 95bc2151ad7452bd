"""The page of a generator's experiments: rankings compared, insertions, and units behind bad images.

Read from the JSON that a run keeps in rankings/, insertions/ and defects/, which somebody may have altered: what has
not the parts of its kind is named instead of shown.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from microtome.reports.importance import readable
from microtome.reports.ranking_plot import draw_rankings
from microtome.reports.source import ReportRun

PAGE = "experiments.html"
FOLDER = "experiments"
UNITS_LISTED = 40
KINDS = ("rankings", "insertions", "defects")

Figures = dict[str, Any]
Kept = Mapping[str, Any]

_PNG = b"\x89PNG\r\n\x1a\n"
_WRONG = (KeyError, TypeError, ValueError, AttributeError, ArithmeticError, IndexError)


def has_experiments(run: ReportRun) -> bool:
    """Whether the run keeps any."""
    return any(run.experiments(kind) for kind in KINDS)


def experiments_context(run: ReportRun, folder: Path) -> dict[str, Any]:
    """What the page shows: "rankings", "insertions", "defects", each a list of figures, and what is "damaged".

    Pictures are written to `folder`/experiments; their addresses are in each figure's "pictures".
    """
    shown: dict[str, Any] = {"damaged": []}
    readers: dict[str, Callable[[Kept], Figures]] = {
        "rankings": _ranking,
        "insertions": _insertion,
        "defects": _defects,
    }
    (folder / FOLDER).mkdir(exist_ok=True)
    for kind, reader in readers.items():
        shown[kind] = []
        for one in run.experiments(kind):
            try:
                if one.get("error"):
                    raise ValueError(one["error"])
                number = len(shown[kind]) + 1
                pictures = _pictures(run, kind, one, folder, number)
                shown[kind].append({**reader(one), "anchor": f"{kind}-{number}", "pictures": pictures})
            except _WRONG as error:
                why = readable(one.get("error") or f"it has not the parts of its kind ({type(error).__name__})")
                shown["damaged"].append({"file": readable(f"{kind}/{one.get('file', '')}"), "why": why})
    return shown


def _pictures(run: ReportRun, kind: str, one: Kept, folder: Path, number: int) -> list[str]:
    """The addresses of an experiment's pictures, which are written: a plot drawn anew, or those that are kept."""
    if kind == "rankings":
        (folder / FOLDER / f"{kind}-{number}.svg").write_text(draw_rankings(dict(one)), encoding="utf-8")
        return [f"{FOLDER}/{kind}-{number}.svg"]
    found = []
    stem = str(one["file"]).removesuffix(".json")
    for end in ("", "-pairs"):
        content = run.experiment_picture(kind, f"{stem}{end}.png")
        if content is not None and content.startswith(_PNG):
            address = f"{FOLDER}/{kind}-{number}{end}.png"
            (folder / address).write_bytes(content)
            found.append(address)
    return found


def _seeds(one: Kept) -> Figures:
    return {
        "samples": int(one["samples"]),
        "fresh": bool(one["fresh"]),
        "data": readable(one["data"]),
        "draws": int(one["draws"]),
    }


def _ranking(one: Kept) -> Figures:
    """Rankings of units for a concept: what the best of each remove."""
    curves = one["curves"]
    names = [readable(name) for name in curves]
    rows = [
        {"dose": int(dose), "points": [_removed(points[place]) for points in curves.values()]}
        for place, dose in enumerate(one["doses"])
    ]
    half = [(readable(name), None if units is None else int(units)) for name, units in one["half"].items()]
    title = f"{readable(one['concept'])} by {readable(one['layer'])}"
    return {
        "name": title,
        "concept": readable(one["concept"]),
        "names": names,
        "rows": rows,
        "half": half,
        **_seeds(one),
    }


def _removed(point: Kept) -> Figures | None:
    """The share of the concept's area that is gone, with its interval; None where it is not known."""
    if point["removed"] is None:
        return None
    low, high = (_number(end) for end in point["interval"])
    return {"removed": _number(point["removed"]), "low": low, "high": high}


def _insertion(one: Kept) -> Figures:
    """A concept inserted at places: in which contexts it appears."""
    rows = [
        {
            "context": readable(row["context"]),
            "places": int(row["places"]),
            "new": _number(row["new"]["mean"]),
            "random": None if row["random"] is None else _number(row["random"]["mean"]),
            "changed": _number(row["changed"]["mean"]),
            "verdict": readable(row["verdict"]),
        }
        for row in [*one["contexts"], one["all"]]
    ]
    return {
        **_units(one["units"]),
        "name": f"{readable(one['concept'])} by {readable(one['layer'])}",
        "concept": readable(one["concept"]),
        "chosen_by": readable(one["chosen_by"]),
        "level": readable(one["level"]),
        "took_from": _number(one["took_from"]),
        "rows": rows,
        **_seeds(one),
    }


def _defects(one: Kept) -> Figures:
    """Units behind the worst images, and images without them."""
    found = {
        "name": readable(one["name"]),
        **{name: readable(one[name] or "") for name in ("score", "note", "layer")},
        **{name: int(one[name]) for name in ("images", "worst")},
        "worse": readable(one["worse"]),
        "units": [
            {"unit": int(row["unit"]), "auc": _number(row["auc"]), "p": _number(row["p"])}
            for row in one["units"][:UNITS_LISTED]
        ],
        "unit_count": len(one["units"]),
        "repair": None,
    }
    repair = one["repair"]
    if repair is None:
        return found
    scores = repair["score"] or {}
    rows = [_change(words, scores[name]) for name, words in _REPAIRED.items() if scores.get(name) is not None]
    frechet = repair["frechet"]
    if frechet is not None:
        rows.append(_change("Fréchet distance", {**frechet, "change": frechet["after"] - frechet["before"]}))
    return {**found, "repair": {"rows": rows, **_seeds(repair)}}


_REPAIRED = {"all": "score, all images", "worst": "score, those worst before"}


def _change(words: str, row: Kept) -> Figures:
    """What became of a figure without the units; few: it is of no more images than features."""
    low, high = (_number(end) for end in row["interval"])
    return {
        "of": words,
        "images": int(row["images"]),
        **{name: _number(row[name]) for name in ("before", "after", "change")},
        "low": low,
        "high": high,
        "verdict": readable(row["verdict"]),
        "few": bool(row.get("few", False)),
    }


def _units(units: Sequence[Any]) -> Figures:
    return {"units": [int(unit) for unit in units[:UNITS_LISTED]], "unit_count": len(units)}


def _number(value: object) -> float:
    number = float(value)  # type: ignore[arg-type]
    if not math.isfinite(number):
        raise ValueError(f"{value} is no finite number")
    return number
