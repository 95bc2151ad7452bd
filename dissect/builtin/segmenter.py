"""A small segmenter of scenes: a U-Net (Ronneberger et al., 2015) whose skips are added, for objects, parts, materials.

It was trained at 64 x 64 on painted scenes, never on generated pictures. See TRAINING.md.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from microtome.datasets.scenes.concepts import NAMES
from microtome.dissect.builtin.storing import load_weights

CATEGORIES: Final = ("object", "part", "material")
"""Of the planes, in order."""
WIDTHS: Final = (16, 32, 64, 96, 128)
"""Units at the full grid and at each halved one."""


class Step(nn.Sequential):
    """A 3 x 3 convolution, batch normalisation, ReLU: (B, inputs, H, W) to (B, units, H / stride, W / stride)."""

    def __init__(self, inputs: int, units: int, stride: int = 1) -> None:
        super().__init__(nn.Conv2d(inputs, units, 3, stride, 1, bias=False), nn.BatchNorm2d(units), nn.ReLU())


class ScenesSegmenter(nn.Module):
    """Images (B, 3, H, W), float in [0, 1], to ids (B, 3, H, W) int64: object, part, material; -1 = unlabelled.

    H and W: 16 or more. labels: names of all K ids; category, planes: of each id. Made for 64 x 64, where it was
    trained; other sizes work, and things of other sizes in pixels are known less well.
    """

    labels: tuple[str, ...]
    category: tuple[str, ...]
    planes: tuple[int, ...]

    def __init__(self) -> None:
        super().__init__()
        self.labels = tuple(name for category in CATEGORIES for name in NAMES[category])
        self.category = tuple(category for category in CATEGORIES for _ in NAMES[category])
        self.planes = tuple(CATEGORIES.index(category) for category in self.category)
        self.stem = Step(3, WIDTHS[0])
        pairs = list(pairwise(WIDTHS))
        self.down = nn.ModuleList(nn.Sequential(Step(a, b, 2), Step(b, b)) for a, b in pairs)
        self.narrow = nn.ModuleList(nn.Conv2d(b, a, 1) for a, b in reversed(pairs))
        self.up = nn.ModuleList(Step(a, a) for a, _ in reversed(pairs[1:]))
        self.last = Step(WIDTHS[0], 32)
        self.head = nn.Conv2d(32, len(self.labels), 1)

    def logits(self, images: Tensor) -> Tensor:
        """Scores (B, K, H, W) of the labels, differentiable; in each plane "unlabelled" has the score 0."""
        x = self.stem(images * 4 - 2)
        grids = [x]
        for down in self.down:
            x = down(x)
            grids.append(x)
        for narrow, refine, skip in zip(self.narrow, [*self.up, self.last], reversed(grids[:-1]), strict=True):
            x = refine(F.interpolate(narrow(x), skip.shape[-2:], mode="nearest") + skip)
        scores: Tensor = self.head(x)
        return scores

    def probabilities(self, images: Tensor) -> Tensor:
        """Probabilities (B, K, H, W) of the labels, differentiable; those of a plane sum to 1 less "unlabelled"."""
        return torch.cat([torch.softmax(with_none(part), 1)[:, 1:] for part in self.by_plane(self.logits(images))], 1)

    def by_plane(self, scores: Tensor) -> tuple[Tensor, ...]:
        """Scores (B, K, H, W) cut into one tensor for each plane."""
        return torch.split(scores, [self.planes.count(plane) for plane in range(len(CATEGORIES))], dim=1)

    def forward(self, images: Tensor) -> Tensor:
        ids, first = [], 0
        for part in self.by_plane(self.logits(images)):
            best = with_none(part).argmax(1)
            ids.append(torch.where(best > 0, best - 1 + first, -1))
            first += part.shape[1]
        return torch.stack(ids, 1)


def with_none(scores: Tensor) -> Tensor:
    """Scores of one plane (B, k, H, W) with the score 0 of "unlabelled" in front: (B, 1 + k, H, W)."""
    return torch.cat([torch.zeros_like(scores[:, :1]), scores], 1)


def scenes_segmenter() -> ScenesSegmenter:
    """The trained segmenter in eval mode, weights from the package. See TRAINING.md."""
    model = ScenesSegmenter()
    model.load_state_dict(load_weights("scenes-segmenter"))
    return model.eval()
