"""Colour terms: the obvious colours get the obvious names, and the table agrees with a search for each pixel."""

from __future__ import annotations

import numpy as np
import pytest

from microtome.datasets.scenes.colours import COLOUR_TERMS, blend, name_colours, rgb, shade, term_table


@pytest.mark.parametrize(
    ("code", "term"),
    [
        ("000000", "black"),
        ("ffffff", "white"),
        ("ff0000", "red"),
        ("008000", "green"),
        ("ffe000", "yellow"),
        ("0000ff", "blue"),
        ("6b4423", "brown"),
        ("800080", "purple"),
        ("ff9ebb", "pink"),
        ("ff8000", "orange"),
        ("808080", "gray"),
    ],
)
def test_focal_colours(code: str, term: str) -> None:
    pixel = np.array([[rgb(code)]], np.uint8)
    assert COLOUR_TERMS[name_colours(pixel)[0, 0]] == term


def test_the_eleven_terms_all_have_cells() -> None:
    assert len(COLOUR_TERMS) == 11
    assert set(term_table().tolist()) == set(range(11))


def test_naming_is_the_table_pixel_by_pixel() -> None:
    image = np.random.default_rng(0).integers(0, 256, (9, 7, 3)).astype(np.uint8)
    table = term_table().reshape(32, 32, 32)
    slow = [[table[r // 8, g // 8, b // 8] for r, g, b in row] for row in image.tolist()]
    np.testing.assert_array_equal(name_colours(image), slow)


def test_mixing_paint() -> None:
    assert blend((0.0, 10.0, 20.0), (10.0, 10.0, 0.0), 0.5) == (5.0, 10.0, 10.0)
    assert shade((100.0, 200.0, 0.0), 2.0) == (200.0, 255.0, 0.0)
