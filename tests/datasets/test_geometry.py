"""Crops: the same place in image and labels, and the sizes that torchvision gives."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision import transforms

from microtome.datasets.geometry import CropGeometry
from microtome.storage.errors import UsageError

lengths = st.integers(1, 90)


@settings(max_examples=120, deadline=None)
@given(lengths, lengths, st.integers(1, 60), st.integers(1, 60), st.integers(1, 70))
def test_crop_lies_where_torchvision_puts_it(height: int, width: int, ch: int, cw: int, resize: int) -> None:
    if max(height, width) * resize // min(height, width) > 400:
        return
    geometry = CropGeometry.of(height, width, size=(ch, cw), resize=resize)
    resized = transforms.Resize(resize)(Image.new("RGB", (width, height)))
    assert geometry.resized == (resized.height, resized.width)
    rows, columns = np.indices((resized.height, resized.width)) + 1
    marked = Image.fromarray(
        np.stack([rows % 256, columns % 256, rows // 256 + columns // 256 * 16], -1).astype(np.uint8)
    )
    crop = np.asarray(transforms.CenterCrop((ch, cw))(marked)).astype(int)
    expected = np.zeros((ch, cw, 2), int)
    for y in range(ch):
        for x in range(cw):
            r, c = y + geometry.top, x + geometry.left
            if 0 <= r < resized.height and 0 <= c < resized.width:
                expected[y, x] = r + 1, c + 1
    assert (crop[..., 0] + crop[..., 2] % 16 * 256 == expected[..., 0]).all()
    assert (crop[..., 1] + crop[..., 2] // 16 * 256 == expected[..., 1]).all()


@settings(max_examples=200, deadline=None)
@given(lengths, lengths, lengths, lengths)
def test_without_resize_the_crop_is_just_covered(height: int, width: int, ch: int, cw: int) -> None:
    geometry = CropGeometry.of(height, width, size=(ch, cw), resize=None)
    assert geometry.resized[0] >= ch
    assert geometry.resized[1] >= cw
    side = min(geometry.resized)
    if side > 1:
        smaller = CropGeometry.of(height, width, size=(ch, cw), resize=side - 1)
        assert smaller.resized[0] < ch or smaller.resized[1] < cw


@settings(max_examples=100, deadline=None)
@given(lengths, lengths, st.integers(1, 40), st.integers(1, 60), st.integers(1, 20), st.integers(1, 20))
def test_label_indices_are_the_pixels_under_the_centres(
    height: int, width: int, crop: int, resize: int, rows: int, plane: int
) -> None:
    geometry = CropGeometry.of(height, width, size=(crop, crop), resize=resize)
    found, _ = geometry.label_indices((rows, 3), (plane, plane))
    for row, index in enumerate(found.tolist()):
        centre = (Fraction(2 * row + 1, 2) * crop / rows + geometry.top) / geometry.resized[0]
        assert index == (int(centre * plane) if 0 <= centre < 1 else -1)


@settings(max_examples=200, deadline=None)
@given(lengths, lengths, st.integers(4, 60), st.data())
def test_boxes_go_back_and_forth(height: int, width: int, crop: int, data: st.DataObject) -> None:
    geometry = CropGeometry.of(height, width, size=(crop, crop), resize=crop + 5)
    top, left = data.draw(st.integers(0, crop - 1)), data.draw(st.integers(0, crop - 1))
    bottom, right = data.draw(st.integers(top + 1, crop)), data.draw(st.integers(left + 1, crop))
    box = geometry.to_original(top, left, bottom, right)
    assert 0 <= box[0] < box[2] <= height
    assert 0 <= box[1] < box[3] <= width
    back = geometry.to_crop(box)
    assert back[0] <= top + 1e-9
    assert back[1] <= left + 1e-9
    assert back[2] >= bottom - 1e-9
    assert back[3] >= right - 1e-9
    assert (top - back[0]) * height / geometry.resized[0] < 1 + 1e-9


def test_whole_crop_of_an_unresized_image_is_its_centre() -> None:
    geometry = CropGeometry.of(180, 240, size=(100, 100), resize=180)
    assert (geometry.top, geometry.left) == (40, 70)
    assert geometry.to_original(0, 0, 100, 100) == (40, 70, 140, 170)
    assert geometry.to_crop((40, 70, 140, 170)) == (0, 0, 100, 100)


def test_padding_has_no_labels_and_no_original_pixels() -> None:
    geometry = CropGeometry.of(10, 10, size=(16, 20), resize=10)
    assert (geometry.top, geometry.left) == (-3, -5)
    rows, columns = geometry.label_indices((16, 20), (10, 10))
    assert rows.tolist() == [-1] * 3 + list(range(10)) + [-1] * 3
    assert columns.tolist() == [-1] * 5 + list(range(10)) + [-1] * 5
    assert geometry.to_original(0, 0, 2, 2) == (0, 0, 0, 0)


@pytest.mark.parametrize(("height", "size", "resize"), [(0, (4, 4), 4), (4, (0, 4), 4), (4, (4, 4), 0)])
def test_lengths_have_to_be_positive(height: int, size: tuple[int, int], resize: int) -> None:
    with pytest.raises(UsageError, match="1 or more"):
        CropGeometry.of(height, 5, size=size, resize=resize)
