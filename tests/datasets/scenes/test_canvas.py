"""The canvas: what is painted last is seen and labelled; textures bring their label; nothing leaves the sheet."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from microtome.datasets.scenes.canvas import Canvas, Weave, colour_ramp, surface
from microtome.datasets.scenes.concepts import concept_id
from microtome.datasets.scenes.shapes import bar, ellipse, grid, rectangle
from microtome.datasets.scenes.tiles import LEVELS, SIDE, pyramid

WALL = surface((200.0, 30.0, 30.0), "house", "wall", "brick")
PANE = surface((20.0, 40.0, 160.0), "house", "window", "glass")


def test_labels_follow_the_picture() -> None:
    canvas = Canvas(40)
    canvas.fill(rectangle(0.25, 0.25, 0.75, 0.75), WALL)
    canvas.fill(rectangle(0.4, 0.4, 0.6, 0.6), PANE)
    assert canvas.image[20, 20].tolist() == [20, 40, 160]
    assert canvas.labels[20, 20].tolist() == list(PANE.labels)
    assert canvas.image[12, 12].tolist() == [200, 30, 30]
    assert canvas.labels[12, 12].tolist() == list(WALL.labels)
    assert canvas.labels[2, 2].tolist() == [0, 0, 0, 0]
    assert (canvas.labels[..., 0] > 0).mean() == pytest.approx(0.25, abs=0.04)


@pytest.mark.parametrize("texture", ["striped", "dotted", "checkered", "zigzagged"])
def test_a_texture_shows_both_colours_and_brings_its_label(texture: str) -> None:
    canvas = Canvas(64)
    weave = Weave(texture, (250.0, 250.0, 250.0), 0.5)
    canvas.fill(rectangle(0, 0, 1, 1), surface((10.0, 10.0, 10.0), "tent", "canopy", "fabric", weave))
    assert set(np.unique(canvas.labels[..., 3])) == {concept_id("texture", texture)}
    assert (canvas.image < 60).mean() > 0.2
    assert (canvas.image > 200).mean() > 0.15


def test_material_weaves_bring_no_texture() -> None:
    weave = Weave("brick", (250.0, 250.0, 250.0), 0.5)
    assert surface((1.0, 2.0, 3.0), "house", "wall", "brick", weave).labels[3] == 0


def test_unknown_concepts_are_refused() -> None:
    with pytest.raises(KeyError):
        surface((0.0, 0.0, 0.0), "spaceship")


@settings(max_examples=40, deadline=None)
@given(x=st.floats(-2, 3), y=st.floats(-2, 3), r=st.floats(0.001, 2), woven=st.booleans(), size=st.integers(16, 40))
def test_shapes_may_lie_anywhere(x: float, y: float, r: float, woven: bool, size: int) -> None:
    canvas = Canvas(size)
    weave = Weave("dotted", (255.0, 255.0, 255.0), 0.2) if woven else None
    shape = ellipse(x, y, r, r / 2)
    canvas.fill([shape, bar(x, y, y, x, 0.1)], surface((9.0, 9.0, 9.0), "tent", "", "fabric", weave))
    canvas.shadow(shape, 0.5)
    canvas.blur_onto([shape], surface((9.0, 9.0, 9.0), "cloud"), 0.03, 0.9)
    assert set(np.unique(canvas.labels[..., 0])) <= {0, concept_id("object", "tent"), concept_id("object", "cloud")}


def test_air_carries_colours_towards_the_haze() -> None:
    canvas = Canvas(16)
    canvas.haze, canvas.air = (100.0, 100.0, 100.0), 0.5
    canvas.fill(rectangle(-1, -1, 2, 2), surface((200.0, 0.0, 100.0), "car"))
    assert canvas.image[8, 8].tolist() == [150, 50, 100]


def test_shadow_darkens_and_keeps_labels() -> None:
    canvas = Canvas(16)
    canvas.fill(rectangle(-1, -1, 2, 2), WALL)
    before = canvas.labels.copy()
    canvas.shadow(rectangle(-1, -1, 0.5, 2), 0.5)
    assert canvas.image[8, 2, 0] == pytest.approx(100, abs=2)
    assert canvas.image[8, 14, 0] == 200
    np.testing.assert_array_equal(canvas.labels, before)


def test_ramp_runs_from_one_colour_to_the_other() -> None:
    ramp = colour_ramp((0.0, 10.0, 250.0), (255.0, 10.0, 0.0))
    assert ramp[0].tolist() == [0, 10, 250]
    assert ramp[255].tolist() == [255, 10, 0]


def test_grid_has_its_rows_and_columns() -> None:
    panes = grid(0, 0, 1, 1, 3, 4, 0.5)
    assert len(panes) == 12
    np.testing.assert_allclose(panes[0][:, 0].max() - panes[0][:, 0].min(), 0.125)


@pytest.mark.parametrize("name", ["grass", "water", "brick", "planks", "striped", "foliage", "snow"])
def test_tiles_come_in_halving_sizes_and_wrap(name: str) -> None:
    levels = pyramid(name)
    assert [level.shape for level in levels] == [(SIDE >> i, SIDE >> i) for i in range(LEVELS)]
    assert levels[0].max() > levels[0].min()
