"""Live actions that wait for torch only when something is asked of the model: pages are served at once."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from microtome.reports.server.actions import Methods, Picture, Stop, Subject
from microtome.reports.server.exploring import Near, Removal
from microtome.reports.server.generation import Areas, Edits
from microtome.reports.server.streams import Told
from microtome.storage.run import Run

if TYPE_CHECKING:
    from microtome.dissect.live.actions import LiveActions
    from microtome.dissect.live.exploring import LiveExplorer
    from microtome.dissect.live.generation import LiveGenerator
    from microtome.dissect.live.opened import OpenedRun
    from microtome.dissect.live.queries import Queries
    from microtome.dissect.live.unit_tables import UnitTables


class OnDemand:
    """`LiveActions` on a finished run, loaded at the first question. device: see `OpenedRun`, checked at once."""

    def __init__(self, run: Run, device: str | None = None) -> None:
        self.run, self._device = run, device
        if device is not None:
            _ = self.opened

    @cached_property
    def opened(self) -> OpenedRun:
        """The run's model and images, for all that need them."""
        from microtome.dissect.live.opened import OpenedRun

        return OpenedRun(self.run, self._device)

    @cached_property
    def _live(self) -> LiveActions:
        from microtome.dissect.live.actions import LiveActions

        return LiveActions(self.opened)

    def hello(self) -> dict[str, Any]:
        """What can be asked for: "layers" whose units can be explained (not directions, nothing of a generator), names
        of "classes"."""
        generates = "generator" in self.run.info["model"]
        layers = [layer["name"] for layer in self.run.info["layers"] if "readout" not in layer and not generates]
        return {"layers": layers, "visualise": True, "classes": list(self.run.info["model"]["class_names"])}

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


class ExplorerOnDemand:
    """`Queries` and `LiveExplorer` on a finished run, loaded at the first question. The model and the images are those
    that `actions` opens: one of each, whoever asks first."""

    def __init__(self, actions: OnDemand) -> None:
        self._actions = actions

    @cached_property
    def _queries(self) -> Queries:
        from microtome.dissect.live.queries import Queries

        return Queries(self._actions.run)

    @cached_property
    def _live(self) -> LiveExplorer:
        from microtome.dissect.live.exploring import LiveExplorer

        return LiveExplorer(self._actions.opened)

    def about(self) -> dict[str, Any]:
        """What can be asked: of "neighbors" and "ablate" the "layers" and "why" not ("" = it can); number of "samples";
        why no images of one's own can be sent ("uploads")."""
        info = self._actions.run.info
        layers = info["layers"]
        generates = "generator" in info["model"]
        removable = [layer for layer in layers if layer.get("readout", {}).get("kind") != "encoder"]
        no_classes = "The model is a generator: it has no classes. Its units are edited on the page Edit."
        own = "The model is a generator: it takes latents, no images of yours."
        return {
            "samples": info["data"]["samples"],
            "neighbors": {
                "why": "",
                "uploads": own if generates else "",
                "layers": [layer["name"] for layer in layers],
            },
            "ablate": {
                "why": no_classes if generates else "",
                "layers": [{"name": layer["name"], "units": layer["units"]} for layer in removable if not generates],
            },
        }

    def query(self, expression: str, count: int, stop: Stop) -> dict[str, Any]:
        """The first rows of what `microtome query` finds."""
        return self._queries.query(expression, count, stop)

    def neighbors(self, image: int | NDArray[np.uint8], layer: str, count: int, metric: str, stop: Stop) -> Near:
        """The nearest images of the run."""
        return self._live.neighbors(image, layer, count, metric, stop)

    def ablate(self, removal: Removal, stop: Stop, told: Told) -> dict[str, Any]:
        """What each class loses."""
        return self._live.ablate(removal, stop, told)


class GeneratorOnDemand:
    """What the page of a run's generator asks for: `LiveGenerator` is loaded at the first picture."""

    def __init__(self, run: Run, device: str | None = None) -> None:
        self._run, self._device = run, device

    @cached_property
    def _live(self) -> LiveGenerator:
        from microtome.dissect.live.generation import LiveGenerator

        return LiveGenerator(self._run, self._device)

    @property
    def _tables(self) -> UnitTables:
        """Of the run as it is now: a ranking may have been added to it."""
        from microtome.dissect.live.unit_tables import UnitTables

        return UnitTables(Run.open(self._run.place))

    def about(self) -> dict[str, Any]:
        """What can be edited: "layers" (name, units, grid), "size" (H, W) of images, "first_seed" and "last_seed"
        (None: any), whether there is a "segmenter"."""
        info = self._run.info
        generator = info["model"]["generator"]
        layers = [
            {"name": layer["name"], "units": layer["units"], "grid": layer["grid"]}
            for layer in info["layers"]
            if "readout" not in layer
        ]
        first = re.search(r"[?&]seed=(\d+)", info["data"]["spec"])
        return {
            "spec": info["model"]["spec"],
            "layers": layers,
            "size": generator["size"],
            "first_seed": int(first[1]) if first else 0,
            "last_seed": None if generator["latent_shape"] is not None else info["data"]["samples"] - 1,
            "segmenter": "segmenter" in info,
        }

    def units(self, layer: str) -> dict[str, Any]:
        """The units of a layer, by the run's tables."""
        return self._tables.units(layer)

    def ranking(self, layer: str, concept: int, by: str) -> Sequence[tuple[int, float]]:
        """Unit and score, best first."""
        return self._tables.ranking(layer, concept, by)

    def picture(self, seed: int, edits: Edits, stop: Stop) -> NDArray[np.uint8]:
        """The image of a seed under edits, (H, W, 3)."""
        return self._live.picture(seed, edits, stop)

    def areas(self, seed: int, edits: Edits, stop: Stop) -> Areas:
        """What the run's segmenter sees in it without and with the edits."""
        return self._live.areas(seed, edits, stop)

    def recipe(self, edits: Edits, seeds: Sequence[int]) -> dict[str, Any]:
        """The recipe of edits, as its file has it."""
        return self._live.recipe(edits, seeds)

    def read_recipe(self, recipe: Mapping[str, Any]) -> tuple[Edits, Sequence[int]]:
        """Edits and seeds of a recipe that somebody brings."""
        return self._live.read_recipe(recipe)
