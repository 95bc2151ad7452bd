"""The sheet around the dots of a map: title, legend, names on the map, lines below; all sizes follow the sheet's width.

Text that is ASCII is set in the font that Pillow carries, so that it looks the same everywhere; other text in DejaVu
Sans, where the machine has it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from microtome.reports.text import without_controls

INK, SOFT, LINE = "#1c232c", "#5d6774", "#d9dbd6"
_EM = 1 / 62
"""Height of the text, as a share of the sheet's width: eight points where it is 6.5 inches wide."""
_LEADING = 1.38
_MOST_TEXT = 400

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Label:
    """A name on the map, its middle at (column, row) in pixels of the dots' picture."""

    text: str
    column: float
    row: float


@dataclass(frozen=True)
class Legend:
    """title; entries: (colour, name, count in words); notes: lines below; ramp: colours from `low` to `high`."""

    title: str
    entries: list[tuple[str, str, str]]
    notes: list[str] = field(default_factory=list)
    ramp: Sequence[str] = ()
    low: str = ""
    high: str = ""


def compose(
    dots: NDArray[np.uint8], labels: Sequence[Label], legend: Legend, title: str, lines: Sequence[str], width: int
) -> Image.Image:
    """A sheet `width` pixels wide with the picture `dots` (h, w, 3) on the left and the legend on its right."""
    em = max(6, round(width * _EM))
    (tall, wide), gap = dots.shape[:2], round(1.2 * em)
    top = gap + round(2 * em if title else 0)
    written = [part for line in lines for part in wrapped(line, em, width - 2 * gap)]
    below = round(top + max(tall, _height(legend, em)) + 0.6 * em)
    height = below + round(len(written) * em * _LEADING) + gap
    legend_box = (gap + wide + gap, top, width - gap, top + tall)
    sheet = Image.new("RGB", (width, height), "white")
    sheet.paste(Image.fromarray(dots), (gap, top))
    pen = ImageDraw.Draw(sheet)
    pen.rectangle((gap - 1, top - 1, gap + wide, top + tall), outline=LINE, width=max(1, em // 24))
    if title:
        text = shortened(title, round(1.3 * em), width - 2 * gap)
        pen.text((gap, gap), text, INK, font_for(text, round(1.3 * em)))
    _draw_labels(
        pen,
        [Label(one.text, one.column + gap, one.row + top) for one in labels],
        em,
        (gap, top, gap + wide, top + tall),
    )
    _draw_legend(pen, legend, legend_box, em)
    for number, line in enumerate(written):
        pen.text((gap, below + number * em * _LEADING), line, SOFT, font_for(line, em))
    return sheet


def _draw_labels(pen: ImageDraw.ImageDraw, labels: Sequence[Label], em: int, frame: Box) -> None:
    """The names, first ones first, without those that would cover an earlier one."""
    taken: list[Box] = []
    left, top, right, bottom = frame
    for label in labels:
        text = shortened(label.text, em, (right - left) / 3)
        font = font_for(text, em)
        width = pen.textlength(text, font)
        x = min(max(label.column, left + width / 2 + em / 4), right - width / 2 - em / 4)
        y = min(max(label.row, top + 0.8 * em), bottom - 0.8 * em)
        box = (x - width / 2, y - 0.6 * em, x + width / 2, y + 0.6 * em)
        if any(_overlap(box, other) for other in taken):
            continue
        taken.append(box)
        pen.text((x, y), text, INK, font, anchor="mm", stroke_width=max(1, em // 8), stroke_fill="white")


def _overlap(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _height(legend: Legend, em: int) -> float:
    """About how high the legend is, in pixels, with two lines for each note."""
    rows = (1.3 if legend.title else 0) + (2.4 if legend.ramp else 0) + len(legend.entries) + 2 * len(legend.notes)
    return rows * em * _LEADING


def _draw_legend(pen: ImageDraw.ImageDraw, legend: Legend, box: Box, em: int) -> None:
    left, y, right, _ = box
    step = em * _LEADING
    if legend.title:
        text = shortened(legend.title, em, right - left)
        pen.text((left, y), text, INK, font_for(text, em))
        y += 1.3 * step
    if legend.ramp:
        y = _draw_ramp(pen, legend, (left, y, right), em)
    for colour, name, count in legend.entries:
        middle = y + em * 0.62
        pen.ellipse((left, middle - em * 0.36, left + em * 0.72, middle + em * 0.36), fill=colour)
        number = font_for(count, em)
        room = right - left - 1.6 * em - pen.textlength(count, number)
        text = shortened(name, em, room)
        pen.text((left + 1.1 * em, y), text, INK, font_for(text, em))
        pen.text((right, y), count, SOFT, number, anchor="ra")
        y += step
    for note in legend.notes:
        for line in wrapped(note, em, round(right - left)):
            pen.text((left, y), line, SOFT, font_for(line, em))
            y += step


def _draw_ramp(pen: ImageDraw.ImageDraw, legend: Legend, at: tuple[float, float, float], em: int) -> float:
    """The colours from low to high, mixed as those of the dots are; returns where the next row begins."""
    left, y, right = at
    stops = np.array([[int(colour[k : k + 2], 16) for k in (1, 3, 5)] for colour in legend.ramp], np.float64)
    wide = max(2, round(right - left))
    shares = np.linspace(0, len(stops) - 1, wide)
    for column in range(wide):
        mixed = [round(float(np.interp(shares[column], range(len(stops)), stops[:, k]))) for k in range(3)]
        pen.line((left + column, y, left + column, y + em), fill=(mixed[0], mixed[1], mixed[2]))
    pen.text((left, y + 1.2 * em), legend.low, SOFT, font_for(legend.low, em))
    pen.text((right, y + 1.2 * em), legend.high, SOFT, font_for(legend.high, em), anchor="ra")
    return y + 3.2 * em


def wrapped(text: str, em: int, width: float) -> list[str]:
    """`text` in lines of at most `width` pixels, broken at blanks."""
    lines: list[str] = []
    for word in without_controls(text).split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and font_for(longer, em).getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(shortened(word, em, width))
    return lines


def shortened(text: str, em: int, width: float) -> str:
    """`text` on one line of at most `width` pixels, with three dots for what is left out."""
    text = " ".join(without_controls(text).split())[:_MOST_TEXT]
    if font_for(text, em).getlength(text) <= width:
        return text
    low, high = 0, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        cut = f"{text[:middle]}..."
        low, high = (middle, high) if font_for(cut, em).getlength(cut) <= width else (low, middle - 1)
    return f"{text[:low].rstrip()}..." if low else ""


def font_for(text: str, em: int) -> Font:
    """A font `em` pixels high that has the characters of `text`."""
    return _font(em, text.isascii())


@lru_cache(maxsize=32)
def _font(em: int, plain: bool) -> Font:
    if not plain:
        try:
            return ImageFont.truetype("DejaVuSans.ttf", em)
        except OSError:
            pass
    return ImageFont.load_default(em)
