"""The stages in which the built-in generator is trained, each a function that changes its networks in place.

fine, coarse: autoencoders, of scenes and of fine codes; draw: likelihood of coarse codes, in two rounds; finish: the
decoder again, against a critic of patches, for codes of scenes and, in a second round, for codes that are drawn.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from microtome.dissect.builtin.cnn import MEAN, STD, ScenesCNN, scenes_cnn
from microtome.dissect.builtin.critics import CoarseEncoder, FineEncoder, PatchCritic
from microtome.dissect.builtin.gan import LATENTS, ScenesGAN
from microtome.dissect.builtin.training import cosine, set_rate

SEED: Final = 1
log = logging.getLogger("microtome.train")


@dataclass(frozen=True, slots=True)
class Recipe:
    """Steps, batches, highest rates and weights of the stages.

    noise: largest deviations of what is added to fine and coarse codes, which have variance 1; features, sparsity,
    patches: weights of the loss's parts beside the absolute difference of pixels; jitter: deviation of what is added
    to coarse codes whose likelihood is learned, and once more where they are read.
    """

    fine_steps: int = 1450
    fine_batch: int = 32
    fine_rate: float = 2e-3
    coarse_steps: int = 2200
    coarse_batch: int = 64
    coarse_rate: float = 2e-3
    noise: tuple[float, float] = (0.3, 0.4)
    features: float = 0.5
    sparsity: float = 0.03
    draw_steps: tuple[int, int] = (2900, 1400)
    draw_batch: int = 192
    draw_rates: tuple[float, float] = (2e-3, 1.5e-3)
    jitter: float = 0.15
    finish_steps: tuple[int, int] = (1650, 900)
    finish_batch: int = 32
    finish_rate: float = 5e-4
    patches: tuple[float, float] = (0.05, 0.1)


class Networks(nn.Module):
    """The generator and the encoders of its training."""

    def __init__(self) -> None:
        super().__init__()
        self.fine, self.coarse, self.model = FineEncoder(), CoarseEncoder(), ScenesGAN()
        self.to(memory_format=torch.channels_last)
        scale = self.model.block3.get_submodule("norm").get_parameter("weight")
        scale.requires_grad_(False)  # a norm of fixed size, so that few active units are few, and not weak ones

    def decoder(self) -> nn.ModuleList:
        """What paints fine codes."""
        return nn.ModuleList([self.model.block3, self.model.block4, self.model.block5, self.model.to_rgb])

    def refiner(self) -> nn.ModuleList:
        """What makes fine codes of coarse ones."""
        return nn.ModuleList([self.model.block1, self.model.block2, self.model.fine])


@dataclass(frozen=True, slots=True)
class Pictures:
    """images: (N, 64, 64, 3) uint8; weights: (N,) float64, how often each is taken, relative to the others."""

    images: NDArray[np.uint8]
    weights: NDArray[np.float64]

    def batches(self, size: int) -> Iterator[Tensor]:
        """(size, 3, 64, 64) float32 in [-1, 1] without end, half of the batches mirrored; the same at every call."""
        rng, share = np.random.default_rng(SEED), self.weights / self.weights.sum()
        while True:
            chosen = self.images[np.sort(rng.choice(len(self.images), size, p=share))]
            yield scaled(chosen[:, :, ::-1] if rng.random() < 0.5 else chosen)


def scaled(images: NDArray[np.uint8]) -> Tensor:
    """(B, H, W, 3) uint8 to (B, 3, H, W) float32 in [-1, 1]."""
    values = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2) / 127.5 - 1
    return values.contiguous(memory_format=torch.channels_last)


def features(model: ScenesCNN, images: Tensor) -> list[Tensor]:
    """What the classifier's first three stages make of images in [-1, 1]."""
    x, found = ((images + 1) / 2 - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1), []
    for name in ("stem", "block1", "block2"):
        x = model.get_submodule(name)(x)
        found.append(x)
    return found


def difference(model: ScenesCNN, painted: Tensor, images: Tensor, weight: float) -> Tensor:
    """Mean absolute difference of pixels, and `weight` times that of features in units of their mean."""
    with torch.no_grad():
        wanted = features(model, images)
    pairs = zip(features(model, painted), wanted, strict=True)
    parts = [F.l1_loss(own.float(), other.float()) / other.float().abs().mean() for own, other in pairs]
    return F.l1_loss(painted.float(), images) + weight * torch.stack(parts).mean()


def shaken(codes: Tensor, noise: float) -> Tensor:
    """Codes with noise, each of them with a deviation between 0 and `noise`."""
    return codes + torch.randn_like(codes) * noise * torch.rand(len(codes), 1, 1, 1)


def learn_fine(recipe: Recipe, pictures: Pictures, nets: Networks) -> None:
    """The fine encoder and the decoder together, with few of the 256 units of `block3` active at a place."""
    nets.train()
    classifier, model = scenes_cnn().requires_grad_(False), nets.model
    wanted = [p for p in [*nets.fine.parameters(), *nets.decoder().parameters()] if p.requires_grad]
    optimizer = torch.optim.AdamW(wanted, betas=(0.9, 0.99), weight_decay=0.01)
    report, batches = Report("fine", recipe.fine_steps), pictures.batches(recipe.fine_batch)
    for step in range(recipe.fine_steps):
        set_rate(optimizer, cosine(step, recipe.fine_steps, recipe.fine_rate))
        x = next(batches)
        with torch.autocast("cpu", torch.bfloat16):
            active = model.block3(shaken(nets.fine(x), recipe.noise[0]))
            loss = difference(classifier, model.paint(active), x, recipe.features)
            loss = loss + recipe.sparsity * active.float().mean()
        _descend(optimizer, loss)
        report(step, loss=loss, active=(active > 0).float().mean())


@torch.no_grad()
def codes_of(encoder: nn.Module, inputs: Tensor) -> Tensor:
    """What an encoder makes of inputs (N, ...) in eval mode, float32, by batches of 200."""
    encoder.eval()
    found = []
    for part in torch.split(inputs, 200):
        with torch.autocast("cpu", torch.bfloat16):
            found.append(encoder(part.contiguous(memory_format=torch.channels_last)).float())
    return torch.cat(found)


def fine_codes(nets: Networks, pictures: Pictures) -> tuple[Tensor, Tensor]:
    """Codes (2 N, 16, 8, 8) of all pictures and then of their mirror images; weights (2 N,)."""
    images = [pictures.images[start : start + 200] for start in range(0, len(pictures.images), 200)]
    straight = [codes_of(nets.fine, scaled(part)) for part in images]
    mirrored = [codes_of(nets.fine, scaled(part[:, :, ::-1])) for part in images]
    return torch.cat(straight + mirrored), torch.from_numpy(np.tile(pictures.weights, 2)).float()


def learn_coarse(recipe: Recipe, pictures: Pictures, nets: Networks) -> None:
    """The coarse encoder and the refiner together, for fine codes and what `block3` makes of them."""
    codes, weights = fine_codes(nets, pictures)
    nets.eval()
    nets.coarse.train()
    halves = nn.ModuleList([nets.coarse, nets.refiner()]).train()
    fixed = [p for p in nets.model.block3.parameters() if p.requires_grad]
    for parameter in fixed:
        parameter.requires_grad_(False)
    optimizer = torch.optim.AdamW(halves.parameters(), betas=(0.9, 0.99), weight_decay=0.01)
    report = Report("coarse", recipe.coarse_steps)
    for step in range(recipe.coarse_steps):
        set_rate(optimizer, cosine(step, recipe.coarse_steps, recipe.coarse_rate))
        x = codes[torch.multinomial(weights, recipe.coarse_batch)].contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16):
            again = nets.model.fine_codes(shaken(nets.coarse(x), recipe.noise[1]))
            wanted, active = nets.model.block3(x).float(), nets.model.block3(again).float()
        missed = F.l1_loss(active, wanted) / wanted.mean()
        loss = (again.float() - x).square().mean() + recipe.features * missed
        _descend(optimizer, loss)
        report(step, loss=loss)
    for parameter in fixed:
        parameter.requires_grad_(True)


def learn_drawing(recipe: Recipe, pictures: Pictures, nets: Networks, round_: int) -> None:
    """The prior, by the likelihood of the scenes' coarse codes; what is kept is the running mean of its weights."""
    codes, weights = fine_codes(nets, pictures)
    codes, prior = codes_of(nets.coarse, codes), nets.model.prior
    mean, optimizer = deepcopy(prior), torch.optim.AdamW(prior.parameters(), betas=(0.9, 0.98), weight_decay=0.02)
    steps = recipe.draw_steps[round_]
    report = Report(f"draw {round_}", steps)
    for step in range(steps):
        set_rate(optimizer, cosine(step, steps, recipe.draw_rates[round_]))
        x = codes[torch.multinomial(weights, recipe.draw_batch)]
        x = x + recipe.jitter * torch.randn_like(x)
        with torch.autocast("cpu", torch.bfloat16):
            loss = prior.surprise(x, x + recipe.jitter * torch.randn_like(x)).mean()
        _descend(optimizer, loss, largest=1.0)
        _average(mean, prior, min(0.995, (step + 1) / (step + 20)))
        report(step, nats=loss)
    prior.load_state_dict(mean.state_dict())


def finish(recipe: Recipe, pictures: Pictures, nets: Networks, round_: int) -> None:
    """Refiner and decoder against a critic of patches; in round 1 for codes that are drawn, too.

    What round 1 ends with is the mean of its weights and those it began with (Wortsman et al., 2022): its
    own leave bright checks in some images.
    """
    classifier, critic = scenes_cnn().requires_grad_(False), PatchCritic().to(memory_format=torch.channels_last)
    nets.eval()
    model, half = nets.model, nn.ModuleList([nets.refiner(), nets.decoder()])
    before, mean, steps = deepcopy(half), deepcopy(half), recipe.finish_steps[round_]
    painter = torch.optim.AdamW(half.parameters(), betas=(0.5, 0.99), weight_decay=0.01)
    critics = torch.optim.AdamW(critic.parameters(), lr=2 * recipe.finish_rate, betas=(0.5, 0.99))
    report, batches = Report(f"finish {round_}", steps), pictures.batches(recipe.finish_batch)
    share = torch.tensor([0.3, 0.7]) if round_ else torch.tensor([1.0])
    for step in range(steps):
        set_rate(painter, cosine(step, steps, recipe.finish_rate))
        x = next(batches)
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            codes = shaken(nets.coarse(nets.fine(x)).float(), recipe.noise[1])
        if round_:
            with torch.no_grad():
                codes = torch.cat([codes, model.prior(torch.randn(len(x), LATENTS))])
        critic.requires_grad_(False)
        with torch.autocast("cpu", torch.bfloat16):
            active = model.block3(model.fine_codes(codes))
            painted = model.paint(active)
            liked = _means(critic(painted), len(x)) @ share
        loss = difference(classifier, painted[: len(x)], x, recipe.features) + recipe.sparsity * active.float().mean()
        # The critic has a head start.
        _descend(painter, loss - recipe.patches[round_] * liked if step > 60 else loss)
        critic.requires_grad_(True)
        with torch.autocast("cpu", torch.bfloat16):
            real, fake = critic(x).float(), critic(painted.detach().to(x.dtype)).float()
        _descend(critics, F.relu(1 - real).mean() + _means(F.relu(1 + fake), len(x)) @ share)
        _average(mean, half, min(0.99, (step + 1) / (step + 20)))
        report(step, loss=loss, real=real.mean(), fake=fake.mean())
    if round_:
        _average(mean, before, 0.5)
    half.load_state_dict(mean.state_dict())


class Report:
    """Every 50 steps a line with the means of some figures."""

    def __init__(self, stage: str, steps: int) -> None:
        self.stage, self.steps, self.started = stage, steps, time.monotonic()
        self.sums: dict[str, float] = {}

    def __call__(self, step: int, **figures: Tensor) -> None:
        for name, value in figures.items():
            self.sums[name] = self.sums.get(name, 0.0) + float(value.detach()) / 50
        if (step + 1) % 50 == 0:
            words = ", ".join(f"{name} {value:.3f}" for name, value in self.sums.items())
            took = time.monotonic() - self.started
            log.info("%s %d of %d: %s, %.0f s", self.stage, step + 1, self.steps, words, took)
            self.sums.clear()


def _means(scores: Tensor, batch: int) -> Tensor:
    """The mean score of each batch's worth of images."""
    return scores.float().view(-1, batch, *scores.shape[1:]).flatten(1).mean(1)


def _descend(optimizer: torch.optim.Optimizer, loss: Tensor, largest: float | None = None) -> None:
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    if largest is not None:
        nn.utils.clip_grad_norm_([p for group in optimizer.param_groups for p in group["params"]], largest)
    optimizer.step()


@torch.no_grad()
def _average(mean: nn.Module, module: nn.Module, memory: float) -> None:
    for weight, other in zip(mean.parameters(), module.parameters(), strict=True):
        weight.lerp_(other, 1 - memory)
