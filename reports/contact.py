"""Contact sheets: a picture and those that were found for it, in rows with captions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

SIDE = 160
GAP, LINE, MARGIN = 10, 16, 14
DOT = 9
PER_LINE = 10
PAPER, INK, FAINT, FRAME, MARK = "#ffffff", "#1c1c1c", "#6a6a6a", "#d9480f", "#ffd400"
MISSING = "#d8d8d8"
TITLE_SIZE, TEXT_SIZE = 15, 12

Box = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Tile:
    """A picture (H, W, 3) uint8, None where there is none, with lines beneath it, and a box to mark: top, left, bottom,
    right as shares of its height and width; point: (down, across), a spot within; missing: why there is no picture."""

    image: NDArray[np.uint8] | None
    lines: Sequence[str]
    box: Box | None = None
    point: tuple[float, float] | None = None
    missing: str = "no picture"


@dataclass(frozen=True, slots=True)
class Row:
    """What was asked about, framed, and what was found for it; more than a line of pictures goes on beneath."""

    title: str
    asked: Tile
    found: Sequence[Tile]


def draw_sheet(rows: Sequence[Row], note: str = "", per_line: int = PER_LINE) -> Image.Image:
    """All rows beneath each other, RGB. note: a sentence at the end; per_line: found pictures beside each other."""
    across = 1 + min(per_line, max((len(row.found) for row in rows), default=0))
    heights = [_height(row, per_line) for row in rows]
    width = 2 * MARGIN + across * SIDE + (across - 1) * GAP + GAP
    sheet = Image.new("RGB", (width, 2 * MARGIN + sum(heights) + (LINE if note else 0)), PAPER)
    top = MARGIN
    for row, height in zip(rows, heights, strict=True):
        _draw_row(sheet, row, top, per_line)
        top += height
    if note:
        ImageDraw.Draw(sheet).text((MARGIN, top), fitting(note, width - 2 * MARGIN), FAINT, font(TEXT_SIZE))
    return sheet


def draw_grid(tiles: Sequence[Tile], title: str = "", *, side: int = SIDE, per_line: int = PER_LINE) -> Image.Image:
    """Tiles of `side` pixels in lines, RGB, beneath a title."""
    across, lines = min(per_line, max(len(tiles), 1)), -(-len(tiles) // per_line)
    high = side + GAP + LINE * max((len(tile.lines) for tile in tiles), default=0)
    head = 2 * LINE - 6 if title else 0
    grid = Image.new("RGB", (2 * MARGIN + across * (side + GAP) - GAP, 2 * MARGIN + head + lines * high), PAPER)
    name = fitting(title, grid.width - 2 * MARGIN, TITLE_SIZE)
    ImageDraw.Draw(grid).text((MARGIN, MARGIN), name, INK, font(TITLE_SIZE))
    for number, tile in enumerate(tiles):
        line, column = divmod(number, per_line)
        _draw_tile(grid, tile, MARGIN + column * (side + GAP), MARGIN + head + line * high, side)
    return grid


def _height(row: Row, per_line: int) -> int:
    lines = -(-max(len(row.found), 1) // per_line)
    return 2 * LINE + lines * _tile_height(row) + GAP


def _tile_height(row: Row) -> int:
    return SIDE + GAP + LINE * max(len(tile.lines) for tile in (row.asked, *row.found))


def _draw_row(sheet: Image.Image, row: Row, top: int, per_line: int) -> None:
    draw = ImageDraw.Draw(sheet)
    draw.text((MARGIN, top), fitting(row.title, sheet.width - 2 * MARGIN, TITLE_SIZE), INK, font(TITLE_SIZE))
    top += 2 * LINE - 6
    _draw_tile(sheet, row.asked, MARGIN, top)
    draw.rectangle((MARGIN - 3, top - 3, MARGIN + SIDE + 2, top + SIDE + 2), outline=FRAME, width=3)
    for number, tile in enumerate(row.found):
        line, column = divmod(number, per_line)
        left = MARGIN + GAP + (column + 1) * (SIDE + GAP)
        _draw_tile(sheet, tile, left, top + line * _tile_height(row))


def _draw_tile(sheet: Image.Image, tile: Tile, left: int, top: int, side: int = SIDE) -> None:
    draw = ImageDraw.Draw(sheet)
    if tile.image is None or tile.image.size == 0:
        draw.rectangle((left, top, left + side - 1, top + side - 1), fill=MISSING)
        for number, text in enumerate(_wrapped(tile.missing, side - 16, (side - 16) // LINE)):
            draw.text((left + 8, top + 8 + number * LINE), text, FAINT, font(TEXT_SIZE))
    else:
        sheet.paste(_at_side(tile, side), (left, top))
    for number, text in enumerate(tile.lines):
        place = (left, top + side + 3 + number * LINE)
        draw.text(place, fitting(text, side), INK if number == 0 else FAINT, font(TEXT_SIZE))


def _at_side(tile: Tile, side: int) -> Image.Image:
    """The picture within a square of `side` pixels, its box marked."""
    picture = Image.fromarray(np.ascontiguousarray(tile.image))
    scale = side / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    smooth = Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.BICUBIC
    square = Image.new("RGB", (side, side), PAPER)
    square.paste(picture.resize(size, smooth), ((side - size[0]) // 2, (side - size[1]) // 2))
    corner = (side - size[0]) // 2, (side - size[1]) // 2
    if tile.box is not None:
        top, left, bottom, right = tile.box
        _mark(square, (left, top, right, bottom), corner, size, least=2)
    if tile.point is not None:
        down, across = tile.point
        _mark(square, (across, down, across, down), corner, size, least=DOT)
    return square


def _mark(square: Image.Image, box: Box, corner: tuple[int, int], size: tuple[int, int], *, least: int) -> None:
    """Outline a box (left, top, right, bottom, as shares), at least `least` pixels wide and high around its middle."""
    low, high = [], []
    for axis in (0, 1):
        start, stop = (corner[axis] + box[axis + end] * size[axis] for end in (0, 2))
        grown = max(0.0, least - (stop - start)) / 2
        low.append(round(start - grown))
        high.append(max(low[-1] + 1, round(stop + grown) - 1))
    draw = ImageDraw.Draw(square)
    draw.rectangle((*low, *high), outline=INK, width=4)
    draw.rectangle((*low, *high), outline=MARK, width=2)


def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """The font of sheets, `size` pixels high."""
    return ImageFont.load_default(size)


def fitting(text: str, width: int, size: int = TEXT_SIZE) -> str:
    """`text`, cut where it is wider than `width` pixels; what cannot be drawn as it is becomes a box."""
    text = "".join(character if character.isprintable() else "\N{WHITE SQUARE}" for character in text)
    drawn = font(size)
    if drawn.getlength(text) <= width:
        return text
    while text and drawn.getlength(f"{text}…") > width:
        text = text[:-1]
    return f"{text}…"


def _wrapped(text: str, width: int, most: int) -> list[str]:
    """`text` in at most `most` lines, of whole words where they fit into `width` pixels."""
    lines: list[str] = []
    for word in text.split():
        if lines and font(TEXT_SIZE).getlength(f"{lines[-1]} {word}") <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    if len(lines) > most:
        lines = [*lines[: most - 1], " ".join(lines[most - 1 :])]
    return [fitting(line, width) for line in lines]
