"""How one method is called: its options, and the layer that it looks at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn

from microtome.dissect.attribution.gradients import Integrated, integrate
from microtome.dissect.attribution.methods import MAPS, Method
from microtome.dissect.models import Model
from microtome.storage.errors import DoesNotApplyError, UnknownNameError

OF_MAPS = frozenset({"grad-cam", "grad-cam++", "guided-grad-cam"})
"""Methods that weigh the maps of one layer, the same for all of them."""

CHOOSING = OF_MAPS | {"activations"}
"""Methods that look at the layer `choosing.default_layer` where none is given."""

BY_IMAGE = OF_MAPS | {"grabcut", "grad-attention"}
"""Methods that may apply to one image and not to another; a model that others do not apply to is asked once."""

ATTENTION = frozenset({"attention", "rollout", "grad-attention"})
"""Methods that look at the layer `attention.attention_layer` where none is given."""

INTEGRATED = "integrated-gradients"
INCOMPLETE, ROUNDING = 0.05, 1e-6
"""From what share of the change in score, and from what number, a sum of integrated gradients is said to be off."""

EACH = "each"
"""A head of attention: all of them, each for itself."""


@dataclass(frozen=True)
class Call:
    """A method with all that it is told but the images. looked_at: the layer it looks at, where that is known."""

    asked: Method
    layer: str | None
    looked_at: str | None
    options: Mapping[str, Any]

    @property
    def _by_head(self) -> bool:
        return self.options.get("head") == EACH

    @property
    def method(self) -> Method:
        """The method, with what it gives when it is called so."""
        return replace(self.asked, gives=MAPS) if self._by_head else self.asked

    def run(self, model: Model, images: Tensor, targets: Tensor | None) -> tuple[Tensor, list[str]]:
        """What the method gives, and what should be known of each image's result, "" where nothing.

        Raises DoesNotApplyError, also where the layer is none that it could look at.
        """
        function, options = self.asked.load(), dict(self.options)
        if self._by_head:
            from microtome.dissect.attribution.attention import attention_heads

            function = attention_heads
            del options["head"]
        try:
            if self.asked.name == INTEGRATED:
                found = integrate(model, images, targets, self.layer, **options)
                return found.attribution, _incomplete(found)
            return function(model, images, targets, self.layer, **options), [""] * len(images)
        except UnknownNameError as error:
            if error.name != self.layer:
                raise
            raise DoesNotApplyError(self.asked.name, f"layer {self.layer} is none that it looks at") from error


def _incomplete(found: Integrated) -> list[str]:
    """How far the sum of each attribution is off the change in score, where that is far."""
    said = []
    for error, change in zip(found.error.tolist(), found.change.tolist(), strict=True):
        far = abs(error) > max(INCOMPLETE * abs(change), ROUNDING)
        said.append(f"its sum is {error:+.2g} off the change in score ({change:.2g}); give more steps" if far else "")
    return said


def first_convolution(module: nn.Module) -> str | None:
    """The name of the convolution whose filters are shown where no layer is given."""
    kinds = (nn.Conv2d, nn.ConvTranspose2d)
    return next((name for name, each in module.named_modules() if isinstance(each, kinds)), None)
