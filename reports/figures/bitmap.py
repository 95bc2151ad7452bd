"""A figure as PNG, 300 dots an inch, drawn by matplotlib's rasteriser: the same marks at the same places as the SVG.

Matplotlib is loaded when the first figure is drawn. Its own settings and whatever a user has set are left out of it, so
that the same figure gives the same bytes. Text is in DejaVu Sans, which comes with matplotlib; characters that it lacks
(Chinese, for one) are boxes here and right in the SVG.
"""

from __future__ import annotations

import io
import threading
import warnings
from typing import TYPE_CHECKING

from microtome.reports.figures.colours import WHITE, on_paper
from microtome.reports.figures.marks import MARGIN, Area, Bar, Dot, Figure, Mark, Path
from microtome.reports.figures.text import on_one_line

if TYPE_CHECKING:
    from matplotlib.artist import Artist

DPI = 300
_POINTS = 72
_ANCHORS = {"start": "left", "middle": "center", "end": "right"}
_drawing = threading.Lock()


def png_of(figure: Figure) -> bytes:
    """The figure as the content of a PNG file, 6.5 inches wide at 300 dots an inch, on white."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Sheet
    from matplotlib.transforms import Affine2D

    # Its settings and Python's filters of warnings are the process's.
    with _drawing, matplotlib.rc_context(), warnings.catch_warnings():
        matplotlib.rcdefaults()
        warnings.simplefilter("ignore")  # characters that the font lacks
        width, height = figure.size
        sheet = Sheet(figsize=(width / _POINTS, height / _POINTS), dpi=DPI, facecolor=WHITE)
        FigureCanvasAgg(sheet)
        placed = Affine2D().translate(MARGIN, MARGIN - height).scale(1 / _POINTS, -1 / _POINTS) + sheet.dpi_scale_trans
        for order, mark in enumerate(figure.marks):
            artist = _artist(mark)
            artist.set_zorder(order)
            artist.set_transform(placed)
            sheet.add_artist(artist)
        content = io.BytesIO()
        sheet.savefig(content, format="png", dpi=DPI, metadata={"Software": None, "Title": figure.title})
    return content.getvalue()


def _artist(mark: Mark) -> Artist:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Circle, Polygon, Rectangle
    from matplotlib.text import Text

    if isinstance(mark, Bar):
        edge = on_paper(mark.edge) if mark.edge else "none"
        bar = Rectangle((mark.x, mark.y), mark.width, mark.height, facecolor=on_paper(mark.fill), linewidth=0.6)
        bar.set_edgecolor(edge)
        return bar
    if isinstance(mark, Dot):
        return Circle((mark.x, mark.y), mark.radius, facecolor=on_paper(mark.fill), edgecolor="none")
    if isinstance(mark, Area):
        return Polygon(mark.points, facecolor=on_paper(mark.fill), edgecolor="none")
    if isinstance(mark, Path):
        across, down = zip(*mark.points, strict=True)
        line = Line2D(across, down, color=on_paper(mark.stroke), linewidth=mark.width)
        if mark.dashes:
            line.set_linestyle((0, tuple(length / mark.width for length in mark.dashes)))
        return line
    return Text(
        mark.x,
        mark.y,
        on_one_line(mark.text),
        fontsize=mark.size,
        fontfamily="DejaVu Sans",
        fontweight="bold" if mark.bold else "normal",
        color=on_paper(mark.colour),
        ha=_ANCHORS[mark.anchor],
        va="baseline",
        rotation=-mark.angle,
        rotation_mode="anchor",
        parse_math=False,
    )
