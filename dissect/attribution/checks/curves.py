"""Deletion and insertion curves (Petsiuk et al., 2018, "RISE").

Pixels are taken from the image (their place becomes grey), or given to a blurred one, in the order of a map, highest
first, and the probability of the class is followed. A map of what matters has a small area under the deletion
curve and a large one under the insertion curve.

What an area is worth depends on how coarse the map is: the same map displaced (shifted cyclically by an offset drawn
at random) has the same coarseness to the pixel and knows nothing, so each map is compared with that.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from microtome.dissect.attribution.baselines import BLUR, GREY, baseline_of
from microtome.dissect.attribution.subject import at_rest
from microtome.dissect.models.logits import logits_of
from microtome.dissect.models.model import Model
from microtome.storage.errors import UsageError

STEPS = 20
BATCH = 32

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Curves:
    """The class probability after each step: (n, steps + 1) float64, from the first picture to the last."""

    deletion: Floats
    insertion: Floats

    @property
    def deletion_area(self) -> Floats:
        """(n,): the area under each curve over the share of pixels; small where the map is good."""
        return area(self.deletion)

    @property
    def insertion_area(self) -> Floats:
        """(n,): the area under each curve over the share of pixels; large where the map is good."""
        return area(self.insertion)


def area(curves: Floats) -> Floats:
    """(n,): the area under curves (n, steps + 1) over [0, 1], by trapezoids."""
    return np.asarray((curves[:, 1:] + curves[:, :-1]).mean(axis=1) / 2, np.float64)


def curves(
    model: Model,
    images: Tensor,
    orders: NDArray[np.int64],
    classes: Tensor,
    *,
    steps: int = STEPS,
    batch: int = BATCH,
    told: Callable[[int], None] | None = None,
) -> Curves:
    """Follow the probability of `classes` (n,) while pixels go and come in `orders` (n, H * W).

    images: (n, 3, H, W), as the model takes them; orders: of each image, the pixels from the first to go to the last,
    see `order_of`; `steps` equal steps; `batch`: versions of an image that the model sees at once; told: is
    called with the number of images done. Raises UsageError.
    """
    if steps < 1 or batch < 1:
        raise UsageError(f"{steps} steps in batches of {batch}; give 1 or more of each")
    if orders.shape != (len(images), images.shape[2] * images.shape[3]):
        raise UsageError(f"orders {orders.shape} do not fit images {tuple(images.shape)}")
    found: tuple[list[Floats], list[Floats]] = ([], [])
    for i, order in enumerate(orders):
        image = images[i : i + 1]
        gone = _steps_of(order, steps, image)
        for into, (start, end) in zip(
            found, ((image, baseline_of(model, image, GREY)), (baseline_of(model, image, BLUR), image)), strict=True
        ):
            into.append(_followed(model, start, end, gone, int(classes[i]), steps, batch))
        if told is not None:
            told(1)
    return Curves(np.stack(found[0]), np.stack(found[1]))


def order_of(maps: NDArray[np.floating], seed: int = 0) -> NDArray[np.int64]:
    """(n, H * W): the pixels of each map (n, H, W), highest first; equal ones in an order drawn from `seed`."""
    flat = np.asarray(maps).reshape(len(maps), -1)
    ties = np.stack([np.random.default_rng((seed, i)).permutation(flat.shape[1]) for i in range(len(flat))])
    return np.stack([np.lexsort((tie, -values)) for tie, values in zip(ties, flat, strict=True)]).astype(np.int64)


def displaced(maps: NDArray[np.floating], seed: int = 0) -> NDArray[np.floating]:
    """Each map (n, H, W) shifted cyclically, along each axis by a quarter to three quarters of the side."""
    height, width = maps.shape[1:]
    shifted = np.empty_like(maps)
    for i, values in enumerate(maps):
        draw = np.random.default_rng((seed, 1, i))
        by = [int(draw.integers(side // 4, max(side // 4 + 1, side - side // 4 + 1))) for side in (height, width)]
        shifted[i] = np.roll(values, by, axis=(0, 1))
    return shifted


def centre_out(height: int, width: int) -> NDArray[np.float64]:
    """(H, W): a map that is highest in the centre and falls with the distance from it."""
    rows, columns = np.arange(height) - (height - 1) / 2, np.arange(width) - (width - 1) / 2
    return np.asarray(-np.hypot(rows[:, None], columns[None]), np.float64)


def _steps_of(order: NDArray[np.int64], steps: int, image: Tensor) -> Tensor:
    """(H, W) int64: the step, from 1, in which each pixel goes."""
    step = np.empty(len(order), np.int64)
    step[order] = np.arange(len(order)) * steps // len(order) + 1
    return torch.from_numpy(step.reshape(tuple(image.shape[2:]))).to(image.device)


def _followed(model: Model, start: Tensor, end: Tensor, gone: Tensor, label: int, steps: int, batch: int) -> Floats:
    """(steps + 1,): the probability of `label` while `start` (1, 3, H, W) becomes `end`, pixel by pixel."""
    seen = []
    with at_rest(model.module), torch.no_grad():
        for first in range(0, steps + 1, batch):
            times = torch.arange(first, min(first + batch, steps + 1), device=gone.device)
            versions = torch.where((gone[None] <= times[:, None, None])[:, None], end, start)
            seen.append(logits_of(model.module(versions), model.class_names).float().softmax(1)[:, label].cpu())
    return torch.cat(seen).numpy().astype(np.float64)
