"""GrabCut from saliency: one bright object on textured ground, and a network that looks at its colour."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from microtome.dissect.attribution.grabcut import grabcut
from microtome.dissect.models import Model, Preprocess
from microtome.storage.errors import DoesNotApplyError, UsageError

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)


class Orange(nn.Module):
    """Logit 0 sums how orange the pixels are, softly; logit 1 is 0."""

    def forward(self, x: Tensor) -> Tensor:
        pixels = x * torch.tensor(STD).view(1, 3, 1, 1) + torch.tensor(MEAN).view(1, 3, 1, 1)
        orange = pixels[:, 0] - pixels[:, 2]
        return torch.stack([torch.sigmoid(8 * (orange - 0.9)).sum((1, 2)), 0 * x.sum((1, 2, 3))], 1)


def scene(row: int, column: int, seed: int) -> tuple[Tensor, Tensor]:
    """An orange disc on blue and green noise: pixels (3, 64, 80) in [0, 1], and its mask (64, 80)."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:64, :80]
    mask = (rows - row) ** 2 + (columns - column) ** 2 < 14**2
    pixels = rng.uniform((0.0, 0.2, 0.3), (0.3, 0.7, 0.9), (64, 80, 3))
    pixels[mask] = rng.uniform((0.85, 0.45, 0.0), (1.0, 0.6, 0.15), (int(mask.sum()), 3))
    return torch.from_numpy(pixels).float().permute(2, 0, 1), torch.from_numpy(mask)


@pytest.fixture(scope="module")
def planted() -> tuple[Model, Tensor, Tensor]:
    scenes = [scene(30, 30, 0), scene(40, 55, 1)]
    model = Model("orange", Orange(), Preprocess((64, 80), None, MEAN, STD))
    mean, std = (torch.tensor(triple).view(1, 3, 1, 1) for triple in (MEAN, STD))
    return model, (torch.stack([s[0] for s in scenes]) - mean) / std, torch.stack([s[1] for s in scenes])


def iou(found: Tensor, mask: Tensor) -> float:
    return float((found.bool() & mask).sum() / (found.bool() | mask).sum())


def test_the_object_is_found(planted: tuple[Model, Tensor, Tensor]) -> None:
    model, images, masks = planted
    found = grabcut(model, images, 0)
    assert found.shape == (2, 64, 80)
    assert found.dtype == torch.float32
    assert set(found.unique().tolist()) == {0.0, 1.0}
    assert min(iou(*pair) for pair in zip(found, masks, strict=True)) > 0.9
    bare = grabcut(model.module, images, 0)
    assert min(iou(*pair) for pair in zip(bare, masks, strict=True)) > 0.9


def test_a_unit_and_a_cut_without_rounds(planted: tuple[Model, Tensor, Tensor]) -> None:
    model, images, masks = planted
    assert iou(grabcut(model, images, 0, rounds=0)[0], masks[0]) > 0.7
    network = nn.Sequential(nn.Conv2d(3, 1, 1), nn.Sigmoid(), nn.Flatten(), nn.LazyLinear(2))
    network(images)
    with torch.no_grad():
        network[0].weight[:] = torch.tensor([2.0, 0.0, -2.0]).view(1, 3, 1, 1)
        network[0].bias[:] = -6
    assert (
        iou(grabcut(Model("unit", network, model.preprocess), images, None, "1", unit=0, at="mean")[1], masks[1]) > 0.9
    )


def test_the_same_every_time_and_alone(planted: tuple[Model, Tensor, Tensor]) -> None:
    model, images, _ = planted
    whole = grabcut(model, images, 0)
    assert torch.equal(grabcut(model, images, 0), whole)
    assert torch.equal(grabcut(model, images[1:], 0), whole[1:])


def test_saliency_that_is_the_same_everywhere_is_refused(planted: tuple[Model, Tensor, Tensor]) -> None:
    model, images, _ = planted
    with pytest.raises(DoesNotApplyError, match=r"image 0 of the batch marks 0 pixels .* the same everywhere"):
        grabcut(model, images, 1)


def test_an_image_of_one_colour_is_cut_somehow(planted: tuple[Model, Tensor, Tensor]) -> None:
    class Corner(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x[:, :, :20, :20].sum((1, 2, 3))[:, None]

    found = grabcut(Corner(), torch.ones(1, 3, 64, 80), 0)
    assert set(found.unique().tolist()) <= {0.0, 1.0}


def test_options_that_make_no_sense(planted: tuple[Model, Tensor, Tensor]) -> None:
    model, images, _ = planted
    with pytest.raises(UsageError, match="background <= foreground"):
        grabcut(model, images, foreground=0.2)
    with pytest.raises(UsageError, match="rounds of 0 or more"):
        grabcut(model, images, rounds=-1)
