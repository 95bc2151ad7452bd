"""What a transformer attends to: its class token's attention, rollout, and attention weighted by gradients.

Vaswani et al., 2017 (attention); Abnar and Zuidema, 2020 (rollout); Chefer et al., 2021 ("Generic attention-model
explainability", ICCV: eq. 5 and 6, for self-attention).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from microtome.dissect.attribution.grids import ZeroMapError, enlarged, listed, refuse_unit, zero_maps
from microtome.dissect.attribution.subject import PEAK, At, Target, at_rest, model_of, scoring
from microtome.dissect.attribution.weights import keeping_weights
from microtome.dissect.models.capture import ActivationCapture
from microtome.dissect.models.model import Model
from microtome.dissect.models.places import HEADS, MEAN_HEADS, ROLLOUT, Place
from microtome.dissect.models.trace import Call, trace
from microtome.storage.errors import DoesNotApplyError, UnknownNameError, UsageError

_NO_UNITS = "it shows what tokens attend to, not what a unit answers to"


def attention(
    model: Model | nn.Module,
    images: Tensor,
    target: Target = None,
    layer: str | None = None,
    *,
    unit: int | None = None,
    at: At = PEAK,
    head: int | None = None,
    upsample: bool = True,
) -> Tensor:
    """What the class token attends to in one layer, the mean over its heads or one head: (B, H, W) float32.

    Each value is the weight of one patch; over the grid they add up to 1, less what goes to tokens without a place.
    layer: an attention, a module that holds exactly one, or NAME:heads (default: the last attention that has a class
    token). Of a model without a class token, NAME:heads-mean shows what all queries attend to in the mean, where it is
    asked for by that name. `target` is not looked at. Raises DoesNotApplyError where there is no such attention and
    for a unit, UsageError for a head that there is not.
    """
    heads = attention_heads(model, images, target, layer, unit=unit, at=at, upsample=upsample)
    if head is None:
        return heads.mean(1)
    if not 0 <= head < heads.shape[1]:
        raise UsageError(f"there is no head {head}: the attention has {heads.shape[1]}, numbered from 0")
    return heads[:, head]


def attention_heads(
    model: Model | nn.Module,
    images: Tensor,
    target: Target = None,
    layer: str | None = None,
    *,
    unit: int | None = None,
    at: At = PEAK,
    upsample: bool = True,
) -> Tensor:
    """As `attention`, every head for itself: (B, heads, H, W) float32."""
    refuse_unit("attention", unit, _NO_UNITS)
    model = model_of(model, images)
    kind = MEAN_HEADS if layer is not None and layer.endswith(f":{MEAN_HEADS}") else HEADS
    return enlarged(_captured(model, images, _call_of("attention", model, kind, layer).name), images, upsample)


def rollout(
    model: Model | nn.Module,
    images: Tensor,
    target: Target = None,
    layer: str | None = None,
    *,
    unit: int | None = None,
    at: At = PEAK,
    upsample: bool = True,
) -> Tensor:
    """Attention rollout (Abnar and Zuidema, 2020, section 3): the product over the layers of 0.5 A + 0.5 I, A the mean
    over heads, and of it what reaches the class token: (B, H, W) float32.

    layer: the attention it ends with (default: the last). Raises DoesNotApplyError where not every token attends to
    every token, or none is a class token, and for a unit.
    """
    refuse_unit("rollout", unit, _NO_UNITS)
    model = model_of(model, images)
    maps = _captured(model, images, _call_of("rollout", model, ROLLOUT, layer).name)
    return enlarged(maps, images, upsample)[:, 0]


def grad_attention(
    model: Model | nn.Module,
    images: Tensor,
    target: Target = None,
    layer: str | None = None,
    *,
    unit: int | None = None,
    at: At = PEAK,
    upsample: bool = True,
    allow_zero: bool = False,
) -> Tensor:
    """Attention weighted by gradients, for a class (Chefer et al., 2021, eq. 5 and 6): (B, H, W) float32, not negative.

    Layer by layer, R becomes R + M R, from R = I, where M is the mean over heads of what is positive in the product of
    the attention weights and the score's gradients by them; the map is the class token's row of R. Fused attention is
    computed in the open for it. layer: the attention it ends with (default: the last). Raises DoesNotApplyError where
    there is no attention of all tokens to all with a class token, and for a unit; ZeroMapError, which tells the images,
    where a map is zero everywhere, unless `allow_zero`.
    """
    refuse_unit("grad-attention", unit, "it follows what reaches the class token, which a unit is not computed from")
    model = model_of(model, images)
    place = _place(_call_of("grad-attention", model, ROLLOUT, layer))
    places = _steps(place)
    with scoring(model, images, target) as score:
        pixels = score.images.clone().requires_grad_()
        with keeping_weights(model, places) as kept:
            total = score(pixels).sum()
        weights = [kept.of(each) for each in places]
        gradients = torch.autograd.grad(total, weights, allow_unused=True)
    maps = _relevance(place, weights, gradients, len(images))
    empty = zero_maps(maps)
    if empty and not allow_zero:
        reason = f"no attention up to {place.module} speaks for the class{listed(empty, len(maps))}: the map is zero"
        raise ZeroMapError("grad-attention", place.module, empty, f"{reason} everywhere", None)
    return enlarged(maps, images, upsample).to(images.device)


def attention_layer(method: str, model: Model) -> str:
    """The layer that `attention`, "rollout" or "grad-attention" looks at where none is given, as it is given by name.
    Raises DoesNotApplyError where there is none."""
    kind = HEADS if method == "attention" else ROLLOUT
    return _call_of(method, model, kind, None).name.removesuffix(f":{kind}")


def _relevance(place: Place, weights: Sequence[Tensor], gradients: Sequence[Tensor | None], batch: int) -> Tensor:
    """(B, h, w) of weights and gradients (B, heads, L, L) or (B * heads, L, L), layer after layer."""
    tokens = weights[0].shape[-1]
    relevance = torch.eye(tokens, device=weights[0].device).expand(batch, tokens, tokens)
    for weight, gradient in zip(weights, gradients, strict=True):
        if gradient is None:  # nothing of this layer reaches the score
            continue
        product = (weight.detach().float() * gradient.float()).relu()
        relevance = relevance + product.reshape(batch, -1, tokens, tokens).mean(1) @ relevance
    row = place.inside.row if place.inside is not None else 0
    return place.layout.maps(relevance[:, row], batch)[:, 0]


def _steps(place: Place) -> list[Place]:
    """The attentions that a rollout passes, its own the last."""
    return [*(place.inside.before if place.inside is not None else ()), place]


def _captured(model: Model, images: Tensor, name: str) -> Tensor:
    """The maps of one layer, on the device of the images."""
    given = images.detach().to(model.placeholder())
    with at_rest(model.module), torch.no_grad(), ActivationCapture(model, [name]) as capture:
        return capture(given)[name].to(images.device)


def _call_of(method: str, model: Model, kind: str, layer: str | None) -> Call:
    """The attention that is meant. Raises DoesNotApplyError, UnknownNameError."""
    calls = [call for call in trace(model) if call.kind == kind]
    usable = [call for call in calls if call.place is not None]
    if layer is None:
        if usable:
            return usable[-1]
        raise _no_attention(method, model, calls)
    name = layer.removesuffix(f":{kind}")
    exact = [call for call in calls if name in (call.module_name, call.name.removesuffix(f":{kind}"))]
    found = exact or [call for call in calls if call.module_name.startswith(f"{name}.")]
    if not found:
        return _refuse_layer(method, model, kind, layer, usable)
    if len(found) > 1:
        raise UsageError(
            f"layer {layer!r} holds {len(found)} attentions; choose among {', '.join(call.name for call in found[:4])}"
        )
    if found[0].place is None:
        raise DoesNotApplyError(method, f"layer {layer} {found[0].note}", _near(usable))
    return found[0]


def _refuse_layer(method: str, model: Model, kind: str, layer: str, usable: Sequence[Call]) -> Call:
    names = {name for name, _ in model.module.named_modules()} | {call.name for call in trace(model)}
    if layer not in names:
        known = [call.name.removesuffix(f":{kind}") for call in usable]
        raise UnknownNameError("attention", layer, known or names - {""})
    raise DoesNotApplyError(method, f"layer {layer} holds no attention", _near(usable))


def _no_attention(method: str, model: Model, calls: Sequence[Call]) -> DoesNotApplyError:
    if not calls:
        return DoesNotApplyError(method, "this network has no attention", "take grad-cam")
    last = calls[-1]
    means = [call.name for call in trace(model) if call.kind == MEAN_HEADS and call.place is not None]
    advice = "take grad-cam"
    if method == "attention" and means:
        advice += f", or layer {means[-1]}, what all queries attend to in the mean"
    note = last.note.partition(";")[0]
    return DoesNotApplyError(method, f"{last.name.rpartition(':')[0]} {note}", advice)


def _near(usable: Sequence[Call]) -> str:
    return f"take {usable[-1].name}" if usable else "take grad-cam"


def _place(call: Call) -> Place:
    if call.place is None:
        raise DoesNotApplyError("grad-attention", call.note, "take grad-cam")
    return call.place
