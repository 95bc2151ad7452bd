"""How the IoU of all units of each layer is distributed: histogram and quantiles a layer, the detectors' bar marked."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from microtome.reports.figures.labellings import Labelling, said_of_layers
from microtome.reports.figures.layout import Rows, Scale, fine_print, grid_down, round_ticks, rounded_up
from microtome.reports.figures.marks import SMALL, WIDTH, Area, Bar, Dot, Figure, Mark, Path, Words
from microtome.reports.figures.text import brief
from microtome.reports.summaries import Labels

NAME = "iou-distribution"
SHARES = (0.05, 0.25, 0.5, 0.75, 0.95)
BINS = 60
_PITCH, _TOP, _AXIS, _RIGHT = 34.0, 14.0, 36.0, 8.0
_LEAST_FOR_HISTOGRAM = 11.0
"""Rows lower than this have quantiles alone."""


@dataclass(frozen=True, slots=True)
class Distribution:
    """The IoU of a layer's units. quantiles: at SHARES; bins: units in (edges[i], edges[i + 1]], 0 in the first."""

    units: int
    detectors: int
    quantiles: NDArray[np.float64]
    highest: float
    bins: NDArray[np.int64]

    @classmethod
    def of(cls, labels: Labels, edges: NDArray[np.float64]) -> Distribution:
        """Of one layer; units that overlap no concept have an IoU of 0."""
        iou = ious(labels)
        place = np.clip(np.searchsorted(edges, iou, side="left") - 1, 0, len(edges) - 2)
        bins = np.bincount(place, minlength=len(edges) - 1).astype(np.int64)
        quantiles = np.zeros(len(SHARES))
        if len(iou):
            quantiles[:] = np.quantile(iou, SHARES)
        return cls(len(iou), labels.detectors, quantiles, float(iou.max(initial=0.0)), bins)


def ious(labels: Labels) -> NDArray[np.float64]:
    """(C,) the IoU of each unit with its label, 0 where it has none."""
    return np.nan_to_num(labels.iou, nan=0.0)


def bin_edges(bar: float, highest: float) -> NDArray[np.float64]:
    """Edges of about BINS equal bins from 0 to `highest` or a little beyond, `bar` among them, which divides the first
    one where it is far below a bin's width."""
    width = highest / BINS
    parts = round(bar / width)
    if parts:
        width = bar / parts
    edges = np.asarray(width * np.arange(int(np.ceil(highest / width - 1e-9)) + 1), np.float64)
    edges[np.isclose(edges, bar, rtol=1e-9, atol=0)] = bar
    return edges if parts or bar <= 0 else np.union1d(edges, [bar])


def iou_distribution_figure(chosen: Labelling) -> Figure:
    """A row a layer: a histogram of its units' IoU, scaled to its own highest bin, above a line from the 5th to the
    95th percentile, a bar from the 25th to the 75th, and a dot at the median."""
    reach = max((float(ious(labels).max(initial=0.0)) for labels in chosen.labels), default=0.0)
    end = rounded_up(max(reach, 1.5 * chosen.bar, 0.01), 100)
    edges = bin_edges(chosen.bar, end)
    found = [Distribution.of(labels, edges) for labels in chosen.labels]
    rows = Rows.of(chosen.layers, _TOP, _PITCH, _AXIS)
    scale = Scale(rows.left, WIDTH - _RIGHT, float(max(end, edges[-1])))
    marks = grid_down(scale, rows.top, rows.bottom, round_ticks(end, 100), "best IoU of each unit")
    marks += rows.labels()
    for number, one in enumerate(found):
        if one.units:
            marks += _row(one, edges, rows, scale, number, chosen)
    at = scale.at(chosen.bar)
    marks.append(Path(((at, rows.top - 2), (at, rows.bottom)), "ink", 0.7, (2.5, 2.0)))
    marks.append(Words(at, rows.top - 5, f"{chosen.bar:g}: detectors beyond", SMALL, "start" if at < 330 else "end"))
    bottom = rows.bottom + _AXIS
    marks += fine_print(rows.note(), bottom - 2)
    medians = [f"{one.quantiles[2]:.3f}" for one in found]
    return Figure(
        name=f"{NAME}-{chosen.key}" if chosen.key else NAME,
        title=f"Distribution of IoU by layer, {chosen.words}",
        description="For each layer a histogram of the IoU that its units reach with their labels, scaled to its own "
        "highest bin; line: 5th to 95th percentile, bar: 25th to 75th, dot: median. Medians: "
        + said_of_layers(chosen.layers, medians, _highest(found)),
        height=bottom,
        marks=tuple(marks),
        columns=(
            *("layer", "units", "detectors", *(f"p{100 * share:.0f}" for share in SHARES), "maximum"),
            *(f"units in ({low:.4g}, {high:.4g}]" for low, high in pairwise(edges.tolist())),
        ),
        rows=tuple(
            (name, one.units, one.detectors, *map(float, one.quantiles), one.highest, *one.bins.tolist())
            for name, one in zip(chosen.layers, found, strict=True)
        ),
    )


def _row(
    one: Distribution, edges: NDArray[np.float64], rows: Rows, scale: Scale, number: int, chosen: Labelling
) -> list[Mark]:
    low, quarter, median, three, high = (scale.at(float(value)) for value in one.quantiles)
    tall = rows.pitch >= _LEAST_FOR_HISTOGRAM
    y = rows.row(number) + rows.pitch * (0.8 if tall else 0.5)
    thick = min(0.11 * rows.pitch if tall else 0.5 * rows.pitch, 3.2)
    said = f"median {one.quantiles[2]:.3f}, {one.detectors} of {one.units} units are detectors"
    hint = f"{brief(chosen.layers[number])}: {said}"
    marks: list[Mark] = _histogram(one, edges, rows, scale, number, chosen) if tall else []
    marks += [
        Path(((low, y), (high, y)), "soft", min(0.8, 0.3 * rows.pitch)),
        Bar(quarter, y - thick / 2, max(three - quarter, 0.5), thick, "soft", hint=hint),
        Dot(median, y, min(0.62 * thick + 0.4, 0.45 * rows.pitch), "ink", hint),
    ]
    return marks


def _histogram(
    one: Distribution, edges: NDArray[np.float64], rows: Rows, scale: Scale, number: int, chosen: Labelling
) -> list[Mark]:
    """Steps above the row's line: grey up to the bar, coloured beyond."""
    base = rows.row(number) + 0.68 * rows.pitch
    unit = 0.62 * rows.pitch / max(int(one.bins.max()), 1)
    marks: list[Mark] = []
    for colour, chosen_bins in (("other-1", edges[:-1] < chosen.bar), ("object", edges[:-1] >= chosen.bar)):
        places = np.flatnonzero(chosen_bins & (one.bins > 0)).tolist()
        for stretch in _stretches(places):
            outline = [(scale.at(float(edges[stretch[0]])), base)]
            for place in stretch:
                y = base - unit * int(one.bins[place])
                outline += [(scale.at(float(edges[place])), y), (scale.at(float(edges[place + 1])), y)]
            outline.append((scale.at(float(edges[stretch[-1] + 1])), base))
            marks.append(Area(tuple(outline), colour))
    return marks


def _stretches(places: list[int]) -> list[list[int]]:
    """Ascending numbers, in lists of those that follow each other."""
    found: list[list[int]] = []
    for place in places:
        if found and found[-1][-1] == place - 1:
            found[-1].append(place)
        else:
            found.append([place])
    return found


def _highest(found: list[Distribution]) -> int:
    return max(range(len(found)), key=lambda number: float(found[number].quantiles[2]), default=0)
