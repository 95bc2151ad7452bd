"""Deletion and insertion curves, against one picture at a time, and a network whose evidence is one corner."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers.models import as_model
from torch import Tensor, nn

from microtome.dissect.attribution.baselines import BLUR, GREY, baseline_of
from microtome.dissect.attribution.checks.curves import area, centre_out, curves, displaced, order_of
from microtome.storage.errors import UsageError

SIDE = 16


class Corner(nn.Module):
    """Two logits: the sum over the first quarter of the picture, and nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        total = x[:, :, : SIDE // 2, : SIDE // 2].sum((1, 2, 3)) * self.weight
        return torch.stack([total, torch.zeros_like(total)], 1)


def corner_model() -> nn.Module:
    model = as_model(Corner(), SIDE)
    with torch.no_grad():
        model.module.weight.fill_(0.02)
    return model


def bright(count: int = 4) -> Tensor:
    return 1 + torch.rand(count, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))


def perfect(count: int = 4) -> np.ndarray:
    maps = np.zeros((count, SIDE, SIDE), np.float32)
    maps[:, : SIDE // 2, : SIDE // 2] = 1
    return maps


def test_as_one_picture_at_a_time() -> None:
    model, images, classes = corner_model(), bright(2), torch.tensor([0, 1])
    maps = np.random.default_rng(0).random((2, SIDE, SIDE))
    orders = order_of(maps)
    found = curves(model, images, orders, classes, steps=5, batch=2)
    for i in range(2):
        image = images[i : i + 1]
        for kind, start, end in (
            ("deletion", image, baseline_of(model, image, GREY)),
            ("insertion", baseline_of(model, image, BLUR), image),
        ):
            values = []
            for step in range(6):
                picture = start.clone().flatten(2)
                # a pixel goes in the step that its share of the order falls in
                gone = [pixel for at, pixel in enumerate(orders[i]) if at * 5 // SIDE**2 < step]
                picture[:, :, gone] = end.flatten(2)[:, :, gone]
                with torch.no_grad():
                    logits = model.module(picture.reshape(image.shape))
                values.append(float(logits.softmax(1)[0, classes[i]]))
            np.testing.assert_allclose(getattr(found, kind)[i], values, atol=1e-6)


def test_ends_are_the_image_and_what_stands_for_it() -> None:
    model, images = corner_model(), bright()
    found = curves(model, images, order_of(perfect()), torch.zeros(4, dtype=torch.long), steps=7)
    with torch.no_grad():
        whole = model.module(images).softmax(1)[:, 0].numpy()
        grey = model.module(baseline_of(model, images, GREY)).softmax(1)[:, 0].numpy()
    np.testing.assert_allclose(found.deletion[:, 0], whole, atol=1e-6)
    np.testing.assert_allclose(found.deletion[:, -1], grey, atol=1e-6)
    np.testing.assert_allclose(found.insertion[:, -1], whole, atol=1e-6)


def test_the_map_of_the_corner_is_the_best() -> None:
    model, images, classes = corner_model(), bright(), torch.zeros(4, dtype=torch.long)

    def deletion(maps: np.ndarray) -> np.ndarray:
        return curves(model, images, order_of(maps), classes, steps=8).deletion_area

    best = deletion(perfect())
    assert (best < deletion(displaced(perfect()))).all()
    assert (best < deletion(np.broadcast_to(centre_out(SIDE, SIDE), (4, SIDE, SIDE)))).all()
    assert (best < deletion(np.random.default_rng(0).random((4, SIDE, SIDE)))).all()
    assert (best < deletion(-perfect())).all()


def test_area_is_by_trapezoids() -> None:
    values = np.random.default_rng(0).random((3, 9))
    np.testing.assert_allclose(area(values), np.trapezoid(values, np.linspace(0, 1, 9), axis=1))


def test_order_is_by_value_and_draws_among_equals() -> None:
    maps = np.array([[[1.0, 3.0], [2.0, 0.0]]])
    assert order_of(maps).tolist() == [[1, 2, 0, 3]]
    flat = np.zeros((2, 8, 8))
    assert sorted(order_of(flat)[0]) == list(range(64))
    assert order_of(flat, 1).tolist() == order_of(flat, 1).tolist()
    assert order_of(flat, 1).tolist() != order_of(flat, 2).tolist()
    assert order_of(flat)[0].tolist() != list(range(64))


def test_displaced_is_the_same_map_elsewhere() -> None:
    maps = np.random.default_rng(0).random((3, 12, 20))
    found = displaced(maps, seed=4)
    for one, other in zip(maps, found, strict=True):
        assert sorted(one.ravel()) == sorted(other.ravel())
        row, column = np.argwhere(other == one[0, 0])[0]
        assert 3 <= row <= 9
        assert 5 <= column <= 15
    np.testing.assert_array_equal(found, displaced(maps, seed=4))


def test_centre_out_is_highest_in_the_middle() -> None:
    found = centre_out(5, 7)
    assert np.unravel_index(found.argmax(), found.shape) == (2, 3)
    assert found[0, 0] == found.min()


def test_what_does_not_fit_is_refused() -> None:
    model, images = corner_model(), bright(1)
    with pytest.raises(UsageError, match="do not fit"):
        curves(model, images, np.zeros((1, 5), np.int64), torch.zeros(1))
    with pytest.raises(UsageError, match="0 steps"):
        curves(model, images, order_of(perfect(1)), torch.zeros(1), steps=0)
