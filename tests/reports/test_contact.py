"""Contact sheets: every picture has its place, and boxes lie where they are said to."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from microtome.reports.contact import FRAME, MARK, MISSING, PAPER, PER_LINE, SIDE, Box, Row, Tile, draw_sheet


def plain(colour: tuple[int, int, int], height: int = 64, width: int = 64) -> NDArray[np.uint8]:
    return np.full((height, width, 3), colour, np.uint8)


def colour_of(text: str) -> tuple[int, ...]:
    return tuple(int(text[i : i + 2], 16) for i in (1, 3, 5))


def where(sheet: Image.Image, colour: tuple[int, ...]) -> tuple[int, int, int, int, int]:
    """Number of pixels of a colour, and the box that they span: top, left, bottom, right."""
    rows, columns = np.nonzero((np.asarray(sheet) == colour).all(axis=2))
    return len(rows), int(rows.min()), int(columns.min()), int(rows.max()) + 1, int(columns.max()) + 1


RED, GREEN, BLUE = (200, 0, 0), (0, 200, 0), (0, 0, 200)


def test_each_picture_is_drawn_once_and_the_asked_one_is_framed() -> None:
    row = Row("nearest", Tile(plain(RED), ["query"]), [Tile(plain(GREEN), ["1"]), Tile(plain(BLUE), ["2"])])
    sheet = draw_sheet([row])
    boxes = [where(sheet, colour) for colour in (RED, GREEN, BLUE)]
    assert [box[0] for box in boxes] == [SIDE * SIDE] * 3
    assert boxes[0][2] < boxes[1][2] < boxes[2][2]
    assert len({box[1] for box in boxes}) == 1
    frame = where(sheet, colour_of(FRAME))
    assert frame[1:] == (boxes[0][1] - 3, boxes[0][2] - 3, boxes[0][3] + 3, boxes[0][4] + 3)


def test_more_than_a_line_goes_on_beneath() -> None:
    many = [Tile(plain(GREEN), [str(i)]) for i in range(PER_LINE + 1)]
    sheet = draw_sheet([Row("nearest", Tile(plain(RED), []), many), Row("pixels", Tile(plain(RED), []), many[:1])])
    count, top, _, bottom, right = where(sheet, GREEN)
    assert count == (PER_LINE + 2) * SIDE * SIDE
    assert bottom - top > 3 * SIDE
    assert right <= sheet.width


def test_pictures_keep_their_shape() -> None:
    sheet = draw_sheet([Row("", Tile(plain(RED, 100, 50), []), [Tile(plain(GREEN, 8, 16), [])])])
    for colour, height, width in ((RED, SIDE, SIDE // 2), (GREEN, SIDE // 2, SIDE)):
        _, top, left, bottom, right = where(sheet, colour)
        assert (bottom - top, right - left) == (height, width)


@pytest.mark.parametrize("box", [(0.25, 0.5, 0.75, 1.0), (0.0, 0.0, 1.0, 1.0), (0.5, 0.5, 0.5, 0.5)])
def test_a_box_is_marked_where_it_lies(box: Box) -> None:
    sheet = draw_sheet([Row("", Tile(plain(RED), []), [Tile(plain(GREEN), [], box)])])
    _, top, left, bottom, right = where(sheet, colour_of(MARK))
    beside = draw_sheet([Row("", Tile(plain(RED), []), [Tile(plain(GREEN), [])])])
    _, first, across, _, _ = where(beside, GREEN)
    expected = [first + box[0] * SIDE, across + box[1] * SIDE, first + box[2] * SIDE, across + box[3] * SIDE]
    assert np.abs(np.array([top, left, bottom, right]) - expected).max() <= 2


def test_a_point_is_marked() -> None:
    sheet = draw_sheet([Row("", Tile(plain(RED), []), [Tile(plain(GREEN), [], None, (0.5, 0.25))])])
    _, top, left, bottom, right = where(sheet, colour_of(MARK))
    assert max(bottom - top, right - left) < 14


def test_missing_pictures_long_and_odd_names() -> None:
    odd = ["\u202e" + "long name " * 20, "\n\t", "<b>", "日本"]
    sheet = draw_sheet([Row("title " * 200, Tile(None, odd), [])], note="note " * 300)
    assert where(sheet, colour_of(MISSING))[0] > SIDE * SIDE / 2
    edge = np.asarray(sheet)[:, -5:]
    assert (edge == colour_of(PAPER)).all()


def test_a_sheet_of_nothing() -> None:
    assert draw_sheet([]).size[0] > 0


def test_why_there_is_no_picture() -> None:
    plain_row = draw_sheet([Row("", Tile(plain(RED), []), [Tile(None, [])])])
    told = draw_sheet([Row("", Tile(plain(RED), []), [Tile(None, [], missing="a reason of many words " * 20)])])
    assert plain_row.size == told.size
    assert where(told, colour_of(MISSING))[0] < where(plain_row, colour_of(MISSING))[0]
