"""Which thumbnails are drawn, and that their outline lies where the model saw it."""

from __future__ import annotations

import cv2
import numpy as np
import pandas as pd
import pytest

from microtome.datasets.geometry import CropGeometry
from microtome.reports.thumbnails import SIZE, Drawer, plan_patches, sample_blocks, thumb_shape


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
    assert plan.held_bytes == plan.of_units(0, 1).held_bytes + part.held_bytes == 4 * 4 * SIZE * SIZE


def test_a_plan_without_patches() -> None:
    units, patches = tables()
    plan = plan_patches("layer", units, patches[:0], 2)
    assert plan.per_unit == 0
    assert plan.held_bytes == 0


def test_blocks_touch_only_chunks_in_use() -> None:
    samples = np.array([900_001, 3, 40, 41, 63, 3, 900_031])
    assert list(sample_blocks(samples, 32)) == [(3, 4), (40, 64), (900_001, 900_032)]
    assert list(sample_blocks(np.zeros(0, np.int64), 32)) == []


@pytest.mark.parametrize(("box", "expected"), [((50, 50), (SIZE, SIZE)), ((20, 80), (24, SIZE)), ((1, 400), (8, SIZE))])
def test_thumbnails_keep_the_shape_of_their_box(box: tuple[int, int], expected: tuple[int, int]) -> None:
    assert thumb_shape(*box) == expected
    assert thumb_shape(box[1], box[0]) == (expected[1], expected[0])


@pytest.mark.parametrize("shape", [(300, 224), (240, 320), (224, 224), (97, 411)])
@pytest.mark.parametrize("resize", [None, 256])
def test_the_outline_lies_where_the_crop_was(shape: tuple[int, int], resize: int | None) -> None:
    geometry = CropGeometry.of(*shape, size=(224, 224), resize=resize)
    activation = np.zeros((7, 7), np.float32)
    activation[2, 4] = 1
    top, left, bottom, right = geometry.to_original(2 * 32, 4 * 32, 3 * 32, 5 * 32)
    image = np.full((*shape, 3), 200, np.uint8)
    drawer = Drawer.of(image, (224, 224), resize)
    whole = drawer.thumb((0, 0, *shape), activation, 0.4).drawn()
    inside = np.argwhere((whole >= 180).all(axis=2)).astype(float).mean(axis=0) + 0.5
    scale = max(shape) / SIZE
    np.testing.assert_allclose(inside * scale, [(top + bottom) / 2, (left + right) / 2], atol=1.5 * scale)
    centre = drawer.thumb((top, left, bottom, right), activation, 0.2).drawn()
    assert (centre[SIZE // 2, SIZE // 2] == 200).all()


def test_a_box_beyond_the_image_is_clipped() -> None:
    image = np.full((40, 60, 3), 7, np.uint8)
    drawer = Drawer.of(image, (32, 32), None)
    assert (drawer.thumb((-5, -5, 100, 100), None).drawn() == 7).all()
    assert drawer.thumb((39, 59, 39, 59), None).drawn().shape == (SIZE, SIZE, 3)


@pytest.mark.parametrize(("height", "width"), [(30, 43), (97, 150), (224, 224), (223, 190), (1000, 731)])
def test_a_picture_is_averaged_where_its_box_is_larger(height: int, width: int) -> None:
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)
    noise = rng.integers(-20, 21, (height, width, 3))
    image = np.clip(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC) + noise, 0, 255).astype(np.uint8)
    picture = Drawer.of(image, (32, 32), None).thumb((0, 0, height, width), None).drawn()
    rows, columns = thumb_shape(height, width)
    method = cv2.INTER_AREA if max(height, width) > SIZE else cv2.INTER_LINEAR
    expected = cv2.resize(image, (columns, rows), interpolation=method)
    assert np.abs(picture.astype(float) - expected).mean() < 4
