"""What explaining an image gives: its classes, what was explained, and the result of each method."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from microtome.dissect.attribution.methods import FILTERS, IMAGE, MAPS, MASK, Method
from microtome.reports.explanations import cut_out, maps_grid, overlay, picture_of, strongest
from microtome.reports.explanations.grids import filters_grid

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Guess:
    """One of a classifier's answers: the number of the class, its name or "", the logit, the softmax probability."""

    number: int
    name: str
    logit: float
    probability: float

    @property
    def text(self) -> str:
        """The name, or the number where there is none."""
        return self.name or f"class {self.number}"


@dataclass(frozen=True)
class Result:
    """What one method gave for one image.

    values: float32, as `Method.gives` says, without the axis of images; None where it does not apply, and `refused`
    says why. layer: which it looked at, None where it looks at none, or at the last that there is; unit: the only one
    that is shown of a layer; remark: what one should know before one believes it, or "".
    """

    method: Method
    values: NDArray[np.float32] | None
    layer: str | None = None
    unit: int | None = None
    refused: str = ""
    remark: str = ""

    def picture(self, image: Pixels) -> Pixels | None:
        """The result drawn, (height, width, 3) uint8, over `image` (H, W, 3) uint8 where it belongs over it."""
        if self.values is None:
            return None
        if self.method.gives == MAPS:
            units = strongest(self.values)
            title = f"{self.layer or ''}: {len(units)} strongest of {len(self.values)}".lstrip(": ")
            return np.asarray(maps_grid(self.values, units, title, first=self.unit or 0), np.uint8)
        if self.method.gives == FILTERS:
            return np.asarray(filters_grid(self.values, self.layer or "", first=self.unit or 0), np.uint8)
        if self.method.gives == IMAGE:
            return picture_of(self.values)
        if self.method.gives == MASK:
            return cut_out(image, self.values)
        return overlay(image, self.values, signed=self.method.signed)


@dataclass(frozen=True)
class Explained:
    """One image, explained.

    name: of the image; image: (H, W, 3) uint8, as the model sees it, without pixels where it could not be read: `error`
    says why. classes: the classifier's answers, most probable first, none for a model that is no classifier. target:
    the class that was explained, None for a unit; score: its logit, or the unit's value; results by method.
    """

    name: str
    image: Pixels
    classes: tuple[Guess, ...] = ()
    target: Guess | None = None
    layer: str | None = None
    unit: int | None = None
    score: float | None = None
    results: Mapping[str, Result] = field(default_factory=dict)
    error: str = ""

    @property
    def subject(self) -> str:
        """What was explained, in words."""
        if self.unit is not None:
            return f"unit {self.unit} of {self.layer}"
        return self.target.text if self.target is not None else ""
