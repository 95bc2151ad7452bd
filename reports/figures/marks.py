"""What a figure consists of: a few kinds of marks, placed in points (1/72 inch), and the numbers that they show.

A drawing is made once, as marks; `svg.py` writes them as text and `bitmap.py` as pixels. Colours are named by what they
stand for (`colours.py`), since the same figure is black on white in a file and follows the reader's choice on a page.
"""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from typing import TypeAlias

from microtome.reports.text import all_without_controls

Point: TypeAlias = tuple[float, float]

WIDTH, MARGIN = 460.0, 4.0
"""What is drawn on, and what is left free around it: 6.5 inches in all, the text block of a page of letter paper."""
TEXT, SMALL, SMALLEST = 8.0, 7.0, 6.0
"""Sizes of text."""


@dataclass(frozen=True, slots=True)
class Bar:
    """A filled rectangle. edge: the colour of a hairline around it, "" = none; hint: what a pointer is told of it."""

    x: float
    y: float
    width: float
    height: float
    fill: str
    edge: str = ""
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Path:
    """A line through points. dashes: lengths of dash and gap, () = solid."""

    points: tuple[Point, ...]
    stroke: str
    width: float = 0.6
    dashes: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Area:
    """A filled polygon."""

    points: tuple[Point, ...]
    fill: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Dot:
    """A filled circle."""

    x: float
    y: float
    radius: float
    fill: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Words:
    """A line of text on its baseline. anchor: "start", "middle" or "end"; angle: degrees, clockwise, about (x, y)."""

    x: float
    y: float
    text: str
    size: float = TEXT
    anchor: str = "start"
    colour: str = "ink"
    bold: bool = False
    angle: float = 0.0


Mark: TypeAlias = Bar | Path | Area | Dot | Words


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure: its marks lie between 0 and WIDTH and between 0 and `height`.

    name: of its files; title, description: for those who cannot see it; marks: in the order of drawing;
    columns, rows: the numbers behind them
    """

    name: str
    title: str
    description: str
    height: float
    marks: tuple[Mark, ...]
    columns: tuple[str, ...]
    rows: tuple[tuple[str | int | float, ...], ...]

    @property
    def size(self) -> Point:
        """Width and height with the margin."""
        return WIDTH + 2 * MARGIN, self.height + 2 * MARGIN

    def csv(self) -> str:
        """The numbers as CSV (RFC 4180 but for its line ends): IoU with all digits, names in full, without controls."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerows(all_without_controls([self.columns, *self.rows]))
        return text.getvalue()
