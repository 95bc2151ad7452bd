"""Where units can paint their concept: `microtome insert` on the run of a generator.

The units are forced to a high quantile of their own values at one place of the image or at many, on latents that the
run does not have, and a segmenter says what is new there. Beside them stand random units of the same layer, forced to
the same quantile of theirs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from microtome.dissect.ablation.sets import drawn_from, file_name, with_random
from microtome.dissect.ablation.subject import finished_run
from microtome.dissect.audit.pipeline import holding
from microtome.dissect.audit.precision import arithmetic
from microtome.dissect.audit.progress import progress
from microtome.dissect.generators.choosing import Choice, choose
from microtome.dissect.generators.edits import Edit, Region
from microtome.dissect.generators.effects import label_ids, segmenter_of_run
from microtome.dissect.generators.figures import names_of
from microtome.dissect.generators.generator import Generator, generator_of_run
from microtome.dissect.generators.insertion import (
    TOOK,
    UNLABELLED,
    Box,
    Context,
    Inserted,
    by_context,
    grid_of_places,
    insert,
    overall,
)
from microtome.dissect.generators.quantiles import QUANTILE, check_quantile, high_values
from microtome.dissect.generators.recipes import Recipe, edit_to_json, edited_pictures, write_recipe
from microtome.dissect.generators.seeds import Seeds, fresh_seeds
from microtome.dissect.models.segmenters import Segmenter
from microtome.reports.contact import Tile, draw_grid
from microtome.reports.insertions import draw_insertion
from microtome.reports.png import png_bytes
from microtome.storage.errors import UsageError
from microtome.storage.files import json_bytes
from microtome.storage.run import INSERTIONS, Run

SCHEMA_VERSION = 1
SAMPLES, DRAWS, SEED, TOP = 64, 2, 0, 20
GRID, SIZE = (6, 6), (0.25, 0.25)
"""Places across and down, and how much of the image's height and width each takes."""

WHOLE_GRID = "grid"
WAS_THERE = "was there"
"""In place of a verdict where the place showed the concept before."""

PAIRS_SHOWN, CONTEXTS_SHOWN = 4, 8
"""Pairs of pictures in a context's line, and contexts that have one."""


@dataclass(frozen=True)
class Places:
    """Where units are forced. boxes: row by row; grid: how many rows and columns; size: of each; words: for names."""

    boxes: list[Box]
    grid: tuple[int, int]
    size: tuple[float, float]
    words: str

    @classmethod
    def of(cls, place: str, grid: tuple[int, int] = GRID, size: tuple[float, float] = SIZE) -> Places:
        """`grid`, or one box "top,left,bottom,right" in fractions of the image. Raises UsageError."""
        if place == WHOLE_GRID:
            words = f"grid-{grid[0]}x{grid[1]}-{size[0]:g}x{size[1]:g}"
            return cls(grid_of_places(*grid, size), grid, size, "" if (grid, size) == (GRID, SIZE) else words)
        try:
            top, left, bottom, right = (float(part) for part in place.split(","))
        except ValueError:
            raise UsageError(f"--place {place}: give grid, or a box as in 0.5,0.1,0.9,0.4") from None
        Region.box(top, left, bottom, right)  # raises where it is none
        return cls([(top, left, bottom, right)], (1, 1), (bottom - top, right - left), f"at-{place}")


@dataclass(frozen=True)
class Insertion:
    """What was measured: `result` as it stands in insertions/NAME.json, and the keys of that file, of the picture of
    places and contexts, and of the contact sheet in the run."""

    run: Run
    key: str
    picture: str
    sheet: str
    result: dict[str, Any]


@dataclass(frozen=True, eq=False)
class _Subject:
    generator: Generator
    segmenter: Segmenter
    choice: Choice
    concept: str
    places: Places
    seeds: Seeds
    sets: list[Edit]

    def edit(self, place: int) -> Edit:
        """The chosen units at one place."""
        chosen = self.sets[0]
        return Edit(chosen.layer, chosen.units, chosen.values, Region.box(*self.places.boxes[place]))


def insert_units(
    path: Path | str,
    *,
    layer: str | None = None,
    units: Sequence[str] = (),
    concept: str | None = None,
    top: int = TOP,
    rank: str | None = None,
    quantile: float = QUANTILE,
    place: str = WHOLE_GRID,
    grid: tuple[int, int] = GRID,
    size: tuple[float, float] = SIZE,
    samples: int = SAMPLES,
    draws: int = DRAWS,
    seed: int = SEED,
    export_recipe: Path | None = None,
) -> Insertion:
    """Force units to a high quantile of their own values at places of the image, and measure what of `concept` is new.

    Which: the `top` units of `concept` by `rank`, or `units` of `layer`, by which `concept` is to appear. place: "grid"
    = at `grid` (rows, columns) places of `size` (height, width, as fractions of the image), or one box; samples: how
    many fresh latents; draws: random sets of as many other units, from `seed`, forced likewise; export_recipe: a file
    that the edit at one box is written to.
    Writes insertions/NAME.json, NAME.png and NAME-pairs.png into the run. Raises UsageError and UnknownNameError for
    what the run does not have, RunMismatchError where generator or segmenter are other ones than those of the run.
    """
    check_quantile(quantile)
    run = finished_run(path)
    places = Places.of(place, grid, size)
    if concept is None:
        raise UsageError("say what is to appear: --concept tree (also beside --units)")
    if export_recipe is not None and len(places.boxes) > 1:
        raise UsageError("--export-recipe: a recipe edits at one place; give it as in --place 0.5,0.1,0.9,0.4")
    if draws < 0 or samples < 1:
        raise UsageError(f"--samples {samples} --draws {draws}: give at least 1 latent, and 0 or more random sets")
    with holding(path, "insert"):
        generator = generator_of_run(run)
        segmenter = segmenter_of_run(run, generator.device)
        ids = label_ids(segmenter, concept)
        seeds = fresh_seeds(run, generator, samples)
        choice = choose(run, layer=layer, units=units, concept=concept, top=top, rank=rank)
        sets = edits_of(run, choice, quantile, draws, seed)
        subject = _Subject(generator, segmenter, choice, concept, places, seeds, sets)
        if export_recipe is not None:
            write_recipe(export_recipe, Recipe.of(generator, [subject.edit(0)], seeds.numbers))
        total = len(seeds.numbers) * (1 + len(sets) * len(places.boxes))
        with arithmetic("float32", generator.device), progress("insert", total, "images") as shown:
            found = insert(generator, segmenter, seeds.numbers, sets, places.boxes, ids, advance=shown.advance)
        name = name_of(choice, concept, places, quantile, samples, draws, seed)
        result = result_of(subject, found, name=name, quantile=quantile, draws=draws, seed=seed)
        return write(run, subject, found, result)


def edits_of(run: Run, choice: Choice, quantile: float, draws: int, seed: int) -> list[Edit]:
    """The chosen units, and random sets of others, each forced to its own quantile, everywhere."""
    layer = choice.layer["name"]
    sets = with_random(choice.units, choice.layer["units"], draws, seed)
    every = np.unique(np.concatenate(sets))
    values = dict(zip(every.tolist(), high_values(run, layer, every.tolist(), quantile).tolist(), strict=True))
    return [Edit(layer, tuple(units.tolist()), tuple(values[unit] for unit in units.tolist())) for units in sets]


def name_of(choice: Choice, concept: str, places: Places, quantile: float, samples: int, draws: int, seed: int) -> str:
    """The insertion's name: what was inserted, and settings that are no defaults."""
    told = {
        str(choice.rank): choice.rank is not None,
        f"of-{concept}": choice.rank is None,
        places.words: bool(places.words),
        f"quantile-{quantile:g}": quantile != QUANTILE,
        f"samples-{samples}": samples != SAMPLES,
        f"draws-{draws}": draws != DRAWS,
        f"seed-{seed}": seed != SEED,
    }
    return choice.named(told)


def result_of(
    subject: _Subject, found: Inserted, *, name: str, quantile: float, draws: int, seed: int
) -> dict[str, Any]:
    """What is kept as JSON."""
    choice, places, chosen = subject.choice, subject.places, subject.sets[0]
    new = found.new.mean(axis=1)
    return {
        "schema_version": SCHEMA_VERSION,
        "name": name,
        "concept": subject.concept,
        "layer": choice.layer["name"],
        "units": list(chosen.units),
        "values": list(chosen.values),
        "chosen_by": choice.words,
        "rank": choice.rank,
        "why": choice.why,
        "quantile": quantile,
        "level": f"own {quantile:g} quantiles",
        **subject.seeds.told,
        "draws": draws,
        "drawn_from": drawn_from(len(choice.units), choice.layer["units"]),
        "seed": seed,
        "grid": list(places.grid),
        "size": list(places.size),
        "took_from": TOOK,
        "all": {"context": "all places", **_row(overall(found), "")},
        "contexts": [_context_row(subject, row) for row in by_context(found)],
        "places": [
            {
                "box": list(box),
                "new": float(new[0, number]),
                "took": float((found.new[0, :, number] >= TOOK).mean()),
                "random": float(new[1:, number].mean()) if draws else None,
            }
            for number, box in enumerate(places.boxes)
        ],
        "edits": [edit_to_json(subject.edit(0))] if len(places.boxes) == 1 else [],
    }


def _context_row(subject: _Subject, row: Context) -> dict[str, Any]:
    was_there = row.label in label_ids(subject.segmenter, subject.concept)
    return {"context": _named(subject, row.label), **_row(row, WAS_THERE if was_there else row.verdict)}


def _row(row: Context, verdict: str) -> dict[str, Any]:
    figures = asdict(row)
    del figures["label"]
    return {**figures, "verdict": verdict}


def _named(subject: _Subject, label: int | None) -> str:
    return "unlabelled" if label in (None, UNLABELLED) else names_of(subject.segmenter)[int(label or 0)]


def write(run: Run, subject: _Subject, found: Inserted, result: dict[str, Any]) -> Insertion:
    """Write the JSON, the picture of places and contexts, and the contact sheet into the run."""
    key = f"{INSERTIONS}{file_name(result['name'])}"
    run.place.write(f"{key}.png", png_bytes(draw_insertion(result)))
    run.place.write(f"{key}-pairs.png", png_bytes(draw_pairs(subject, found, result)))
    run.place.write(f"{key}.json", json_bytes(result))
    return Insertion(run, f"{key}.json", f"{key}.png", f"{key}-pairs.png", result)


def draw_pairs(subject: _Subject, found: Inserted, result: dict[str, Any]) -> Image.Image:
    """A line a context: images before and after, the place outlined, from where most came to where least did."""
    tiles: list[Tile] = []
    labels = [row.label for row in by_context(found)]
    most = sorted(labels, key=lambda label: -int((found.context == label).sum()))[:CONTEXTS_SHOWN]
    for label in (label for label in labels if label in most):
        line = [
            tile
            for latent, place in spread_pairs(found.new[0], found.context == label)
            for tile in _pair(subject, found, latent, place)
        ]
        tiles += line + [Tile(np.full((1, 1, 3), 255, np.uint8), ())] * (2 * PAIRS_SHOWN - len(line))
    who = f"{result['concept']} by {result['chosen_by']} of {result['layer']}"
    title = f"{who}: before and after, in each context from most to least"
    return draw_grid(tiles, title, side=128, per_line=2 * PAIRS_SHOWN)


def spread_pairs(new: NDArray[np.float64], inside: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Latents and places, of those `inside` (n, R), evenly spread from the largest `new` (n, R) to the least."""
    latents, places = np.nonzero(inside)
    order = np.argsort(-new[latents, places], kind="stable")
    picked = np.unique(np.linspace(0, len(order) - 1, min(PAIRS_SHOWN, len(order))).round().astype(np.int64))
    return [(int(latents[order[at]]), int(places[order[at]])) for at in picked]


def _pair(subject: _Subject, found: Inserted, latent: int, place: int) -> list[Tile]:
    seed = subject.seeds.numbers[latent]
    box = subject.places.boxes[place]
    before = subject.generator.pictures([seed])[0]
    after = edited_pictures(subject.generator, [subject.edit(place)], [seed])[0]
    context = _named(subject, int(found.context[latent, place]))
    new = f"{found.new[0, latent, place]:.0%} newly {subject.concept}"
    return [Tile(before, (context, f"seed {seed}"), box), Tile(after, (new, ""), box)]
