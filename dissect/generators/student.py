"""A pupil of a segmenter that gives no gradients: a small convolutional network that learnt its labels on generated
images, untouched and edited, so that gradients reach the generator through it.

It only finds alphas. What is reported is measured with the segmenter itself, and how far the two agree on images that
the pupil has not seen is kept beside every alpha that it found.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from microtome.dissect.audit.stopping import Stopped, StopSignal
from microtome.dissect.generators.effects import tell
from microtome.dissect.generators.generator import Generator, of_seeds
from microtome.dissect.models.segmenters import Segmenter
from microtome.dissect.models.sites import Site, site_of

WIDTH, LARGEST = 16, 64
"""Channels at half of the image's side, and the side from which on images are made smaller for the pupil."""

CHUNK = 16


@dataclass(frozen=True)
class StudentSettings:
    """images that it learns from, a third of them untouched; held: as many more to test it on; steps of `batch`."""

    images: int = 1152
    held: int = 144
    steps: int = 600
    batch: int = 16
    rate: float = 4e-3


@dataclass(frozen=True, eq=False)
class Student:
    """A pupil. net: images (B, 3, H, W) in [0, 1] to scores (B, K + 1, h, w), the last of "unlabelled"; planes: of the
    segmenter's labels, one network each; agreement: IoU of each label with the segmenter on held-out images, untouched
    and edited, (2, K), NaN where neither sees it."""

    nets: tuple[Pupil, ...]
    agreement: NDArray[np.float64]

    def probabilities(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> (B, K, h, w), differentiable: at a place the likeliest of all planes counts."""
        return torch.stack([net(images).softmax(1)[:, :-1] for net in self.nets]).amax(0)


class Pupil(nn.Module):
    """Down to an eighth of the side and up again, with what the whole image is like and where a pixel lies in it."""

    def __init__(self, labels: int, width: int = WIDTH) -> None:
        super().__init__()
        self.one, self.two = _step(5, width, 2), _step(width, 2 * width, 2)
        self.three = _step(2 * width, 4 * width, 2)
        self.four = nn.Sequential(_step(4 * width, 4 * width, 2), _step(4 * width, 4 * width))
        self.whole = nn.Linear(4 * width, 4 * width)
        self.up_three, self.up_two = _step(8 * width, 4 * width), _step(6 * width, 2 * width)
        self.up_one, self.last = _step(3 * width, 2 * width), nn.Conv2d(2 * width, labels + 1, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Scores at the images' side, or at LARGEST where that is smaller."""
        x = smaller(images)
        size = (x.shape[2], x.shape[3])
        one = self.one(torch.cat([2 * x - 1, _where(x)], 1))
        two = self.two(one)
        three = self.three(two)
        four = self.four(three)
        four = four + self.whole(four.mean((2, 3)))[:, :, None, None]
        x = self.up_three(_joined(four, three))
        x = self.up_one(_joined(self.up_two(_joined(x, two)), one))
        return F.interpolate(self.last(x), size, mode="bilinear", align_corners=False)


def smaller(images: Tensor) -> Tensor:
    """Images whose longer side is LARGEST at most."""
    longest = max(images.shape[-2:])
    if longest <= LARGEST:
        return images
    size = [max(16, round(side * LARGEST / longest)) for side in images.shape[-2:]]
    return F.interpolate(images, size, mode="bilinear", align_corners=False, antialias=True)


def teach(
    generator: Generator,
    segmenter: Segmenter,
    layer: str,
    high: NDArray[np.float64],
    seeds: Sequence[int],
    settings: StudentSettings = StudentSettings(),
    *,
    advance: Callable[[int], None] | None = None,
    stop: StopSignal | None = None,
) -> Student:
    """A pupil that learnt from the images of `seeds`, of which settings.images + settings.held are needed.

    Two thirds of the images are made with a random set of units of `layer` ablated, or (a third of those) a smaller one
    forced to `high` (C,). The same arguments give the same pupil. Raises Stopped once `stop` is set.
    """
    images, ids, edited = _lessons(generator, segmenter, layer, high, seeds, advance, stop)
    device = generator.device
    count = len(images) - settings.held
    nets = []
    for plane in range(ids.shape[1]):
        targets = torch.where(ids[:, plane] < 0, len(segmenter.labels), ids[:, plane].long())
        nets.append(
            _learnt(images[:count].to(device), targets[:count].to(device), len(segmenter.labels), settings, stop)
        )
    student = Student(tuple(nets), np.zeros((2, len(segmenter.labels))))
    agreement = [_agreement(student, images[count:][rows], ids[count:][rows]) for rows in _kinds(edited[count:])]
    return Student(student.nets, np.stack(agreement))


def agreement_rows(student: Student, labels: Sequence[str]) -> dict[str, Any]:
    """IoU of each label, untouched and edited, as JSON values; labels that were not there are left out."""
    plain, edited = student.agreement
    rows = zip(labels, plain.tolist(), edited.tolist(), strict=True)
    return {name: {"untouched": _number(one), "edited": _number(two)} for name, one, two in rows if one == one}


def _lessons(
    generator: Generator,
    segmenter: Segmenter,
    layer: str,
    high: NDArray[np.float64],
    seeds: Sequence[int],
    advance: Callable[[int], None] | None,
    stop: StopSignal | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Images (n, 3, h, w) float, ids (n, P, h, w) int16 and whether each was edited (n,)."""
    site, dice = site_of(generator.model, layer), np.random.default_rng(0)
    images, ids, edited = [], [], []
    for start in range(0, len(seeds), CHUNK):
        if stop is not None and stop.is_set():
            raise Stopped
        part = seeds[start : start + CHUNK]
        kinds = np.arange(start, start + len(part)) % 3 > 0
        with of_seeds(part), torch.no_grad(), site.replacing(_random_edits(site, high, kinds, dice, generator.device)):
            made = generator.images(generator.latents(part))
        found = segmenter(made)
        images.append(smaller(made).float().cpu())
        size = (images[-1].shape[2], images[-1].shape[3])
        ids.append(F.interpolate(found.double(), size, mode="nearest-exact").to(torch.int16).cpu())
        edited.append(torch.from_numpy(kinds))
        tell(advance, len(part))
    return torch.cat(images), torch.cat(ids), torch.cat(edited)


def _random_edits(
    site: Site, high: NDArray[np.float64], edited: NDArray[np.bool_], dice: np.random.Generator, device: torch.device
) -> Callable[[Tensor], Tensor]:
    """What replaces the layer's tensor: in each image that is to be edited, a random set of units."""
    share, values = np.zeros((len(edited), site.units)), np.zeros((len(edited), site.units))
    for row in np.flatnonzero(edited):
        size = max(1, int(np.exp(dice.uniform(0, np.log(max(2, site.units / 2))))))
        inserts = bool(dice.random() < 1 / 3)
        chosen = dice.permutation(site.units)[: max(1, size // 4) if inserts else size]
        share[row, chosen] = 1
        values[row, chosen] = high[chosen] if inserts else 0
    spread = [site.spread(torch.from_numpy(part).float().to(device)) for part in (share, values)]

    def replace(raw: Tensor) -> Tensor:
        where, value = (part.to(raw.dtype).expand_as(raw) for part in spread)
        return torch.lerp(raw, value, where)

    return replace


def _learnt(images: Tensor, targets: Tensor, labels: int, settings: StudentSettings, stop: StopSignal | None) -> Pupil:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = Pupil(labels).to(images.device)
    dice = torch.Generator().manual_seed(0)
    share = torch.bincount(targets.flatten(), minlength=labels + 1).float() / targets.numel()
    weight = (share + 1e-3).rsqrt()
    optimiser = torch.optim.AdamW(net.parameters(), settings.rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, settings.steps)
    with torch.enable_grad():
        for _ in range(settings.steps):
            if stop is not None and stop.is_set():
                raise Stopped
            rows = torch.randint(0, len(images), (settings.batch,), generator=dice)
            loss = F.cross_entropy(net(images[rows]), targets[rows], weight=weight)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
    return net.eval().requires_grad_(False)


def _agreement(student: Student, images: Tensor, ids: Tensor) -> NDArray[np.float64]:
    """IoU of each label with the segmenter, (K,), NaN where neither sees it."""
    labels = student.agreement.shape[1]
    both, either = np.zeros(labels), np.zeros(labels)
    for start in range(0, len(images), CHUNK):
        for plane, net in enumerate(student.nets):
            with torch.no_grad():
                guess = net(images[start : start + CHUNK].to(next(net.parameters()).device)).argmax(1).cpu()
            truth = ids[start : start + CHUNK, plane]
            for label in range(labels):
                mine, theirs = guess == label, truth == label
                both[label] += int((mine & theirs).sum())
                either[label] += int((mine | theirs).sum())
    agreement: NDArray[np.float64] = np.divide(both, either, out=np.full(labels, np.nan), where=either > 0)
    return agreement


def _kinds(edited: Tensor) -> tuple[Tensor, Tensor]:
    return ~edited, edited


def _step(inputs: int, units: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, units, 3, stride, 1), nn.BatchNorm2d(units), nn.ReLU())


def _joined(x: Tensor, skip: Tensor) -> Tensor:
    size = (skip.shape[2], skip.shape[3])
    return torch.cat([F.interpolate(x, size, mode="bilinear", align_corners=False), skip], 1)


def _where(images: Tensor) -> Tensor:
    """Rows and columns from -1 to 1 as two channels."""
    batch, _, height, width = images.shape
    rows = torch.linspace(-1, 1, height, device=images.device).view(1, 1, -1, 1).expand(batch, 1, height, width)
    columns = torch.linspace(-1, 1, width, device=images.device).view(1, 1, 1, -1).expand(batch, 1, height, width)
    return torch.cat([rows, columns], 1).to(images.dtype)


def _number(value: float) -> float | None:
    return None if np.isnan(value) else value
