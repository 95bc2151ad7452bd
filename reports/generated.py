"""Ablations of generators as a page shows them: how much of each concept goes, beside random units, and the dose curve.

Drawn from the JSON that a run keeps in ablations/, and the contact sheet beside it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from microtome.reports.importance import readable

KIND = "generator"
PICTURED = 40
UNITS_LISTED = 40
LOWEST = -1.0
"""What grows by more than its own area is drawn as if it grew by so much."""

PLOT_WIDTH, PLOT_HEIGHT = 460, 240
LEFT, RIGHT, TOP, BOTTOM = 46, 14, 12, 34

Figures = dict[str, Any]


def is_generated(one: Mapping[str, Any]) -> bool:
    """Whether a kept ablation is one of a generator."""
    return one.get("kind") == KIND


def generated_ablation(one: Mapping[str, Any]) -> Figures | None:
    """One ablation of a generator, or None where it has not the parts that a picture needs."""
    try:
        return _ablation(one)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        return None


def _ablation(one: Mapping[str, Any]) -> Figures:
    concept = None if one["concept"] is None else readable(one["concept"])
    rows = [_row(readable(name), row) for name, row in one["concepts"].items()]
    rows.sort(key=lambda row: (row["name"] != concept, -row["area"]))
    known = [row for row in rows if row["removed"] is not None]
    start = _start([end for row in known for end in _ends(row)])
    dose = [_point(point) for point in one["dose"]]
    units = [int(unit) for unit in one["units"]]
    return {
        **{name: readable(one[name]) for name in ("name", "layer", "why", "chosen_by", "removal", "data")},
        "concept": concept,
        "fresh": bool(one["fresh"]),
        "samples": int(one["samples"]),
        "draws": int(one["draws"]),
        "drawn_from": readable(one.get("drawn_from", "")),
        "units": units[:UNITS_LISTED],
        "unit_count": len(units),
        "rows": rows,
        "whole": next((row for row in known if row["name"] == concept), None),
        "pictured": [{**row, "at": _places(row, start)} for row in known[:PICTURED]],
        "ticks": [{"value": at, "at": _at(at / 100, start)} for at in range(round(100 * start), 101, 25)],
        "known": len(known),
        "dose": dose,
        "plot": _plot(dose) if len(dose) > 1 else None,
        "effects": _effects(one["side_effects"]),
    }


def _row(name: str, row: Mapping[str, Any]) -> Figures:
    return {
        "name": name,
        "area": _number(row["area"]),
        "area_after": _number(row["area_after"]),
        "images": int(row["images"]),
        **_measured(row),
    }


def _point(point: Mapping[str, Any]) -> Figures:
    return {"units": int(point["units"]), **_measured(point)}


def _measured(row: Mapping[str, Any]) -> Figures:
    """Removed share and interval, of the chosen units and of random ones; None where nothing was to be removed."""
    removed, random = row["removed"], row["removed_random"]
    return {
        "removed": None if removed is None else _number(removed),
        "interval": None if removed is None else _interval(row["interval"]),
        "random": None if random is None else _number(random),
        "random_interval": None if random is None else _interval(row["random_interval"]),
    }


def _interval(ends: Sequence[object]) -> list[float]:
    low, high = (_number(end) for end in ends)
    return [low, high]


def _effects(effects: Mapping[str, Any]) -> Figures:
    most = effects["most"]
    return {
        "others": _or_none(effects["others_lose"]),
        "others_random": _or_none(effects["others_lose_random"]),
        "most": None if most is None else {"name": readable(most["concept"]), **_measured_most(most)},
        "outside": readable(effects["outside"]),
        "changes": [
            {"of": readable(change["of"]), "mean": _number(change["mean"]), "random": _or_none(change["mean_random"])}
            for change in (effects["pixels"], effects["features"])
            if change["mean"] is not None
        ],
    }


def _measured_most(most: Mapping[str, Any]) -> Figures:
    return {"removed": _number(most["removed"]), "interval": _interval(most["interval"])}


def _or_none(value: object) -> float | None:
    return None if value is None else _number(value)


def _number(value: object) -> float:
    number = float(value)  # type: ignore[arg-type]
    if not math.isfinite(number):
        raise ValueError(f"{value} is no finite number")
    return number


def _ends(row: Figures) -> list[float]:
    return [row["removed"], *row["interval"], *(row["random_interval"] or [])]


def _start(values: Sequence[float]) -> float:
    """Where an axis of removed shares up to 1 begins: a quarter, 0 or below."""
    least = max(min(values, default=0.0), LOWEST)
    return min(0.0, math.floor(4 * least) / 4)


def _at(share: float, start: float) -> float:
    return 100 * (min(max(share, start), 1.0) - start) / (1 - start)


def _places(row: Figures, start: float) -> dict[str, float]:
    """Percentages along the axis."""
    places = {"zero": _at(0.0, start), "removed": _at(row["removed"], start)}
    places |= {name: _at(end, start) for name, end in zip(("low", "high"), row["interval"], strict=True)}
    if row["random"] is not None:
        ends = zip(("random_low", "random_high"), row["random_interval"], strict=True)
        places |= {"random": _at(row["random"], start), **{name: _at(end, start) for name, end in ends}}
    return places


def _plot(dose: Sequence[Figures]) -> Figures:
    """The dose curve in pixels of its picture: lines and bands as points of SVG, and ticks."""
    known = [point for point in dose if point["removed"] is not None]
    random = [point for point in known if point["random"] is not None]
    ends = [end for point in known for end in _ends(point)]
    start = _start(ends)
    last = math.log2(dose[-1]["units"]) or 1.0

    def x(units: int) -> float:
        return LEFT + (PLOT_WIDTH - LEFT - RIGHT) * math.log2(units) / last

    def y(share: float) -> float:
        return TOP + (PLOT_HEIGHT - TOP - BOTTOM) * (1 - _at(share, start) / 100)

    def line(points: Sequence[Figures], value: str) -> str:
        return " ".join(f"{x(point['units']):.1f},{y(point[value]):.1f}" for point in points)

    def band(points: Sequence[Figures], interval: str) -> str:
        there = [f"{x(point['units']):.1f},{y(point[interval][1]):.1f}" for point in points]
        back = [f"{x(point['units']):.1f},{y(point[interval][0]):.1f}" for point in reversed(points)]
        return " ".join([*there, *back])

    return {
        "width": PLOT_WIDTH,
        "height": PLOT_HEIGHT,
        "left": LEFT,
        "right": PLOT_WIDTH - RIGHT,
        "bottom": PLOT_HEIGHT - BOTTOM,
        "top": TOP,
        "removed": line(known, "removed"),
        "band": band(known, "interval"),
        "random": line(random, "random"),
        "random_band": band(random, "random_interval"),
        "dots": [{"x": x(point["units"]), "y": y(point["removed"])} for point in known],
        "xs": [{"value": point["units"], "x": x(point["units"])} for point in dose],
        "ys": [{"value": at, "y": y(at / 100)} for at in range(round(100 * start), 101, 25)],
    }
