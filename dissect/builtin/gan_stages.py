"""The stages in which the built-in generator is trained, each a function that changes its networks in place.

fine, coarse: autoencoders, of scenes and of fine codes; joint: both together; draw: likelihood of coarse codes, in
two rounds; finish: what paints codes, those of scenes and those that are drawn, against a critic of patches.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
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

    noise: largest deviations of what is added to fine and coarse codes, which have variance 1; marked: how much more a
    marked pixel counts; features, sparsity, patches: weights of the loss's parts beside the absolute difference of
    pixels; jitter: deviation of what is added to coarse codes whose likelihood is learned, and once more where they
    are read; finish_rates: of what paints, and of the critic; head_start: steps in which the critic is not heeded.
    """

    fine_steps: int = 1500
    fine_batch: int = 16
    fine_rate: float = 2e-3
    coarse_steps: int = 400
    coarse_batch: int = 64
    coarse_rate: float = 2e-3
    joint_steps: int = 1600
    joint_batch: int = 16
    joint_rate: float = 1e-3
    noise: tuple[float, float] = (0.3, 0.4)
    marked: float = 2.0
    features: float = 0.5
    sparsity: float = 0.03
    draw_steps: tuple[int, int] = (3000, 3800)
    draw_batch: int = 128
    draw_rates: tuple[float, float] = (2e-3, 1.5e-3)
    jitter: float = 0.15
    finish_steps: int = 1000
    finish_batch: int = 24
    finish_rates: tuple[float, float] = (1.5e-4, 1e-3)
    head_start: int = 100
    patches: float = 0.15


class Networks(nn.Module):
    """The generator, and the encoders and the critic of its training."""

    def __init__(self) -> None:
        super().__init__()
        self.fine, self.coarse, self.model, self.critic = FineEncoder(), CoarseEncoder(), ScenesGAN(), PatchCritic()
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
    """images: (N, 64, 64, 3) uint8; marked: (N, 64, 64) bool, pixels that count more; weights: (N,) float64.

    A weight says how often a picture is taken, relative to the others.
    """

    images: NDArray[np.uint8]
    marked: NDArray[np.bool_]
    weights: NDArray[np.float64]

    def batches(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Images (size, 3, 64, 64) float32 in [-1, 1] and marks (size, 1, 64, 64) float32, without end.

        Half of the batches are mirrored. They are the same at every call.
        """
        rng, share = np.random.default_rng(SEED), self.weights / self.weights.sum()
        while True:
            chosen = np.sort(rng.choice(len(self.images), size, p=share))
            images, marked = self.images[chosen], self.marked[chosen]
            if rng.random() < 0.5:
                images, marked = images[:, :, ::-1], marked[:, :, ::-1]
            yield scaled(images), torch.from_numpy(marked.astype(np.float32)).unsqueeze(1)


def scaled(images: NDArray[np.uint8]) -> Tensor:
    """(B, H, W, 3) uint8 to (B, 3, H, W) float32 in [-1, 1]."""
    values = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2) / 127.5 - 1
    return values.contiguous(memory_format=torch.channels_last)


def features(model: ScenesCNN, images: Tensor) -> list[Tensor]:
    """What the classifier's first four stages make of images in [-1, 1]."""
    x, found = ((images + 1) / 2 - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1), []
    for name in ("stem", "block1", "block2", "block3"):
        x = model.get_submodule(name)(x)
        found.append(x)
    return found


@dataclass(frozen=True, slots=True)
class Seen:
    """Images, (B, 3, 64, 64), and what the classifier's first stages make of them."""

    images: Tensor
    features: list[Tensor]

    def judged(self, critic: PatchCritic) -> Tensor:
        """The critic's scores, (B, 128)."""
        scores: Tensor = critic(self.images, self.features[-1])
        return scores

    def detached(self) -> Seen:
        """The same, through which no gradient flows."""
        return Seen(self.images.detach(), [part.detach() for part in self.features])


def difference(recipe: Recipe, painted: Seen, wanted: Seen, marks: Tensor) -> Tensor:
    """Mean absolute difference of pixels, and `features` times that of features in units of their mean.

    Of `painted` the first are taken, as many as are wanted.
    """
    size = len(wanted.images)
    apart = (painted.images[:size].float() - wanted.images).abs() * (1 + recipe.marked * marks)
    pairs = zip(painted.features, wanted.features, strict=True)
    parts = [F.l1_loss(own[:size].float(), other.float()) / other.float().abs().mean() for own, other in pairs]
    return apart.mean() + recipe.features * torch.stack(parts).mean()


def seen(model: ScenesCNN, images: Tensor) -> Seen:
    """Scenes as the classifier sees them, without gradients."""
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        return Seen(images, features(model, images))


def shaken(codes: Tensor, noise: float) -> Tensor:
    """Codes with noise, each of them with a deviation between 0 and `noise`."""
    return codes + torch.randn_like(codes) * noise * torch.rand(len(codes), 1, 1, 1)


def learn_fine(recipe: Recipe, pictures: Pictures, nets: Networks) -> None:
    """The fine encoder and what paints its codes, as an autoencoder."""
    halves = nn.ModuleList([nets.fine, nets.decoder()]).train()
    rates = [cosine(step, recipe.fine_steps, recipe.fine_rate) for step in range(recipe.fine_steps)]
    batches = pictures.batches(recipe.fine_batch)
    _autoencode(recipe, nets, halves, batches, rates, lambda x: shaken(nets.fine(x), recipe.noise[0]))


def learn_jointly(recipe: Recipe, pictures: Pictures, nets: Networks) -> None:
    """Everything but the prior, as an autoencoder of coarse codes."""
    halves = nn.ModuleList([nets.fine, nets.coarse, nets.refiner(), nets.decoder()]).train()
    rates = [cosine(step, recipe.joint_steps, recipe.joint_rate) for step in range(recipe.joint_steps)]
    batches = pictures.batches(recipe.joint_batch)
    _autoencode(
        recipe, nets, halves, batches, rates,
        lambda x: nets.model.fine_codes(shaken(nets.coarse(nets.fine(x)), recipe.noise[1])),
    )  # fmt: skip


def _autoencode(
    recipe: Recipe,
    nets: Networks,
    halves: nn.Module,
    batches: Iterator[tuple[Tensor, Tensor]],
    rates: Sequence[float],
    coded: Callable[[Tensor], Tensor],
) -> None:
    """Train `halves` to paint pictures again from the fine codes that `coded` makes of them."""
    classifier, model = scenes_cnn().requires_grad_(False), nets.model
    optimizer = torch.optim.AdamW(halves.parameters(), betas=(0.9, 0.99), weight_decay=0.01, fused=True)
    report = Report("autoencoder", len(rates))
    for step, rate in enumerate(rates):
        set_rate(optimizer, rate)
        x, marks = next(batches)
        wanted = seen(classifier, x)
        with torch.autocast("cpu", torch.bfloat16):
            active = model.block3(coded(x))
            painted = model.paint(active)
            loss = difference(recipe, Seen(painted, features(classifier, painted)), wanted, marks)
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
    """The coarse encoder and the refiner together, as an autoencoder of fine codes."""
    codes, weights = fine_codes(nets, pictures)
    halves = nn.ModuleList([nets.coarse, nets.refiner()]).train()
    optimizer = torch.optim.AdamW(halves.parameters(), betas=(0.9, 0.99), weight_decay=0.01, fused=True)
    report = Report("coarse", recipe.coarse_steps)
    for step in range(recipe.coarse_steps):
        set_rate(optimizer, cosine(step, recipe.coarse_steps, recipe.coarse_rate))
        x = codes[torch.multinomial(weights, recipe.coarse_batch)].contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16):
            again = nets.model.fine_codes(shaken(nets.coarse(x), recipe.noise[1]))
        loss = (again.float() - x).square().mean()
        _descend(optimizer, loss)
        report(step, loss=loss)


def learn_drawing(recipe: Recipe, pictures: Pictures, nets: Networks, round_: int) -> None:
    """The prior, by the likelihood of the scenes' coarse codes; what is kept is the running mean of its weights."""
    codes, weights = fine_codes(nets, pictures)
    codes, prior = codes_of(nets.coarse, codes), nets.model.prior
    optimizer = torch.optim.AdamW(prior.parameters(), betas=(0.9, 0.98), weight_decay=0.02, fused=True)
    mean, steps = deepcopy(prior), recipe.draw_steps[round_]
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


def finish(recipe: Recipe, pictures: Pictures, nets: Networks) -> None:
    """What paints codes, of scenes and drawn ones, against the critic; what is kept is the running mean."""
    classifier, model, critic = scenes_cnn().requires_grad_(False), nets.model, nets.critic
    part = nn.ModuleList([nets.refiner(), nets.decoder()])
    nets.eval()
    mean, steps = deepcopy(part), recipe.finish_steps
    painter = torch.optim.AdamW(part.parameters(), betas=(0.5, 0.99), weight_decay=0.01, fused=True)
    judge = torch.optim.AdamW(critic.train().parameters(), lr=recipe.finish_rates[1], betas=(0.5, 0.99), fused=True)
    report, batches, drawn = Report("finish", steps), pictures.batches(recipe.finish_batch), _drawn(nets)
    share = torch.tensor([0.3, 0.7])
    for step in range(steps):
        set_rate(painter, cosine(step, steps, recipe.finish_rates[0]))
        x, marks = next(batches)
        wanted = seen(classifier, x)
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            codes = shaken(nets.coarse(nets.fine(x)).float(), recipe.noise[1])
        critic.requires_grad_(False)
        with torch.autocast("cpu", torch.bfloat16):
            active = model.block3(model.fine_codes(torch.cat([codes, drawn[torch.randint(len(drawn), (len(x),))]])))
            images = model.paint(active)
            painted = Seen(images, features(classifier, images))
            liked = _means(painted.judged(critic), len(x)) @ share
        loss = difference(recipe, painted, wanted, marks) + recipe.sparsity * active.float().mean()
        _descend(painter, loss - recipe.patches * liked if step > recipe.head_start else loss)
        critic.requires_grad_(True)
        with torch.autocast("cpu", torch.bfloat16):
            real, fake = wanted.judged(critic).float(), painted.detached().judged(critic).float()
        _descend(judge, F.relu(1 - real).mean() + _means(F.relu(1 + fake), len(x)) @ share)
        _average(mean, part, min(0.99, (step + 1) / (step + 20)))
        report(step, loss=loss, real=real.mean(), fake=fake.mean())
    part.load_state_dict(mean.state_dict())


@torch.no_grad()
def _drawn(nets: Networks) -> Tensor:
    """Coarse codes (6400, 24, 4, 4) that the prior draws."""
    return torch.cat([nets.model.prior(torch.randn(200, LATENTS)) for _ in range(32)])


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
