"""What the page of a generator asks for: images of seeds under edits, units by concept, areas, recipes.

Three lines of work stand side by side, so that a slider waits neither for an explanation nor for the segmenter:
explanations (api.py), pictures, and areas.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from microtome.reports.server.actions import Stop
from microtome.reports.server.jobs import Jobs
from microtome.reports.server.questions import (
    READING,
    Limits,
    RefusedError,
    Work,
    answering,
    at_most,
    data_url,
    name_of,
    whole_number,
)

MOST_EDITS = 200
MOST_CELLS = 1 << 22
"""Cells of the grids of all regions together."""

MOST_SEEDS = 10_000
LAST_SEED = 2**53 - 1
"""The largest whole number that a page tells from its neighbours."""

_BODY_BYTES = 4_000_000
_LARGEST_SIDE = 1024

Edits: TypeAlias = Sequence[Mapping[str, Any]]
"""Edits as a recipe has them, JSON values; whoever applies them checks them."""


@dataclass(frozen=True, slots=True)
class Areas:
    """What a segmenter sees in an image before and after edits.

    names: of K concepts; before, after: (K,) share of the image's pixels of each; maps_before, maps_after: (P, H, W)
    int64, which concept lies where, -1 = none
    """

    names: Sequence[str]
    before: NDArray[np.float64]
    after: NDArray[np.float64]
    maps_before: NDArray[np.int64]
    maps_after: NDArray[np.int64]


class GeneratorActions(Protocol):
    """Live actions on the generator of a run. `picture` and `areas` may be asked at the same time, in two threads.

    All raise MicrotomeError for what cannot be done; `picture` and `areas` AbandonedError once `stop` says so.
    """

    def about(self) -> dict[str, Any]:
        """What can be edited, as JSON values: "spec", "layers", "size", "first_seed", "last_seed", "segmenter".

        Opens no model."""
        ...

    def units(self, layer: str) -> dict[str, Any]:
        """The units of a layer: their "top" values, "labels", "states", and the "concepts" that they are ranked for."""
        ...

    def ranking(self, layer: str, concept: int, by: str) -> Sequence[tuple[int, float]]:
        """Unit and score, best first."""
        ...

    def picture(self, seed: int, edits: Edits, stop: Stop) -> NDArray[np.uint8]:
        """The image of a seed under edits, (H, W, 3)."""
        ...

    def areas(self, seed: int, edits: Edits, stop: Stop) -> Areas:
        """What a segmenter sees in it without and with the edits."""
        ...

    def recipe(self, edits: Edits, seeds: Sequence[int]) -> dict[str, Any]:
        """The recipe of edits, as its file has it."""
        ...

    def read_recipe(self, recipe: Mapping[str, Any]) -> tuple[Edits, Sequence[int]]:
        """Edits and seeds of a recipe that somebody brings."""
        ...


class GenerationApi:
    """The endpoints of the page of a generator; a question has `reading` seconds to come in."""

    def __init__(self, actions: GeneratorActions, pictures: Jobs, areas: Jobs, reading: float = READING) -> None:
        self._actions, self._pictures, self._areas = actions, pictures, areas
        too_large = f"edits may have at most {_BODY_BYTES // 1_000_000} MB; give regions on a coarser grid"
        self._limits = Limits(_BODY_BYTES, too_large, "the image could not be made", reading)

    def routes(self) -> list[Route]:
        """GET generator; POST units, ranking, generate, areas, recipe, edits."""
        posts = {
            "units": (self._units, self._pictures),
            "ranking": (self._ranking, self._pictures),
            "generate": (self._generate, self._pictures),
            "areas": (self._seen, self._areas),
            "recipe": (self._recipe, self._pictures),
            "edits": (self._read, self._pictures),
        }
        routes = [
            Route(f"/api/{name}", answering(jobs, self._limits, work), methods=["POST"])
            for name, (work, jobs) in posts.items()
        ]
        return [Route("/api/generator", self._about, methods=["GET"]), *routes]

    async def _about(self, request: Request) -> Response:
        return JSONResponse({"schema_version": 1, "most_edits": MOST_EDITS, **self._actions.about()})

    def _units(self, asked: dict[str, Any]) -> Work:
        layer = name_of(asked, "layer")
        return lambda stop: self._actions.units(layer)

    def _ranking(self, asked: dict[str, Any]) -> Work:
        layer, by, concept = (
            name_of(asked, "layer"),
            name_of(asked, "by"),
            whole_number(asked.get("concept"), "concept"),
        )
        return lambda stop: {"units": [list(pair) for pair in self._actions.ranking(layer, concept, by)]}

    def _generate(self, asked: dict[str, Any]) -> Work:
        seed, edits, side = whole_number(asked.get("seed"), "seed", LAST_SEED), _edits(asked), _side(asked)

        def work(stop: Stop) -> dict[str, Any]:
            begun = time.perf_counter()
            shown = data_url(at_most(self._actions.picture(seed, edits, stop), side))
            return {"seed": seed, "picture": shown, "seconds": round(time.perf_counter() - begun, 4)}

        return work

    def _seen(self, asked: dict[str, Any]) -> Work:
        seed, edits = whole_number(asked.get("seed"), "seed", LAST_SEED), _edits(asked)
        return lambda stop: _areas(self._actions.areas(seed, edits, stop))

    def _recipe(self, asked: dict[str, Any]) -> Work:
        edits, seeds = _edits(asked), asked.get("seeds")
        if not isinstance(seeds, list) or not 1 <= len(seeds) <= MOST_SEEDS:
            raise RefusedError(400, f"seeds is a list of 1 to {MOST_SEEDS:,} whole numbers")
        numbers = [whole_number(seed, "each of the seeds", LAST_SEED) for seed in seeds]
        return lambda stop: {"recipe": self._actions.recipe(edits, numbers)}

    def _read(self, asked: dict[str, Any]) -> Work:
        recipe = asked.get("recipe")
        if not isinstance(recipe, dict):
            raise RefusedError(400, "the recipe is no JSON object; bring a file that this page or microtome has made")
        _edits(recipe)

        def work(stop: Stop) -> dict[str, Any]:
            edits, seeds = self._actions.read_recipe(recipe)
            return {"edits": list(edits), "seeds": list(seeds)}

        return work


def _edits(asked: Mapping[str, Any]) -> Edits:
    edits = asked.get("edits", [])
    if not isinstance(edits, list) or not all(isinstance(edit, dict) for edit in edits):
        raise RefusedError(400, "edits is a list of objects, each with layer, units and values")
    if len(edits) > MOST_EDITS:
        raise RefusedError(400, f"there are {len(edits):,} edits; at most {MOST_EDITS} are applied at once")
    cells = sum(_cells(edit.get("region")) for edit in edits)
    if cells > MOST_CELLS:
        raise RefusedError(
            400, f"the regions have {cells:,} cells; at most {MOST_CELLS:,} are taken, so make them coarser"
        )
    return edits


def _cells(region: object) -> int:
    """How many cells the grid of a region says it has, 0 where it says nothing of the kind."""
    grid = region.get("grid") if isinstance(region, dict) else None
    if not isinstance(grid, list) or not all(isinstance(side, int) and side > 0 for side in grid):
        return 0
    return math.prod(grid[:2])


def _side(asked: Mapping[str, Any]) -> int | None:
    """The longer side that the picture is shrunk to, None = as large as it is."""
    if "side" not in asked:
        return None
    side = whole_number(asked["side"], "side")
    if not 1 <= side <= _LARGEST_SIDE:
        raise RefusedError(400, f"side is a number of pixels from 1 to {_LARGEST_SIDE}")
    return side


def _areas(areas: Areas) -> dict[str, Any]:
    rows = zip(areas.names, areas.before.tolist(), areas.after.tolist(), strict=True)
    return {
        "concepts": [{"name": name, "before": before, "after": after} for name, before, after in rows],
        "planes": len(areas.maps_before),
        "maps": [_ids(areas.maps_before), _ids(areas.maps_after)],
    }


def _ids(maps: NDArray[np.int64]) -> str:
    """Maps (P, H, W), one below the other, as a PNG of id + 1: its low byte is red, its high byte green."""
    ids = maps.reshape(-1, maps.shape[2]) + 1
    return data_url(np.stack([ids % 256, ids // 256, np.zeros_like(ids)], axis=2).astype(np.uint8))
