"""What an image becomes where nothing is to be seen in it: black, grey, its mean colour, or itself blurred."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from microtome.dissect.models import Model
from microtome.storage.errors import UnknownNameError, UsageError

BLACK, GREY, MEAN, BLUR = "black", "grey", "mean", "blur"

BLUR_SHARE = 1 / 16
"""The standard deviation of the blur, as a share of the image's shorter side: 14 pixels of 224."""


def baseline_of(model: Model | nn.Module, images: Tensor, kind: str) -> Tensor:
    """(B, 3, H, W): what stands for images (B, 3, H, W), normalised, where they are hidden.

    "black" and "grey" are the pixels of 0 and of 0.5 as the model takes them, (0 - mean) / std; a bare module says
    nothing of its preprocessing, and both are 0 there. "mean": each image's own mean colour; "blur": each image under
    a Gaussian of BLUR_SHARE of its shorter side. Raises UnknownNameError.
    """
    if kind == MEAN:
        return images.mean((2, 3), keepdim=True).expand_as(images)
    if kind == BLUR:
        return blurred(images, BLUR_SHARE * min(images.shape[2:]))
    if kind not in (BLACK, GREY):
        raise UnknownNameError("baseline", kind, (BLACK, GREY, MEAN, BLUR))
    if not isinstance(model, Model):
        return torch.zeros_like(images)
    mean, std = (images.new_tensor(triple).view(1, 3, 1, 1) for triple in (model.preprocess.mean, model.preprocess.std))
    pixel: Tensor = ((0.5 if kind == GREY else 0.0) - mean) / std
    return pixel.expand_as(images)


def blurred(images: Tensor, sigma: float) -> Tensor:
    """Images (B, C, H, W) under a Gaussian of `sigma` pixels, cut at 3 sigma; beyond the border the edge goes on."""
    if not sigma > 0:
        raise UsageError(f"a blur of {sigma} pixels; its standard deviation must be above 0")
    radius = math.ceil(3 * sigma)
    steps = torch.arange(-radius, radius + 1, dtype=images.dtype, device=images.device)
    weights = torch.exp(-0.5 * (steps / sigma) ** 2)
    weights = weights / weights.sum()
    channels = images.shape[1]
    down, across = (weights.view(shape).expand(channels, -1, -1, -1) for shape in ((1, 1, -1, 1), (1, 1, 1, -1)))
    out = F.conv2d(F.pad(images, (0, 0, radius, radius), mode="replicate"), down, groups=channels)
    return F.conv2d(F.pad(out, (radius, radius, 0, 0), mode="replicate"), across, groups=channels)
