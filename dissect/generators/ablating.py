"""What the images of a generator lose without some units of one layer: `microtome ablate` on the run of a generator.

As in GAN dissection (Bau et al., "GAN dissection: visualizing and understanding generative adversarial networks", ICLR
2019, section 3.2): units are set to a value while images are made, and a segmenter says what is gone. Units are ranked
on the latents of the run and measured on fresh ones, since what was chosen on some latents flatters itself there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from microtome.dissect.ablation.sets import drawn_from, file_name, with_random
from microtome.dissect.ablation.subject import finished_run
from microtome.dissect.audit.pipeline import holding
from microtome.dissect.audit.precision import arithmetic
from microtome.dissect.audit.progress import progress
from microtome.dissect.generators.choosing import Choice, choose
from microtome.dissect.generators.edits import Edit, Region
from microtome.dissect.generators.effects import Paired, label_ids, mask_of, paired, segmenter_of_run
from microtome.dissect.generators.figures import concept_rows, dose_points, side_effects
from microtome.dissect.generators.generator import Generator, generator_of_run
from microtome.dissect.generators.looking import Looked, look
from microtome.dissect.generators.pairs import draw_pairs
from microtome.dissect.generators.recipes import Recipe, edit_to_json, write_recipe
from microtome.dissect.generators.seeds import Seeds, fresh_seeds, named_seeds
from microtome.dissect.models.segmenters import Segmenter
from microtome.reports.png import png_bytes
from microtome.storage.errors import UsageError
from microtome.storage.files import json_bytes
from microtome.storage.run import ABLATIONS, Run

SCHEMA_VERSION = 1
KIND = "generator"
SAMPLES, DRAWS, SEED, TOP = 256, 8, 0, 20
DOSED, DOSE_DRAWS = 64, 3
"""Latents of the dose curve, and its random sets of each size."""

MASK = "mask"


@dataclass(frozen=True)
class Within:
    """Where units are edited. region: the same in every image; mask: only where the concept is untouched; words."""

    region: Region | None
    mask: bool
    words: str


@dataclass(frozen=True)
class GeneratorAblation:
    """What was measured: `result` as it stands in ablations/NAME.json, and the keys of that file and of its contact
    sheet in the run."""

    run: Run
    key: str
    sheet: str
    result: dict[str, Any]


@dataclass(frozen=True, eq=False)
class _Subject:
    generator: Generator
    segmenter: Segmenter
    choice: Choice
    within: Within
    value: float | NDArray[np.float64]

    def edit(self, units: NDArray[np.int64]) -> Edit:
        values = np.broadcast_to(np.asarray(self.value, np.float64), self.choice.layer["units"])[units]
        return Edit(self.choice.layer["name"], tuple(units.tolist()), tuple(values.tolist()), self.within.region)

    @property
    def concept(self) -> NDArray[np.int64]:
        """The ids of the concept; none where there is none."""
        if self.choice.concept is None:
            return np.zeros(0, np.int64)
        return label_ids(self.segmenter, self.choice.concept)

    @property
    def where(self) -> Callable[[torch.Tensor], NDArray[np.float64]] | None:
        """Limits edits to the concept's mask, if that was asked for."""
        return partial(mask_of, concept=self.concept) if self.within.mask else None


def ablate_generator(
    path: Path | str,
    *,
    layer: str | None = None,
    units: Sequence[str] = (),
    concept: str | None = None,
    top: int = TOP,
    region: str | None = None,
    value: str = "zero",
    rank: str | None = None,
    samples: int | None = None,
    draws: int = DRAWS,
    seed: int = SEED,
    dataset: str | None = None,
    export_recipe: Path | None = None,
) -> GeneratorAblation:
    """Set units of a layer to a value and measure what becomes of every concept in the images of some latents.

    Which: `units` as in `("3,17", "40-44")` of `layer`; or the `top` units of `concept` by `rank` ("iou", "ace" or
    "alpha"), by default the layer and ranking that are strongest for it. region: "mask" = only where the concept is in
    the untouched image, or a box "0.1,0.2,0.6,0.8"; value: "zero", "mean" or a number. samples: how many fresh latents,
    or dataset: a spec `generated:COUNT?seed=N` of others; draws: random sets of as many other units, from `seed`, to
    compare with. export_recipe: a file that the edit is written to.
    Writes ablations/NAME.json and NAME.png into the run. Raises UsageError and UnknownNameError for what the run does
    not have, RunMismatchError where generator or segmenter are other ones than those of the run.
    """
    run = finished_run(path)
    within = within_of(region, concept)
    if export_recipe is not None and within.mask:
        raise UsageError("--export-recipe: with --region mask each image has a region of its own; take a box")
    if draws < 0 or (samples is not None and samples < 2):
        raise UsageError(f"--samples {samples} --draws {draws}: give at least 2 latents, and 0 or more random sets")
    with holding(path, "ablate"):
        generator = generator_of_run(run)
        segmenter = segmenter_of_run(run, generator.device)
        if concept is not None:
            label_ids(segmenter, concept)
        seeds = seeds_of(run, generator, dataset, samples)
        choice = choose(run, layer=layer, units=units, concept=concept, top=top, rank=rank)
        subject = _Subject(generator, segmenter, choice, within, value_of(run, choice, value))
        if export_recipe is not None:
            write_recipe(export_recipe, Recipe.of(generator, [subject.edit(choice.units)], seeds.numbers))
        with arithmetic("float32", generator.device):
            looked, dose = measure(subject, seeds, draws, seed)
        name = name_of(choice, region, value, seeds, draws, seed, dataset=dataset is not None)
        result = result_of(subject, seeds, looked, dose, name=name, value=value, draws=draws, seed=seed)
        return write(run, name, result, looked)


def measure(subject: _Subject, seeds: Seeds, draws: int, seed: int) -> tuple[Looked, Paired]:
    """What the chosen units and random ones do to all latents, and how it grows with their number, on some of them."""
    choice, count = subject.choice, subject.choice.layer["units"]
    sets = with_random(choice.units, count, draws, seed)
    doses: list[NDArray[np.int64]] = []
    for size in choice.doses():
        best = choice.ranked[:size] if choice.ranked is not None else choice.units
        doses += with_random(best, count, min(DOSE_DRAWS, draws), seed)
    dosed = seeds.numbers[:DOSED]
    total = len(seeds.numbers) * (1 + len(sets)) + (len(dosed) * (1 + len(doses)) if doses else 0)
    with progress("ablate", total, "images") as shown:
        edits = [[subject.edit(units)] for units in sets]
        looked = look(
            subject.generator, subject.segmenter, seeds.numbers, edits, subject.concept, subject.where, shown.advance
        )
        if not doses:
            return looked, Paired(np.zeros((0, 0)), np.zeros((0, 0, 0)))
        dose_edits = [[subject.edit(units)] for units in doses]
        dose = paired(
            subject.generator, subject.segmenter, dosed, dose_edits, where=subject.where, advance=shown.advance
        )
    return looked, dose


def within_of(region: str | None, concept: str | None) -> Within:
    """What --region means. Raises UsageError."""
    if region is None:
        return Within(None, False, "")
    if region == MASK:
        if concept is None:
            raise UsageError("--region mask: say whose, with --concept NAME")
        return Within(None, True, f"where {concept} was, grown a little")
    try:
        sides = [float(part) for part in region.split(",")]
        top, left, bottom, right = sides
    except ValueError:
        raise UsageError(f"--region {region}: give mask, or a box as in 0.1,0.2,0.6,0.8") from None
    return Within(Region.box(top, left, bottom, right), False, f"within the box {region}")


def value_of(run: Run, choice: Choice, value: str) -> float | NDArray[np.float64]:
    """What units are set to, in the layer's own numbers: one for all, or (C,). Raises UsageError."""
    if value == "zero":
        return 0.0
    if value == "mean":
        return run.layer_table(choice.layer["name"], "units")["mean"].to_numpy(np.float64)
    try:
        number = float(value)
    except ValueError:
        number = np.nan
    if not np.isfinite(number):
        raise UsageError(f"--value {value}: give zero, mean or a number")
    return number


def seeds_of(run: Run, generator: Generator, dataset: str | None, samples: int | None) -> Seeds:
    """The latents to measure on."""
    if dataset is None:
        return fresh_seeds(run, generator, samples or SAMPLES)
    return named_seeds(run, generator, dataset, samples)


def name_of(
    choice: Choice, region: str | None, value: str, seeds: Seeds, draws: int, seed: int, *, dataset: bool
) -> str:
    """The ablation's name: what was ablated, and settings that are no defaults."""
    told = {
        str(choice.rank): choice.rank is not None,
        f"of-{choice.concept}": choice.rank is None and choice.concept is not None,
        f"region-{region}": region is not None,
        value: value != "zero",
        f"on-{seeds.spec}": dataset,
        f"samples-{len(seeds.numbers)}": not dataset and len(seeds.numbers) != SAMPLES,
        f"draws-{draws}": draws != DRAWS,
        f"seed-{seed}": seed != SEED,
    }
    return choice.named(told)


def result_of(
    subject: _Subject, seeds: Seeds, looked: Looked, dose: Paired, *, name: str, value: str, draws: int, seed: int
) -> dict[str, Any]:
    """What is kept as JSON."""
    choice, layer = subject.choice, subject.choice.layer
    set_to = {"zero": "0", "mean": "its mean"}.get(value, value)
    concepts = concept_rows(subject.segmenter, looked)
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": KIND,
        "name": name,
        "layer": layer["name"],
        "units": choice.units.tolist(),
        "concept": choice.concept,
        "rank": choice.rank,
        "why": choice.why,
        "chosen_by": choice.words,
        "value": value,
        "region": subject.within.words or None,
        "removal": " ".join(filter(None, [f"set to {set_to}", subject.within.words])),
        **seeds.told,
        "draws": draws,
        "drawn_from": drawn_from(len(choice.units), layer["units"]),
        "seed": seed,
        "concepts": concepts,
        "dose": dose_points(subject.concept, choice.doses(), dose, min(DOSE_DRAWS, draws)),
        "side_effects": side_effects(subject.segmenter, subject.concept, looked),
        "edits": [edit_to_json(subject.edit(choice.units))] if not subject.within.mask else [],
    }


def write(run: Run, name: str, result: dict[str, Any], looked: Looked) -> GeneratorAblation:
    """Write both files into the run."""
    key = f"{ABLATIONS}{file_name(name)}"
    sheet = draw_pairs(looked.pairs, f"{result['layer']}: {result['chosen_by']}, each {result['removal']}")
    run.place.write(f"{key}.png", png_bytes(sheet))
    run.place.write(f"{key}.json", json_bytes(result))
    return GeneratorAblation(run, f"{key}.json", f"{key}.png", result)
