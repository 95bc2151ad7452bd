"""Rectifiers with the rules of deconvnet and guided backpropagation in them, to hold the methods against."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

Form = Callable[[Tensor], Tensor]


class ByHand(Function):
    """The rule, written out element by element."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, guided: bool, ceiling: float) -> Tensor:
        ctx.save_for_backward(x.clone())
        ctx.guided, ctx.ceiling = guided, ceiling
        return torch.minimum(torch.where(x > 0, x, torch.zeros_like(x)), torch.tensor(ceiling, dtype=x.dtype))

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        (x,) = ctx.saved_tensors
        kept = torch.where(gradients[0] > 0, gradients[0], torch.zeros_like(x))
        if ctx.guided:
            kept = torch.where((x > 0) & (x < ctx.ceiling), kept, torch.zeros_like(x))
        return kept, None, None


def by_hand(method: str, ceiling: float = math.inf) -> Form:
    return lambda x: ByHand.apply(x, method == "guided", ceiling)  # type: ignore[no-untyped-call,no-any-return]


def gradient(values: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    leaf = images.clone().requires_grad_()
    (found,) = torch.autograd.grad(values(leaf).sum(), leaf)
    return found
