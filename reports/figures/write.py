"""The figures of a run as files of its report, `figures/NAME.svg`, `.png` and `.csv`, and as its index shows them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from microtome.reports.alignment import is_baseline
from microtome.reports.figures.bitmap import png_of
from microtome.reports.figures.depth import detectors_figure
from microtome.reports.figures.distribution import iou_distribution_figure
from microtome.reports.figures.labellings import labellings
from microtome.reports.figures.marks import Figure
from microtome.reports.figures.svg import svg_file, svg_on_page
from microtome.reports.figures.unique import NAME as UNIQUE
from microtome.reports.figures.unique import unique_detectors_figure
from microtome.reports.summaries import Concepts, LayerSummary

FOLDER = "figures"


@dataclass(frozen=True, slots=True)
class ShownFigure:
    """A figure on a page. address: of its files, without their ending; element: None where files alone are shown."""

    name: str
    title: str
    address: str
    element: Markup | None


def run_figures(layers: Sequence[LayerSummary], concepts: Concepts, bar: float) -> list[Figure]:
    """Every figure of a run: for each labelling unique detectors, the distribution of IoU, and detectors by depth.

    Rotations of a layer, which are no layers of the network, are left out of what goes by depth.
    """
    own = [layer for layer in layers if not is_baseline(layer, layers)]
    found: list[Figure] = []
    for every, mine in zip(labellings(layers, bar), labellings(own, bar), strict=False):
        found += [unique_detectors_figure(every, concepts), iou_distribution_figure(every), detectors_figure(mine)]
    return found


def write_figures(folder: Path, layers: Sequence[LayerSummary], concepts: Concepts, bar: float) -> list[ShownFigure]:
    """Write the figures of a run beneath `folder`, its report; returns them as the index shows them."""
    figures = run_figures(layers, concepts, bar)
    (folder / FOLDER).mkdir()
    shown = []
    for figure in figures:
        path = folder / FOLDER / figure.name
        path.with_suffix(".svg").write_text(svg_file(figure), encoding="utf-8")
        path.with_suffix(".csv").write_text(figure.csv(), encoding="utf-8", errors="replace", newline="")
        path.with_suffix(".png").write_bytes(png_of(figure))
        address = f"{FOLDER}/{figure.name}"
        element = None if figure.name == UNIQUE else svg_on_page(figure)  # the index has bars of its own
        shown.append(ShownFigure(figure.name, figure.title, address, element))
    return shown
