"""How images are made: the settings of ascent and of dreams. Known without torch."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from typing import Any

from microtome.storage.errors import UnknownNameError, UsageError

FOURIER, PIXELS = "fourier", "pixels"
MEAN, CENTRE = "mean", "centre"


def check_numbers(settings: Any, least: dict[str, int], floor: float) -> None:
    """Raise UsageError for a number below its least value, or one that is not finite."""
    for field in fields(settings):
        value = getattr(settings, field.name)
        if value is None or isinstance(value, str):
            continue
        low = least.get(field.name, floor)
        if not math.isfinite(value) or value < low or (field.name in least and value != int(value)):
            raise UsageError(
                f"{field.name} is {value}; expected {'a whole number' if low else 'a number'}, {low} or more"
            )


@dataclass(frozen=True)
class Settings:
    """How an image of a unit or a class is made. Raises UsageError for values that make no sense.

    steps: of ascent. size: side of the picture in pixels, None = as the model takes it.
    parametrisation: "fourier", a spectrum with decorrelated colours and Adam's steps (Olah et al., 2017), or "pixels",
    plain steps along the gradient (Simonyan et al., 2014). rate: the length of a step.
    jitter: shifts of up to this share of the side; scale: sizes of up to this share more or less; rotation: degrees to
    either side; all drawn anew for each step. l2, tv: weights of the regularisers against a gradient of mean square 1.
    at: a unit is driven in the "mean" over its map, or in the "centre" of it. batch: images at a time.
    """

    steps: int = 160
    size: int | None = None
    parametrisation: str = FOURIER
    rate: float = 0.08
    jitter: float = 0.07
    scale: float = 0.1
    rotation: float = 8.0
    l2: float = 0.0
    tv: float = 0.1
    at: str = MEAN
    batch: int = 16

    def __post_init__(self) -> None:
        if self.parametrisation not in (FOURIER, PIXELS):
            raise UnknownNameError("parametrisation", self.parametrisation, (FOURIER, PIXELS))
        if self.at not in (MEAN, CENTRE):
            raise UnknownNameError("place to drive a unit in", self.at, (MEAN, CENTRE))
        check_numbers(self, {"steps": 1, "size": 8, "batch": 1}, 0.0)
        if self.scale >= 1 or self.jitter >= 1:
            raise UsageError(f"jitter {self.jitter} and scale {self.scale} are shares of the side, below 1")

    def to_dict(self) -> dict[str, object]:
        """A JSON-ready dict."""
        return asdict(self)


TEXTBOOK = Settings(parametrisation=PIXELS, rate=0.02, jitter=0.0, scale=0.0, rotation=0.0, l2=0.1, tv=0.0)
"""The plain form: ascent on the pixels from almost nothing, held back by their square alone (Simonyan et al., 2014)."""


@dataclass(frozen=True)
class DreamSettings:
    """How a network dreams over an image (Mordvintsev et al., 2015). Raises UsageError for values that make no sense.

    octaves: sizes that are worked on, the largest that of the image; octave_scale: from one to the next. steps: of
    ascent in each. rate: by how much a step changes a value in [0, 1], on average. tile: side of what passes through
    the network at once, in pixels, None = the model's own; batch: tiles at a time.
    """

    steps: int = 10
    octaves: int = 4
    octave_scale: float = 1.4
    rate: float = 0.006
    tile: int | None = None
    batch: int = 4

    def __post_init__(self) -> None:
        check_numbers(self, {"steps": 1, "octaves": 1, "tile": 8, "batch": 1}, 0.0)
        if self.octave_scale <= 1:
            raise UsageError(f"octave_scale is {self.octave_scale}: each octave is larger than the one before; above 1")

    def to_dict(self) -> dict[str, object]:
        """A JSON-ready dict."""
        return asdict(self)
