"""The colours of maps can be told apart, with any sight."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from numpy.typing import NDArray
from skimage.color import deltaE_ciede2000, rgb2lab

from microtome.reports.maps.colours import CATEGORICAL, NONE, SEQUENTIAL, categorical, palette, rgb, sequential

# Machado, Oliveira and Fernandes (2009), severity 1, for linear RGB.
SIGHTS = {
    "normal": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
}


def seen(colours: NDArray[np.float32], sight: str) -> NDArray[np.float64]:
    """Lab coordinates of colours (n, 3) as somebody with that sight sees them."""
    linear = np.where(colours <= 0.04045, colours / 12.92, ((colours + 0.055) / 1.055) ** 2.4)
    turned = np.clip(linear @ np.asarray(SIGHTS[sight]).T, 0, 1)
    back = np.where(turned <= 0.0031308, turned * 12.92, 1.055 * turned ** (1 / 2.4) - 0.055)
    lab: NDArray[np.float64] = rgb2lab(back[None])[0]
    return lab


@pytest.mark.parametrize("sight", SIGHTS)
def test_any_two_classes_and_none_are_apart(sight: str) -> None:
    lab = seen(rgb(*CATEGORICAL, NONE), sight)
    distances = [float(deltaE_ciede2000(a[None], b[None])[0]) for a, b in itertools.combinations(lab, 2)]
    assert min(distances) > 10


@pytest.mark.parametrize("sight", SIGHTS)
def test_higher_values_are_lighter(sight: str) -> None:
    lightness = seen(rgb(*SEQUENTIAL), sight)[:, 0]
    assert (np.diff(lightness) > 0).all()


def test_all_show_on_white_and_on_black() -> None:
    lightness = seen(rgb(*CATEGORICAL), "normal")[:, 0]
    assert lightness.min() > 35
    assert lightness.max() < 80


def test_points_get_the_colours_of_the_palette() -> None:
    colours = palette()
    assert len(set(colours["categorical"])) == 12
    found = categorical(np.array([-1, 0, 11, 12]))
    assert np.array_equal(found, rgb(NONE, CATEGORICAL[0], CATEGORICAL[11], CATEGORICAL[0]))
    values = sequential(np.array([np.nan, -1.0, 0.0, 1.0, 7.0, 1 / 15, 0.5]))
    assert np.array_equal(values[:3], rgb(NONE, NONE, NONE))
    assert np.allclose(values[3:6], rgb(SEQUENTIAL[-1], SEQUENTIAL[-1], SEQUENTIAL[1]))
    assert np.allclose(values[6], rgb(*SEQUENTIAL[7:9]).mean(axis=0), atol=1e-6)
