"""Cascading randomisation of parameters (Adebayo et al., 2018, "Sanity checks for saliency maps", section 4).

From the logits down to the image, module after module gets parameters as before any training, and each time the maps
for the same classes are compared with those of the trained model. A map that hardly changes does not show what the
network has learned.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from microtome.dissect.attribution.checks.candidates import BATCH, Candidate
from microtome.dissect.attribution.checks.similarity import rank_correlation, structural
from microtome.dissect.attribution.subject import at_rest
from microtome.dissect.models.model import Model
from microtome.storage.errors import DoesNotApplyError, UsageError

SHARES = (0.0, 0.125, 0.25, 0.5, 0.75, 1.0)
"""How much of the network is randomised, as a share of its modules with parameters; 0: the last one alone."""

UPPER = 0.25
"""Up to this share is the upper part, in which a network decides on the class."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Depth:
    """One step of the cascade: `modules` of `of` are randomised, the last of them called `name`."""

    modules: int
    of: int
    name: str

    @property
    def share(self) -> float:
        """The share of modules that are randomised."""
        return self.modules / self.of


@dataclass(frozen=True)
class Randomisation:
    """How much of a method's maps is left at each depth.

    correlation, structure: (depths, n), Spearman's rho and SSIM of magnitudes with those of the trained model;
    elsewhere: (n,), Spearman's rho of an image's map with that of the next image, for the same class.
    """

    depths: tuple[Depth, ...]
    correlation: Floats
    structure: Floats
    elsewhere: Floats

    @property
    def upper(self) -> Floats:
        """(n,): the mean correlation over the depths of the upper part; see UPPER. What the verdict rests on."""
        return self._of_upper(self.correlation)

    @property
    def upper_structure(self) -> Floats:
        """(n,): the mean SSIM over the same depths."""
        return self._of_upper(self.structure)

    def _of_upper(self, values: Floats) -> Floats:
        chosen = [row for depth, row in zip(self.depths, values, strict=True) if _is_upper(depth)]
        return np.asarray(np.mean(chosen, axis=0), np.float64)


def randomisation(
    candidate: Candidate,
    model: Model,
    images: Tensor,
    classes: Tensor,
    *,
    shares: Sequence[float] = SHARES,
    batch: int = BATCH,
    seed: int = 0,
    trained: NDArray[np.float32] | None = None,
    told: Callable[[int], None] | None = None,
) -> Randomisation:
    """Compare the maps of `classes` (n,) in images (n, 3, H, W) at each depth with those of the model as it is.

    The model is copied, not changed. trained: the magnitudes (n, H, W) of the model as it is, where they are known.
    Where a method refuses a randomised model, its map counts as constant. told: is called with the number of images
    done at each depth. Raises DoesNotApplyError where it refuses the model itself, UsageError.
    """
    told = told or _silent
    if trained is None:
        trained = candidate.maps(model, images, classes, batch).magnitudes
    others = candidate.maps(model, images.roll(1, 0), classes, batch).magnitudes
    told(len(images))
    depths, correlation, structure = [], [], []
    for depth, untrained in cascade(model, images[:1], shares, seed):
        try:
            maps = candidate.maps(untrained, images, classes, batch).magnitudes
        except DoesNotApplyError:
            maps = np.zeros_like(trained)
        depths.append(depth)
        correlation.append(rank_correlation(trained, maps))
        structure.append(structural(trained, maps))
        told(len(images))
    elsewhere = rank_correlation(trained, others)
    return Randomisation(tuple(depths), np.stack(correlation), np.stack(structure), elsewhere)


def cascade(
    model: Model, images: Tensor, shares: Sequence[float] = SHARES, seed: int = 0
) -> Iterator[tuple[Depth, Model]]:
    """One copy of the model, more and more of it randomised; what is random at one depth stays the same below.

    images: (1, 3, H, W), to find the order of the modules. Raises UsageError for a model without parameters.
    """
    order = from_the_logits(model.module, images)
    if not order or not shares or not all(0 <= share <= 1 for share in shares):
        raise UsageError("randomisation needs a model with parameters, and shares of its modules from 0 to 1")
    other = replace(model, module=copy.deepcopy(model.module), trained=False)
    done = 0
    for count in sorted({max(1, round(share * len(order))) for share in shares}):
        for position in range(done, count):
            randomise(other.module.get_submodule(order[position]), seed=seed + position)
        done = count
        yield Depth(count, len(order), order[count - 1]), other


def from_the_logits(module: nn.Module, images: Tensor) -> list[str]:
    """The modules with parameters of their own, by name, in reverse of the order in which they are last called.

    One that is not called itself (the projection inside of an attention) goes with the module around it.
    """
    begun: dict[str, int] = {}
    handles = []
    for name, each in module.named_modules():
        handles.append(each.register_forward_pre_hook(_noting(begun, name)))
    try:
        with at_rest(module), torch.no_grad():
            module(images)
    finally:
        for handle in handles:
            handle.remove()
    holders = [name for name, each in module.named_modules() if next(each.parameters(recurse=False), None) is not None]
    position = {name: index for index, name in enumerate(holders)}
    return sorted(holders, key=lambda name: (-_begins(begun, name), -position[name]))


def randomise(module: nn.Module, seed: int) -> None:
    """Give a module's own parameters, not those of modules inside it, values as before training.

    By its `reset_parameters` where it has one (which for normalisation also forgets the running statistics); else
    drawn from a normal distribution of mean 0 and the same root mean square. Seeded; torch's own state stays.
    """
    devices = {parameter.device for parameter in module.parameters() if parameter.is_cuda}
    with torch.random.fork_rng(devices=sorted(devices, key=str)), torch.no_grad():
        torch.manual_seed(seed)
        reset = getattr(module, "reset_parameters", None)
        if callable(reset):
            reset()
            return
        for parameter in module.parameters(recurse=False):
            if parameter.is_floating_point():
                size = parameter.float().pow(2).mean().sqrt()
                parameter.copy_(torch.randn(parameter.shape, device=parameter.device) * size)


def _begins(begun: dict[str, int], name: str) -> int:
    while name and name not in begun:
        name = name.rpartition(".")[0]
    return begun.get(name, -1)


def _noting(begun: dict[str, int], name: str) -> Callable[[nn.Module, object], None]:
    def note(_module: nn.Module, _inputs: object) -> None:
        begun[name] = len(begun) if name not in begun else max(begun.values()) + 1

    return note


def _is_upper(depth: Depth) -> bool:
    return depth.modules == 1 or depth.share <= UPPER + 0.5 / depth.of


def _silent(_done: int) -> None:
    pass
