"""Weights of convolutions, and pictures of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers.attentions import tiny
from helpers.models import InPlace, Reused, as_model
from torch import nn

from microtome.dissect.attribution.filters import filter_images, filters
from microtome.dissect.models import load_model
from microtome.storage.errors import DoesNotApplyError, UnknownNameError, UsageError


def test_the_first_convolution_and_any_other() -> None:
    model = as_model(Reused())
    assert torch.equal(filters(model), model.module.first.weight)
    assert torch.equal(filters(model.module), model.module.first.weight)
    for layer in ("second", "alias"):
        assert torch.equal(filters(model, layer=layer), model.module.second.weight)
    assert torch.equal(filters(model, layer="parts.0"), model.module.parts[0][0].weight)
    assert torch.equal(filters(model, model.noise(2), 3, "second", unit=4), model.module.second.weight[4:5])


def test_the_result_is_a_copy() -> None:
    model = as_model(InPlace())
    weights = filters(model)
    assert weights.dtype == torch.float32
    assert not weights.requires_grad
    weights.zero_()
    assert model.module.conv.weight.any()


def test_patch_embeddings_and_the_networks_that_come_along() -> None:
    model, net = tiny()
    assert torch.equal(filters(model), net.patches.weight)
    assert filters(load_model("builtin:scenes-cnn")).shape == (32, 3, 3, 3)
    assert filters(load_model("builtin:scenes-vit")).shape[1] == 3


def test_groups_and_transposed_convolutions() -> None:
    module = nn.Sequential(nn.Conv2d(6, 12, 3, groups=6), nn.ConvTranspose2d(12, 5, 2))
    assert filters(module, layer="0").shape == (12, 1, 3, 3)
    assert torch.equal(filters(module, layer="1"), module[1].weight.transpose(0, 1))


def test_what_is_no_convolution() -> None:
    model = as_model(Reused())
    with pytest.raises(DoesNotApplyError, match=r"layer head is no 2-D convolution; take one that is, as first"):
        filters(model, layer="head")
    with pytest.raises(UnknownNameError, match="did you mean"):
        filters(model, layer="frst")
    with pytest.raises(UsageError, match="has no unit 12"):
        filters(model, layer="second", unit=12)
    with pytest.raises(DoesNotApplyError, match="no 2-D convolution; take activations"):
        filters(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)))
    both = nn.Sequential(nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1)))
    with pytest.raises(DoesNotApplyError, match=r"layer 0 holds 2 convolutions; take one, as 0.0, 0.1"):
        filters(both, layer="0")


def test_pictures_of_three_channels_are_around_grey() -> None:
    weights = torch.zeros(3, 3, 2, 2)
    weights[0, 0, 0, 0], weights[0, 2, 1, 1] = 2.0, -1.0
    weights[1, 1, 0, 1] = -0.5
    pictures = filter_images(weights)
    assert pictures.shape == (3, 2, 2, 3)
    assert pictures.dtype == np.uint8
    assert pictures[0, 0, 0].tolist() == [255, 128, 128]
    assert pictures[0, 1, 1].tolist() == [128, 128, 64]
    assert pictures[1, 0, 1].tolist() == [128, 1, 128]
    assert (pictures[2] == 128).all()
    assert filter_images(weights.numpy(), common=True)[1, 0, 1].tolist() == [128, 96, 128]


def test_pictures_of_other_numbers_of_channels() -> None:
    grey = filter_images(np.array([[[[1.0, -1.0]]]]))
    assert grey[0, 0].tolist() == [[255] * 3, [1] * 3]
    magnitudes = filter_images(np.array([[[[3.0, 0.0]], [[4.0, -1.0]]], [[[0.0, 0.0]]] * 2]))
    assert magnitudes[0, 0].tolist() == [[255] * 3, [51] * 3]
    assert not magnitudes[1].any()
