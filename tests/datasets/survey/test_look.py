"""Looks: copies of an image are near, other images are not, flat images have none."""

from __future__ import annotations

import io

import numpy as np
import pytest
from helpers.images import photo
from numpy.typing import NDArray
from PIL import Image, ImageEnhance

from microtome.datasets.scenes import ScenesDataset
from microtome.datasets.survey.look import NEAR, look_at

Picture = NDArray[np.uint8]


@pytest.fixture(scope="module")
def pictures() -> list[Picture]:
    scenes = ScenesDataset(40, size=128)
    return [scenes.read(index).image for index in range(40)]


def recompressed(picture: Picture) -> Picture:
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, "JPEG", quality=40)
    return np.array(Image.open(stream))


def smaller(picture: Picture) -> Picture:
    return np.array(Image.fromarray(picture).resize((43, 43), Image.Resampling.BILINEAR))


def starker(picture: Picture) -> Picture:
    return np.array(ImageEnhance.Contrast(Image.fromarray(picture)).enhance(1.3))


def apart(first: Picture, second: Picture) -> int:
    one, other = look_at(first).hash, look_at(second).hash
    assert one is not None
    assert other is not None
    return (one ^ other).bit_count()


@pytest.mark.parametrize("change", [recompressed, smaller, starker])
def test_copies_are_near(pictures: list[Picture], change: object) -> None:
    assert callable(change)
    assert max(apart(picture, change(picture)) for picture in pictures) <= NEAR


def test_different_images_are_not(pictures: list[Picture]) -> None:
    looks = np.array([look_at(picture).hash for picture in pictures], np.uint64)
    distances = np.bitwise_count(looks[:, None] ^ looks[None])[np.triu_indices(len(looks), 1)]
    assert distances.min() > NEAR + 4


def test_a_digest_tells_equal_pixels() -> None:
    picture = photo(24, 32)
    other = picture.copy()
    other[3, 4, 1] ^= 1
    assert look_at(picture).digest == look_at(picture.copy()).digest == look_at(np.asfortranarray(picture)).digest
    assert look_at(picture).digest != look_at(other).digest
    assert look_at(picture).digest != look_at(picture.reshape(32, 24, 3)).digest


def test_one_colour_looks_like_nothing() -> None:
    rng = np.random.default_rng(0)
    noisy = rng.integers(100, 108, (20, 20, 3), np.uint8)
    red = np.zeros((20, 20, 3), np.uint8)
    red[..., 0] = 255
    assert look_at(noisy).hash is None
    assert look_at(red).hash is None
    red[5:, 5:, 1] = 9
    assert look_at(red).hash is not None


@pytest.mark.parametrize("shape", [(1, 1), (1, 500), (3, 2)])
def test_the_smallest_images_have_looks(shape: tuple[int, int]) -> None:
    picture = np.zeros((*shape, 3), np.uint8)
    picture[0, 0] = 255
    assert len(look_at(picture).digest) == 16
