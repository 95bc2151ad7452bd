"""Pictures of explanations: colours in an order that anybody can read, and maps where they belong."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from microtome.reports.explanations import cut_out, heat_of, overlay, picture_of
from microtome.reports.explanations.colours import HEAT, SIGNED, colours_of, scale_of

# Rec. 709 luminance of linear light; and what a dichromat sees of a colour (Viénot, Brettel and Mollon, 1999, eq. 6).
LUMINANCE = np.array([0.2126, 0.7152, 0.0722])
PROTANOPE = np.array([[0.11238, 0.88762, 0], [0.11238, 0.88762, 0], [0.00401, -0.00401, 1]])
DEUTERANOPE = np.array([[0.29275, 0.70725, 0], [0.29275, 0.70725, 0], [-0.02234, 0.02234, 1]])


def linear(colours: NDArray[np.uint8]) -> NDArray[np.float64]:
    return np.asarray((colours / 255) ** 2.2)


def picture(side: int = 32) -> NDArray[np.uint8]:
    return np.random.default_rng(1).integers(0, 256, (side, side, 3), dtype=np.uint8)


def test_heat_gets_lighter_all_the_way() -> None:
    assert (np.diff(linear(HEAT) @ LUMINANCE) > 0).all()


@pytest.mark.parametrize("seen_as", [PROTANOPE, DEUTERANOPE], ids=["protanope", "deuteranope"])
def test_for_and_against_differ_without_red_or_green(seen_as: NDArray[np.float64]) -> None:
    seen = np.clip(linear(SIGNED) @ seen_as.T, 0, 1) ** (1 / 2.2)
    blue, orange = seen[:80], seen[-80:][::-1]
    assert (np.linalg.norm(blue - orange, axis=1) > 0.2).all()
    light = linear(SIGNED) @ LUMINANCE
    assert light.argmax() in (127, 128)
    assert abs(light[0] - light[-1]) < 0.1


def test_the_scale_leaves_extremes_out() -> None:
    values = np.arange(1000, dtype=np.float32)
    values[-1] = 1e6
    assert scale_of(-values) == pytest.approx(989.01)
    assert scale_of(np.zeros((3, 3))) == 1
    assert scale_of(np.array([[0.0] * 500, [0.0] * 499 + [7.0]])) == 7, "a single value counts where the rest is 0"
    assert scale_of(np.array([[np.nan, np.inf, 2.0]])) == 2


def test_nothing_shows_the_image_and_much_shows_the_map() -> None:
    values = np.zeros((32, 32), np.float32)
    values[4, 7] = 3
    drawn, empty = overlay(picture(), values), overlay(picture(), np.zeros((32, 32), np.float32))
    changed = (drawn != empty).any(axis=2)
    assert np.argwhere(changed).tolist() == [[4, 7]]
    np.testing.assert_allclose(drawn[4, 7], 0.88 * HEAT[-1] + 0.12 * empty[4, 7], atol=1)
    np.testing.assert_array_equal(drawn, overlay(picture(), values * np.float32(1e-9)), "scaled by itself")


def test_against_and_for_have_their_colours() -> None:
    values = np.zeros((32, 32), np.float32)
    values[3, 3], values[20, 20] = -1, 1
    drawn = overlay(np.full((32, 32, 3), 128, np.uint8), values, signed=True).astype(int)
    assert drawn[3, 3, 2] > drawn[3, 3, 0] + 60
    assert drawn[20, 20, 0] > drawn[20, 20, 2] + 60
    plain = overlay(np.full((32, 32, 3), 128, np.uint8), values)
    assert (plain[3, 3] == plain[0, 0]).all(), "without a sign, below 0 is nothing"


def test_a_grid_is_enlarged_with_half_pixel_centres() -> None:
    values = np.array([[0, 0], [0, 1]], np.float32)
    drawn = overlay(np.zeros((8, 8, 3), np.uint8), values).astype(int).sum(axis=2)
    assert (np.diff(drawn[7]) >= 0).all()
    assert (drawn[:2, :2] == 0).all()
    assert (drawn[6:, 6:] == drawn[7, 7]).all()
    np.testing.assert_array_equal(drawn, drawn.T)


def test_what_is_not_finite_shows_the_image() -> None:
    values = np.full((32, 32), np.nan, np.float32)
    np.testing.assert_array_equal(overlay(picture(), values), overlay(picture(), np.zeros((32, 32), np.float32)))
    values[:, 0] = [1, np.inf] * 16
    assert np.isfinite(overlay(picture(), values, signed=True)).all()


@pytest.mark.parametrize("shape", [(3, 8, 8), (8,), (0, 8)])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="a map is"):
        overlay(picture(), np.zeros(shape, np.float32))
    with pytest.raises(ValueError, match="an image is"):
        overlay(picture()[..., :1], np.zeros((8, 8), np.float32))


def test_a_signed_picture_lies_around_grey() -> None:
    values = np.zeros((3, 16, 16), np.float32)
    values[0, 2, 3], values[1, 5, 5] = 2, -2
    drawn = picture_of(values)
    assert drawn[2, 3].tolist() == [255, 128, 128]
    assert drawn[5, 5].tolist() == [128, 0, 128]
    assert (drawn[8:] == 128).all()
    assert (picture_of(np.full((3, 4, 4), np.nan, np.float32)) == 128).all()
    with pytest.raises(ValueError, match="3, H, W"):
        picture_of(np.zeros((4, 4), np.float32))


def test_a_map_by_itself() -> None:
    np.testing.assert_array_equal(
        heat_of(np.array([[0.0, 5.0]]), scale=5.0), colours_of(np.array([[0, 1]]), signed=False)
    )
    np.testing.assert_array_equal(heat_of(np.array([[0.0, 5.0]]), scale=10.0)[0, 1], HEAT[128])


def test_an_object_keeps_its_colours() -> None:
    mask = np.zeros((32, 32), np.float32)
    mask[8:24, 8:24] = 1
    image = picture()
    drawn = cut_out(image, mask)
    np.testing.assert_array_equal(drawn[12:20, 12:20], image[12:20, 12:20])
    outside = drawn[:4]
    assert (outside == outside[..., :1]).all()
    assert outside.max() < 110
    assert (cut_out(image, np.zeros((4, 4), np.float32)).max() < 110) is np.True_
    np.testing.assert_array_equal(cut_out(image, np.ones((4, 4), np.float32))[8:24, 8:24], image[8:24, 8:24])
