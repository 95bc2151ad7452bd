"""What a server can have done for it: live actions, handed in by whoever knows models."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

Stop: TypeAlias = Callable[[], bool]
"""Asked between two passes of the model: whether nobody waits for the answer any more."""


class AbandonedError(Exception):
    """Raised by an action that was told to stop."""


@dataclass(frozen=True, slots=True)
class Subject:
    """What is explained: unit `unit` of `layer`, or class `class_number` of the model; the other is None."""

    layer: str | None = None
    unit: int | None = None
    class_number: int | None = None


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture (H, W, 3) uint8 RGB, None where a method gave none, and what is said of it."""

    caption: str
    pixels: NDArray[np.uint8] | None = None


@dataclass(frozen=True, slots=True)
class Methods:
    """Names of the methods that apply to a subject; refused: name and reason of those that do not."""

    names: Sequence[str]
    refused: Sequence[tuple[str, str]]


class Actions(Protocol):
    """Live actions on one run: one at a time, in any thread. They raise MicrotomeError for what cannot be done, and
    AbandonedError once `stop` says so."""

    def hello(self) -> dict[str, Any]:
        """What can be asked for, as JSON values: "layers" whose units can be explained. Opens no model."""
        ...

    def methods(self, subject: Subject, stop: Stop) -> Methods:
        """Which methods apply."""
        ...

    def explain(
        self, subject: Subject, methods: Sequence[str], image: int | NDArray[np.uint8], stop: Stop
    ) -> Sequence[Picture]:
        """The image as the model sees it, then a picture a method. image: a sample of the run, or (H, W, 3) uint8."""
        ...

    def visualise(self, subject: Subject, seed: int, stop: Stop) -> Sequence[Picture]:
        """An image synthesised for the subject."""
        ...
