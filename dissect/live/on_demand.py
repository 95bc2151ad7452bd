"""Live actions that wait for torch only when something is asked of the model: pages are served at once."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from microtome.reports.server.actions import Methods, Picture, Stop, Subject
from microtome.storage.run import Run

if TYPE_CHECKING:
    from microtome.dissect.live.actions import LiveActions


class OnDemand:
    """`LiveActions` on a finished run, loaded at the first question. device: see `OpenedRun`, checked at once."""

    def __init__(self, run: Run, device: str | None = None) -> None:
        self._run, self._device = run, device
        if device is not None:
            _ = self._live

    @cached_property
    def _live(self) -> LiveActions:
        from microtome.dissect.live.actions import LiveActions

        return LiveActions(self._run, self._device)

    def hello(self) -> dict[str, Any]:
        """What can be asked for: "layers" whose units can be explained (not directions), names of "classes"."""
        layers = [layer["name"] for layer in self._run.info["layers"] if "readout" not in layer]
        return {"layers": layers, "visualise": True, "classes": list(self._run.info["model"]["class_names"])}

    def methods(self, subject: Subject, stop: Stop) -> Methods:
        """Which methods apply."""
        return self._live.methods(subject, stop)

    def explain(
        self, subject: Subject, methods: Sequence[str], image: int | NDArray[np.uint8], stop: Stop
    ) -> Sequence[Picture]:
        """The image as the model sees it, then a picture or a refusal a method."""
        return self._live.explain(subject, methods, image, stop)

    def visualise(self, subject: Subject, seed: int, stop: Stop) -> Sequence[Picture]:
        """An image synthesised for the subject."""
        return self._live.visualise(subject, seed, stop)
