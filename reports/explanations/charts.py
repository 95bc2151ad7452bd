"""Small line charts beside each other, drawn with PIL: values from 0 to 1 over a share from 0 to 1."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

from microtome.reports.contact import FAINT, INK, MARGIN, PAPER, TEXT_SIZE, TITLE_SIZE

WIDTH, HEIGHT = 380, 150
_HEAD, _FOOT, _LEFT = 24, 38, 34
_SHARP = 2
"""Charts are drawn so many times as large, then made smaller: lines have no steps."""
_GRID = "#e4e4e4"
_TICKS = (0.0, 0.5, 1.0)

Pen = ImageDraw.ImageDraw


@dataclass(frozen=True)
class Line:
    """A name for the legend (empty: it is not there), points with x and y in 0..1 (y may fall below), a colour."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    colour: str


@dataclass(frozen=True)
class Chart:
    """A title, lines, a caption beneath, and what x is."""

    title: str
    lines: tuple[Line, ...]
    caption: str
    x: str


def draw_charts(charts: Sequence[Chart], title: str = "", notes: Sequence[str] = (), across: int = 2) -> Image.Image:
    """All charts, `across` beside each other, beneath a title and sentences: RGB."""
    high, wide = HEIGHT + _HEAD + _FOOT, WIDTH + _LEFT + MARGIN
    head = 2 * MARGIN + (TITLE_SIZE + 8 if title else 0) + (TEXT_SIZE + 6) * len(notes)
    lines = -(-len(charts) // across)
    sheet = Image.new("RGB", (2 * MARGIN + across * wide, head + lines * high + MARGIN), PAPER)
    pen = ImageDraw.Draw(sheet)
    pen.text((MARGIN, MARGIN), title, INK, ImageFont.load_default(TITLE_SIZE))
    for number, note in enumerate(notes):
        place = (MARGIN, head - MARGIN - (TEXT_SIZE + 6) * (len(notes) - number))
        pen.text(place, _fitting(note, sheet.width - 2 * MARGIN), FAINT, ImageFont.load_default(TEXT_SIZE))
    for number, chart in enumerate(charts):
        line, column = divmod(number, across)
        sheet.paste(_draw(chart), (MARGIN + column * wide, head + line * high))
    return sheet


def _draw(chart: Chart) -> Image.Image:
    size = (WIDTH + _LEFT + MARGIN, HEIGHT + _HEAD + _FOOT)
    large = Image.new("RGB", (size[0] * _SHARP, size[1] * _SHARP), PAPER)
    pen = ImageDraw.Draw(large)
    small = ImageFont.load_default(TEXT_SIZE * _SHARP)
    low = min(0.0, *(min(line.y) for line in chart.lines))
    low = 0.0 if low > -0.02 else -0.5 if low > -0.5 else -1.0
    pen.text((_LEFT * _SHARP, 0), chart.title, INK, ImageFont.load_default((TEXT_SIZE + 1) * _SHARP))
    for tick in (low, *_TICKS) if low < 0 else _TICKS:
        left, at = _place(0, tick, low)
        pen.line((left, at, _place(1, tick, low)[0], at), fill=_GRID, width=_SHARP)
        pen.text((left - 6 * _SHARP, at), f"{tick:g}", FAINT, small, anchor="rm")
    for line in reversed(chart.lines):
        points = [_place(x, y, low) for x, y in zip(line.x, line.y, strict=True)]
        pen.line(points, fill=line.colour, width=2 * _SHARP, joint="curve")
    _legend(pen, chart, small)
    return large.resize(size, Image.Resampling.LANCZOS)


def _legend(pen: Pen, chart: Chart, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> None:
    across, down = float(_LEFT * _SHARP), (_HEAD + HEIGHT + 4) * _SHARP
    for line in chart.lines:
        if line.name:
            pen.line((across, down + 8 * _SHARP, across + 14 * _SHARP, down + 8 * _SHARP), line.colour, 3 * _SHARP)
            pen.text((across + 18 * _SHARP, down), line.name, INK, font)
            across += 30 * _SHARP + pen.textlength(line.name, font)
    pen.text(((_LEFT + WIDTH) * _SHARP, down), chart.x, FAINT, font, anchor="ra")
    pen.text((_LEFT * _SHARP, down + (TEXT_SIZE + 4) * _SHARP), chart.caption, FAINT, font)


def _place(x: float, y: float, low: float) -> tuple[float, float]:
    """Where a point is on the large chart."""
    return (_LEFT + x * WIDTH) * _SHARP, (_HEAD + (1 - (y - low) / (1 - low)) * HEIGHT) * _SHARP


def _fitting(text: str, width: int) -> str:
    font = ImageFont.load_default(TEXT_SIZE)
    while text and font.getlength(text) > width:
        text = text[:-2].rstrip(".") + "…"
    return text
