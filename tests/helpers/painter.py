"""A generator whose truth is planted: one unit draws a square where there is grass, and one spoils images.

z (B, 6) -> images (B, 3, 32, 32) in [0, 1]. Layer `mix` has 8 units of 8x8: 0 draws a red square, but only on grass;
1 is grass, 2 sky; 3 draws black and white checks, over anything, and is on in one image in five; 4 to 7 do nothing.
"""

from __future__ import annotations

from pathlib import Path

SQUARE, GRASS, SKY, CHECKS = 0, 1, 2, 3

SOURCE = """
import torch
from torch import nn
from torch.nn import functional as F

COLOURS = {"square": (0.9, 0.1, 0.1), "grass": (0.1, 0.7, 0.1), "sky": (0.2, 0.4, 0.9)}


class Painter(nn.Module):
    latent_shape = (6,)
    output_range = (0.0, 1.0)

    def __init__(self):
        super().__init__()
        self.mix = nn.Conv2d(8, 8, 1, bias=False)
        with torch.no_grad():
            self.mix.weight.copy_(torch.eye(8)[:, :, None, None])

    @staticmethod
    def plan(z):
        rows = torch.arange(8.0).view(1, 8, 1).expand(len(z), 8, 8)
        columns = torch.arange(8.0).view(1, 1, 8).expand(len(z), 8, 8)
        u = torch.special.ndtr(z)[:, :, None, None]
        horizon = 3 + (2 * u[:, 0]).floor()
        grass = (rows >= horizon).float()
        top, left = horizon + 1, (6 * u[:, 1]).floor()
        square = ((rows >= top) & (rows < top + 2) & (columns >= left) & (columns < left + 2)).float()
        square = square * (0.8 + 0.4 * u[:, 2])
        where = (5 * u[:, 4]).floor()
        patch = ((rows - where).abs() < 2) & ((columns - where).abs() < 2)
        checks = patch.float() * (u[:, 3] > 0.8).float() * (0.8 + 0.4 * u[:, 2])
        rest = [(z[:, number % 6, None, None] * torch.cos(rows + number * columns)).relu() for number in range(4)]
        return torch.stack([square, grass, 1 - grass, checks, *rest], 1)

    def forward(self, z):
        units = F.interpolate(self.mix(self.plan(z)), scale_factor=4, mode="nearest")
        square, grass, sky, checks = (units[:, number : number + 1] for number in range(4))
        red, green, blue = (torch.tensor(colour).view(1, 3, 1, 1) for colour in COLOURS.values())
        image = green * grass + blue * sky
        drawn = (4 * square - 1).clamp(0, 1) * (grass > 0.5).float()
        image = image * (1 - drawn) + red * drawn
        board = ((torch.arange(32).view(-1, 1) + torch.arange(32)) % 2).float().expand(1, 3, 32, 32)
        spoilt = (4 * checks - 1).clamp(0, 1)
        return image * (1 - spoilt) + board * spoilt


class Colours(nn.Module):
    labels = list(COLOURS)
    category = "object"

    def forward(self, images):
        palette = torch.tensor(list(COLOURS.values())).view(1, 3, 3, 1, 1)
        far = (images[:, None] - palette).square().sum(2)
        nearest = far.min(1)
        return torch.where(nearest.values < 0.05, nearest.indices, -1)


def painter():
    return Painter().eval()


def colours():
    return Colours()


def roughness():
    return lambda images: (images[..., 1:] - images[..., :-1]).abs().mean((1, 2, 3))
"""


def write_painter(folder: Path) -> Path:
    """Write `painting.py`: the generator `painting.py:painter`, its segmenter `:colours`, a score `:roughness`."""
    file = folder / "painting.py"
    file.write_text(SOURCE)
    return file
