"""Where things go in a figure: rows of layers, layers along an axis, legends, grids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

from microtome.reports.figures.marks import SMALL, SMALLEST, TEXT, WIDTH, Mark, Path, Words
from microtome.reports.figures.text import shortened, width_of
from microtome.reports.pages import axis_ticks

HIGHEST = 648.0
"""The height of a page's text block, which no figure should pass."""
_NAMES = 132.0
"""Room for the names of layers, at most."""
_GAP = 6.0
_SLANT, _ACROSS, _DOWN = 40.0, 0.77, 0.65
"""The angle of slanted names, its cosine and its sine, rounded up."""
_SLANTED = 96.0
"""Room for slanted names."""


@dataclass(frozen=True, slots=True)
class Rows:
    """Layers beneath each other. left: where their names end and the drawing begins; pitch: from row to row;
    every: of how many rows one is named; size: of the names."""

    names: tuple[str, ...]
    top: float
    left: float
    pitch: float
    every: int
    size: float

    @classmethod
    def of(cls, names: Sequence[str], top: float, pitch: float, beneath: float) -> Rows:
        """Rows of `pitch`, or less where they would not all fit on a page with `beneath` below them."""
        count = max(len(names), 1)
        pitch = min(pitch, (HIGHEST - top - beneath) / count)
        size = TEXT if pitch >= 1.25 * TEXT else SMALL
        every = ceil(1.15 * size / pitch)
        short = tuple(shortened(name, size, _NAMES) for name in names)
        named = [width_of(name, size) for number, name in enumerate(short) if number % every == 0]
        return cls(short, top, max(named, default=0.0) + _GAP, pitch, every, size)

    @property
    def bottom(self) -> float:
        """Where the last row ends."""
        return self.top + self.pitch * max(len(self.names), 1)

    def row(self, number: int) -> float:
        """Where a row begins."""
        return self.top + self.pitch * number

    def labels(self) -> list[Mark]:
        """The names, right-aligned; where rows are low, of every few."""
        return [
            Words(self.left - _GAP, self.row(number) + self.pitch / 2 + 0.36 * self.size, name, self.size, "end")
            for number, name in enumerate(self.names)
            if number % self.every == 0
        ]

    def note(self) -> str:
        """What a reader has to know of names that are left out."""
        return f"Every {ordinal(self.every)} layer is named." if self.every > 1 else ""


@dataclass(frozen=True, slots=True)
class Columns:
    """Layers beside each other, from x = left to right; names beneath, slanted where they need it."""

    names: tuple[str, ...]
    left: float
    right: float
    every: int
    slanted: bool
    size: float

    @classmethod
    def of(cls, names: Sequence[str], left: float, right: float) -> Columns:
        """Between `left`, or farther right where slanted names take the room, and `right`."""
        slot = (right - left) / max(len(names), 1)
        wide = max((width_of(shortened(name, TEXT, _NAMES), TEXT) for name in names), default=0.0)
        slanted = wide > slot - 4
        if not slanted:
            return cls(tuple(shortened(name, TEXT, slot) for name in names), left, right, 1, False, TEXT)
        size = TEXT if slot >= 1.6 * TEXT else SMALL
        every = ceil(1.6 * size / slot)
        short = tuple(shortened(name, size, _SLANTED) for name in names)
        reach = [_ACROSS * width_of(name, size) - slot * (at + 0.5) for at, name in enumerate(short) if at % every == 0]
        return cls(short, max(left, *reach), right, every, True, size)

    def at(self, number: int) -> float:
        """Where a layer is."""
        return self.left + (self.right - self.left) * (number + 0.5) / max(len(self.names), 1)

    def labels(self, y: float) -> tuple[list[Mark], float]:
        """The names beneath y, and where they end."""
        shown = [(self.at(number), name) for number, name in enumerate(self.names) if number % self.every == 0]
        if not self.slanted:
            return [Words(x, y + 4 + self.size, name, self.size, "middle") for x, name in shown], y + 8 + self.size
        longest = max((width_of(name, self.size) for _, name in shown), default=0.0)
        deep = _DOWN * longest + self.size
        marks: list[Mark] = [
            Words(x + 0.35 * self.size, y + 5 + 0.6 * self.size, name, self.size, "end", angle=-_SLANT)
            for x, name in shown
        ]
        return marks, y + 6 + deep


@dataclass(frozen=True, slots=True)
class Scale:
    """Values from 0 to `highest` between two places."""

    start: float
    end: float
    highest: float

    def at(self, value: float) -> float:
        """Where a value is."""
        return self.start + (self.end - self.start) * value / self.highest


def round_ticks(highest: float, finest: int = 1) -> list[float]:
    """A few round numbers from 0 to `highest`, none finer than 1 / `finest`; 0 alone where `highest` is nothing."""
    return [tick["value"] / finest for tick in axis_ticks(ceil(highest * finest - 1e-9))] or [0.0]


def rounded_up(highest: float, finest: int = 1) -> float:
    """The end of an axis that holds `highest`: on a tick, and never 0."""
    ticks = round_ticks(max(highest, 1 / finest), finest)
    step = ticks[1] - ticks[0]
    return step * ceil(max(highest, 1 / finest) / step - 1e-9)


def grid_down(scale: Scale, top: float, bottom: float, ticks: Sequence[float], title: str) -> list[Mark]:
    """Lines from top to bottom at ticks, their values beneath, and what they are."""
    marks: list[Mark] = []
    for tick in ticks:
        x = scale.at(tick)
        marks.append(Path(((x, top), (x, bottom)), "line"))
        marks.append(Words(x, bottom + 4 + SMALL, number(tick), SMALL, "middle", "soft"))
    marks.append(Words((scale.start + scale.end) / 2, bottom + 8 + SMALL + TEXT, title, TEXT, "middle"))
    return marks


def grid_across(scale: Scale, left: float, right: float, ticks: Sequence[float]) -> list[Mark]:
    """Lines from left to right at ticks, their values beside."""
    marks: list[Mark] = []
    for tick in ticks:
        y = scale.at(tick)
        marks.append(Path(((left, y), (right, y)), "line"))
        marks.append(Words(left - 4, y + 0.36 * SMALL, number(tick), SMALL, "end", "soft"))
    return marks


def legend(entries: Sequence[tuple[str, str]], top: float) -> tuple[list[tuple[float, float, str, str]], float]:
    """Names and colours in lines across the figure: (x, y of the middle of the swatch, colour, name), and their end."""
    placed: list[tuple[float, float, str, str]] = []
    x, y = 0.0, top
    for name, colour in entries:
        short = shortened(name, TEXT, _NAMES)
        wide = 11 + width_of(short, TEXT) + 12
        if x and x + wide > WIDTH:
            x, y = 0.0, y + 1.4 * TEXT
        placed.append((x, y + 0.7 * TEXT, colour, short))
        x += wide
    return placed, (y + 1.4 * TEXT if entries else top)


def number(value: float) -> str:
    """A value of an axis."""
    return f"{value:,.0f}".replace(",", "\u202f") if value == int(value) else f"{value:g}"


def ordinal(count: int) -> str:
    """2nd, 3rd, 4th ..."""
    ending = "th" if 10 < count % 100 < 14 else {1: "st", 2: "nd", 3: "rd"}.get(count % 10, "th")
    return f"{count}{ending}"


def fine_print(text: str, y: float) -> list[Mark]:
    """A note at the foot of a figure, nothing for nothing."""
    return [Words(WIDTH, y, text, SMALLEST, "end", "soft")] if text else []
