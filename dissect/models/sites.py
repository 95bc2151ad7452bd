"""Where in a forward pass the units of a layer lie, to change them there.

site = site_of(model, "layer4")
keep = torch.ones(len(images), site.units); keep[:, 17] = 0
with site.replacing(lambda raw: raw * site.spread(keep)):
    logits = model.module(images)  # as the network answers without unit 17
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from torch import Tensor, nn

from microtome.dissect.models.layers import describe_layers
from microtome.dissect.models.model import Model

Replace = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Site:
    """The place of one layer. units: how many it has, C."""

    model: Model
    name: str
    units: int

    def spread(self, values: Tensor) -> Tensor:
        """`values` (B, C), one for each image and unit, in a shape that broadcasts against the raw tensor here."""
        return values[:, :, None, None]

    @contextmanager
    def replacing(self, replace: Replace) -> Iterator[None]:
        """While open, the raw tensor that holds the units goes on as `replace(raw)`, in every forward pass."""

        def hook(module: nn.Module, inputs: object, output: object) -> object:
            return replace(output) if isinstance(output, Tensor) else output

        handle = self.model.module.get_submodule(self.name).register_forward_hook(hook)
        try:
            yield
        finally:
            handle.remove()


def site_of(model: Model, name: str) -> Site:
    """The site of layer `name` (resolved). Raises UnknownNameError."""
    (info,) = describe_layers(model, [name])
    return Site(model, name, info.units)
