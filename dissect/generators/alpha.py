"""A continuous intervention over all units of a layer, optimised for one concept: alpha in [0, 1]^C.

Bau et al., "GAN dissection: visualizing and understanding generative adversarial networks" (ICLR 2019, section 3.2 and
equation 7): every unit is ablated by its alpha, a becomes (1 - alpha) * a, and the alphas are found by gradient
descent (Adam, clamped to [0, 1]) from IoU / max IoU, with the penalty 0.005 * sum(alpha^2). The concept's score is the
segmenter's mean probability, as a share of what it is untouched, so that the penalty weighs alike for rare concepts.

The paper's objective inserts as well as it ablates. Units that paint a concept where there was none need not be those
that it hangs on, and a high value everywhere leaves the images that the network makes; so the inserted half has a
weight, 0 by default, and then what is ranked is what ablation removes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from microtome.dissect.audit.stopping import Stopped, StopSignal
from microtome.dissect.generators.generator import Generator
from microtome.dissect.models.generators import Latents
from microtome.dissect.models.sites import Site, site_of

PENALTY = 0.005
UNTOUCHED = 64
"""Latents that the untouched score is the mean of."""

Scores = Callable[[Tensor], Tensor]
"""Images (B, 3, H, W) in [0, 1] -> the concept's mean probability in each, (B,), differentiable."""


@dataclass(frozen=True)
class AlphaSettings:
    """steps of Adam at `rate`, each on `batch` latents; insertion: weight of the inserted half of the objective."""

    steps: int = 100
    batch: int = 8
    rate: float = 0.02
    penalty: float = PENALTY
    insertion: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)


@dataclass(frozen=True, eq=False)
class Alpha:
    """values: (C,) in [0, 1]; ablated: the concept's score with the units ablated by alpha, as a share of what it is
    untouched, in the mean of the last tenth of the steps."""

    values: NDArray[np.float64]
    ablated: float


def optimise_alpha(
    generator: Generator,
    layer: str,
    scores: Scores,
    start: NDArray[np.float64],
    high: NDArray[np.float64],
    seeds: range,
    settings: AlphaSettings = AlphaSettings(),
    *,
    advance: Callable[[int], None] | None = None,
    stop: StopSignal | None = None,
) -> Alpha:
    """The alphas of all units of `layer` for the concept that `scores` measures.

    start, high: (C,) alphas to begin from, and the values at which units are inserted; seeds: latents, taken in turn;
    advance: told how many images are done, of steps * batch. Raises Stopped once `stop` is set.
    """
    site = site_of(generator.model, layer)
    placeholder = generator.model.placeholder()
    alpha = torch.from_numpy(np.clip(start, 0, 1)).to(placeholder.device, placeholder.dtype).requires_grad_()
    top = torch.from_numpy(high).to(placeholder.device, placeholder.dtype)
    optimiser = torch.optim.Adam([alpha], settings.rate)
    untouched = _untouched(generator, scores, seeds[:UNTOUCHED], settings.batch)
    course: list[float] = []
    for step in range(settings.steps):
        if stop is not None and stop.is_set():
            raise Stopped
        latents = generator.latents([seeds[(step * settings.batch + i) % len(seeds)] for i in range(settings.batch)])
        with torch.enable_grad():
            score = partial(_score, generator, site, scores, latents, alpha)
            ablated = score(torch.zeros_like(top)) / untouched
            loss = ablated + settings.penalty * alpha.square().sum()
            if settings.insertion:
                loss = loss - settings.insertion * score(top) / untouched
        (alpha.grad,) = torch.autograd.grad(loss, alpha)
        optimiser.step()
        with torch.no_grad():
            alpha.clamp_(0, 1)
        course.append(float(ablated.detach()))
        if advance is not None:
            advance(settings.batch)
    last = course[-max(1, len(course) // 10) :]
    return Alpha(alpha.detach().double().cpu().numpy(), float(np.mean(last)))


def _score(generator: Generator, site: Site, scores: Scores, latents: Latents, alpha: Tensor, values: Tensor) -> Tensor:
    """The mean score with every unit moved by its alpha towards its value: (1 - alpha) * a + alpha * value."""
    batch = len(latents[0])
    share, target = (site.spread(part.expand(batch, -1)) for part in (alpha, values))
    with site.replacing(lambda raw: torch.lerp(raw, target.expand_as(raw), share.expand_as(raw))):
        return scores(generator.images(latents)).mean()


def _untouched(generator: Generator, scores: Scores, seeds: range, batch: int) -> float:
    """The mean score without an intervention."""
    with torch.no_grad():
        starts = range(0, len(seeds), batch)
        found = [scores(generator.images(generator.latents(seeds[start : start + batch]))) for start in starts]
    return max(float(torch.cat(found).mean()), 1e-6)
