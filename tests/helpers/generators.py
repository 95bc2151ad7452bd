"""Tiny generators with random weights and a segmenter for their images, as a Python file that model specs can name."""

from __future__ import annotations

from pathlib import Path

SOURCE = '''
import torch
from torch import nn
from torch.nn import functional as F


class Plain(nn.Module):
    """z (B, 8) -> images (B, 3, 16, 16); `mid` has 12 units of 8x8."""

    latent_shape = (8,)
    output_range = (-1.0, 1.0)

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.start = nn.ConvTranspose2d(8, 16, 4)
        self.mid = nn.ConvTranspose2d(16, 12, 4, 2, 1)
        self.end = nn.ConvTranspose2d(12, 3, 4, 2, 1)

    @staticmethod
    def sample(n, generator=None):
        return torch.randn(n, 8, generator=generator)

    def forward(self, z):
        x = F.relu_(self.start(z.reshape(len(z), 8, 1, 1)))
        x = F.relu_(self.mid(x))
        return torch.tanh(3 * self.end(x))


class Modulated(nn.Module):
    """A convolution whose kernels a style scales for each sample, with noise that is drawn in the pass."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, 3, 3) / (3 * inputs**0.5))
        self.affine = nn.Linear(6, inputs)
        self.strength = nn.Parameter(torch.tensor(0.5))

    def forward(self, x, style, noise=None):
        batch, inputs, height, width = x.shape
        kernels = self.weight[None] * (1 + self.affine(style)).view(batch, 1, inputs, 1, 1)
        kernels = kernels * torch.rsqrt(kernels.square().sum((2, 3, 4), keepdim=True) + 1e-8)
        out = F.conv2d(x.reshape(1, -1, height, width), kernels.flatten(0, 1), padding=1, groups=batch)
        out = out.view(batch, -1, height, width)
        if noise is None:
            noise = torch.randn(batch, 1, height, width)
        return F.leaky_relu(out + self.strength * noise, 0.2)


class Styled(nn.Module):
    """As StyleGAN is built: a mapping of z to styles, a learnt constant, modulated convolutions, noise, skips."""

    latent_shape = (5,)
    output_range = (-1.0, 1.0)

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.mapping = nn.Sequential(nn.Linear(5, 6), nn.LeakyReLU(0.2), nn.Linear(6, 6))
        self.constant = nn.Parameter(torch.randn(1, 8, 4, 4))
        self.first = Modulated(8, 8)
        self.second = Modulated(8, 10)
        self.rgb1 = nn.Conv2d(8, 3, 1)
        self.rgb2 = nn.Conv2d(10, 3, 1)

    def forward(self, z):
        w = self.mapping(z)
        x = self.first(self.constant.expand(len(z), -1, -1, -1), w)
        image = F.interpolate(self.rgb1(x), scale_factor=4, mode="bilinear")
        x = self.second(F.interpolate(x, scale_factor=4), w, None)
        return {"image": torch.tanh(image + self.rgb2(x)), "styles": w}


class Conditional(nn.Module):
    """(z, y) -> images, one of three classes."""

    latent_shape = (4,)
    output_range = (0.0, 1.0)
    class_names = ["red", "green", "blue"]

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.of_class = nn.Embedding(3, 4)
        self.start = nn.Linear(8, 10 * 4 * 4)
        self.up = nn.ConvTranspose2d(10, 7, 4, 2, 1)
        self.end = nn.Conv2d(7, 3, 3, padding=1)

    def forward(self, z, y):
        x = self.start(torch.cat([z, self.of_class(y)], 1)).view(-1, 10, 4, 4).relu()
        return torch.sigmoid(self.end(self.up(x).relu()))


class Translator(nn.Module):
    """Images (B, 3, 16, 16) to images (B, 3, 16, 16)."""

    output_range = (-1.0, 1.0)
    preprocess = {"size": 16, "mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bilinear"}

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.down = nn.Conv2d(3, 9, 4, 2, 1)
        self.up = nn.ConvTranspose2d(9, 3, 4, 2, 1)

    def forward(self, images):
        return torch.tanh(self.up(self.down(images).relu()))


class Decoder(nn.Module):
    """The decoder of an autoencoder: z (B, 4, 4, 4) -> grey images (B, 1, 16, 16) in [0, 1]."""

    latent_shape = (4, 4, 4)
    output_range = (0.0, 1.0)

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(
            nn.Conv2d(4, 8, 3, padding=1), nn.SiLU(), nn.Upsample(scale_factor=2), nn.Conv2d(8, 6, 3, padding=1),
            nn.GroupNorm(2, 6), nn.SiLU(), nn.Upsample(scale_factor=2), nn.Conv2d(6, 1, 3, padding=1), nn.Sigmoid(),
        )

    def forward(self, z):
        return self.layers(z)


class Thirds(nn.Module):
    """Labels by brightness: dark, middle, bright."""

    labels = ["dark", "middle", "bright"]
    category = "part"

    def forward(self, images):
        brightness = images.mean(1)
        return (brightness > 0.4).long() + (brightness > 0.6).long()


def plain():
    return Plain().eval()


def styled():
    return Styled().eval()


def conditional():
    return Conditional().eval()


def translator():
    return Translator().eval()


def decoder():
    return Decoder().eval()


def thirds():
    return Thirds()
'''

KINDS = ("plain", "styled", "conditional", "translator", "decoder")


def write_generators(folder: Path) -> Path:
    """Write the file `nets.py` into `folder`; specs are `nets.py:plain` and so on; the segmenter, `nets.py:thirds`."""
    file = folder / "nets.py"
    file.write_text(SOURCE)
    return file
