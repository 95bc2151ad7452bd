"""A small network to explain, class activation maps written out plainly, and how near another is to them."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Plain(nn.Module):
    """Convolutions; in place or not, a ReLU follows each."""

    def __init__(self, in_place: bool) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 8, 3, stride=2, padding=1)
        self.relu = nn.ReLU(inplace=in_place)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.second(self.relu(self.first(x))))
        out: Tensor = self.head(x.mean((2, 3)))
        return out


def close(ours: Tensor, theirs: Tensor) -> bool:
    """Within 1e-5 of the largest value."""
    assert ours.shape == theirs.shape
    return float((ours - theirs).abs().max()) <= 1e-5 * float(theirs.abs().max()) and bool(theirs.any())


def by_hand(maps: Tensor, gradients: Tensor) -> Tensor:
    """Grad-CAM, image by image and unit by unit."""
    out = torch.zeros(len(maps), *maps.shape[2:])
    for image in range(len(maps)):
        for unit in range(maps.shape[1]):
            out[image] += gradients[image, unit].mean() * maps[image, unit]
    return out.clamp(min=0)


def plus_plus(maps: Tensor, gradients: Tensor) -> Tensor:
    """Grad-CAM++ with the alphas of eq. 19, in float64 as it stands."""
    maps, gradients = maps.double(), gradients.double()
    out = torch.zeros(len(maps), *maps.shape[2:], dtype=torch.float64)
    for image in range(len(maps)):
        for unit in range(maps.shape[1]):
            g, a = gradients[image, unit], maps[image, unit]
            below = 2 * g**2 + a.sum() * g**3
            alphas = torch.where(g == 0, 0.0, g**2 / torch.where(g == 0, 1.0, below))
            out[image] += (alphas * g.clamp(min=0)).sum() * a
    return out.clamp(min=0).float()


def hooked(module: nn.Module, layer: nn.Module, images: Tensor, target: int) -> tuple[Tensor, Tensor]:
    """A layer's output and the logit's gradient by it, by a hook."""
    kept: list[Tensor] = []

    def keep(module: nn.Module, inputs: object, output: Tensor) -> Tensor:
        kept.append(output.clone())
        return kept[0].clone()

    handle = layer.register_forward_hook(keep)
    logits = module(images.clone().requires_grad_())
    handle.remove()
    (gradient,) = torch.autograd.grad(logits[:, target].sum(), kept)
    return kept[0].detach(), gradient
