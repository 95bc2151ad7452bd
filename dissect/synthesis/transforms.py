"""Images shifted, turned and resized at random before the network sees them, each by draws of its own.

What a network answers to only at one place, size and angle is noise to the eye; what is left under all of them is not
(Mordvintsev et al., 2015; Olah et al., 2017).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from microtome.dissect.synthesis.settings import Settings


def draw_transforms(settings: Settings, size: tuple[int, int], generators: Sequence[torch.Generator]) -> Tensor | None:
    """For each step and image an affine map (steps, B, 2, 3) float32, from the places of what is seen to those of the
    image; each image's from its own generator. None where nothing is to be changed."""
    if not (settings.jitter or settings.scale or settings.rotation):
        return None
    drawn = torch.stack([torch.rand(settings.steps, 4, generator=each) for each in generators], 1).double() * 2 - 1
    height, width = size
    sides = torch.tensor([width, height], dtype=torch.float64)
    reach = torch.floor(settings.jitter * sides)
    shift = torch.round(drawn[..., :2] * reach) * 2 / sides
    grow = torch.exp(drawn[..., 2] * -math.log1p(-settings.scale)) if settings.scale else torch.ones_like(drawn[..., 2])
    angle = drawn[..., 3] * math.radians(settings.rotation)
    ratio = height / width
    cosine, sine = torch.cos(angle) * grow, torch.sin(angle) * grow
    rows = [
        torch.stack([cosine, -sine * ratio, shift[..., 0]], -1),
        torch.stack([sine / ratio, cosine, shift[..., 1]], -1),
    ]
    return torch.stack(rows, -2).float()


def transformed(images: Tensor, maps: Tensor | None) -> Tensor:
    """`images` (B, 3, H, W) as seen through affine maps (B, 2, 3), mirrored beyond their borders; bilinear."""
    if maps is None:
        return images
    grid = functional.affine_grid(maps.to(images), list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
