"""See the attention inside a module, whatever computes it, without changing what the module gives.

A `Watch` stands between Python and torch while a module runs. It knows fused attention
(`scaled_dot_product_attention`), `nn.MultiheadAttention`, whose fast path it avoids, and attention that is written
out: a product of queries and keys, a softmax over its last axis, a product with the values.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

_PRODUCTS = {  # where their two operands are
    torch.matmul: 0,
    torch.bmm: 0,
    torch.baddbmm: 1,
    torch.einsum: 1,
    Tensor.matmul: 0,
    Tensor.__matmul__: 0,
    Tensor.bmm: 0,
    Tensor.baddbmm: 1,
}
_SOFTMAXES = (torch.softmax, F.softmax, Tensor.softmax)
_EXOTIC = ("key_padding_mask", "attn_mask", "bias_k", "bias_v", "static_k", "static_v")

Run = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Fused:
    """The arguments of one scaled_dot_product_attention: query (..., Lq, d), key (..., Lk, d), value (..., Lk, e)."""

    query: Tensor
    key: Tensor
    value: Tensor
    mask: Tensor | None = None
    causal: bool = False
    scale: float | None = None

    def weights(self, rows: slice = slice(None)) -> Tensor:
        """softmax(q k^T / sqrt(d)) of some queries, float32: (..., n, Lk) (Vaswani et al., 2017, eq. 1)."""
        query, key = self.query[..., rows, :].float(), self.key.float()
        if key.ndim > 2 and query.ndim == key.ndim and query.shape[-3] != key.shape[-3]:  # grouped queries
            key = key.repeat_interleave(query.shape[-3] // key.shape[-3], -3)
        logits = query @ key.transpose(-2, -1) * (self.scale or 1 / math.sqrt(query.shape[-1]))
        hidden = self._hidden(rows, logits)
        logits = logits.masked_fill(hidden, -math.inf) if hidden is not None else logits
        if self.mask is not None and self.mask.dtype != torch.bool:
            logits = logits + (self.mask if self.mask.shape[-2] == 1 else self.mask[..., rows, :])
        return logits.softmax(-1)

    def _hidden(self, rows: slice, logits: Tensor) -> Tensor | None:
        if self.causal:
            whole = (self.query.shape[-2], self.key.shape[-2])
            return ~torch.ones(whole, dtype=torch.bool, device=logits.device).tril()[rows]
        if self.mask is not None and self.mask.dtype == torch.bool:
            return ~(self.mask if self.mask.shape[-2] == 1 else self.mask[..., rows, :])
        return None


class Watch(TorchFunctionMode):
    """A mode whose methods see, and may change, what attention consists of. Products and fused calls have numbers,
    each from 1, in the order in which they are made while the mode is open."""

    def __init__(self) -> None:
        super().__init__()
        self.products = 0
        self.fusions = 0

    def __enter__(self) -> Self:
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)  # type: ignore[no-untyped-call]

    def on_product(self, number: int, one: Tensor, other: Tensor, run: Run, equation: str) -> Tensor:
        """A product of two tensors: `run(one, other)`; equation: of einsum, else empty."""
        return run(one, other)

    def on_softmax(self, scores: Tensor, weights: Tensor) -> None:
        """A softmax over the last axis."""

    def on_fused(self, number: int, fused: Fused, run: Callable[[Fused], Tensor]) -> Tensor:
        """A fused attention: `run(fused)`."""
        return run(fused)

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention:
            return self._fused(func, *args, **kwargs)
        if func is F.multi_head_attention_forward and _is_plain(args, kwargs):
            return self._multi_head(*args, **kwargs)
        at = _PRODUCTS.get(func) if _hashable(func) else None
        if at is not None and len(args) == at + 2 and all(isinstance(arg, Tensor) for arg in args[at:]):
            return self._product(func, args, kwargs, at)
        out = func(*args, **kwargs)
        if func in _SOFTMAXES and _is_last(args, kwargs):
            self.on_softmax(args[0], out)
        return out

    def _product(self, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], at: int) -> Tensor:
        self.products += 1
        equation = args[0] if isinstance(args[0], str) else ""
        return self.on_product(
            self.products, args[at], args[at + 1], lambda one, other: func(*args[:at], one, other, **kwargs), equation
        )

    def _fused(
        self,
        func: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Tensor:
        self.fusions += 1
        given = Fused(query, key, value, attn_mask, is_causal, scale)
        more = {"enable_gqa": True} if enable_gqa else {}

        def run(fused: Fused) -> Tensor:
            out: Tensor = func(
                fused.query, fused.key, fused.value, attn_mask, dropout_p, is_causal, scale=scale, **more
            )
            return out

        return self.on_fused(self.fusions, given, run)

    def _multi_head(self, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor | None]:
        """F.multi_head_attention_forward of (L, B, D) tokens, with its fused attention in sight."""
        given = dict(zip(_MULTI_HEAD, args, strict=False)) | kwargs
        heads, tokens = given["num_heads"], (given["query"], given["key"], given["value"])
        if given.get("use_separate_proj_weight"):
            weights = [given[f"{name}_proj_weight"] for name in "qkv"]
        else:
            weights = given["in_proj_weight"].chunk(3)
        bias = given.get("in_proj_bias")
        biases = (None, None, None) if bias is None else bias.chunk(3)
        projected = [F.linear(t, w, b) for t, w, b in zip(tokens, weights, biases, strict=True)]
        query, key, value = (p.view(*p.shape[:-1], heads, -1).permute(1, 2, 0, 3) for p in projected)
        fused = Fused(query, key, value)
        mixed = self._fused(F.scaled_dot_product_attention, query, key, value)  # (B, heads, L, d)
        out = F.linear(mixed.permute(2, 0, 1, 3).flatten(2), given["out_proj_weight"], given["out_proj_bias"])
        if not given.get("need_weights", True):
            return out, None
        shown = fused.weights()
        return out, shown.mean(1) if given.get("average_attn_weights", True) else shown


_MULTI_HEAD = (
    *("query", "key", "value", "embed_dim_to_check", "num_heads", "in_proj_weight", "in_proj_bias", "bias_k"),
    *("bias_v", "add_zero_attn", "dropout_p", "out_proj_weight", "out_proj_bias"),
)


def _is_plain(args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Whether a call of multi_head_attention_forward is a batch without masks and other rarities."""
    given = {**dict(zip(_MULTI_HEAD, args, strict=False)), **kwargs}
    plain = not given.get("add_zero_attn") and not given.get("training") and given["query"].ndim == 3
    return plain and all(given.get(name) is None for name in _EXOTIC)


def _is_last(args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    dim = kwargs.get("dim", args[1] if len(args) > 1 else None)
    return isinstance(dim, int) and isinstance(args[0], Tensor) and dim % args[0].ndim == args[0].ndim - 1


def _hashable(func: object) -> bool:
    return getattr(type(func), "__hash__", None) is not None
