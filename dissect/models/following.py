"""Follow image positions through a forward pass, operation by operation.

Every tensor that depends on the image has ids (`positions.py`) beside it: convolutions and pooling make grids, views,
rolls, pads and gathers move ids, element-wise operations and norms keep them, products over features keep those of the
rows, attention keeps those of the queries. So windows, shifts, prefix tokens, channels first or last all come out as
they are, whatever the module's code looks like. What an unknown operation gives is LOST until a convolution or a
residual connection tells the positions again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakTensorKeyDictionary

from microtome.dissect.models.positions import (
    LOST,
    MIXED,
    NONE,
    Grids,
    cell_of,
    condensed,
    constant,
    image_of,
    joined,
    only_grid,
    same,
    thinned,
    united,
)

_VIEWS = """view _unsafe_view reshape _reshape_alias"""
_MOVES = """
    permute transpose t select squeeze unsqueeze expand narrow flip rot90 unfold repeat split split_with_sizes
    split_copy unsafe_split unsafe_split_with_sizes chunk unbind movedim index_select index gather diagonal tile
    repeat_interleave pixel_shuffle pixel_unshuffle channel_shuffle native_channel_shuffle
    take_along_dim
"""
_SAME = """
    alias detach clone contiguous lift_fresh _to_copy to copy positive native_dropout _softmax _log_softmax
    _safe_softmax dropout fill_diagonal_ cumsum
"""
_REDUCTIONS = """
    mean sum nansum amax amin max min var std var_mean std_mean prod logsumexp norm linalg_vector_norm any all argmax
    argmin count_nonzero median aminmax
"""
_FIXED = """
    zeros_like ones_like empty_like full_like rand_like randn_like new_zeros new_ones new_empty new_full
    new_empty_strided zero_ fill_ bernoulli_ normal_ uniform_
"""  # made anew, from a shape alone
_GRIDDED = ("pool2d", "pool3d", "upsample_", "grid_sampler_2d")

Ids = Tensor | None  # None: no element depends on any place
Rule = Callable[["Follow", Any, Sequence[Any], Mapping[str, Any], Any], Any]


class Follow(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """While it is open, `ids_of` knows the positions of everything computed from the images given to `begin`.

    lost: the operations at which positions were lost.
    """

    def __init__(self, batch: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.grids = Grids(batch)
        self.lost: list[str] = []
        self._ids: Any = WeakTensorKeyDictionary()

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # torch would import its compiler, which takes seconds, to keep it out of here

    def begin(self, images: Tensor) -> None:
        """Follow what comes of `images` (batch, 3, H, W)."""
        height, width = images.shape[-2:]
        self._ids[images] = self.grids.fresh((height, width)).expand(tuple(images.shape))

    def ids_of(self, tensor: Tensor) -> Ids:
        """Ids of the shape of `tensor`; None where nothing of it depends on the images."""
        found: Ids = self._ids.get(tensor)
        return found

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        given = [tensor for tensor in _tensors([*args, *kwargs.values()]) if self.ids_of(tensor) is not None]
        if not given:
            for tensor in _tensors([out]):  # written over in place, with what depends on nothing
                self._ids.pop(tensor, None)
            return out
        try:
            found = self._rule(func)(self, func, args, kwargs, out)
        except (RuntimeError, IndexError, TypeError, ValueError, NotImplementedError):
            found = self._lose(func, out)
        self._note(out, found)
        return out

    def _rule(self, func: Any) -> Rule:
        name = str(func.overloadpacket).removeprefix("aten.")
        if name in _RULES:
            return _RULES[name]
        for word, rule in _RULES_BY_WORD:
            if word in name:
                return rule
        if torch.Tag.pointwise in func.tags:
            return _pointwise
        return _RULES.get(name.removesuffix("_"), _unknown)

    def _note(self, out: Any, found: Any) -> None:
        outs = _tensors([out])
        each = [found] if isinstance(found, Tensor) or found is None else list(found)
        for tensor, one in zip(outs, each + [None] * len(outs), strict=False):
            if one is None:
                self._ids.pop(tensor, None)
                continue
            ids = one if tuple(one.shape) == tuple(tensor.shape) else constant(tensor.shape, LOST)
            before, whole = self.ids_of(tensor), tensor._base
            if whole is not None and (before is None or not same(before, ids)):  # a part was written over
                self._ids[whole] = _written(self._or_none(whole), whole, ids, tensor)
            self._ids[tensor] = ids

    def _lose(self, func: Any, out: Any) -> list[Tensor]:
        name = str(func.overloadpacket).removeprefix("aten.")
        if name not in self.lost:
            self.lost.append(name)
        return [constant(tensor.shape, LOST) for tensor in _tensors([out])]

    def _or_none(self, tensor: Tensor) -> Tensor:
        ids = self.ids_of(tensor)
        return constant(tensor.shape, NONE) if ids is None else ids


def _tensors(values: Sequence[Any]) -> list[Tensor]:
    found: list[Tensor] = []
    for value in values:
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, list | tuple):
            found.extend(_tensors(value))
    return found


def _written(whole: Tensor, base: Tensor, part: Tensor, view: Tensor) -> Tensor:
    """The ids `whole` of `base` after those of its view have become `part`."""
    memory = torch.full((base.untyped_storage().nbytes() // base.element_size(),), NONE)
    out = memory.as_strided(base.shape, base.stride(), base.storage_offset())
    out.copy_(whole)
    memory.as_strided(view.shape, view.stride(), view.storage_offset()).copy_(part)
    return out


# Rules: (follow, func, args, kwargs, out) -> ids of each output


def _unknown(follow: Follow, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> Any:
    return follow._lose(func, out)


def _nothing(follow: Follow, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> Any:
    return None


def _same(follow: Follow, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> Any:
    return follow.ids_of(args[0])


def _view(follow: Follow, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> Any:
    ids, shape = follow._or_none(args[0]), tuple(out.shape)
    if ids.ndim > 1 and len(shape) > 1:  # channels stay virtual where they can
        if ids.stride(-1) == 0 and ids.shape[-1] == shape[-1]:
            return ids.narrow(-1, 0, 1).reshape(*shape[:-1], 1).expand(shape)
        if ids.stride(1) == 0 and tuple(ids.shape[:2]) == shape[:2]:
            return ids.narrow(1, 0, 1).reshape(shape[0], 1, *shape[2:]).expand(shape)
    return ids.reshape(shape)


def _roll(follow: Follow, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> Any:
    ids = follow._or_none(args[0])
    has_dims = bool(kwargs.get("dims", args[2] if len(args) > 2 else ()))
    return func(condensed(ids) if has_dims else ids, *args[1:], **kwargs).expand(tuple(out.shape))


def _move(follow: Follow, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> Any:
    if follow.ids_of(args[0]) is None:
        return follow._lose(func, out)  # a table looked up by what depends on the image
    moved = func(follow._or_none(args[0]), *(_on_cpu(arg) for arg in args[1:]), **kwargs)
    return moved if isinstance(moved, Tensor) else list(moved)


def _on_cpu(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.cpu()
    return [_on_cpu(item) for item in value] if isinstance(value, list | tuple) else value


def _slice(follow: Follow, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> Any:
    ids: Tensor = func(follow._or_none(args[0]), *args[1:], **kwargs)
    return thinned(ids, follow.grids) if len(args) > 4 and args[4] > 1 else ids


def _pad(follow: Follow, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> Any:
    ids, padding = follow._or_none(args[0]), list(args[1])
    for axis in range(ids.ndim - len(padding) // 2):  # not padded
        ids = ids.narrow(axis, 0, 1) if ids.stride(axis) == 0 else ids
    last = ids.narrow(-1, 0, 1) if ids.stride(-1) == 0 and not any(padding[:2]) else ids
    return torch.constant_pad_nd(last, padding, NONE).expand(tuple(out.shape))


def _mirror(follow: Follow, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> Any:
    return func(follow._or_none(args[0]).double(), *args[1:], **kwargs).long()


def _cat(follow: Follow, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> Any:
    parts = [follow._or_none(tensor) for tensor in args[0]]
    if str(func.overloadpacket) == "aten.cat":
        dim = (args[1] if len(args) > 1 else kwargs.get("dim", 0)) % out.ndim
        lines = [part.narrow(dim, 0, 1) for part in parts if part.ndim == out.ndim and part.shape[dim]]
        if all(line.stride(dim) == 0 and same(line, lines[0]) for line in lines):  # channels of one place
            return lines[0].expand(tuple(out.shape))
        if dim < out.ndim - 1 and all(part.ndim == out.ndim and part.stride(-1) == 0 for part in parts):
            return func([part.narrow(-1, 0, 1) for part in parts], dim).expand(tuple(out.shape))
    return func(parts, *args[1:], **kwargs)


def _copy(follow: Follow, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> Any:
    return follow._or_none(args[1]).expand(tuple(out.shape))


def _pointwise(follow: Follow, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> Any:
    shape = _tensors([out])[0].shape
    given = [ids for t in _tensors([*args, *kwargs.values()]) if (ids := follow.ids_of(t)) is not None]
    ids = united(given, shape, follow.grids)
    return [ids] * len(_tensors([out]))


def _reduction(follow: Follow, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> Any:
    if len(args) > 1 and isinstance(args[1], Tensor):
        return _pointwise(follow, func, args, kwargs, out)
    source, first = args[0], _tensors([out])[0]
    position = 2 if str(func.overloadpacket) in ("aten.norm", "aten.linalg_vector_norm") else 1
    dims = kwargs.get("dim", args[position] if len(args) > position else None)
    axes = [dims] if isinstance(dims, int) else list(dims or range(source.ndim))
    ids = joined(follow._or_none(source), axes, follow.grids)
    if first.ndim == source.ndim:
        for axis in sorted(axis % source.ndim for axis in axes):
            ids = ids.unsqueeze(axis)
    return [ids] * len(_tensors([out]))


def _product(follow: Follow, one: Tensor, other: Tensor, out: Tensor) -> Tensor:
    """Ids of `one` (..., n, m) @ `other` (..., m, p): of the rows of the one or, where these have no place, of the
    columns of the other."""
    rows = joined(follow._or_none(one), [-1], follow.grids).unsqueeze(-1)
    if follow.ids_of(other) is None:
        return rows.expand(tuple(out.shape))
    if bool((rows >= 0).any()):  # beside patches, a class token
        return torch.where(rows == NONE, MIXED, rows).expand(tuple(out.shape))
    columns = joined(follow._or_none(other), [-2], follow.grids).unsqueeze(-2)
    return torch.where(columns >= 0, columns, torch.minimum(rows, columns)).expand(tuple(out.shape))


def _mm(follow: Follow, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> Any:
    return _product(follow, args[0], args[1], out)


def _addmm(follow: Follow, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> Any:
    product = _product(follow, args[1], args[2], out)
    added = follow.ids_of(args[0])
    return product if added is None else united([product, added], out.shape, follow.grids)


def _linear(follow: Follow, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> Any:
    return joined(follow._or_none(args[0]), [-1], follow.grids).unsqueeze(-1).expand(tuple(out.shape))


def _attention(follow: Follow, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> Any:
    """The first output has the shape of the queries, but for the values' width, and their places."""
    ids = joined(follow._or_none(args[0]), [-1], follow.grids).unsqueeze(-1)
    return torch.where(ids == NONE, MIXED, ids).expand(tuple(_tensors([out])[0].shape))


def _convolution(follow: Follow, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> Any:
    source, weight = args[0], args[1]
    if math.prod(weight.shape[2:]) == 1 and source.shape[2:] == out.shape[2:] and source.shape[0] == out.shape[0]:
        return joined(follow._or_none(source), [1], follow.grids).unsqueeze(1).expand(tuple(out.shape))
    if out.ndim == 4 or source.shape[2:] == out.shape[2:]:
        return _gridded(follow, func, args, kwargs, out)
    if all(length == 1 for length in out.shape[2:]):  # a patch a row
        rows = joined(follow._or_none(source), range(1, source.ndim), follow.grids)
        return rows.view(-1, *[1] * (out.ndim - 1)).expand(tuple(out.shape))
    return follow._lose(func, out)


def _gridded(follow: Follow, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> Any:
    """What gives (N, C, h, w): the places of the input where its size stays, else a grid of (h, w)."""
    source, first = args[0], _tensors([out])[0]
    ids = follow._or_none(source)
    plane = joined(ids, [1], follow.grids).unsqueeze(1)  # the same for all channels
    if source.shape[2:] == first.shape[2:] and source.shape[0] == first.shape[0] and bool((plane >= 0).any()):
        return [plane.expand(tuple(first.shape))]
    if first.ndim != 4 or first.shape[0] != source.shape[0]:
        return follow._lose(func, out)
    if bool((ids >= 0).any()) and not bool((plane >= 0).any()):
        return _mixed(follow, func, args, kwargs, out)  # channels that were places
    images = _whole_images(plane, follow.grids)
    if images is None:
        if first.shape[2:] != (1, 1):
            return follow._lose(func, out)  # its last two axes are not those of the image
        rows = joined(ids, range(1, source.ndim), follow.grids)
        return [rows.view(-1, 1, 1, 1).expand(tuple(first.shape))]
    grid = follow.grids.fresh((first.shape[2], first.shape[3]))
    if len(images) != len(grid) or not torch.equal(images, torch.arange(len(grid))):
        grid = grid[images]
    return [grid.expand(tuple(first.shape))] * len(_tensors([out]))


def _whole_images(plane: Tensor, grids: Grids) -> Tensor | None:
    """The number of the image that each row of `plane` (N, 1, h, w) is the whole of, but for padding or a margin that
    was cut off; None where the places are not those of an image."""
    placed = plane >= 0
    if not bool(placed.any()):
        return torch.arange(grids.batch) if len(plane) == grids.batch else None
    number = only_grid(plane[placed])
    if number is None:
        return None
    height, width = grids.size(number)
    cells = torch.where(placed, cell_of(plane), -1)[0, 0]
    middle = [int(line.nonzero().flatten().median()) for line in (cells.amax(1) >= 0, cells.amax(0) >= 0)]
    rows = torch.div(cells[:, middle[1]], width, rounding_mode="floor")
    columns = torch.where(cells[middle[0]] >= 0, cells[middle[0]] % width, -1)
    vertical, horizontal = _span(rows.tolist(), height), _span(columns.tolist(), width)
    if vertical is None or horizontal is None:
        return None
    (top, first, h), (left, start, w) = vertical, horizontal
    inner = plane[:, :, top : top + h, left : left + w]
    images = torch.where(inner[:, 0, 0, 0] >= 0, image_of(inner[:, 0, 0, 0]), 0)
    if (h, w) != (height, width) and not torch.equal(images, torch.arange(grids.batch)):
        return None
    whole = grids.fresh((height, width))[images, :, first : first + h, start : start + w]
    return images if torch.equal(inner, whole) else None


def _span(line: list[int], length: int) -> tuple[int, int, int] | None:
    """Where a line of cell numbers holds 0, 1, ..., length - 1 between cells of padding, or the middle of these:
    (index in the line, its cell, how many); None where it does not."""
    for at in range(len(line) - length + 1):
        if line[at : at + length] == list(range(length)):
            return at, 0, length
    placed = [at for at, cell in enumerate(line) if cell >= 0]
    at, count = placed[0], len(placed)
    first = line[at]
    if line[at : at + count] != list(range(first, first + count)):
        return None
    is_central = abs(2 * first + count - length) <= 1 and 2 * count >= length
    return (at, first, count) if is_central else None


def _unfolded(follow: Follow, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> Any:
    """im2col: (N, C, H, W) to (N, C * k * k, L), windows row by row."""
    if args[0].shape[0] != follow.grids.batch:
        return follow._lose(func, out)
    source, kernel, dilation, padding, stride = args[:5]
    height, width = (
        (source.shape[2 + i] + 2 * padding[i] - dilation[i] * (kernel[i] - 1) - 1) // stride[i] + 1 for i in (0, 1)
    )
    return follow.grids.fresh((height, width)).flatten(2).expand(tuple(out.shape))


def _folded(follow: Follow, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> Any:
    """col2im: overlapping windows added up to (N, C, H, W)."""
    if out.shape[0] != follow.grids.batch:
        return follow._lose(func, out)
    return follow.grids.fresh((out.shape[2], out.shape[3])).expand(tuple(out.shape))


def _mixed(follow: Follow, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> Any:
    return [constant(tensor.shape, MIXED) for tensor in _tensors([out])]


_RULES: dict[str, Rule] = {
    **dict.fromkeys(_VIEWS.split(), _view),
    **dict.fromkeys(_MOVES.split(), _move),
    **dict.fromkeys(_SAME.split(), _same),
    **dict.fromkeys(_REDUCTIONS.split(), _reduction),
    **dict.fromkeys(_FIXED.split(), _nothing),
    **dict.fromkeys(("mm", "bmm", "mv"), _mm),
    **dict.fromkeys(("addmm", "baddbmm", "_addmm_activation"), _addmm),
    **dict.fromkeys(("cat", "stack", "hstack", "vstack", "concat"), _cat),
    "slice": _slice,
    "roll": _roll,
    "constant_pad_nd": _pad,
    "copy_": _copy,
    "convolution": _convolution,
    "_convolution": _convolution,
    "mkldnn_convolution": _convolution,
    "im2col": _unfolded,
    "col2im": _folded,
    "dot": _mixed,
    "_native_multi_head_attention": _attention,
    "_transformer_encoder_layer_fwd": _same,
    **dict.fromkeys(
        ("nan_to_num", "hardswish", "hardtanh", "relu6", "mish", "silu", "gelu", "glu_", "lerp"), _pointwise
    ),
}
_RULES_BY_WORD: tuple[tuple[str, Rule], ...] = (
    ("scaled_dot_product", _attention),
    ("_norm", _same),
    ("rnn_layer", _attention),
    ("linear_pointwise", _linear),
    ("mkldnn_linear", _linear),
    ("reflection_pad", _mirror),
    ("replication_pad", _mirror),
    *((word, _gridded) for word in _GRIDDED),
)
