"""Which thumbnails are drawn, and that their outline lies where the model saw it."""

from __future__ import annotations

import cv2
import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from microtome.datasets.geometry import CropGeometry
from microtome.reports.outlines import draw_patch
from microtome.reports.thumbnails import SIZE, Box, Camera, Pictures, plan_patches, sample_blocks, thumb_shape


def tables() -> tuple[pd.DataFrame, pd.DataFrame]:
    units = pd.DataFrame(
        {"unit": [0, 1, 2, 3], "state": ["ok", "dead", "saturated", "constant"], "threshold": [1.0, 0.0, 6.0, 2.0]}
    )
    rows = [(unit, rank, 10 - 3 * rank + unit, 0, 0, 1.0, 0, 0, 8, 8) for unit in range(4) for rank in range(3)]
    names = ["unit", "rank", "sample", "row", "column", "value", "top", "left", "bottom", "right"]
    return units, pd.DataFrame(rows, columns=names)


def test_the_plan_goes_by_sample_and_skips_silent_units() -> None:
    plan = plan_patches("layer", *tables(), 2)
    assert plan.sample.tolist() == [7, 9, 10, 12]
    assert plan.unit.tolist() == [0, 2, 0, 2]
    assert plan.rank.tolist() == [1, 1, 0, 0]
    assert plan.threshold.tolist() == [1.0, 6.0, 1.0, 6.0]
    assert plan.saturated.tolist() == [False, True, False, True]
    assert plan.per_unit == 2
    assert list(plan.between(9, 11)) == [1, 2]


def test_a_part_of_a_plan_holds_its_units_alone() -> None:
    plan = plan_patches("layer", *tables(), 2)
    part = plan.of_units(1, 4)
    assert part.unit.tolist() == [2, 2]
    assert part.sample.tolist() == [9, 12]
    assert part.box.shape == (2, 4)
    assert part.held_bytes(7) == 2 * (3 * SIZE * SIZE + 4 * 7)
    assert plan.held_bytes(7) == plan.of_units(0, 1).held_bytes(7) + part.held_bytes(7)


def test_a_plan_without_patches() -> None:
    units, patches = tables()
    plan = plan_patches("layer", units, patches[:0], 2)
    assert plan.per_unit == 0
    assert plan.held_bytes(7) == 0


def test_blocks_touch_only_chunks_in_use() -> None:
    samples = np.array([900_001, 3, 40, 41, 63, 3, 900_031])
    assert list(sample_blocks(samples, 32)) == [(3, 4), (40, 64), (900_001, 900_032)]
    assert list(sample_blocks(np.zeros(0, np.int64), 32)) == []


@pytest.mark.parametrize(("box", "expected"), [((50, 50), (SIZE, SIZE)), ((20, 80), (24, SIZE)), ((1, 400), (8, SIZE))])
def test_thumbnails_keep_the_shape_of_their_box(box: tuple[int, int], expected: tuple[int, int]) -> None:
    assert thumb_shape(*box) == expected
    assert thumb_shape(box[1], box[0]) == (expected[1], expected[0])


def draw(camera: Camera, box: Box, activation: NDArray[np.float32], threshold: float) -> NDArray[np.uint8]:
    """The thumbnail of `box` with its outline."""
    view = camera.look(box)
    rows, columns = view.picture.shape[:2]
    drawn = np.zeros((rows, 3 * columns), np.uint8)
    flat = view.picture.reshape(rows, -1)
    draw_patch(flat, (rows, columns), np.array(view.place), activation, threshold, False, drawn, 0)
    return drawn.reshape(view.picture.shape)


def test_patches_of_the_same_box_share_a_picture() -> None:
    units, patches = tables()
    plan = plan_patches("layer", units, patches, 3)
    pictures, numbers = Pictures.plan([plan, plan.of_units(2, 3)])
    assert pictures.samples.tolist() == sorted(set(plan.sample.tolist()))
    assert numbers[1].tolist() == numbers[0][plan.unit == 2].tolist()
    image = np.zeros((20, 20, 3), np.uint8)
    image[:, :, 0] = 200
    pictures.take(1, Camera.of(image, (20, 20), None))
    assert pictures.shape.tolist() == [[0, 0], [SIZE, SIZE]] + [[0, 0]] * (len(pictures.shape) - 2)
    assert (pictures.pixels[1] == (0, 0, 200)).all()


@pytest.mark.parametrize("shape", [(300, 224), (240, 320), (224, 224), (97, 411)])
@pytest.mark.parametrize("resize", [None, 256])
def test_the_outline_lies_where_the_crop_was(shape: tuple[int, int], resize: int | None) -> None:
    geometry = CropGeometry.of(*shape, size=(224, 224), resize=resize)
    activation = np.zeros((7, 7), np.float32)
    activation[2, 4] = 1
    top, left, bottom, right = geometry.to_original(2 * 32, 4 * 32, 3 * 32, 5 * 32)
    image = np.full((*shape, 3), 200, np.uint8)
    camera = Camera.of(image, (224, 224), resize)
    whole = draw(camera, (0, 0, *shape), activation, 0.4)
    inside = np.argwhere((whole >= 180).all(axis=2)).astype(float).mean(axis=0) + 0.5
    scale = max(shape) / SIZE
    np.testing.assert_allclose(inside * scale, [(top + bottom) / 2, (left + right) / 2], atol=1.5 * scale)
    centre = draw(camera, (top, left, bottom, right), activation, 0.2)
    assert (centre[SIZE // 2, SIZE // 2] == 200).all()


def test_a_box_beyond_the_image_is_clipped() -> None:
    image = np.full((40, 60, 3), 7, np.uint8)
    camera = Camera.of(image, (32, 32), None)
    assert (camera.look((-5, -5, 100, 100)).picture == 7).all()
    assert camera.look((39, 59, 39, 59)).picture.shape == (SIZE, SIZE, 3)


@pytest.mark.parametrize(("height", "width"), [(30, 43), (97, 150), (224, 224), (223, 190), (1000, 731)])
def test_a_picture_is_averaged_where_its_box_is_larger(height: int, width: int) -> None:
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)
    noise = rng.integers(-20, 21, (height, width, 3))
    image = np.clip(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC) + noise, 0, 255).astype(np.uint8)
    picture = Camera.of(image, (32, 32), None).look((0, 0, height, width)).picture
    rows, columns = thumb_shape(height, width)
    method = cv2.INTER_AREA if max(height, width) > SIZE else cv2.INTER_LINEAR
    expected = cv2.resize(image, (columns, rows), interpolation=method)
    assert np.abs(picture.astype(float) - expected).mean() < 4
