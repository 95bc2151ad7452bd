"""Deconvnet and guided backpropagation: gradients that a rectifier lets through by a rule of its own.

Zeiler and Fergus, 2014 (section 2.1); Springenberg et al., 2015 (section 3.4, figure 1). With R the gradient that comes
from above and x what went into the rectifier, the gradient below it is R (x > 0) by calculus, max(R, 0) in a deconvnet,
max(R, 0) (x > 0) in guided backpropagation. Everything else passes its gradient as it is; max-pooling by its switches.

What is a rectifier is decided by the operation, whatever module or function it is called from: relu; relu6, hardtanh
and clamp from 0 up to a ceiling, whose gradient passes where x is between the two; clamp_min at 0; threshold from 0 to
0; the maximum with 0; `where(x > 0, x, 0)`, `where(x < 0, 0, x)` and `masked_fill(x < 0, 0)`. That holds too for a
relu6 which is a part of a formula. What may be a rectifier in any other form is refused.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function
from torch.overrides import TorchFunctionMode

from microtome.dissect.attribution.gradients import followed
from microtome.dissect.attribution.passage import Passage, passage_of
from microtome.dissect.attribution.subject import PEAK, At, Score, Target, scoring
from microtome.dissect.models import Model
from microtome.storage.errors import DoesNotApplyError

_ADVICE = "take smoothgrad or integrated-gradients"


def deconvnet(
    model: Model | nn.Module,
    images: Tensor,
    target: Target = None,
    layer: str | None = None,
    *,
    unit: int | None = None,
    at: At = PEAK,
) -> Tensor:
    """(B, 3, H, W) float32, signed: the score projected down to the pixels by a deconvnet (Zeiler and Fergus, 2014).

    Where no max-pooling is on the way, whose switches tell images apart (Springenberg et al., 2015), it is the same for
    every image: `sees_the_image` tells. Raises UsageError, and DoesNotApplyError where `guided_backprop` does.
    """
    return _projected("deconvnet", _Deconv, model, images, target, layer, unit, at)


def guided_backprop(
    model: Model | nn.Module,
    images: Tensor,
    target: Target = None,
    layer: str | None = None,
    *,
    unit: int | None = None,
    at: At = PEAK,
) -> Tensor:
    """(B, 3, H, W) float32, signed: guided backpropagation of the score (Springenberg et al., 2015).

    Raises UsageError. Raises DoesNotApplyError where, between the images and what is explained, there is no rectifier;
    where another activation function (GELU, SiLU, Hardswish, leaky ReLU, tanh, ...) is, through which negative
    gradients would pass, so that the result would be neither the one nor the other; where a rectifier runs in scripted
    or compiled code, which cannot be replaced. Gates (sigmoid, hard sigmoid, softmax, GLU) may be there.
    """
    return _projected("guided-backprop", _Guided, model, images, target, layer, unit, at)


def _projected(
    method: str,
    rule: type[Function],
    model: Model | nn.Module,
    images: Tensor,
    target: Target,
    layer: str | None,
    unit: int | None,
    at: At,
) -> Tensor:
    with scoring(model, images, target, layer, unit=unit, at=at) as score:
        gradient = _gradient(method, rule, score, layer, score.images, None)
    return gradient.float()


def _gradient(
    method: str, rule: type[Function], score: Score, layer: str | None, images: Tensor, rows: Tensor | None
) -> Tensor:
    """(n, 3, H, W): the gradient by the rule, of versions `images` of the batch's `rows`."""
    leaf = images.detach().clone().requires_grad_()
    with Rectifying(rule):
        values = followed(score, leaf, method, rows)
        _check(method, score, layer, passage_of(values, rule))
        return _differentiated(values, leaf)


def _differentiated(values: Tensor, leaf: Tensor) -> Tensor:
    """The gradient of the sum of `values`. What is checkpointed is computed again on the way, under the same rule:
    torch.autograd.grad would close the mode that keeps it."""
    engine = torch.autograd.Variable._execution_engine
    gradient: Tensor
    (gradient,) = engine.run_backward((values,), (torch.ones_like(values),), False, False, (leaf,), False, False)
    return gradient


def sees_the_image(
    model: Model | nn.Module,
    images: Tensor,
    target: Target = None,
    layer: str | None = None,
    *,
    unit: int | None = None,
    at: At = PEAK,
) -> bool:
    """Whether a deconvnet of the first of `images` (B, 3, H, W) differs from one of noise, the class being the same.

    A deconvnet knows the image by the switches of max-pooling alone (and by gates, and by where a unit has its peak).
    """
    with scoring(model, images[:1], target, layer, unit=unit, at=at) as score:
        gradient = _gradient("deconvnet", _Deconv, score, layer, score.images, None)
        several = (3, *gradient.shape[1:])  # a unit's peak lies at the same place in one of them by chance
        noise = torch.randn(several, generator=torch.Generator().manual_seed(0)).to(gradient)
        first = torch.zeros(len(noise), dtype=torch.int64, device=gradient.device)
        others = _gradient("deconvnet", _Deconv, score, layer, noise, first)
    return float((gradient - others).abs().max()) >= 1e-5 * float(gradient.abs().max())


def _check(method: str, score: Score, layer: str | None, passage: Passage) -> None:
    """Raise DoesNotApplyError where the gradient does not pass by the method's rule, and by it alone."""
    name = score.model.spec
    where = name if score.unit is None else f"{name} up to {layer}"
    if passage.escaped:
        raise DoesNotApplyError(
            method,
            f"{passage.escaped} of the {passage.escaped + passage.rectifiers} ReLU of {where} run where they cannot be "
            "replaced (scripted or compiled code)",
            "load the model without torch.jit and torch.compile",
        )
    if passage.closed:
        raise DoesNotApplyError(
            method,
            f"{where} has operations whose insides cannot be seen ({', '.join(passage.closed)}); ReLU may be in them",
            _ADVICE,
        )
    others = ", ".join(f"{count} {kind}" for kind, count in passage.others.items())
    if not passage.rectifiers:
        raise DoesNotApplyError(
            method, f"{where} has no ReLU" + (f" (its nonlinearities: {others})" if others else ""), _ADVICE
        )
    if others:
        raise DoesNotApplyError(
            method,
            f"beside {passage.rectifiers} ReLU {where} has activation functions through which negative gradients pass "
            f"({others})",
            _ADVICE,
        )
    if passage.unknown:
        names = ", ".join(f"{count} {kind}" for kind, count in passage.unknown.items())
        raise DoesNotApplyError(
            method,
            f"beside {passage.rectifiers} ReLU {where} has operations that may be rectifiers or activation functions "
            f"written otherwise ({names})",
            f"write them as torch.relu, or {_ADVICE}",
        )


class _Rectifier(Function):
    """A rectifier from 0 to a ceiling; the mask of where its own gradient is 1 is kept."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, ceiling: float) -> Tensor:
        """The rectified values."""
        ctx.save_for_backward((values > 0) & (values < ceiling))
        ctx.ceiling = ceiling
        return values.clamp(0, None if math.isinf(ceiling) else ceiling)


class _Guided(_Rectifier):
    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        """max(R, 0) where the rectifier was open."""
        (mask,) = ctx.saved_tensors
        return gradients[0].clamp_min(0) * mask, None


class _Deconv(_Rectifier):
    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        """max(R, 0), whatever went forward."""
        return gradients[0].clamp_min(0), None


@dataclass(frozen=True)
class _Call:
    """A call of a rectifier: what goes in, where it saturates, and whether the result is written back there."""

    values: Tensor
    ceiling: float = math.inf
    in_place: bool = False


_Reader = Callable[..., _Call | None]


class Rectifying(TorchFunctionMode):
    """While open, every rectifier that a gradient goes through is replaced by `rule`, in this thread."""

    def __init__(self, rule: type[Function]) -> None:
        super().__init__()
        self._rule = rule

    def __enter__(self) -> Self:
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in _PRODUCTS and args[0]._is_view():  # written out, so that the graph shows what the factor is
            return args[0].copy_(args[0] * args[1])
        call = _read(func, args, kwargs)
        if call is None:
            return func(*args, **kwargs)
        out: Tensor = self._rule.apply(call.values, call.ceiling)
        return call.values.copy_(out) if call.in_place else out


def _read(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> _Call | None:
    """The call as one of a rectifier with a gradient, None where it is another."""
    reader = _READERS.get(func) if getattr(type(func), "__hash__", None) is not None else None
    if reader is None:
        return None
    try:
        call = reader(*args, **{_KEYWORDS.get(key, key): value for key, value in kwargs.items()})
    except TypeError:  # another form of the function, such as the maximum along an axis
        return None
    return call if call is not None and call.values.is_floating_point() and call.values.requires_grad else None


def _relu(values: Tensor, inplace: bool = False) -> _Call:
    return _Call(values, in_place=inplace)


def _relu6(values: Tensor, inplace: bool = False) -> _Call:
    return _Call(values, 6.0, inplace)


def _hardtanh(values: Tensor, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> _Call | None:
    return _Call(values, float(max_val), inplace) if min_val == 0 and max_val > 0 else None


def _threshold(values: Tensor, threshold: float, value: float, inplace: bool = False) -> _Call | None:
    return _Call(values, in_place=inplace) if threshold == 0 and value == 0 else None


def _clamp(values: Tensor, low: Any = None, high: Any = None) -> _Call | None:
    if not _is_zero(low) or isinstance(high, Tensor):
        return None
    return _Call(values) if high is None else _Call(values, float(high)) if high > 0 else None


def _maximum(values: Tensor, other: Any) -> _Call | None:
    if not isinstance(other, Tensor):
        return None
    shape = torch.broadcast_shapes(values.shape, other.shape)  # type: ignore[no-untyped-call]
    for one, zero in ((values, other), (other, values)):
        if one.shape == shape and _is_zero(zero):
            return _Call(one)
    return None


def _where(condition: Tensor, values: Any, other: Any) -> _Call | None:
    for kept, zero, is_open in ((values, other, condition), (other, values, ~condition)):
        if isinstance(kept, Tensor) and condition.shape == kept.shape and _is_zero(zero):
            opens = torch.equal(is_open, kept > 0) or torch.equal(is_open, kept >= 0)
            return _Call(kept) if opens else None
    return None


def _masked_fill(values: Tensor, mask: Tensor, value: Any) -> _Call | None:
    return _where(~mask, values, value)


def _where_of(values: Tensor, condition: Tensor, other: Any) -> _Call | None:
    return _where(condition, values, other)


def _is_zero(value: Any) -> bool:
    if isinstance(value, Tensor):
        return not value.requires_grad and value.numel() > 0 and not bool(value.any())
    return isinstance(value, int | float) and value == 0


def _in_place(reader: _Reader) -> _Reader:
    def read(*args: Any, **kwargs: Any) -> _Call | None:
        call = reader(*args, **kwargs)
        return None if call is None else replace(call, in_place=True)

    return read


_PRODUCTS = (Tensor.mul_, Tensor.__imul__)

_KEYWORDS = {"input": "values", "min": "low", "max": "high"}
"""What the arguments of torch are called in the readers."""

_FORMS: Mapping[_Reader, tuple[Any, ...]] = {
    _relu: (F.relu, torch.relu, Tensor.relu),
    _in_place(_relu): (F.relu_, torch.relu_, Tensor.relu_),
    _relu6: (F.relu6, torch._C._nn.relu6),
    _in_place(_relu6): (torch._C._nn.relu6_,),
    _hardtanh: (F.hardtanh, torch._C._nn.hardtanh),
    _in_place(_hardtanh): (F.hardtanh_, torch._C._nn.hardtanh_),
    _threshold: (F.threshold, torch.threshold),
    _in_place(_threshold): (torch.threshold_,),
    _clamp: (torch.clamp, Tensor.clamp, torch.clip, Tensor.clip, torch.clamp_min, Tensor.clamp_min),
    _in_place(_clamp): (torch.clamp_, Tensor.clamp_, torch.clip_, Tensor.clip_, torch.clamp_min_, Tensor.clamp_min_),
    _maximum: (torch.maximum, Tensor.maximum, torch.max, Tensor.max),
    _where: (torch.where,),
    _where_of: (Tensor.where,),
    _masked_fill: (torch.masked_fill, Tensor.masked_fill),
    _in_place(_masked_fill): (Tensor.masked_fill_,),
}
"""Every function that may be a rectifier, by how its arguments are read."""

_READERS: Mapping[Any, _Reader] = {form: reader for reader, forms in _FORMS.items() for form in forms}
