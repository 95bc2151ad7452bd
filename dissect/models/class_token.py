"""NAME:cls, the class token of a layer of tokens: its features as units without a grid.

The class token is the one token that stands for no place of the image. Where there are several (registers, a token for
distillation) it is the first of them, provided that the model has a parameter that is called its class token.
"""

from __future__ import annotations

import re
from dataclasses import replace

from torch import nn

from microtome.dissect.models.layouts import Layout, UnresolvedError
from microtome.dissect.models.places import CLASS_TOKEN, Place

_SUFFIX = f":{CLASS_TOKEN}"
_CLASS_NAME = re.compile(r"(cls|class)_?(token|embed)", re.IGNORECASE)
_REGISTER_NAME = re.compile(r"reg(ister)?s?_?(token|embed)", re.IGNORECASE)


def base_of(name: str) -> str | None:
    """The layer whose class token `name` is, None where it names none."""
    return name.removesuffix(_SUFFIX) if name.endswith(_SUFFIX) and name != _SUFFIX else None


def class_token(place: Place, module: nn.Module) -> Place:
    """The class token in the tensor at `place` of the model `module`. Raises UnresolvedError where there is none."""
    if place.kind:
        raise UnresolvedError("is inside an attention, where a class token is a query or a key; take one of a module")
    layout = place.layout
    if layout.grid == (1, 1):
        raise UnresolvedError("gives one vector an image and no tokens; take the layer itself")
    others = sorted(set(range(layout.positions)) - set(layout.order))
    if not others:
        height, width = layout.grid
        raise UnresolvedError(
            f"has no class token: it gives {height}x{width} positions of the image and nothing beside"
        )
    row = _class_row(others, module, windows=layout.fold > 1)
    single = Layout(layout.fold, layout.shape, layout.features, (1, 1), (row,), "the class token")
    return replace(place, layout=single, kind=CLASS_TOKEN)


def _class_row(others: list[int], module: nn.Module, *, windows: bool) -> int:
    """Which of the tokens without a place is the class token."""
    if windows:
        raise UnresolvedError("has no class token of the whole image: its tokens lie in windows")
    names = [name.rpartition(".")[2] for name, _ in module.named_parameters()]
    has_class = any(_CLASS_NAME.search(name) for name in names)
    if len(others) == 1 and (has_class or not any(_REGISTER_NAME.search(name) for name in names)):
        return others[0]
    if has_class:
        return others[0]
    if len(others) == 1:
        raise UnresolvedError("has a register beside the patches, and no class token")
    raise UnresolvedError(
        f"has {len(others)} tokens beside the patches, and the model does not say that the first is a class token "
        "(by a parameter called cls_token or class_token)"
    )
