"""DeepDream: a network's answer to an image is made stronger, and what it saw in the image appears.

Mordvintsev, Olah and Tyka (2015): ascent on the image itself, in octaves from small to large; what an octave added is
enlarged and laid over the next size of the original, so that its detail is never lost. Large images pass in tiles, cut
anew at every step behind a random shift, so that no seam stays in one place. The image is taken to go on at its borders
from the other side.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from microtome.dissect.attribution.subject import at_rest
from microtome.dissect.models import ActivationCapture, Model
from microtome.dissect.synthesis.ascent import StoppedError
from microtome.dissect.synthesis.images import Stop, Told, as_pictures
from microtome.dissect.synthesis.objectives import at_size
from microtome.dissect.synthesis.settings import DreamSettings
from microtome.storage.errors import UsageError

Answer = Callable[[Tensor], Tensor]
"""Normalised tiles (B, 3, h, w) -> (B,): what is to be raised, summed over each tile's positions."""


def dream(
    model: Model,
    image: NDArray[np.uint8],
    layer: str,
    units: Sequence[int] | None = None,
    *,
    seed: int = 0,
    settings: DreamSettings | None = None,
    stop: Stop = None,
    told: Told = None,
) -> NDArray[np.uint8]:
    """The network's dream over `image` (H, W, 3) uint8, of the same shape.

    Raised are the squares of all activations of `layer`, or the activations of `units` alone. told: hears how many
    tiles have passed since. Raises UnknownNameError for no such layer, UsageError for no such unit, an image or a tile
    that cannot be used, or where the image does not move the layer; StoppedError after a stop.
    """
    settings = settings or DreamSettings()
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
        raise UsageError(f"an image is (H, W, 3) uint8, not {image.shape} {image.dtype}")
    side = (settings.tile, settings.tile) if settings.tile else model.preprocess.size
    sized = at_size(model, side)
    generator = torch.Generator().manual_seed(seed)
    original = torch.from_numpy(image.copy()).permute(2, 0, 1)[None].to(model.placeholder()) / 255
    with _answering(sized, layer, units) as answer:
        dreamer = _Dreamer(sized, answer, settings, generator, stop, told)
        detail = torch.zeros_like(original)
        for size in octave_sizes(image.shape[0], image.shape[1], settings):
            base = resized(original, size)
            detail = dreamer.octave(base, resized(detail, size)) - base
    dreamt: NDArray[np.uint8] = as_pictures((original + detail).clamp(0, 1).float().cpu())[0]
    return dreamt


def octave_sizes(height: int, width: int, settings: DreamSettings) -> list[tuple[int, int]]:
    """The sizes (height, width) that are worked on, from small to large; none has a side below 32 pixels, but for an
    image that has itself."""
    scales = [settings.octave_scale**-octave for octave in reversed(range(settings.octaves))]
    sizes = [(round(height * scale), round(width * scale)) for scale in scales]
    return [size for size in sizes[:-1] if min(size) >= 32] + [(height, width)]


def tiles_of(length: int, tile: int) -> list[int]:
    """Where tiles begin along an axis, so that they cover it, evenly; they may go on beyond its end, from the start."""
    count = max(1, -(-length // tile))
    return [index * length // count for index in range(count)]


def tiles_in(settings: DreamSettings, size: tuple[int, int], tile: tuple[int, int]) -> int:
    """How many tiles pass for an image of `size` in all octaves and steps."""
    sizes = octave_sizes(*size, settings)
    return settings.steps * sum(len(tiles_of(h, tile[0])) * len(tiles_of(w, tile[1])) for h, w in sizes)


class _Dreamer:
    """Ascent on one octave after the other."""

    def __init__(
        self,
        model: Model,
        answer: Answer,
        settings: DreamSettings,
        generator: torch.Generator,
        stop: Stop,
        told: Told,
    ) -> None:
        self._answer, self._settings, self._generator = answer, settings, generator
        self._stop, self._told = stop, told
        self._tile = model.preprocess.size
        like = model.placeholder()
        self._mean = torch.tensor(model.preprocess.mean).to(like).reshape(1, 3, 1, 1)
        self._std = torch.tensor(model.preprocess.std).to(like).reshape(1, 3, 1, 1)

    def octave(self, base: Tensor, detail: Tensor) -> Tensor:
        """`base` (1, 3, H, W) in [0, 1] with the detail so far, after this octave's steps."""
        image = (base + detail).clamp(0, 1)
        for _ in range(self._settings.steps):
            gradient = self._gradient(image)
            length = gradient.abs().mean()
            if not bool(torch.isfinite(length)) or not bool(length > 0):
                raise UsageError(
                    "the image does not move what is to be dreamt of (its gradient is zero or not a number): choose "
                    "another layer, or other units"
                )
            image = (image + self._settings.rate * gradient / length).clamp(0, 1)
        return image

    def _gradient(self, image: Tensor) -> Tensor:
        """Of the sum over tiles, (1, 3, H, W); where tiles overlap, their mean."""
        height, width = image.shape[2:]
        down, across = (int(torch.randint(side, (1,), generator=self._generator)) for side in (height, width))
        places = [
            ((top + down + torch.arange(self._tile[0])) % height, (left + across + torch.arange(self._tile[1])) % width)
            for top in tiles_of(height, self._tile[0])
            for left in tiles_of(width, self._tile[1])
        ]
        gradient = torch.zeros_like(image[0])
        count = torch.zeros_like(image[0, 0])
        for first in range(0, len(places), self._settings.batch):
            if self._stop is not None and self._stop():
                raise StoppedError
            part = [
                (rows.to(image.device), columns.to(image.device))
                for rows, columns in places[first:][: self._settings.batch]
            ]
            tiles = torch.stack([image[0][:, rows[:, None], columns] for rows, columns in part])
            for (rows, columns), own in zip(part, self._of_tiles(tiles), strict=True):
                gradient.index_put_((slice_all(gradient), rows[:, None], columns), own, accumulate=True)
                count.index_put_((rows[:, None], columns), torch.ones_like(own[0]), accumulate=True)
            if self._told is not None:
                self._told(len(part))
        return (gradient / count)[None]

    def _of_tiles(self, tiles: Tensor) -> Tensor:
        seen = ((tiles - self._mean) / self._std).contiguous(memory_format=torch.channels_last).requires_grad_()
        return torch.autograd.grad(self._answer(seen).sum(), seen)[0] / self._std


def slice_all(gradient: Tensor) -> Tensor:
    """Indices of all channels, to broadcast against rows and columns."""
    return torch.arange(len(gradient), device=gradient.device)[:, None, None]


@contextmanager
def _answering(model: Model, layer: str, units: Sequence[int] | None) -> Iterator[Answer]:
    with (
        at_rest(model.module),
        ActivationCapture(model, [layer], transform=lambda _, maps: maps, gradients=True) as capture,
    ):
        with torch.no_grad():
            count = capture(model.noise(1))[layer].shape[1]
        wrong = [unit for unit in units or () if not 0 <= unit < count]
        if wrong:
            raise UsageError(f"layer {layer} has no unit {wrong[0]}; its {count} units are numbered from 0")

        def answer(tiles: Tensor) -> Tensor:
            maps = capture(tiles)[layer]
            if units is None:
                return maps.square().sum((1, 2, 3)) / 2
            return maps[:, list(units)].sum((1, 2, 3))

        yield answer


def resized(image: Tensor, size: tuple[int, int]) -> Tensor:
    """(1, 3, H, W) at another size, smooth."""
    if tuple(image.shape[2:]) == size:
        return image
    return functional.interpolate(image, size, mode="bilinear", antialias=True, align_corners=False)
