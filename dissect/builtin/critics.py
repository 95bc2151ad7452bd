"""Networks that the built-in generator has at training time only: two encoders and a critic."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from microtome.dissect.builtin.gan import FINE
from microtome.dissect.builtin.prior import VALUES


def _step(inputs: int, units: int, side: int = 3, stride: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(inputs, units, side, stride, 1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(units), nn.ReLU())


def _code(inputs: int, values: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, values, 1, bias=False), nn.BatchNorm2d(values, affine=False))


class FineEncoder(nn.Module):
    """Images (B, 3, 64, 64) in [-1, 1] to fine codes (B, 24, 8, 8), each value with mean 0 and variance 1."""

    def __init__(self) -> None:
        super().__init__()
        steps = [_step(12, 48), _step(48, 96, 4, 2), _step(96, 160, 4, 2), _step(160, 192)]
        self.body = nn.Sequential(nn.PixelUnshuffle(2), *steps, _code(192, FINE))

    def forward(self, images: Tensor) -> Tensor:
        codes: Tensor = self.body(images)
        return codes


class CoarseEncoder(nn.Module):
    """Fine codes (B, 24, 8, 8) to coarse ones (B, 24, 4, 4), each value with mean 0 and variance 1."""

    def __init__(self) -> None:
        super().__init__()
        steps = [_step(FINE, 128), _step(128, 192, 4, 2), _step(192, 256)]
        self.body = nn.Sequential(*steps, _code(256, VALUES))

    def forward(self, codes: Tensor) -> Tensor:
        coarse: Tensor = self.body(codes)
        return coarse


class PatchCritic(nn.Module):
    """Images and what a classifier sees in them to scores of places, from what is near each (Isola et al., 2017).

    One part looks at pixels, the other at the classifier's features, which are given (as in Projected GANs, Sauer et
    al., 2021). Weights are divided by their largest singular value (Miyato et al., 2018).
    """

    def __init__(self) -> None:
        super().__init__()
        self.pixels = nn.Sequential(
            nn.PixelUnshuffle(2), _judge([(12, 48, 4, 2), (48, 96, 4, 2), (96, 128, 3, 1), (128, 1, 3, 1)])
        )
        self.features = _judge([(128, 128, 1, 1), (128, 1, 3, 1)])

    def forward(self, images: Tensor, features: Tensor) -> Tensor:
        """Images (B, 3, 64, 64) and features (B, 128, 8, 8) to scores (B, 128)."""
        return torch.cat([self.pixels(images).flatten(1), self.features(features).flatten(1)], 1)


def _judge(sizes: list[tuple[int, int, int, int]]) -> nn.Sequential:
    """Convolutions of (inputs, units, side, stride), leaky ReLUs between them."""
    layers: list[nn.Module] = []
    for inputs, units, side, stride in sizes:
        layers += [spectral_norm(nn.Conv2d(inputs, units, side, stride, side // 3)), nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers[:-1])
