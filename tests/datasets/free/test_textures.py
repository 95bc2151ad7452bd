"""Simple textures: synthetic pictures whose texture is known, at many scales, contrasts and angles."""

from __future__ import annotations

import io

import cv2
import numpy as np
import pytest
from helpers.images import encode
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from PIL import Image

from microtome.datasets.free.textures import TEXTURES, name_textures

Picture = NDArray[np.uint8]


def grating(size: int, period: float, degrees: float, amplitude: float = 60, *, square: bool = False) -> Picture:
    """Waves that travel at `degrees` from the x axis; their crests, the lines, run at right angles to that."""
    y, x = np.mgrid[:size, :size] + 0.5
    turn = np.radians(degrees)
    wave = np.sin(2 * np.pi * (x * np.cos(turn) + y * np.sin(turn)) / period + 0.7)
    return gray(128 + amplitude * (np.sign(wave) if square else wave))


def checks(size: int, side: int, degrees: float = 0) -> Picture:
    y, x = np.mgrid[: 2 * size, : 2 * size]
    board = gray(((x // side + y // side) % 2) * 120.0 + 60)
    turned = cv2.warpAffine(board, cv2.getRotationMatrix2D((size, size), degrees, 1), (2 * size, 2 * size))
    return np.asarray(turned[size // 2 : -size // 2, size // 2 : -size // 2], np.uint8)


def gray(levels: NDArray[np.float64]) -> Picture:
    return np.repeat(np.clip(np.rint(levels), 0, 255).astype(np.uint8)[..., None], 3, axis=2)


def noise(size: int, deviation: float, level: float = 128) -> Picture:
    return gray(level + np.random.default_rng(int(deviation)).normal(0, deviation, (size, size)))


def share(picture: Picture, name: str) -> float:
    """How much of the inner part has this texture ("" for none)."""
    found = name_textures(picture)
    rows, columns = found.shape[0] // 7, found.shape[1] // 7
    inner = found[rows:-rows, columns:-columns]
    return float((inner == (TEXTURES.index(name) + 1 if name else 0)).mean())


def jpeg(picture: Picture, quality: int) -> Picture:
    return np.asarray(Image.open(io.BytesIO(encode(Image.fromarray(picture), "JPEG", quality=quality))), np.uint8)


LINES = [(0, "vertical lines"), (90, "horizontal lines"), (45, "diagonal lines"), (-45, "diagonal lines")]


@pytest.mark.parametrize("square", [False, True])
@pytest.mark.parametrize("period", [4, 5, 7, 10, 16, 24, 32])
@pytest.mark.parametrize(("degrees", "name"), LINES)
def test_gratings_of_every_period(degrees: float, name: str, period: int, square: bool) -> None:
    assert share(grating(224, period, degrees, square=square), name) > 0.99


@pytest.mark.parametrize("off", [-18, -9, 9, 18])
@pytest.mark.parametrize(("degrees", "name"), LINES)
def test_gratings_near_their_axis(degrees: float, name: str, off: float) -> None:
    for period in (6, 12, 28):
        assert share(grating(224, period, degrees + off), name) > 0.99


@pytest.mark.parametrize("degrees", [22.5, 67.5, 112.5, 157.5])
def test_between_two_directions_there_is_no_name(degrees: float) -> None:
    assert share(grating(224, 12, degrees), "") > 0.99


@pytest.mark.parametrize("amplitude", [0.8, 1.5, 3])
@pytest.mark.parametrize("period", [8, 16, 32])
def test_lines_of_enough_contrast(period: int, amplitude: float) -> None:
    assert share(grating(224, period, 90, amplitude * period), "horizontal lines") > 0.99


@pytest.mark.parametrize("size", [64, 112, 224, 300, 448, 896])
@pytest.mark.parametrize(("degrees", "name"), LINES)
def test_resolution_does_not_matter(degrees: float, name: str, size: int) -> None:
    for period in (16, 28):
        assert share(grating(size, period * size / 224, degrees), name) > 0.98


@pytest.mark.parametrize("aspect", [1.5, 3])
def test_the_shorter_side_sets_the_scale(aspect: float) -> None:
    whole = grating(round(448 * aspect), 24, 0)
    assert share(whole[:448], "vertical lines") > 0.98
    assert share(np.ascontiguousarray(whole[:448].transpose(1, 0, 2)), "horizontal lines") > 0.98


def test_lines_survive_some_noise_and_a_slope() -> None:
    lines = grating(224, 10, 90, 60).astype(np.float64)[..., 0]
    speckled = lines + np.random.default_rng(0).normal(0, 8, lines.shape)
    assert share(gray(speckled), "horizontal lines") > 0.99
    assert share(gray(lines + np.linspace(-50, 50, 224)), "horizontal lines") > 0.99


@pytest.mark.parametrize("deviation", [10, 20, 40, 70])
def test_noise_is_grainy(deviation: float) -> None:
    assert share(noise(224, deviation), "grainy") > 0.98


@pytest.mark.parametrize("blur", [0.7, 1.2, 2.0])
def test_blurred_noise_is_grainy(blur: float) -> None:
    speckles = np.asarray(cv2.GaussianBlur(np.random.default_rng(0).normal(0, 1, (224, 224)), (0, 0), blur), np.float64)
    assert share(gray(128 + 40 * speckles / speckles.std()), "grainy") > 0.85


@pytest.mark.parametrize("side", [6, 8, 12, 16])
@pytest.mark.parametrize("degrees", [0, 17, 30, 45])
def test_checks_are_crossed_lines_at_any_angle(side: int, degrees: float) -> None:
    assert share(checks(224, side, degrees), "crossed lines") > 0.9


def test_a_window_frame_is_crossed_lines() -> None:
    frame = np.full((224, 224), 200.0)
    frame[::14] = frame[:, ::14] = 40
    assert share(gray(np.asarray(cv2.blur(frame, (3, 3)), np.float64)), "crossed lines") > 0.95


@pytest.mark.parametrize("level", [0, 7, 128, 255])
def test_flat_fields_are_smooth(level: int) -> None:
    assert (name_textures(np.full((100, 130, 3), level, np.uint8)) == TEXTURES.index("smooth") + 1).all()


@pytest.mark.parametrize("quality", [30, 50, 75, 90])
@pytest.mark.parametrize("deviation", [0, 1, 2])
def test_compressed_and_faintly_noisy_fields_are_smooth(quality: int, deviation: float) -> None:
    assert share(jpeg(noise(224, deviation, 90), quality), "smooth") > 0.99


def test_shading_is_smooth() -> None:
    assert share(gray(np.tile(np.linspace(0, 255, 224), (224, 1))), "smooth") > 0.99
    y, x = np.mgrid[:448, :448] / 447
    assert share(jpeg(gray(200 * np.sqrt((x * x + y * y) / 2)), 75), "smooth") > 0.99


@pytest.mark.parametrize("degrees", [0, 30, 45, 90])
def test_the_lone_edge_of_a_thing_is_no_texture(degrees: float) -> None:
    y, x = np.mgrid[:224, :224] - 112.0
    turn = np.radians(degrees)
    found = name_textures(gray(np.where(x * np.cos(turn) + y * np.sin(turn) > 0, 200.0, 20.0)))
    assert set(np.unique(found).tolist()) == {0, TEXTURES.index("smooth") + 1}


def test_two_halves_have_two_names() -> None:
    both = np.concatenate([grating(224, 8, 0)[:, :112], noise(224, 30)[:, :112]], axis=1)
    found = name_textures(both)
    assert (found[:, 16:96] == TEXTURES.index("vertical lines") + 1).mean() > 0.95
    assert (found[:, 128:208] == TEXTURES.index("grainy") + 1).mean() > 0.95


def test_another_grid_shows_the_same() -> None:
    picture = np.concatenate([grating(224, 8, 0), noise(224, 30)], axis=1)
    whole = name_textures(picture)
    for size in ((224, 448), (112, 224), (50, 101), (300, 600), (1, 1)):
        found = name_textures(picture, size)
        assert found.shape == size
        rows = (np.arange(size[0]) * 2 + 1) * 224 // (2 * size[0])
        columns = (np.arange(size[1]) * 2 + 1) * 448 // (2 * size[1])
        assert (found == whole[rows][:, columns]).mean() > 0.97


@settings(deadline=None, max_examples=60)
@given(arrays.arrays(np.uint8, st.tuples(st.integers(1, 40), st.integers(1, 40), st.just(3))))
def test_any_image_has_numbers_of_textures(image: Picture) -> None:
    found = name_textures(image)
    assert found.shape == image.shape[:2]
    assert found.dtype == np.uint8
    assert found.max() <= len(TEXTURES)


@pytest.mark.parametrize("shape", [(1, 1), (1, 2), (1, 5000), (5000, 1), (3, 40000), (2, 2), (2000, 7)])
def test_extreme_shapes(shape: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3)).astype(np.uint8)
    assert name_textures(image).shape == shape
    assert name_textures(np.zeros_like(image)).tolist() == np.full(shape, TEXTURES.index("smooth") + 1).tolist()


def test_memory_layout_does_not_matter_and_the_image_stays() -> None:
    picture = noise(100, 20)
    before = picture.copy()
    np.testing.assert_array_equal(name_textures(picture), name_textures(np.asfortranarray(picture)))
    np.testing.assert_array_equal(name_textures(picture[:, ::-1]), name_textures(picture[:, ::-1].copy()))
    np.testing.assert_array_equal(picture, before)
