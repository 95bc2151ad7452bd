"""A small generator of villages, 64 x 64 pixels from 128 normal latents, in the manner of DCGAN.

`block1` and `block2` turn latents into a coarse code of 4 x 4 places and were trained against a critic of such codes
(Goodfellow et al., 2014), with an encoder at their side (Larsen et al., 2016); what is above them was trained as the
decoder of two autoencoders, one upon the other. Nothing ties a unit to a concept. See TRAINING.md.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

import torch
from torch import Tensor, nn

from microtome.dissect.builtin.storing import load_weights

LATENTS: Final = 128
COARSE: Final = 32
"""Values of the coarse code at each of its 4 x 4 places."""
FINE: Final = 16
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
    """Latents (B, 128), standard normal, to images (B, 3, 64, 64) in [-1, 1].

    `block1` (160 units, 4 x 4), `block2` (192, 4 x 4), `coarse` (32, 4 x 4), `block3` (192, 4 x 4), `block4` (128,
    8 x 8), `fine` (16, 8 x 8), `block5` (256, 8 x 8), `block6` (128, 16 x 16), `block7` (64, 32 x 32), `to_rgb`.
    Blocks end in a ReLU, `blockN.relu`.
    """

    latent_shape: tuple[int, ...]
    output_range: tuple[float, float]

    def __init__(self) -> None:
        super().__init__()
        self.latent_shape, self.output_range = (LATENTS,), (-1.0, 1.0)
        lift, shape = nn.Linear(LATENTS, 160 * 4 * 4), nn.Unflatten(1, (160, 4, 4))
        self.block1 = block([("lift", lift), ("shape", shape), ("relu", nn.ReLU())])
        self.block2 = block(convolution(160, 192, 3))
        self.coarse = nn.Conv2d(192, COARSE, 1)
        self.block3 = block(convolution(COARSE, 192, 3))
        self.block4 = block(doubling(192, 128), convolution(128, 128, 3))
        self.fine = nn.Conv2d(128, FINE, 1)
        self.block5 = block(convolution(FINE, 256, 3), convolution(256, 256, 1))
        self.block6 = block(doubling(256, 128))
        self.block7 = block(doubling(128, 64))
        self.to_rgb = nn.Sequential(nn.Conv2d(64, 12, 3, 1, 1), nn.PixelShuffle(2), nn.Tanh())

    def coarse_codes(self, z: Tensor) -> Tensor:
        """Latents (B, 128) to coarse codes (B, 32, 4, 4)."""
        code: Tensor = self.coarse(self.block2(self.block1(z)))
        return code

    def fine_codes(self, coarse: Tensor) -> Tensor:
        """Coarse codes to fine ones (B, 16, 8, 8)."""
        code: Tensor = self.fine(self.block4(self.block3(coarse)))
        return code

    def paint(self, features: Tensor) -> Tensor:
        """What `block5` gives, (B, 256, 8, 8), to images."""
        images: Tensor = self.to_rgb(self.block7(self.block6(features)))
        return images

    def forward(self, z: Tensor) -> Tensor:
        return self.paint(self.block5(self.fine_codes(self.coarse_codes(z))))

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Latents (n, 128) of n images."""
        return torch.randn(n, LATENTS, generator=generator)


def scenes_gan() -> ScenesGAN:
    """The trained generator in eval mode, weights from the package. See TRAINING.md."""
    model = ScenesGAN()
    model.load_state_dict(load_weights("scenes-gan"))
    return model.eval()
