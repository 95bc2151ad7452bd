"""Which layer a method looks at where none is given, and which one works where the one given does not."""

from __future__ import annotations

import weakref
from collections.abc import Callable

import torch
from torch import Tensor, nn

from microtome.dissect.attribution.grids import Taken, look
from microtome.dissect.attribution.passage import refuse_reentrant
from microtome.dissect.attribution.subject import Score
from microtome.dissect.models.layers import kind_of
from microtome.dissect.models.logits import logits_of
from microtome.dissect.models.model import Model
from microtome.dissect.models.sites import Site, site_of
from microtome.dissect.models.trace import Call, trace
from microtome.storage.errors import DoesNotApplyError

AT_ONCE = 24
"""Layers that are looked at in one pass, the last of the network first: their maps are held together."""

_KEPT: weakref.WeakKeyDictionary[Model, dict[str | None, str]] = weakref.WeakKeyDictionary()
_SKIPPED = ("pool", "dropout", "identity")


def default_layer(score: Score, method: str = "grad-cam") -> str:
    """The last layer that a class activation map can be taken of.

    It has a grid of more than one position, is no pooling, dropout, nor a module without parameters and parts that is
    no activation; everything that the score has of the images passes through it (so it is no branch, but the end of a
    block, a stage or the whole trunk: `layer4`, `features`, `inception5b`); and the gradients there are not zero
    everywhere (as they are for patches in the last block of a transformer that reads its class token alone). Of layers
    that give the same tensor the outermost is taken. For a unit: such a layer before that of the unit, outside it.

    Found with noise, and with the gradients of all logits (or all of the layer's units) at once, so that it is the same
    for all images, classes and units; known for the next request as long as the model lives. Raises DoesNotApplyError
    where there is none.
    """
    kept = _KEPT.setdefault(score.model, {})
    found = kept.get(score.layer)
    if found is None or found not in {call.name for call in trace(score.model)}:
        found = _last(score, score.model.noise(1), lambda images: _everything(score, images, method), _has_gradients)
    if found is None:
        before = f"before {score.layer} " if score.layer else ""
        raise DoesNotApplyError(
            method,
            f"no layer {before}has a grid of more than one position, holds all that the score depends on and "
            "has gradients other than zero",
            "take occlusion, which needs none",
        )
    kept[score.layer] = found
    return found


def last_layer(score: Score, images: Tensor, rows: Tensor, fits: Callable[[Taken], bool]) -> str | None:
    """The last layer of which `fits` is true, of those that everything passes through; None where there is none.

    images: (n, 3, H, W), each a version of image `rows[i]` of the score's batch, (n,) int64.
    """
    return _last(score, images, lambda given: score(given, rows).sum(), fits)


def _last(
    score: Score, images: Tensor, total_of: Callable[[Tensor], Tensor], fits: Callable[[Taken], bool]
) -> str | None:
    sites = _candidates(score)
    for end in range(len(sites), 0, -AT_ONCE):
        for taken in reversed(look(score, sites[max(0, end - AT_ONCE) : end], images, total_of)):
            if taken.whole and fits(taken):
                return taken.name
    return None


def _everything(score: Score, images: Tensor, method: str) -> Tensor:
    """A number that all logits, or all units of the layer at all places, have a part in."""
    images = images.clone()  # which the model may change in place
    if score.capture is not None and score.layer is not None:
        values = score.capture(images)[score.layer]
    else:
        values = logits_of(score.model.module(images), score.model.class_names)
    generator = torch.Generator().manual_seed(0)  # since the sum of what was normalised is constant
    refuse_reentrant(values, method, score.model.spec)
    return (values * torch.randn(values.shape, generator=generator).to(values)).sum()


def _has_gradients(taken: Taken) -> bool:
    return bool(taken.gradients.any())


def _candidates(score: Score) -> list[Site]:
    """The layers with a grid, in the order of the network; for a unit those before its layer."""
    calls, modules = trace(score.model), dict(score.model.module.named_modules())
    if score.layer is not None:
        calls = _before(calls, score.layer)
    return [site_of(score.model, call.name) for call in calls if _is_candidate(call, modules[call.module_name])]


def _before(calls: list[Call], layer: str) -> list[Call]:
    """What is finished before the layer begins: what is inside it is not."""
    names = [call.name for call in calls]
    if layer not in names:  # the class token of a layer
        layer = layer.rpartition(":")[0]
    own = calls[names.index(layer)].module_name
    return [
        call
        for call in calls[: names.index(layer)]
        if call.module_name != own and not call.module_name.startswith(f"{own}.")
    ]


def _is_candidate(call: Call, module: nn.Module) -> bool:
    if call.kind or call.place is None or not call.module_name:
        return False
    height, width = call.place.layout.grid
    kind = kind_of(module)
    if height * width == 1 or kind in _SKIPPED:
        return False
    bare = next(module.parameters(), None) is None and next(module.children(), None) is None
    return kind == "activation" or not bare
