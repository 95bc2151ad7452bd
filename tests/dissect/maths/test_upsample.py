from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers import reference
from hypothesis import given, settings
from hypothesis import strategies as st

from microtome.dissect.maths.upsample import axis_weights, upsample

sizes = st.integers(1, 20)


@settings(deadline=None, max_examples=80)
@given(h=sizes, w=sizes, height=sizes, width=sizes, seed=st.integers(0, 1000))
def test_equals_the_definition_and_torch(h: int, w: int, height: int, width: int, seed: int) -> None:
    grid = np.random.default_rng(seed).standard_normal((h, w)).astype(np.float16)
    found = upsample(grid, (height, width))
    np.testing.assert_array_equal(found, reference.upsampled(grid, height, width))
    tensor = torch.from_numpy(grid.astype(np.float32))[None, None]
    dense = torch.nn.functional.interpolate(tensor, (height, width), mode="bilinear", align_corners=False)
    np.testing.assert_allclose(found, dense[0, 0].numpy(), atol=1e-5)


def test_a_pixel_on_a_grid_point_has_its_value() -> None:
    """The sixth of 11 pixels over 15 points lies on the eighth, although 5.5 * (15 / 11) is a little less than 7.5."""
    i0, _, share = axis_weights(15, 11)
    assert (i0[5], share[5]) == (7, 0)


def test_plateaus_stay_exact() -> None:
    grid = np.full((7, 7), 0.1, np.float16)
    assert np.unique(upsample(grid, (112, 50))).tolist() == [np.float32(np.float16(0.1))]


def test_a_nan_of_no_weight_does_no_harm() -> None:
    grid = np.array([[1.0, np.nan]], np.float16)
    assert np.isnan(upsample(grid, (1, 2))).tolist() == [[False, True]]
    assert np.isnan(upsample(grid, (1, 8))).tolist() == [[False] * 2 + [True] * 6]


@pytest.mark.parametrize(("src", "dst"), [(1, 1), (14, 112), (112, 56), (7, 112), (3, 65_000)])
def test_weights_stay_inside(src: int, dst: int) -> None:
    i0, i1, share = axis_weights(src, dst)
    assert share.dtype == np.float32
    assert i0.min() >= 0
    assert i1.max() <= src - 1
    assert np.all((share >= 0) & (share < 1))
    assert np.all(np.diff(i0) >= 0)
    assert np.all(share[i0 == i1] == 0)
