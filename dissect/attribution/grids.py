"""Maps on a layer's grid: taken together with their gradients in one pass, and brought to the size of the images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.graph import Node
from torch.utils.checkpoint import CheckpointError

from microtome.dissect.attribution.subject import Score
from microtome.dissect.models.sites import Site
from microtome.storage.errors import DoesNotApplyError, UsageError


class ZeroMapError(DoesNotApplyError):
    """A map that is zero everywhere, which would say nothing. images: which of the batch have such a map, from 0;
    layer: where; works: a layer whose maps are not, None where there is none."""

    def __init__(self, method: str, layer: str, images: tuple[int, ...], reason: str, works: str | None) -> None:
        advice = f"take layer {works}" if works else "no layer of this model gives a map there; take occlusion"
        super().__init__(method, reason, advice)
        self.layer, self.images, self.works = layer, images, works

    def __reduce__(self) -> tuple[type[ZeroMapError], tuple[str, str, tuple[int, ...], str, str | None]]:  # type: ignore[override]
        return type(self), (self.method, self.layer, self.images, self.reason, self.works)


@dataclass(frozen=True)
class Taken:
    """Of one layer: maps, gradients (B, C, h, w), the latter of the sum of the scores; whole: whether all that the
    score has of the images passes through this layer (False where that was not asked)."""

    name: str
    maps: Tensor
    gradients: Tensor
    whole: bool = False


def maps_and_gradients(score: Score, site: Site) -> Taken:
    """The maps of one layer and the score's gradients by them; zero where the score does not depend on them.

    What comes before the layer is not recorded for autograd, unless it is checkpointed. Raises UsageError where
    the layer is not reached.
    """
    kept: list[Tensor] = []

    def keep(raw: Tensor) -> Tensor:
        kept.append(raw.detach().clone().requires_grad_())
        return kept[-1].clone()  # what follows may work in place

    with site.replacing(keep):
        total = score(score.images).sum()
    try:
        (gradient,) = _gradients(total, [_only(kept, site, score)])
    except CheckpointError:  # what is computed again there needs gradients from the images on
        return look(score, [site], score.images, lambda images: score(images).sum())[0]
    return _taken(site, kept[0], gradient, len(score.images))


def look(score: Score, sites: Sequence[Site], images: Tensor, total_of: Callable[[Tensor], Tensor]) -> list[Taken]:
    """The maps of several layers and the gradients of `total_of(images)`, a number, by them, from one pass over
    `images` (n, 3, H, W); and for each layer whether everything passes through it."""
    images = images.detach().clone().requires_grad_()
    keeps = [_Keep() for _ in sites]
    with ExitStack() as stack:
        for site, keep in zip(sites, keeps, strict=True):
            stack.enter_context(site.replacing(keep))
        total = total_of(images)
    raws = [_only(keep.raws, site, score) for site, keep in zip(sites, keeps, strict=True)]
    found = []
    for site, keep, gradient in zip(sites, keeps, _gradients(total, raws), strict=True):
        taken = _taken(site, keep.raws[0], gradient, len(images))
        found.append(replace(taken, whole=_is_whole(total, keep.nodes[0])))
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


def zero_maps(maps: Tensor) -> tuple[int, ...]:
    """Which of the maps (B, ...) are zero everywhere."""
    return tuple((~maps.flatten(1).any(1)).nonzero().flatten().tolist())


def listed(images: Sequence[int], batch: int) -> str:
    """In words, " for images 1, 2 of the batch"; empty where it is all of them."""
    if len(images) == batch:
        return ""
    names = ", ".join(map(str, images[:8])) + (", ..." if len(images) > 8 else "")
    return f" for image{'s' * (len(images) > 1)} {names} of the batch"


def refuse_unit(method: str, unit: int | None, reason: str) -> None:
    """Raise DoesNotApplyError where a unit is asked of a method that knows of none."""
    if unit is not None:
        raise DoesNotApplyError(method, reason, "take grad-cam, guided-backprop or occlusion for a unit")


class _Keep:
    """Keeps the tensor at a site, connected to what was before it and to what follows.

    nodes: of autograd's graph, where what follows begins.
    """

    def __init__(self) -> None:
        self.raws: list[Tensor] = []
        self.nodes: list[Node | None] = []

    def __call__(self, raw: Tensor) -> Tensor:
        here = raw.clone()
        self.raws.append(here if here.requires_grad else here.requires_grad_())  # behind no_grad nothing asks for it
        following = here.clone()  # what follows may work in place
        self.nodes.append(following.grad_fn)
        return following


def _only(kept: Sequence[Tensor], site: Site, score: Score) -> Tensor:
    if len(kept) != 1:
        behind = f" before {score.layer}" if score.layer else ""
        raise UsageError(f"layer {site.name!r} is not reached{behind} in a forward pass of the model")
    return kept[0]


def _gradients(total: Tensor, raws: Sequence[Tensor]) -> Sequence[Tensor | None]:
    if not total.requires_grad or not raws:
        return [None] * len(raws)
    return torch.autograd.grad(total, list(raws), allow_unused=True)


def _taken(site: Site, raw: Tensor, gradient: Tensor | None, batch: int) -> Taken:
    found = torch.zeros_like(raw) if gradient is None else gradient
    maps, gradients = (site.layout.maps(each.detach(), batch).float() for each in (raw, found))
    return Taken(site.name, maps, gradients)


def _is_whole(total: Tensor, start: Node | None) -> bool:
    """Whether no way leads from the total to the images but through the node `start`."""
    if start is None or total.grad_fn is None:
        return False
    seen, waiting = {start}, [total.grad_fn]
    while waiting:
        node = waiting.pop()
        if node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):  # a leaf: the images, as parameters ask for no gradients
            return False
        waiting += [following for following, _ in node.next_functions if following is not None]
    return True
