"""A small classifier, one that is none, and pictures of every kind, for what explains images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from microtome.dissect.models import Model, load_model

SOURCE = """
import torch
from torch import nn

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.3, 0.25)


def _stated(module, names=()):
    torch.manual_seed(3)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.3)
    module.preprocess = {"size": 32, "resize": 36, "mean": MEAN, "std": STD, "interpolation": "bilinear"}
    if names:
        module.class_names = names
    return module


def classifier():
    body = [nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 8, 3, padding=1), nn.ReLU()]
    return _stated(nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)),
                   ("Red fox", "red fox", "boat", "12"))


def strided():
    body = [nn.Conv2d(3, 6, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3)]
    return _stated(nn.Sequential(*body))


def smooth():
    body = [nn.Conv2d(3, 6, 3, padding=1), nn.GELU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3)]
    return _stated(nn.Sequential(*body))


def maps():
    return _stated(nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 2, 3, padding=1)))
"""


def write_nets(folder: Path) -> Path:
    """nets.py with `classifier`, and `strided` (no max-pooling), `smooth` (no ReLU), `maps` (it answers no classes)."""
    path = folder / "nets.py"
    path.write_text(SOURCE, encoding="utf-8")
    return path


def load_net(folder: Path, name: str = "classifier") -> Model:
    """One of them."""
    return load_model(f"{write_nets(folder)}:{name}")


def photo(seed: int = 0, height: int = 40, width: int = 48) -> NDArray[np.uint8]:
    """A picture with a bright disc on dark noise: (height, width, 3) uint8."""
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 80, (height, width, 3))
    rows, columns = np.mgrid[:height, :width]
    centre = rng.uniform(0.3, 0.7, 2) * (height, width)
    image[np.hypot(rows - centre[0], columns - centre[1]) < height / 5] = rng.integers(150, 256, 3)
    return image.astype(np.uint8)


def write_photos(folder: Path, count: int = 3) -> list[Path]:
    """photo-0.png and so on."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"photo-{i}.png" for i in range(count)]
    for i, path in enumerate(paths):
        Image.fromarray(photo(i)).save(path)
    return paths


def by_hand(image: NDArray[np.uint8]) -> torch.Tensor:
    """An image (H, W, 3), already of the model's size, as the nets above take it."""
    mean, std = torch.tensor((0.4, 0.5, 0.6)), torch.tensor((0.2, 0.3, 0.25))
    return (((torch.from_numpy(image) / 255) - mean) / std).permute(2, 0, 1)[None]
