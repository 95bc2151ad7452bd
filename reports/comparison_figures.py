"""Figures of two runs compared: concepts by their best IoU in both, unique detectors, how well units match."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from microtome.reports.figures.layout import Rows, Scale, fine_print, grid_down, legend, number, round_ticks, rounded_up
from microtome.reports.figures.marks import SMALL, TEXT, WIDTH, Bar, Dot, Figure, Mark, Path, Words
from microtome.reports.figures.text import brief
from microtome.reports.pages import category_classes
from microtome.reports.summaries import CATEGORIES

CONCEPTS, DETECTORS, MATCHES = "concepts", "unique-detectors", "matches"
_PITCH, _AXIS, _RIGHT = 26.0, 36.0, 26.0
_COLOURS = {"a": "soft", "b": "accent"}
_SIDE = 300.0
_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


def layer_title(layer: Mapping[str, Any]) -> str:
    """What a pair of layers is called."""
    return str(layer["a"]) if layer["a"] == layer["b"] else f"{layer['a']} = {layer['b']}"


def ordered_categories(names: Sequence[str]) -> list[str]:
    """The categories among `names`, in their usual order, others after them by name."""
    present = set(names)
    return [name for name in CATEGORIES if name in present] + sorted(present.difference(CATEGORIES))


def concepts_figure(changes: Sequence[Mapping[str, Any]], bar: float) -> Figure:
    """A dot a concept: its best IoU in A from left to right, in B upwards."""
    categories = ordered_categories([change["category"] for change in changes])
    colours = [style.removeprefix("cat-") for style in category_classes(categories)]
    swatches, top = legend(list(zip(categories, colours, strict=True)), 0.0)
    points = [tuple(0.0 if change[key] is None else change[key]["iou"] for key in ("a", "b")) for change in changes]
    highest = rounded_up(max((max(point) for point in points), default=0.0), 100)
    left, top = 40.0, top + 10
    across, up = Scale(left, left + _SIDE, highest), Scale(top + _SIDE, top, highest)
    ticks = round_ticks(highest, 100)
    marks: list[Mark] = []
    for x, y, colour, name in swatches:
        marks += [Bar(x, y - 3.5, 7, 7, colour), Words(x + 11, y + 0.36 * TEXT, name)]
    marks += grid_down(across, top, top + _SIDE, ticks, "best IoU in A")
    for tick in ticks:
        marks.append(Path(((left, up.at(tick)), (left + _SIDE, up.at(tick))), "line"))
        marks.append(Words(left - 4, up.at(tick) + 0.36 * SMALL, number(tick), SMALL, "end", "soft"))
    marks.append(Words(10, top + _SIDE / 2, "best IoU in B", TEXT, "middle", angle=-90.0))
    marks.append(Path(((left, top + _SIDE), (left + _SIDE, top)), "soft", 0.5, (2, 2)))
    if bar < highest:
        marks.append(Path(((across.at(bar), top), (across.at(bar), top + _SIDE)), "accent", 0.6, (3, 2)))
        marks.append(Path(((left, up.at(bar)), (left + _SIDE, up.at(bar))), "accent", 0.6, (3, 2)))
    by_category = dict(zip(categories, colours, strict=True))
    for change, (one, other) in zip(changes, points, strict=True):
        hint = f"{brief(change['concept'])}: {one:.3f} in A, {other:.3f} in B"
        marks.append(Dot(across.at(one), up.at(other), 2.6, by_category[change["category"]], hint))
    bottom = top + _SIDE + _AXIS
    moved = [change["outcome"] for change in changes]
    return Figure(
        name=CONCEPTS,
        title="Best IoU of every concept in A and in B",
        description=f"A dot for each of {len(changes):,} concepts; above the diagonal those that B detects better. "
        f"{moved.count('gained'):,} are detected in B alone, {moved.count('lost'):,} in A alone.",
        height=bottom,
        marks=tuple(marks),
        columns=("concept", "category", "iou_a", "iou_b", "outcome"),
        rows=tuple(
            (change["concept"], change["category"], *point, change["outcome"])
            for change, point in zip(changes, points, strict=True)
        ),
    )


def detectors_figure(layers: Sequence[Mapping[str, Any]]) -> Figure:
    """Two bars a layer: distinct labels of detectors in A and in B."""
    names = [layer_title(layer) for layer in layers]
    counts = [(layer["detectors_a"]["unique"], layer["detectors_b"]["unique"]) for layer in layers]
    swatches, top = legend([("A", _COLOURS["a"]), ("B", _COLOURS["b"])], 0.0)
    rows = Rows.of(names, top + 6, _PITCH, _AXIS)
    scale = Scale(rows.left, WIDTH - _RIGHT, rounded_up(max((max(pair) for pair in counts), default=0)))
    marks: list[Mark] = []
    for x, y, colour, name in swatches:
        marks += [Bar(x, y - 3.5, 7, 7, colour), Words(x + 11, y + 0.36 * TEXT, name)]
    marks += grid_down(scale, rows.top, rows.bottom, round_ticks(scale.highest), "unique detectors")
    marks += rows.labels()
    high = min(0.36 * rows.pitch, 9.0)
    for row, pair in enumerate(counts):
        middle = rows.row(row) + rows.pitch / 2
        for key, count, y in zip("ab", pair, (middle - high, middle), strict=True):
            hint = f"{brief(names[row])}: {count} in {key.upper()}"
            marks.append(Bar(scale.start, y, scale.at(count) - scale.start, high, _COLOURS[key], "", hint))
            if row % rows.every == 0:
                marks.append(Words(scale.at(count) + 4, y + high / 2 + 0.36 * SMALL, str(count), SMALL))
    bottom = rows.bottom + _AXIS
    marks += fine_print(rows.note(), bottom - 2)
    said = "; ".join(
        f"{brief(name)}: {one} and {other}" for name, (one, other) in list(zip(names, counts, strict=True))[:20]
    )
    return Figure(
        name=DETECTORS,
        title="Unique detectors by layer in A and in B",
        description=f"Distinct concepts that label a detector, in A and in B. {said}.",
        height=bottom,
        marks=tuple(marks),
        columns=("layer", "a", "b"),
        rows=tuple((name, *pair) for name, pair in zip(names, counts, strict=True)),
    )


def matches_figure(layers: Sequence[Mapping[str, Any]]) -> Figure:
    """A row a layer: how far the correlations of matched pairs spread, and what chance gives."""
    names = [layer_title(layer) for layer in layers]
    spreads = [
        np.quantile([match["correlation"] for match in layer["matches"]], _QUANTILES).tolist()
        if layer["matches"]
        else None
        for layer in layers
    ]
    chances = [layer["chance"]["high"] for layer in layers]
    rows = Rows.of(names, 4.0, _PITCH, _AXIS)
    scale = Scale(rows.left, WIDTH - _RIGHT, 1.0)
    marks: list[Mark] = grid_down(scale, rows.top, rows.bottom, round_ticks(1.0, 5), "correlation of matched units")
    marks += rows.labels()
    for row, (spread, chance) in enumerate(zip(spreads, chances, strict=True)):
        middle = rows.row(row) + rows.pitch / 2
        high = min(0.5 * rows.pitch, 11.0)
        if spread is not None:
            low, first, median, third, top = (scale.at(max(value, 0.0)) for value in spread)
            hint = f"{brief(names[row])}: half of the pairs between {spread[1]:.2f} and {spread[3]:.2f}"
            marks.append(Path(((low, middle), (top, middle)), "accent", 1.0))
            marks.append(Bar(first, middle - high / 2, max(third - first, 0.8), high, "accent", "", hint))
            marks.append(Path(((median, middle - high / 2), (median, middle + high / 2)), "paper", 1.4))
        if chance is not None:
            x = scale.at(max(chance, 0.0))
            marks.append(Path(((x, middle - 0.8 * high), (x, middle + 0.8 * high)), "ink", 1.0, (2, 1.5)))
    bottom = rows.bottom + _AXIS
    marks += fine_print("Bar: half of the pairs; line: 90% of them; dashed: chance.", bottom - 2)
    medians = [spread[2] if spread else float("nan") for spread in spreads]
    said = "; ".join(f"{brief(name)}: {value:.2f}" for name, value in list(zip(names, medians, strict=True))[:20])
    return Figure(
        name=MATCHES,
        title="Correlation of units matched one to one",
        description=f"Medians: {said}.",
        height=bottom,
        marks=tuple(marks),
        columns=("layer", *(f"quantile_{share:g}" for share in _QUANTILES), "chance"),
        rows=tuple(
            (name, *(spread or [""] * len(_QUANTILES)), "" if chance is None else chance)
            for name, spread, chance in zip(names, spreads, chances, strict=True)
        ),
    )
