"""The methods by name: where each is, what it gives, whom it is from. Known without torch.

`attribute("grad-cam", model, images, target, layer)` calls one by its name.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from microtome.storage.errors import UnknownNameError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from microtome.dissect.attribution.subject import Target
    from microtome.dissect.models import Model

MAP, IMAGE, MASK, MAPS, FILTERS = "map", "image", "mask", "maps", "filters"
"""What a method gives: (B, H, W); (B, 3, H, W), signed; (B, H, W) of 0 and 1; (B, C, h, w); weights (C, D, h, w)."""

_ROOM = "microtome.dissect.attribution"


@dataclass(frozen=True)
class Method:
    """One way to look into a network.

    function: MODULE:FUNCTION in this room; gives: one of MAP, IMAGE, MASK, MAPS, FILTERS; scored: whether it explains
    a class or a unit (the others show a layer, or what the network attends to); signed: below 0 speaks against;
    layer: whether it looks at a layer of its own, which it chooses where none is given.
    """

    name: str
    function: str
    gives: str
    scored: bool = True
    signed: bool = False
    layer: bool = False
    paper: str = ""

    def load(self) -> Callable[..., Tensor]:
        """The function `(model, images, target, layer, **options)`."""
        module, _, name = self.function.partition(":")
        found: Callable[..., Tensor] = getattr(import_module(f"{_ROOM}.{module}"), name)
        return found


_LISTED = (
    Method("filters", "filters:filters", FILTERS, scored=False, signed=True, layer=True),
    Method("activations", "activations:activations", MAPS, scored=False, layer=True),
    Method("saliency", "gradients:saliency", MAP, paper="Simonyan et al., 2014"),
    Method("gradient-x-input", "gradients:gradient_x_input", IMAGE, signed=True, paper="Shrikumar et al., 2016"),
    Method("smoothgrad", "gradients:smoothgrad", IMAGE, signed=True, paper="Smilkov et al., 2017"),
    Method(
        "integrated-gradients", "gradients:integrated_gradients", IMAGE, signed=True, paper="Sundararajan et al., 2017"
    ),
    Method("grabcut", "grabcut:grabcut", MASK, paper="Simonyan et al., 2014; Rother et al., 2004"),
    Method("deconvnet", "rectifiers:deconvnet", IMAGE, signed=True, paper="Zeiler and Fergus, 2014"),
    Method("guided-backprop", "rectifiers:guided_backprop", IMAGE, signed=True, paper="Springenberg et al., 2015"),
    Method("occlusion", "occlusion:occlusion", MAP, signed=True, paper="Zeiler and Fergus, 2014"),
    Method("cam", "cams:cam", MAP, signed=True, paper="Zhou et al., 2016"),
    Method("grad-cam", "cams:grad_cam", MAP, layer=True, paper="Selvaraju et al., 2017"),
    Method("grad-cam++", "cams:grad_cam_plus_plus", MAP, layer=True, paper="Chattopadhyay et al., 2018"),
    Method("guided-grad-cam", "cams:guided_grad_cam", IMAGE, signed=True, layer=True, paper="Selvaraju et al., 2017"),
    Method("attention", "attention:attention", MAP, scored=False, layer=True, paper="Vaswani et al., 2017"),
    Method("rollout", "attention:rollout", MAP, scored=False, paper="Abnar and Zuidema, 2020"),
    Method("grad-attention", "attention:grad_attention", MAP, layer=True, paper="Chefer et al., 2021"),
)

METHODS = {method.name: method for method in _LISTED}
"""Every method by its name."""


def method_of(name: str) -> Method:
    """The method called `name`. Raises UnknownNameError."""
    if name not in METHODS:
        raise UnknownNameError("method", name, METHODS)
    return METHODS[name]


def attribute(
    name: str, model: Model | nn.Module, images: Tensor, target: Target = None, layer: str | None = None, **options: Any
) -> Tensor:
    """What the method `name` gives. Raises UnknownNameError, and DoesNotApplyError where it has no meaning there."""
    return method_of(name).load()(model, images, target, layer, **options)
