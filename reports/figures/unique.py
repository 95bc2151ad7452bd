"""Unique detectors by category and layer, as stacked bars: as in Bau et al. 2017 (Network Dissection)."""

from __future__ import annotations

from microtome.reports.figures.labellings import Labelling, said_of_layers
from microtome.reports.figures.layout import (
    Rows,
    Scale,
    fine_print,
    grid_down,
    legend,
    round_ticks,
    rounded_up,
)
from microtome.reports.figures.marks import TEXT, WIDTH, Bar, Figure, Mark, Words
from microtome.reports.figures.text import brief
from microtome.reports.pages import category_classes
from microtome.reports.summaries import Concepts

NAME = "unique-detectors"
_PITCH, _AXIS, _RIGHT = 17.0, 36.0, 26.0


def unique_detectors_figure(chosen: Labelling, concepts: Concepts) -> Figure:
    """A bar a layer, its parts the distinct concepts of each category that label a detector there."""
    counts = chosen.unique_in(concepts)
    totals = counts.sum(axis=1).tolist()
    colours = [style.removeprefix("cat-") for style in category_classes(concepts.categories)]
    swatches, top = legend(list(zip(concepts.categories, colours, strict=True)), 0.0)
    rows = Rows.of(chosen.layers, top + 6, _PITCH, _AXIS)
    highest = max(totals, default=0)
    scale = Scale(rows.left, WIDTH - _RIGHT, rounded_up(highest))
    marks: list[Mark] = []
    for x, y, colour, name in swatches:
        marks += [Bar(x, y - 3.5, 7, 7, colour), Words(x + 11, y + 0.36 * TEXT, name)]
    marks += grid_down(scale, rows.top, rows.bottom, round_ticks(scale.highest), "unique detectors")
    marks += rows.labels()
    edge = "paper" if rows.pitch > 6 else ""
    for number, name in enumerate(chosen.layers):
        high = min(0.72 * rows.pitch, 12.0)
        y, done = rows.row(number) + (rows.pitch - high) / 2, 0
        for category, count in enumerate(counts[number].tolist()):
            if count:
                start, end = scale.at(done), scale.at(done + count)
                hint = f"{brief(name)}: {count} {brief(concepts.categories[category])}"
                marks.append(Bar(start, y, end - start, high, colours[category], edge, hint))
                done += count
        if number % rows.every == 0:
            place = (scale.at(done) + 4, rows.row(number) + rows.pitch / 2 + 0.36 * rows.size)
            marks.append(Words(*place, str(done), rows.size, bold=True))
    bottom = rows.bottom + _AXIS
    marks += fine_print(rows.note(), bottom - 2)
    return Figure(
        name=f"{NAME}-{chosen.key}" if chosen.key else NAME,
        title=f"Unique detectors by category and layer, {chosen.words}",
        description="Distinct concepts that label a detector, as bars stacked by category. "
        + said_of_layers(chosen.layers, [str(total) for total in totals], _highest(totals)),
        height=bottom,
        marks=tuple(marks),
        columns=("layer", *concepts.categories, "all"),
        rows=tuple((name, *row, sum(row)) for name, row in zip(chosen.layers, counts.tolist(), strict=True)),
    )


def _highest(totals: list[int]) -> int:
    return max(range(len(totals)), key=totals.__getitem__, default=0)
