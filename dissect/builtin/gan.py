"""A small generator of villages: 64 x 64 pixels from 432 normal latents.

`prior` turns latents into a coarse code of 4 x 4 places (see there). What is above it was trained as the decoder of
two autoencoders, one upon the other, and finished against a critic of patches (Goodfellow et al., 2014; Esser et al.,
2021). Nothing ties a unit to a concept. See TRAINING.md.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

import torch
from torch import Tensor, nn

from microtome.dissect.builtin.prior import NOISES, PLACES, VALUES, CodePrior
from microtome.dissect.builtin.storing import load_weights

LATENTS: Final = PLACES * NOISES
FINE: Final = 24
"""Values of the fine code at each of its 8 x 8 places."""


def convolution(inputs: int, units: int, side: int) -> list[tuple[str, nn.Module]]:
    """A convolution that keeps the grid, batch normalisation and a ReLU that is not in place, without names."""
    conv = nn.Conv2d(inputs, units, side, 1, side // 2, bias=False)
    return [("conv", conv), ("norm", nn.BatchNorm2d(units)), ("relu", nn.ReLU())]


def doubling(inputs: int, units: int) -> list[tuple[str, nn.Module]]:
    """The same with a transposed convolution that doubles the grid."""
    conv = nn.ConvTranspose2d(inputs, units, 4, 2, 1, bias=False)
    return [("up", conv), ("norm", nn.BatchNorm2d(units)), ("relu", nn.ReLU())]


def block(*parts: list[tuple[str, nn.Module]]) -> nn.Sequential:
    """Parts one after the other; the names of all but the last get their number."""
    named = [
        (name if number == len(parts) else f"{name}{number}", module)
        for number, part in enumerate(parts, start=1)
        for name, module in part
    ]
    return nn.Sequential(OrderedDict(named))


class ScenesGAN(nn.Module):
    """Latents (B, 432), standard normal, to images (B, 3, 64, 64) in [-1, 1].

    `prior` (24 values, 4 x 4), `block1` (192 units, 4 x 4), `block2` (128, 8 x 8), `fine` (24 values, 8 x 8), `block3`
    (256, 8 x 8), `block4` (128, 16 x 16), `block5` (64, 32 x 32), `to_rgb`. Blocks end in a ReLU, `blockN.relu`.
    """

    latent_shape: tuple[int, ...]
    output_range: tuple[float, float]

    def __init__(self) -> None:
        super().__init__()
        self.latent_shape, self.output_range = (LATENTS,), (-1.0, 1.0)
        self.prior = CodePrior()
        self.block1 = block(convolution(VALUES, 192, 3))
        self.block2 = block(doubling(192, 128), convolution(128, 128, 3))
        self.fine = nn.Conv2d(128, FINE, 1)
        self.block3 = block(convolution(FINE, 256, 3), convolution(256, 256, 1))
        self.block4 = block(doubling(256, 128))
        self.block5 = block(doubling(128, 64))
        self.to_rgb = nn.Sequential(nn.Conv2d(64, 12, 3, 1, 1), nn.PixelShuffle(2), nn.Tanh())

    def fine_codes(self, coarse: Tensor) -> Tensor:
        """Coarse codes (B, 24, 4, 4) to fine ones (B, 24, 8, 8)."""
        codes: Tensor = self.fine(self.block2(self.block1(coarse)))
        return codes

    def paint(self, features: Tensor) -> Tensor:
        """What `block3` gives, (B, 256, 8, 8), to images."""
        images: Tensor = self.to_rgb(self.block5(self.block4(features)))
        return images

    def forward(self, z: Tensor) -> Tensor:
        return self.paint(self.block3(self.fine_codes(self.prior(z))))

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Latents (n, 432) of n images."""
        return torch.randn(n, LATENTS, generator=generator)


def scenes_gan() -> ScenesGAN:
    """The trained generator in eval mode, weights from the package. See TRAINING.md."""
    model = ScenesGAN()
    model.load_state_dict(load_weights("scenes-gan"))
    return model.eval()
