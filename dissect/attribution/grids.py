"""Maps on a layer's grid: taken together with their gradients in one pass, and brought to the size of the images."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from microtome.dissect.attribution.subject import Score
from microtome.dissect.models.sites import Site
from microtome.storage.errors import DoesNotApplyError, UsageError


@dataclass(frozen=True)
class Taken:
    """Of one layer: maps, gradients (B, C, h, w), the latter of the sum of the scores; whole: whether all that the
    score has of the images passes through this layer (None: not asked)."""

    name: str
    maps: Tensor
    gradients: Tensor
    whole: bool | None = None


def maps_and_gradients(score: Score, site: Site) -> Taken:
    """The maps of one layer and the score's gradients by them; zero where the score does not depend on them.

    What comes before the layer is not recorded for autograd. Raises UsageError where the layer is not reached.
    """
    kept: list[Tensor] = []

    def keep(raw: Tensor) -> Tensor:
        kept.append(raw.detach().clone().requires_grad_())
        return kept[-1].clone()  # what follows may work in place

    with site.replacing(keep):
        total = score(score.images).sum()
    return _taken(site, _only(kept, site, score), total, len(score.images))


def look(score: Score, sites: Sequence[Site], images: Tensor, rows: Tensor) -> list[Taken]:
    """The maps and gradients of several layers from one pass over `images` (n, 3, H, W), versions of `rows` (n,) of
    the batch, and for each layer whether everything passes through it."""
    images = images.detach().clone().requires_grad_()
    kept: dict[str, list[Tensor]] = {site.name: [] for site in sites}
    with ExitStack() as stack:
        for site in sites:
            stack.enter_context(site.replacing(_keeping(kept[site.name])))
        total = score(images, rows).sum()
    found = []
    for site in sites:
        raw = _only(kept[site.name], site, score)
        taken = _taken(site, raw, total, len(images))
        found.append(Taken(taken.name, taken.maps, taken.gradients, _is_whole(total, raw)))
    return found


def enlarged(maps: Tensor, images: Tensor, upsample: bool = True) -> Tensor:
    """Maps (B, h, w) or (B, C, h, w), float32 and detached, at the size of `images`: bilinear, not aligned at the
    corners. As they are where `upsample` is False."""
    maps = maps.detach().float()
    if not upsample:
        return maps
    size = (int(images.shape[-2]), int(images.shape[-1]))
    if maps.ndim == 4:
        return F.interpolate(maps, size=size, mode="bilinear", align_corners=False)
    return F.interpolate(maps.unsqueeze(1), size=size, mode="bilinear", align_corners=False).squeeze(1)


def refuse_unit(method: str, unit: int | None, reason: str) -> None:
    """Raise DoesNotApplyError where a unit is asked of a method that knows of none."""
    if unit is not None:
        raise DoesNotApplyError(method, reason, "take grad-cam, guided-backprop or occlusion for a unit")


def _keeping(kept: list[Tensor]) -> _Keep:
    return _Keep(kept)


class _Keep:
    """Keeps the tensor at a site, connected to what was before and to what follows."""

    def __init__(self, kept: list[Tensor]) -> None:
        self._kept = kept

    def __call__(self, raw: Tensor) -> Tensor:
        here = raw.clone()
        self._kept.append(here if here.requires_grad else here.requires_grad_())
        return here.clone()


def _only(kept: list[Tensor], site: Site, score: Score) -> Tensor:
    if len(kept) != 1:
        behind = f" before {score.layer}" if score.layer else ""
        raise UsageError(f"layer {site.name!r} is not reached{behind} in a forward pass of the model")
    return kept[0]


def _taken(site: Site, raw: Tensor, total: Tensor, batch: int) -> Taken:
    gradient: Tensor | None = None
    if total.requires_grad:
        (gradient,) = torch.autograd.grad(total, [raw], retain_graph=True, allow_unused=True)
    if gradient is None:
        gradient = torch.zeros_like(raw)
    maps, gradients = (site.layout.maps(each.detach(), batch).float() for each in (raw, gradient))
    return Taken(site.name, maps, gradients)


def _is_whole(total: Tensor, raw: Tensor) -> bool:
    """Whether no way leads from the score to the images but through `raw`, in the graph that autograd has recorded."""
    if raw.grad_fn is None or total.grad_fn is None:
        return False
    seen, waiting = {raw.grad_fn}, [total.grad_fn]
    while waiting:
        node = waiting.pop()
        if node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):  # a leaf: the images, as nothing else asks for gradients
            return False
        waiting += [following for following, _ in node.next_functions if following is not None]
    return True
