"""What the page "Ask" asks for: queries of a run's tables, images that a layer takes for similar, units removed.

Queries have a thread of their own; what may need the model waits with the explanations of api.py for one thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
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
from microtome.reports.server.streams import LongWork, Told, telling
from microtome.reports.server.uploads import BODY_BYTES, TOO_LARGE, asked_image, pixels_of

MOST_ROWS, ROWS = 5_000, 200
MOST_NEIGHBORS, NEIGHBORS = 60, 12
MOST_IMAGES, IMAGES = 2_000, 300
MOST_DRAWS, DRAWS = 20, 8
MOST_UNITS, TOP = 100_000, 20
LONGEST_EXPRESSION = 2_000
SIDE = 112
"""The longer side of a neighbour's picture, in pixels."""

_BODY_BYTES = 1_000_000


@dataclass(frozen=True, slots=True)
class Near:
    """Neighbours of an image. about: JSON values: "layer", "metric", "method", "query", "note"; asked: what was asked
    about, (H, W, 3) uint8; rows: JSON values of each neighbour, nearest first, with its picture (None: there is none).
    """

    about: dict[str, Any]
    asked: NDArray[np.uint8] | None
    rows: Sequence[tuple[dict[str, Any], NDArray[np.uint8] | None]]


@dataclass(frozen=True, slots=True)
class Removal:
    """What is to be removed, and how it is measured: `units` of `layer`, or the `top` of them for `concept`; over
    `images` images, beside `draws` random sets of as many units."""

    layer: str
    units: Sequence[int] = ()
    concept: str | None = None
    top: int = TOP
    images: int = IMAGES
    draws: int = DRAWS


class Explorer(Protocol):
    """Questions about one run. `query` may be asked in a thread beside that of the others.

    All raise MicrotomeError for what cannot be done, and AbandonedError once `stop` says so.
    """

    def about(self) -> dict[str, Any]:
        """What can be asked, as JSON values: "neighbors" and "ablate", each with "layers" and "why", the reason why it
        cannot be asked of this run ("" = it can). Opens no model."""
        ...

    def query(self, expression: str, count: int, stop: Stop) -> dict[str, Any]:
        """What `microtome query --json` gives, its first `count` rows, with their "total" and "kind"."""
        ...

    def neighbors(self, image: int | NDArray[np.uint8], layer: str, count: int, metric: str, stop: Stop) -> Near:
        """The nearest images of the run. image: a sample of the run, or (H, W, 3) uint8."""
        ...

    def ablate(self, removal: Removal, stop: Stop, told: Told) -> dict[str, Any]:
        """What each class loses, as `microtome ablate --json` has it."""
        ...


class ExplorerApi:
    """The endpoints of the page; a question has `reading` seconds to come in."""

    def __init__(self, explorer: Explorer, tables: Jobs, model: Jobs, reading: float = READING) -> None:
        self._explorer, self._tables, self._model, self._reading = explorer, tables, model, reading

    def about(self) -> dict[str, Any]:
        """What can be asked, and within which "limits": how many where the asker does not say, and at most."""
        limits = {
            "rows": [ROWS, MOST_ROWS],
            "neighbors": [NEIGHBORS, MOST_NEIGHBORS],
            "images": [IMAGES, MOST_IMAGES],
            "draws": [DRAWS, MOST_DRAWS],
        }
        return {**self._explorer.about(), "limits": limits}

    def routes(self) -> list[Route]:
        """POST query, neighbors, ablate."""
        endpoints = {
            "query": answering(self._tables, self._limits("the run could not be asked"), self._query),
            "neighbors": answering(
                self._model,
                Limits(BODY_BYTES, TOO_LARGE, "neighbours could not be found", self._reading),
                self._neighbors,
            ),
            "ablate": telling(self._model, self._limits("units could not be removed"), self._ablate),
        }
        return [Route(f"/api/{name}", endpoint, methods=["POST"]) for name, endpoint in endpoints.items()]

    def _limits(self, failed: str) -> Limits:
        too_large = f"a question may have at most {_BODY_BYTES // 1_000_000} MB"
        return Limits(_BODY_BYTES, too_large, failed, self._reading)

    def _query(self, asked: dict[str, Any]) -> Work:
        expression, count = name_of(asked, "expression"), _count(asked, "count", ROWS, MOST_ROWS)
        if len(expression) > LONGEST_EXPRESSION:
            raise RefusedError(400, f"an expression has at most {LONGEST_EXPRESSION:,} characters")
        return lambda stop: self._explorer.query(expression, count, stop)

    def _neighbors(self, asked: dict[str, Any]) -> Work:
        layer, image, count = (
            name_of(asked, "layer"),
            asked_image(asked),
            _count(asked, "count", NEIGHBORS, MOST_NEIGHBORS),
        )
        metric = name_of({"metric": "euclidean", **asked}, "metric")

        def work(stop: Stop) -> dict[str, Any]:
            near = self._explorer.neighbors(pixels_of(image), layer, count, metric, stop)
            return {
                **near.about,
                "src": _small(near.asked),
                "neighbors": [{**row, "src": _small(pixels)} for row, pixels in near.rows],
            }

        return work

    def _ablate(self, asked: dict[str, Any]) -> LongWork:
        if ("units" in asked) == ("concept" in asked):
            raise RefusedError(400, "give units of the layer, or a concept whose best units are meant")
        removal = Removal(
            layer=name_of(asked, "layer"),
            units=_units(asked["units"]) if "units" in asked else (),
            concept=name_of(asked, "concept") if "concept" in asked else None,
            top=_count(asked, "top", TOP, MOST_UNITS),
            images=_count(asked, "images", IMAGES, MOST_IMAGES),
            draws=_count(asked, "draws", DRAWS, MOST_DRAWS, least=0),
        )
        return lambda stop, told: self._explorer.ablate(removal, stop, told)


def _count(asked: dict[str, Any], name: str, default: int, most: int, least: int = 1) -> int:
    count = whole_number(asked.get(name, default), name)
    if not least <= count <= most:
        raise RefusedError(400, f"{name} is a whole number from {least} to {most:,}")
    return count


def _units(units: object) -> list[int]:
    if not isinstance(units, list) or not 1 <= len(units) <= MOST_UNITS:
        raise RefusedError(400, f"units is a list of numbers, from 1 to {MOST_UNITS:,} of them")
    return sorted({whole_number(unit, "a unit") for unit in units})


def _small(pixels: NDArray[np.uint8] | None) -> str:
    return data_url(None if pixels is None else at_most(pixels, SIDE))
