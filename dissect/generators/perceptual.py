"""How much an image changes where it should not: pixels, and what a network sees, outside of a mask.

The second is the distance of Zhang et al. ("The unreasonable effectiveness of deep features", 2018) without its fitted
weights: features of unit length at each position, of the built-in classifier of scenes. It is named for what it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from microtome.dissect.builtin.cnn import MEAN, SIZE, STD, scenes_cnn
from microtome.dissect.generators.edits import at_grid

FEATURES = ("block2", "block4")
NAMED = f"features of unit length at {' and '.join(FEATURES)} of builtin:scenes-cnn"


@dataclass(frozen=True, eq=False)
class Change:
    """What became of n images outside of a mask, NaN where the mask leaves nothing. pixels: mean absolute difference
    in [0, 1]; features: mean squared distance of unit features, from 0 to 4; (n,) float64 each."""

    pixels: NDArray[np.float64]
    features: NDArray[np.float64]


class Eye:
    """The network that looks at images."""

    def __init__(self, device: torch.device) -> None:
        self._network = scenes_cnn().to(device)
        self._mean, self._std = (torch.tensor(values, device=device).view(1, 3, 1, 1) for values in (MEAN, STD))

    @torch.no_grad()
    def features(self, images: Tensor) -> list[Tensor]:
        """Of images (B, 3, H, W) in [0, 1], the features (B, C, h, w) of each layer, of unit length over C."""
        found: list[Tensor] = []

        def keep(module: nn.Module, given: object, made: Tensor) -> None:
            found.append(F.normalize(made.float(), dim=1, eps=1e-10))

        handles = [self._network.get_submodule(name).register_forward_hook(keep) for name in FEATURES]
        try:
            seen = F.interpolate(images.float(), (SIZE, SIZE), mode="bilinear", align_corners=False)
            self._network((seen - self._mean) / self._std)
        finally:
            for handle in handles:
                handle.remove()
        return found

    def change(
        self, before: Tensor, after: Tensor, outside: NDArray[np.float64], features: Sequence[Tensor] | None = None
    ) -> Change:
        """From images before to after, (B, 3, H, W) in [0, 1] each; outside: (B, H, W), 1 where it counts; features:
        those of the images before, where they are known.

        Features reach into the mask, so what they see there is the image before in both."""
        counts = torch.from_numpy(outside).to(before)[:, None]
        seen = torch.where(counts > 0, after, before)
        pixels = (after - before).abs().mean(1).double().cpu().numpy()
        distances = [
            (one - other).square().sum(1).double().cpu().numpy()
            for one, other in zip(features or self.features(before), self.features(seen), strict=True)
        ]
        each = [_mean_within(distance, at_grid(outside, distance.shape[1:])) for distance in distances]
        return Change(_mean_within(pixels, outside), np.mean(each, axis=0))


def joined(changes: Sequence[Change]) -> Change:
    """Those of several batches."""
    of = partial(np.concatenate, axis=0)
    return Change(of([one.pixels for one in changes]), of([one.features for one in changes]))


def _mean_within(values: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    total = weights.sum(axis=(1, 2))
    with np.errstate(divide="ignore", invalid="ignore"):
        means: NDArray[np.float64] = np.where(total > 0, (values * weights).sum(axis=(1, 2)) / total, np.nan)
    return means
