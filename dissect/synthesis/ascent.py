"""Gradient ascent on images, many at once, each as if it were alone.

Nothing of one image reaches another: each has its own start, its own random shifts, and a gradient that is scaled by
its own length; networks are in eval mode. What could differ between an image made alone and in a batch is
rounding; `batches` sees to that.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from microtome.dissect.models import Model
from microtome.dissect.synthesis.batches import filled
from microtome.dissect.synthesis.objectives import Objective
from microtome.dissect.synthesis.parametrisation import FourierPainting, Painting, PixelPainting
from microtome.dissect.synthesis.settings import FOURIER, Settings
from microtome.dissect.synthesis.transforms import draw_transforms, transformed

CONTRASTS = (1.0, 4.0, 12.0, 30.0)
"""Starts that are tried, ever stronger, where a subject does not answer to noise at all."""

BETAS, EPSILON = (0.9, 0.999), 1e-8
COOLING = 0.4
"""Over the last of the steps, this share of them, they shrink to nothing: the image settles between its shifts."""


class StoppedError(Exception):
    """Somebody asked for a stop in the middle of the ascent."""


@dataclass(frozen=True)
class Ascent:
    """What came of it. images: (B, 3, H, W) float32 in [0, 1]; before, after: (B,) what the subjects answer to their
    starts and to the images; moved: (B,) bool, whether the answer rose from there, and is finite."""

    images: Tensor
    before: Tensor
    after: Tensor
    moved: Tensor


def ascend(
    model: Model,
    objective: Objective,
    subjects: Sequence[int],
    seeds: Sequence[int],
    settings: Settings,
    *,
    fill: int = 1,
    start: Tensor | None = None,
    stop: Callable[[], bool] | None = None,
    told: Callable[[int], None] | None = None,
) -> Ascent:
    """Raise the objective of one image for each subject.

    fill: the smallest batch that the network is given (`Batches.fill`).
    start: (3, H, W) in [0, 1], an image to begin with in place of noise. told: called with the number of steps taken
    since, counted over images. Raises StoppedError once `stop` says so.
    """
    climb = _Climb(model, objective, subjects, settings, fill)
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    maps = draw_transforms(settings, climb.size, generators)
    painting = climb.begin(generators, start)
    optimiser = _Adam(painting.coefficients) if settings.parametrisation == FOURIER else None
    before = climb.answers(painting.image(painting.coefficients))
    for step in range(settings.steps):
        if stop is not None and stop():
            raise StoppedError
        gradient = climb.gradient(painting, None if maps is None else maps[step])
        change = gradient if optimiser is None else optimiser.change(gradient)
        painting.coefficients = painting.coefficients + settings.rate * cooled(step, settings.steps) * change
        if told is not None:
            told(len(subjects))
    images = painting.image(painting.coefficients).clamp(0, 1)
    after = climb.answers(images)
    moved = torch.isfinite(after) & (after > before) & climb.awake
    return Ascent(images.float().cpu(), before.float().cpu(), after.float().cpu(), moved.cpu())


def cooled(step: int, steps: int) -> float:
    """The length of a step against that of the first: 1, and from 1 to 0 over the last ones."""
    left = (steps - step) / max(1.0, COOLING * steps)
    return min(1.0, left)


class _Climb:
    """The gradient of a batch, image by image."""

    def __init__(
        self, model: Model, objective: Objective, subjects: Sequence[int], settings: Settings, fill: int
    ) -> None:
        self._objective, self._settings, self._fill = objective, settings, fill
        self._like = model.placeholder()
        self.size = model.preprocess.size
        self._subjects = torch.tensor(subjects, dtype=torch.int64, device=self._like.device)
        self._mean = torch.tensor(model.preprocess.mean).to(self._like).reshape(1, 3, 1, 1)
        self._std = torch.tensor(model.preprocess.std).to(self._like).reshape(1, 3, 1, 1)
        self.awake = torch.ones(len(subjects), dtype=torch.bool, device=self._like.device)

    def begin(self, generators: Sequence[torch.Generator], start: Tensor | None) -> Painting:
        """Starts from which every subject that can be driven is: those that do not answer try stronger ones."""
        painting = self._painting(generators, start, 1.0)
        self.awake = self._lengths(painting) > 0
        for contrast in CONTRASTS[1:] if start is None else ():
            if bool(self.awake.all()):
                break
            other = self._painting(generators, start, contrast)
            asleep = ~self.awake.reshape(-1, *[1] * (painting.coefficients.ndim - 1))
            painting.coefficients = torch.where(asleep, other.coefficients, painting.coefficients)
            self.awake = self._lengths(painting) > 0
        return painting

    def answers(self, images: Tensor) -> Tensor:
        """(B,) the objective of images as they are."""
        with torch.no_grad():
            return self._score(images)

    def gradient(self, painting: Painting, maps: Tensor | None) -> Tensor:
        """Of objective and regularisers, by the coefficients of each image."""
        coefficients = painting.coefficients.detach().requires_grad_()
        image = painting.image(coefficients)
        raw = self._raw(image.detach(), maps)
        length = raw.square().mean((1, 2, 3), keepdim=True).sqrt()
        ahead = torch.where((length > 0) & torch.isfinite(length), raw / length, torch.zeros_like(raw))
        ahead = ahead - self._held_back(image.detach())
        return torch.autograd.grad(image, coefficients, ahead)[0]

    def _raw(self, image: Tensor, maps: Tensor | None) -> Tensor:
        image = image.requires_grad_()
        score = self._score(transformed(image, maps))
        return torch.autograd.grad(score.sum(), image)[0]

    def _score(self, images: Tensor) -> Tensor:
        seen = filled((images - self._mean) / self._std, self._fill).contiguous(memory_format=torch.channels_last)
        return self._objective(seen, filled(self._subjects, self._fill))[: len(images)]

    def _held_back(self, image: Tensor) -> Tensor:
        """The gradient of the regularisers: l2 times the square of what differs from the middle, and tv times the
        squares of the differences between neighbours, both by sums over pixels and halved."""
        held = self._settings.l2 * (image - self._mean) / self._std
        if not self._settings.tv:
            return held
        down, across = image.diff(dim=2), image.diff(dim=3)
        pad = torch.nn.functional.pad
        spread = pad(down, (0, 0, 1, 0)) - pad(down, (0, 0, 0, 1)) + pad(across, (1, 0)) - pad(across, (0, 1))
        return held + self._settings.tv * spread / self._std

    def _lengths(self, painting: Painting) -> Tensor:
        raw = self._raw(painting.image(painting.coefficients).detach(), None)
        return torch.nan_to_num(raw.abs().amax((1, 2, 3)), nan=0.0)

    def _painting(self, generators: Sequence[torch.Generator], start: Tensor | None, contrast: float) -> Painting:
        begin = None if start is None else start.expand(len(generators), *start.shape)
        if self._settings.parametrisation == FOURIER:
            return FourierPainting(self.size, generators, self._like, start=begin, contrast=contrast)
        return PixelPainting(self.size, generators, self._like, middle=self._mean, start=begin, contrast=contrast)


class _Adam:
    """Steps by Adam (Kingma and Ba, 2015), each coefficient by itself, upwards."""

    def __init__(self, coefficients: Tensor) -> None:
        self._first = torch.zeros_like(coefficients)
        self._second = torch.zeros_like(coefficients)
        self._steps = 0

    def change(self, gradient: Tensor) -> Tensor:
        """The next step's direction, of about 1 in each coefficient."""
        self._steps += 1
        self._first.lerp_(gradient, 1 - BETAS[0])
        self._second.lerp_(gradient.square(), 1 - BETAS[1])
        first = self._first / (1 - BETAS[0] ** self._steps)
        second = self._second / (1 - BETAS[1] ** self._steps)
        return first / (second.sqrt() + EPSILON)
