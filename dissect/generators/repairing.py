"""The units behind a generator's bad images, and what becomes of the images without them: `microtome defects`.

The repair of Bau et al. (ICLR 2019, section 4.2). Units are found on the run's images and ablated on latents that the
run does not have; random sets of as many other units stand beside them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from microtome.dissect.ablation.sets import drawn_from, file_name, random_sets
from microtome.dissect.ablation.subject import finished_run
from microtome.dissect.audit.pipeline import holding
from microtome.dissect.audit.precision import arithmetic
from microtome.dissect.audit.progress import progress
from microtome.dissect.generators.defect_sheet import draw_defects
from microtome.dissect.generators.defects import Suspects, search, suspects_of, worst_of
from microtome.dissect.generators.edits import Edit, ablation
from microtome.dissect.generators.features import Features
from microtome.dissect.generators.generator import Generator, generator_of_run
from microtome.dissect.generators.judging import BATCH, Judged, Looking, Question, judge, look_by
from microtome.dissect.generators.layers import own_layer, own_layers
from microtome.dissect.generators.recipes import Recipe, edit_to_json, edited_pictures, write_recipe
from microtome.dissect.generators.repair_figures import frechet_of, scored
from microtome.dissect.generators.seeds import Seeds, fresh_seeds
from microtome.reports.png import png_bytes
from microtome.storage.errors import UsageError
from microtome.storage.files import json_bytes
from microtome.storage.run import DEFECTS, Run

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Found:
    """What was found: `result` as it stands in defects/NAME.json, and the keys of that file and of its pictures."""

    run: Run
    key: str
    sheet: str
    result: dict[str, Any]


@dataclass(frozen=True, eq=False)
class Repaired:
    """Fresh latents without the units. scores: (m, n) of the untouched images, those without the chosen units, and
    those without each random set, or None; features: (m, n, d) likewise, or None; drawn_from: which units
    the random sets are of."""

    seeds: Seeds
    scores: Features | None
    features: Features | None
    drawn_from: str


def find_defects(path: Path | str, question: Question, export_recipe: Path | None = None) -> Found:
    """Find the units of a run's generator that are at work in its worst images, and measure fresh images without them.

    export_recipe: a file that the repair is written to. Writes defects/NAME.json and NAME.png into the run. Raises
    UsageError and UnknownNameError for what cannot be answered, RunMismatchError for another generator.
    """
    question.check()
    run = finished_run(path)
    layers = own_layers(run) if question.layer is None else [own_layer(run, question.layer)["name"]]
    with holding(path, "defects"):
        generator = generator_of_run(run)
        with arithmetic("float32", generator.device):
            looking = look_by(question, generator)
            judged = judge(run, generator, question, looking)
            if np.ptp(judged.scores) == 0:
                raise UsageError(f"all {len(judged.scores)} images have the same score; there is no worst among them")
            worst = worst_of(judged.badness, question.worst)
            found = search(run, layers, judged.samples, worst, question.statistic)
            suspects = suspects_of(found, question.top)
            edit = None if suspects is None else ablation(suspects.layer, suspects.units.tolist())
            repaired = None
            if suspects is not None and edit is not None:
                repaired = repair(run, generator, suspects, edit, judged, looking, question)
        result = result_of(question, judged, worst, suspects, repaired, looking)
        result["edits"] = [] if edit is None else [edit_to_json(edit)]
        key = f"{DEFECTS}{file_name(question.name)}"
        seeds, fresh = (None, None) if repaired is None else (repaired.seeds, repaired.scores)
        sheet = draw_defects(run, generator, judged, worst, suspects, edit, seeds, fresh)
        run.place.write(f"{key}.png", png_bytes(sheet))
        run.place.write(f"{key}.json", json_bytes(result))
        if export_recipe is not None and edit is not None:
            write_recipe(export_recipe, Recipe.of(generator, [edit], () if seeds is None else seeds.numbers))
        return Found(run, f"{key}.json", f"{key}.png", result)


def repair(
    run: Run,
    generator: Generator,
    suspects: Suspects,
    edit: Edit,
    judged: Judged,
    looking: Looking | None,
    question: Question,
) -> Repaired:
    """Fresh images untouched, without the suspects, and without random sets of as many other units."""
    seeds = fresh_seeds(run, generator, question.samples)
    units = run.layer(suspects.layer)["units"]
    drawn = random_sets(suspects.units, units, question.draws, question.seed)
    sets: list[list[Edit]] = [[], [edit], *([ablation(edit.layer, np.flatnonzero(one).tolist())] for one in drawn)]
    reals = looking is not None and looking.reals is not None
    scores: list[list[Features]] = [[] for _ in sets]
    features: list[list[Features]] = [[] for _ in sets]
    with progress("repair", len(seeds.numbers) * len(sets), "images") as shown:
        for start in range(0, len(seeds.numbers), BATCH):
            batch = seeds.numbers[start : start + BATCH]
            for number, edits in enumerate(sets):
                pictures = edited_pictures(generator, edits, batch)
                if judged.score is not None:
                    scores[number].append(judged.score(pictures))
                if reals and looking is not None:
                    features[number].append(looking.eyes.features(pictures))
                shown.advance(len(batch))
    joined = [np.stack([np.concatenate(parts) for parts in each]) if each[0] else None for each in (scores, features)]
    return Repaired(seeds, joined[0], joined[1], drawn_from(len(suspects.units), units))


def result_of(
    question: Question,
    judged: Judged,
    worst: NDArray[np.bool_],
    suspects: Suspects | None,
    repaired: Repaired | None,
    looking: Looking | None,
) -> dict[str, Any]:
    """What is kept as JSON."""
    found: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "name": question.name,
        "score": judged.words,
        "note": judged.note,
        "worse": question.worse,
        "statistic": question.statistic,
        "images": len(judged.samples),
        "worst": int(worst.sum()),
        "worst_from": float(judged.scores[worst][np.argmin(judged.badness[worst])]),
        "layer": None,
        "units": [],
        "tested": None,
        "repair": None,
    }
    if suspects is None or repaired is None:
        return found
    evidence = suspects.evidence
    found |= {"layer": suspects.layer, "tested": suspects.tested}
    found["units"] = [
        {
            "unit": unit,
            "auc": float(evidence.auc[unit]),
            "interval": [float(evidence.low[unit]), float(evidence.high[unit])],
            "p": float(suspects.p[unit]),
            "patches_in_worst": None if np.isnan(evidence.patches[unit]) else float(evidence.patches[unit]),
        }
        for unit in suspects.units.tolist()
    ]
    found["repair"] = {
        **repaired.seeds.told,
        "draws": question.draws,
        "drawn_from": repaired.drawn_from,
        "seed": question.seed,
        "score": None if repaired.scores is None else scored(repaired.scores, judged.sign, question.worst),
        "frechet": None,
    }
    if repaired.features is not None and looking is not None and looking.reals is not None:
        found["repair"]["frechet"] = {
            "of": f"features of {looking.eyes.words}, {len(looking.reals.features):,} images of {question.real}",
            **frechet_of(looking.reals.features, repaired.features, question.seed),
        }
    return found
