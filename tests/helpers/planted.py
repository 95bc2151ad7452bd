"""A model and a dataset whose dissection is known beforehand, written as a Python file that the specs can name.

Images are 32 x 32 with a red rectangle (concept car, object) and a green one (tree, object) on grey; the whole image
is day or night (scene). Units of the layer `units`, an 8 x 8 grid:
    0  is the car: the red excess, averaged over 4 x 4 pixels (the mask itself, blurred and resized)
    1  is dead: 0 everywhere
    2  saturates: 6 times the red excess, cut off at 3
    3  is noise that no concept explains
    4  is constant
    5  is the tree, with NaN wherever the image is night
    6  is the car again, a hundred thousand times as large
"""

from __future__ import annotations

from pathlib import Path

SOURCE = """
import numpy as np
import torch
from torch import nn

from microtome.datasets.base import Concept, Entry, Sample
from microtome.storage.errors import SampleError

COUNT, SIZE = 48, 32


class Planted(nn.Module):
    def __init__(self, factor=1.0):
        super().__init__()
        self.units = Units(factor)
        self.head = nn.Linear(7, 2)
        self.preprocess = {"size": SIZE, "mean": [0, 0, 0], "std": [1, 1, 1]}
        self.class_names = ["a", "b"]

    def forward(self, x):
        return self.head(torch.nan_to_num(self.units(x)).mean((2, 3)))


class Units(nn.Module):
    def __init__(self, factor):
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(factor))

    def forward(self, x):
        pooled = nn.functional.avg_pool2d(x, 4)
        red, green, blue = pooled[:, 0], pooled[:, 1], pooled[:, 2]
        car = (red - blue).clamp(min=0)
        tree = (green - blue).clamp(min=0)
        night = x.mean((1, 2, 3)) < 0.35
        noise = torch.sin(blue * 9301.0 + red * 577.0)
        broken = torch.where(night[:, None, None], torch.full_like(tree, float("nan")), tree)
        units = [car, car * 0, (6 * car).clamp(max=3), noise, car * 0 + 0.25, broken, car * 1e5]
        return torch.stack(units, dim=1) * self.factor


def model():
    return Planted().eval()


def other_weights():
    return Planted(2.0).eval()


class Images:
    spec = "planted"
    concepts = (
        Concept(1, "car", "object"), Concept(2, "tree", "object"),
        Concept(3, "day", "scene"), Concept(4, "night", "scene"), Concept(5, "red", "color"),
    )
    plane_names = ("object", "color")
    image_label_slots = 1
    class_names = ("a", "b")

    def __init__(self, count=COUNT, broken=()):
        self.count, self.broken = count, set(broken)

    def __len__(self):
        return self.count

    def entry(self, index):
        return Entry(f"image-{index}", "val" if index % 4 == 0 else "train", index % 2)

    def read(self, index):
        if index in self.broken:
            raise SampleError(f"image-{index}", "not an image")
        dice = np.random.default_rng(index)
        night = index % 3 == 0
        image = dice.integers(60, 75, (SIZE, SIZE, 3), dtype=np.uint8) + np.uint8(0 if night else 60)
        planes = np.zeros((2, SIZE, SIZE), np.uint16)
        for concept, channel in ((2, 1), (1, 0)):
            top, left = dice.integers(0, 20, 2)
            height, width = dice.integers(6, 12, 2)
            box = (slice(top, top + height), slice(left, left + width))
            image[box] = 40
            image[box][..., channel] = 200 + dice.integers(0, 50)
            planes[0][box] = concept
            planes[1][box] = 5 if concept == 1 else 0
        return Sample(image, planes, np.array([4 if night else 3], np.uint16))

    def fingerprint(self):
        return f"planted-{self.count}-{sorted(self.broken)}"


def images():
    return Images()


def half_broken():
    return Images(broken=(0, 5, 6, 7, 40))


def fewer():
    return Images(count=40)
"""


def write_planted(folder: Path) -> Path:
    """Write the file `planted.py` into `folder`; specs are `planted.py:model` and `planted.py:images`."""
    path = folder / "planted.py"
    path.write_text(SOURCE)
    return path
