"""What an insertion brought, as a picture: how much at each place of the image, and in each context.

Drawn from the JSON that a run keeps in insertions/.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from microtome.reports.contact import FAINT, INK, PAPER, fitting, font
from microtome.reports.maps.colours import sequential

SIDE = 280
"""Of a map of places, in pixels."""
GAP, LINE = 18, 16
NAMES, BARS, FIGURES = 150, 330, 250
BAR, ROW = 9, 30
CHOSEN, RANDOM, AXIS = "#0072b2", "#b8bcc2", "#d9dbd6"
TITLE_SIZE, TEXT_SIZE = 15, 12
MOST_CONTEXTS = 24
_NICE = (0.01, 0.02, 0.05, 0.1, 0.2, 0.25, 0.5, 1.0)


def draw_insertion(result: Mapping[str, Any]) -> Image.Image:
    """The maps of places on the left, chosen units above random ones, and the contexts' bars on the right, RGB."""
    contexts = result["contexts"][:MOST_CONTEXTS]
    maps = ["new"] + (["random"] if result["places"][0]["random"] is not None else [])
    high_maps = len(maps) * (SIDE + 2 * LINE) + GAP
    high_bars = ROW * (len(contexts) + 1) + 3 * LINE
    width = 3 * GAP + SIDE + NAMES + BARS + FIGURES
    head = 3 * LINE + GAP
    sheet = Image.new("RGB", (width, head + max(high_maps, high_bars) + GAP), PAPER)
    draw = ImageDraw.Draw(sheet)
    _text(draw, (GAP, GAP), _title(result), INK, TITLE_SIZE, width - 2 * GAP)
    _text(draw, (GAP, GAP + LINE + 4), _subtitle(result), FAINT, TEXT_SIZE, width - 2 * GAP)
    most = max(max(place[name] for place in result["places"]) for name in maps)
    for number, name in enumerate(maps):
        top = head + number * (SIDE + 2 * LINE)
        words = "by the chosen units" if name == "new" else "by random units"
        _text(draw, (GAP, top), f"where, {words}: % of the place", INK, TEXT_SIZE, SIDE)
        _draw_map(draw, result, name, most, (GAP, top + LINE + 2))
    _draw_bars(draw, contexts, result, (2 * GAP + SIDE, head))
    return sheet


def _title(result: Mapping[str, Any]) -> str:
    return (
        f"{result['concept']} by {len(result['units'])} units of {result['layer']}, forced to their {result['level']}"
    )


def _subtitle(result: Mapping[str, Any]) -> str:
    rows, columns = result["grid"]
    height, width = result["size"]
    places = "one place" if rows * columns == 1 else f"{rows}x{columns} places"
    return (
        f"{result['samples']} images, {places} of {height:.0%} by {width:.0%} of the image; context: what most of the "
        "place showed before; 95 % intervals over latents"
    )


def _draw_map(
    draw: ImageDraw.ImageDraw, result: Mapping[str, Any], name: str, most: float, corner: tuple[int, int]
) -> None:
    """Cells of the grid of places, coloured on one scale up to `most`, with their figures."""
    rows, columns = result["grid"]
    values = np.array([place[name] for place in result["places"]], np.float64)
    colours = np.round(255 * sequential(values / most if most > 0 else values)).astype(int)
    for number, value in enumerate(values.tolist()):
        row, column = divmod(number, columns)
        left, top = corner[0] + SIDE * column // columns, corner[1] + SIDE * row // rows
        right, bottom = corner[0] + SIDE * (column + 1) // columns, corner[1] + SIDE * (row + 1) // rows
        red, green, blue = colours[number].tolist()
        draw.rectangle((left, top, right - 2, bottom - 2), fill=(red, green, blue))
        dark = 0.299 * red + 0.587 * green + 0.114 * blue < 140
        if right - left >= 30 and bottom - top >= LINE:
            text, size = f"{100 * value:.0f}", TEXT_SIZE
            middle = ((left + right) / 2 - font(size).getlength(text) / 2, (top + bottom) / 2 - size * 0.6)
            draw.text(middle, text, PAPER if dark else INK, font(size))


def _draw_bars(
    draw: ImageDraw.ImageDraw,
    contexts: Sequence[Mapping[str, Any]],
    result: Mapping[str, Any],
    corner: tuple[int, int],
) -> None:
    """A row a context: bars with intervals on one axis from 0, and the figures in words."""
    left, top = corner
    start = left + NAMES
    shown = [*contexts, result["all"]]
    reach = max(max(_ends(row["new"])[1], _ends(row["random"])[1]) for row in shown)
    scale = next((nice for nice in _NICE if nice >= reach), 1.0)
    _text(draw, (left, top), f"on what: share of the place newly {result['concept']}", INK, TEXT_SIZE, NAMES + BARS)
    _text(draw, (start + BARS + GAP, top), "places · took · verdict", FAINT, TEXT_SIZE, FIGURES - GAP)
    top += LINE + 6
    bottom = top + ROW * len(shown)
    for tick in range(5):
        across = start + round(BARS * tick / 4)
        draw.line((across, top, across, bottom), AXIS)
        text = f"{100 * scale * tick / 4:g} %"
        draw.text((across - font(TEXT_SIZE).getlength(text) / 2, bottom + 3), text, FAINT, font(TEXT_SIZE))
    for number, row in enumerate(shown):
        at = top + number * ROW
        if row is result["all"]:
            draw.line((left, at, start + BARS + FIGURES - GAP, at), AXIS)
        _text(draw, (left, at + 6), row["context"], INK, TEXT_SIZE, NAMES - 8)
        _bar(draw, row["new"], (start, at + 4), scale, CHOSEN)
        if row["random"] is not None:
            _bar(draw, row["random"], (start, at + 5 + BAR), scale, RANDOM)
        words = " · ".join(filter(None, (f"{row['places']:,}", f"{row['took']['mean']:.0%}", row["verdict"])))
        _text(draw, (start + BARS + GAP, at + 6), words, FAINT, TEXT_SIZE, FIGURES - GAP)
    _legend(draw, (left, bottom + LINE + 8), result)


def _bar(
    draw: ImageDraw.ImageDraw, estimate: Mapping[str, Any], corner: tuple[int, int], scale: float, colour: str
) -> None:
    left, top = corner
    draw.rectangle((left, top, left + max(1, round(BARS * estimate["mean"] / scale)), top + BAR - 1), fill=colour)
    if estimate["interval"] is not None:
        low, high = (left + round(BARS * end / scale) for end in estimate["interval"])
        middle = top + BAR // 2
        draw.line((low, middle, high, middle), INK)
        for end in (low, high):
            draw.line((end, middle - 2, end, middle + 2), INK)


def _legend(draw: ImageDraw.ImageDraw, corner: tuple[int, int], result: Mapping[str, Any]) -> None:
    left, top = corner
    entries = [(CHOSEN, "chosen units")]
    if result["all"]["random"] is not None:
        entries.append((RANDOM, f"random units of the layer ({result['draws']} sets)"))
    for colour, words in entries:
        draw.rectangle((left, top + 2, left + BAR, top + 2 + BAR), fill=colour)
        draw.text((left + BAR + 6, top), words, FAINT, font(TEXT_SIZE))
        left += BAR + 6 + round(font(TEXT_SIZE).getlength(words)) + GAP


def _ends(estimate: Mapping[str, Any] | None) -> tuple[float, float]:
    if estimate is None:
        return 0.0, 0.0
    low, high = estimate["interval"] or (estimate["mean"], estimate["mean"])
    return float(low), float(max(high, estimate["mean"]))


def _text(draw: ImageDraw.ImageDraw, corner: tuple[int, int], text: str, colour: str, size: int, width: int) -> None:
    draw.text(corner, fitting(text, width, size), colour, font(size))
