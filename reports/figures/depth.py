"""Numbers by depth: a point a layer, in the network's order, joined by lines; two charts beneath each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from microtome.reports.figures.labellings import Labelling, said_of_layers
from microtome.reports.figures.layout import Columns, Scale, fine_print, grid_across, ordinal, round_ticks, rounded_up
from microtome.reports.figures.marks import TEXT, WIDTH, Dot, Figure, Mark, Path, Words
from microtome.reports.figures.text import brief

NAME = "detectors-by-depth"
_LEFT, _CHART, _HEAD, _GAP = 36.0, 96.0, 16.0, 14.0
_MOST_DOTS = 90


@dataclass(frozen=True, slots=True)
class Series:
    """One chart: what it shows, a value a layer (None: nothing there), its colour, how fine its ticks may be, a level
    to mark, and how a value is said."""

    title: str
    values: Sequence[float | None]
    colour: str
    finest: int = 1
    level: float | None = None
    form: str = ".0f"


def detectors_figure(chosen: Labelling) -> Figure:
    """Detectors above, unique detectors below, by layer."""
    detectors = [labels.detectors for labels in chosen.labels]
    unique = [len(labels.unique) for labels in chosen.labels]
    charts = (
        Series(f"detectors: units whose best IoU exceeds {chosen.bar:g}", detectors, "object"),
        Series("unique detectors: distinct concepts among them", unique, "material"),
    )
    marks, height = _charts(chosen.layers, charts)
    highest = max(range(len(unique)), key=unique.__getitem__, default=0)
    said = [f"{many} detectors, {few} unique" for many, few in zip(detectors, unique, strict=True)]
    return Figure(
        name=f"{NAME}-{chosen.key}" if chosen.key else NAME,
        title=f"Detectors and unique detectors by depth, {chosen.words}",
        description="Two line charts over the layers in the network's order. "
        + said_of_layers(chosen.layers, said, highest),
        height=height,
        marks=tuple(marks),
        columns=("layer", "units", "detectors", "unique_detectors"),
        rows=tuple(
            (name, len(labels.iou), labels.detectors, len(labels.unique))
            for name, labels in zip(chosen.layers, chosen.labels, strict=True)
        ),
    )


def concept_figure(
    concept: str, names: Sequence[str], best: Sequence[float | None], detectors: Sequence[int], bar: float
) -> Figure:
    """Where in depth one concept appears. best: by layer, the highest IoU that any unit has with it, None where no mask
    meets it; detectors: units whose label it is and that pass `bar`."""
    charts = (
        Series("best IoU of any unit", best, "object", 100, bar, ".3f"),
        Series("units that detect it", detectors, "material"),
    )
    marks, height = _charts(names, charts)
    said = [f"best IoU {value or 0:.3f}, {count} detecting" for value, count in zip(best, detectors, strict=True)]
    highest = max(range(len(best)), key=lambda number: best[number] or 0.0, default=0)
    return Figure(
        name="concept-by-depth",
        title=f"{brief(concept)} by depth",
        description="Two line charts over the layers in the network's order. " + said_of_layers(names, said, highest),
        height=height,
        marks=tuple(marks),
        columns=("layer", "best_iou", "detectors"),
        rows=tuple((name, value or 0.0, count) for name, value, count in zip(names, best, detectors, strict=True)),
    )


def _charts(names: Sequence[str], charts: Sequence[Series]) -> tuple[list[Mark], float]:
    """The marks of charts beneath each other on one axis of layers, and where they end."""
    columns = Columns.of(names, _LEFT, WIDTH - 6)
    marks: list[Mark] = []
    y = 0.0
    for number, chart in enumerate(charts):
        top = y + _HEAD
        marks.append(Words(0, y + TEXT, chart.title, bold=True))
        marks += _chart(chart, columns, names, top)
        y = top + _CHART + (_GAP if number + 1 < len(charts) else 0)
    labels, end = columns.labels(y)
    marks += labels
    if columns.every > 1:
        end += TEXT
        marks += fine_print(f"Every {ordinal(columns.every)} layer is named.", end - 2)
    return marks, end


def _chart(chart: Series, columns: Columns, names: Sequence[str], top: float) -> list[Mark]:
    known = [value for value in chart.values if value is not None]
    highest = rounded_up(max([*known, chart.level or 0.0], default=0.0), chart.finest)
    scale = Scale(top + _CHART, top, highest)
    marks = grid_across(scale, columns.left, columns.right, round_ticks(highest, chart.finest))
    if chart.level is not None:
        y = scale.at(chart.level)
        marks.append(Path(((columns.left, y), (columns.right, y)), "ink", 0.7, (2.5, 2.0)))
    points = [(columns.at(number), scale.at(value)) for number, value in enumerate(chart.values) if value is not None]
    if len(points) > 1:
        marks.append(Path(tuple(points), chart.colour, 1.2))
    radius = 2.2 if len(names) <= _MOST_DOTS else 1.2
    for number, value in enumerate(chart.values):
        if value is not None:
            hint = f"{brief(names[number])}: {value:{chart.form}}"
            marks.append(Dot(columns.at(number), scale.at(value), radius, chart.colour, hint))
    return marks
