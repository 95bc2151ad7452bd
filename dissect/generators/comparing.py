"""Rankings of a layer side by side: what is removed of a concept by the 1, 2, 4, ... best units of each.

Measured with the segmenter, on fresh latents, beside random sets of as many units of the layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from microtome.dissect.ablation.sets import file_name
from microtome.dissect.audit.precision import arithmetic
from microtome.dissect.audit.progress import progress
from microtome.dissect.generators.choosing import doses_of
from microtome.dissect.generators.edits import ablation
from microtome.dissect.generators.effects import (
    Paired,
    Removed,
    label_ids,
    paired,
    removed,
    removed_on_average,
    segmenter_of_run,
)
from microtome.dissect.generators.figures import share_told
from microtome.dissect.generators.generator import generator_of_run
from microtome.dissect.generators.ranking import rankings
from microtome.dissect.generators.seeds import fresh_seeds
from microtome.dissect.models.segmenters import Segmenter
from microtome.reports.ranking_plot import draw_rankings
from microtome.storage.errors import UsageError
from microtome.storage.files import json_bytes
from microtome.storage.run import RANKINGS, Run

SCHEMA_VERSION = 1
SAMPLES, DRAWS = 64, 2
HALF = 0.5


@dataclass(frozen=True)
class Comparison:
    """One concept's rankings compared: `result` as it stands in RUN/rankings/NAME.json, its key and the plot's."""

    result: dict[str, Any]
    key: str
    plot: str


def compare_rankings(
    run: Run,
    layer: str,
    concepts: Sequence[str],
    by: Sequence[str],
    *,
    samples: int = SAMPLES,
    draws: int = DRAWS,
    seed: int = 0,
) -> list[Comparison]:
    """What the best units of `layer` by each ranking remove of each concept, and random ones; kept in RUN/rankings/.

    The rankings have to be there. samples: fresh latents; draws: random sets of each size, from `seed`. Raises
    UsageError for fewer than 2 latents, and where a concept is in none of their images.
    """
    if samples < 2 or draws < 0:
        raise UsageError(f"--samples {samples} --draws {draws}: give at least 2 latents, and 0 or more random sets")
    units = run.layer(layer)["units"]
    generator = generator_of_run(run)
    segmenter = segmenter_of_run(run, generator.device)
    seeds = fresh_seeds(run, generator, samples)
    doses = doses_of(units)
    ranked = {(concept, name): rankings(run, layer, concept, name) for concept in concepts for name in by}
    dice = [np.random.default_rng([seed, draw]).permutation(units) for draw in range(draws)]
    orders = [*ranked.values(), *dice]
    edits = [[ablation(layer, order[:dose].tolist())] for order in orders for dose in doses]
    total = len(seeds.numbers) * (1 + len(edits))
    with progress("compare", total, "images") as shown, arithmetic("float32", generator.device):
        found = paired(generator, segmenter, seeds.numbers, edits, advance=shown.advance)
    after = found.after.reshape(len(orders), len(doses), *found.before.shape)
    comparisons = []
    for concept in concepts:
        rows = {name: after[list(ranked).index((concept, name))] for name in by}
        label = label_ids(segmenter, concept)
        curves = _curves(Paired(found.before, after[len(ranked) :]), rows, label, doses)
        result = {
            "schema_version": SCHEMA_VERSION,
            "layer": layer,
            "concept": concept,
            **seeds.told,
            "draws": draws,
            "seed": seed,
            "area": _area(found.before, segmenter, concept),
            "doses": doses,
            "curves": curves,
            "more_than_iou": _more_than_iou(found.before, rows, label, doses),
            "half": {name: units_for(points, HALF) for name, points in curves.items()},
        }
        comparisons.append(_write(run, result))
    return comparisons


def units_for(points: Sequence[dict[str, Any]], share: float) -> int | None:
    """The fewest units on a curve that remove `share` of the concept or more; None where none do."""
    return next(
        (point["units"] for point in points if point["removed"] is not None and point["removed"] >= share), None
    )


def _curves(
    random: Paired, ranked: dict[str, NDArray[np.float64]], label: NDArray[np.int64], doses: Sequence[int]
) -> dict[str, list[dict[str, Any]]]:
    """By ranking, and "random": for each dose what is removed, with its interval."""
    before = _of_label(random.before, label)
    curves = {
        name: _points(doses, [removed(before, one) for one in _of_label(rows, label)]) for name, rows in ranked.items()
    }
    if len(random.after):
        drawn = _of_label(random.after, label)
        shares = [removed_on_average(before, drawn[:, dose]) for dose in range(len(doses))]
        curves["random"] = _points(doses, shares)
    return curves


def _more_than_iou(
    before: NDArray[np.float64], ranked: dict[str, NDArray[np.float64]], label: NDArray[np.int64], doses: Sequence[int]
) -> dict[str, list[dict[str, Any]]]:
    """By ranking: for each dose the share removed less that by IoU, on the same draws of latents, with its interval."""
    if "iou" not in ranked:
        return {}
    first, overlap = _of_label(before, label), _of_label(ranked["iou"], label)
    return {
        name: _points(doses, [removed(first, first + one) for one in _of_label(rows, label) - overlap])
        for name, rows in ranked.items()
        if name != "iou"
    }


def _of_label(areas: NDArray[np.float64], label: NDArray[np.int64]) -> NDArray[np.float64]:
    """Areas (..., K) of the labels that are a concept, together: (..., 1)."""
    summed: NDArray[np.float64] = areas[..., label].sum(axis=-1, keepdims=True)
    return summed


def _points(doses: Sequence[int], shares: Sequence[Removed]) -> list[dict[str, Any]]:
    parts = zip(doses, shares, strict=True)
    return [{"units": dose, **share_told(share, 0, "removed", "interval")} for dose, share in parts]


def _area(before: NDArray[np.float64], segmenter: Segmenter, concept: str) -> float:
    area = float(before[:, label_ids(segmenter, concept)].sum(axis=1).mean())
    if area == 0:
        raise UsageError(
            f"no {concept} in {len(before)} fresh images, so that rankings cannot be compared; more --samples"
        )
    return area


def _write(run: Run, result: dict[str, Any]) -> Comparison:
    key = f"{RANKINGS}{file_name(result['layer'] + '-' + result['concept'])}"
    run.place.write(f"{key}.svg", draw_rankings(result).encode())
    run.place.write(f"{key}.json", json_bytes(result))
    return Comparison(result, f"{key}.json", f"{key}.svg")
