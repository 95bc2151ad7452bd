"""A continuous intervention over all units of a layer, optimised for one concept: alpha in [0, 1]^C.

Bau et al., "GAN dissection: visualizing and understanding generative adversarial networks" (ICLR 2019, section 3.2 and
equation 7): every unit is ablated by its alpha, a becomes (1 - alpha) * a, and the alphas are found by gradient
descent (Adam, clamped to [0, 1]) from IoU / max IoU, with the penalty 0.005 * sum(alpha^2). The concept's score is the
segmenter's mean probability, as a share of what it is untouched, so that the penalty weighs alike for rare concepts.

What the network makes besides is held: the share of the picture outside the concept that changes from one other label
of its category to another, in expectation, counts `keep` times. Without it the units that are found remove the grass
with the trees, as both are green.

The paper's objective inserts as well as it ablates. Units that paint a concept where there was none need not be those
that it hangs on, and a high value everywhere leaves the images that the network makes; so the inserted half has a
weight, 0 by default, and then what is ranked is what ablation removes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from microtome.dissect.audit.stopping import Stopped, StopSignal
from microtome.dissect.generators.effects import tell
from microtome.dissect.generators.generator import Generator, of_seeds
from microtome.dissect.models.generators import Latents
from microtome.dissect.models.sites import Site, site_of

PENALTY = 0.005
UNTOUCHED = 64
"""Latents that the untouched score is the mean of."""


@dataclass(frozen=True, eq=False)
class Target:
    """What is to go, and what is to stay. probabilities: images (B, 3, H, W) in [0, 1] -> (B, K, H, W), differentiable;
    concept, rivals: the labels of the concept, and the others of its category."""

    probabilities: Callable[[Tensor], Tensor]
    concept: NDArray[np.int64]
    rivals: NDArray[np.int64]

    def of(self, probabilities: Tensor) -> Tensor:
        """The concept's probability at each pixel, (B, H, W)."""
        return probabilities[:, torch.from_numpy(self.concept).to(probabilities.device)].sum(1)

    def beside(self, before: Tensor, after: Tensor) -> Tensor:
        """The share of what was not the concept that becomes another of its rivals, in expectation."""
        rivals = torch.from_numpy(self.rivals).to(after.device)
        outside = 1 - self.of(before)
        moved = (after[:, rivals] - before[:, rivals]).abs().sum(1) / 2
        return (moved * outside).sum() / outside.sum().clamp_min(1e-6)


@dataclass(frozen=True)
class AlphaSettings:
    """steps of Adam at `rate`, each on `batch` latents; keep: weight of what changes beside the concept; insertion:
    that of the inserted half of the objective."""

    steps: int = 100
    batch: int = 8
    rate: float = 0.02
    penalty: float = PENALTY
    keep: float = 2.0
    insertion: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)


@dataclass(frozen=True, eq=False)
class Alpha:
    """values: (C,) in [0, 1]; gains: (C,) how much faster the score (as a share of what it is untouched) would fall by
    more of each alpha, which tells apart those that lie at 1; ablated: the score with the units ablated by alpha, as
    that share. Gains and score are means of the last tenth of the steps."""

    values: NDArray[np.float64]
    gains: NDArray[np.float64]
    ablated: float


def optimise_alpha(
    generator: Generator,
    layer: str,
    target: Target,
    start: NDArray[np.float64],
    high: NDArray[np.float64],
    seeds: Sequence[int],
    settings: AlphaSettings = AlphaSettings(),
    *,
    advance: Callable[[int], None] | None = None,
    stop: StopSignal | None = None,
) -> Alpha:
    """The alphas of all units of `layer` for the concept of `target`.

    start, high: (C,) alphas to begin from, and the values at which units are inserted; seeds: latents, taken in turn;
    advance: told how many images are done, of steps * batch. Raises Stopped once `stop` is set.
    """
    site = site_of(generator.model, layer)
    placeholder = generator.model.placeholder()
    alpha = torch.from_numpy(np.clip(start, 0, 1)).to(placeholder.device, placeholder.dtype).requires_grad_()
    top = torch.tensor(high).to(placeholder.device, placeholder.dtype)
    optimiser = torch.optim.Adam([alpha], settings.rate)
    untouched = _untouched(generator, target, seeds[:UNTOUCHED], settings.batch)
    course: list[float] = []
    tenth = max(1, settings.steps // 10)
    slopes: deque[Tensor] = deque(maxlen=tenth)
    for step in range(settings.steps):
        if stop is not None and stop.is_set():
            raise Stopped
        part = [seeds[(step * settings.batch + i) % len(seeds)] for i in range(settings.batch)]
        latents = generator.latents(part)
        with of_seeds(part):
            before = _seen(generator, target, latents)
        with torch.enable_grad():
            seen = partial(_moved, generator, site, target, latents, alpha)
            after = seen(torch.zeros_like(top))
            ablated = target.of(after).mean() / untouched
            loss = ablated + settings.penalty * alpha.square().sum() + settings.keep * target.beside(before, after)
            if settings.insertion:
                loss = loss - settings.insertion * target.of(seen(top)).mean() / untouched
        (alpha.grad,) = torch.autograd.grad(loss, alpha)
        slopes.append(alpha.grad - 2 * settings.penalty * alpha.detach())
        optimiser.step()
        with torch.no_grad():
            alpha.clamp_(0, 1)
        course.append(float(ablated.detach()))
        tell(advance, settings.batch)
    gains = -torch.stack(list(slopes)).mean(0)
    values, pulled = (part.detach().double().cpu().numpy() for part in (alpha, gains))
    return Alpha(values, pulled, float(np.mean(course[-tenth:])))


def _seen(generator: Generator, target: Target, latents: Latents) -> Tensor:
    """Probabilities of the images as they are."""
    with torch.no_grad():
        return target.probabilities(generator.images(latents))


def _moved(generator: Generator, site: Site, target: Target, latents: Latents, alpha: Tensor, values: Tensor) -> Tensor:
    """Probabilities with every unit moved by its alpha towards its value: (1 - alpha) * a + alpha * value."""
    batch = len(latents[0])
    share, goal = (site.spread(part.expand(batch, -1)) for part in (alpha, values))
    with site.replacing(lambda raw: torch.lerp(raw, goal.expand_as(raw), share.expand_as(raw))):
        return target.probabilities(generator.images(latents))


def _untouched(generator: Generator, target: Target, seeds: Sequence[int], batch: int) -> float:
    """The mean score without an intervention."""
    found = []
    for start in range(0, len(seeds), batch):
        part = seeds[start : start + batch]
        with of_seeds(part):
            found.append(target.of(_seen(generator, target, generator.latents(part))))
    return max(float(torch.cat(found).mean()), 1e-6)
