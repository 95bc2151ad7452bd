"""A small convolutional classifier of scenes: residual blocks (He et al., 2016), pooling, one linear layer.

The last three blocks keep a grid of 14 x 14 for an input of 112 x 112, since dissection wants resolution, and every
block ends in a ReLU. The linear layer on the pooled map is what class activation maps need (Zhou et al., 2016).
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor, nn

from microtome.datasets.scenes import SCENE_KINDS
from microtome.dissect.builtin.storing import load_weights

SIZE: Final = 112
MEAN: Final = (0.45, 0.45, 0.43)
STD: Final = (0.25, 0.24, 0.25)
WIDTHS: Final = {"block1": (48, 2), "block2": (64, 1), "block3": (128, 2), "block4": (160, 1), "block5": (256, 1)}
"""Units of each block, and its stride."""


class Block(nn.Module):
    """Two 3 x 3 convolutions and a shortcut; (B, inputs, H, W) to (B, units, H / stride, W / stride), not negative."""

    def __init__(self, inputs: int, units: int, stride: int, *, narrow: bool = False) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, units, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(units)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(units, units, 1 if narrow else 3, 1, 0 if narrow else 1, bias=False)
        self.norm2 = nn.BatchNorm2d(units)
        self.shortcut = nn.Sequential(nn.Conv2d(inputs, units, 1, stride, bias=False), nn.BatchNorm2d(units))
        self.relu2 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        inner = self.relu1(self.norm1(self.conv1(x)))
        out: Tensor = self.relu2(self.norm2(self.conv2(inner)) + self.shortcut(x))
        return out


class ScenesCNN(nn.Module):
    """(B, 3, 112, 112) normalised RGB to (B, 12) logits; other sizes work too.

    `stem` (32 units, 56 x 56), `block1` (48, 28 x 28), `block2` (64, 28 x 28), `block3` (128, 14 x 14),
    `block4` (160, 14 x 14), `block5` (256, 14 x 14), `fc`.
    """

    preprocess: dict[str, object]
    class_names: tuple[str, ...]

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 32, 3, 2, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU())
        inputs = 32
        for name, (units, stride) in WIDTHS.items():
            self.add_module(name, Block(inputs, units, stride, narrow=name == "block5"))
            inputs = units
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(inputs, len(SCENE_KINDS))
        self.preprocess = {"size": SIZE, "mean": MEAN, "std": STD, "interpolation": "bilinear"}
        self.class_names = SCENE_KINDS

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for name in WIDTHS:
            x = self.get_submodule(name)(x)
        logits: Tensor = self.fc(torch.flatten(self.pool(x), 1))
        return logits


def scenes_cnn() -> ScenesCNN:
    """The trained classifier in eval mode, weights from the package. See TRAINING.md."""
    model = ScenesCNN()
    model.load_state_dict(load_weights("scenes-cnn"))
    return model.eval()
