"""Removing a set of units at once: what each class loses, beside random sets of as many units."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from microtome.dissect.ablation.choice import Choice, choose
from microtome.dissect.ablation.subject import Batch, Subject, finished_run, layer_of, open_subject, what_removal_does
from microtome.dissect.ablation.units import scores
from microtome.dissect.audit.pipeline import holding
from microtome.dissect.audit.progress import progress
from microtome.dissect.audit.schedule import run_shards
from microtome.dissect.audit.stopping import StopSignal
from microtome.storage.errors import UsageError
from microtome.storage.files import json_bytes
from microtome.storage.run import ABLATIONS, Run, folder_name

SCHEMA_VERSION = 1
ALL = "all"
DRAWS, SEED = 20, 0
INTERVAL = (2.5, 97.5)
LEAST_DRAWS = 5
"""Of fewer draws the interval is their range."""

LONGEST_NAME = 200

Counts = dict[int, NDArray[np.int64]]
"""For each class: images, right answers untouched, and right answers without each set."""


@dataclass(frozen=True)
class Ablation:
    """What was measured: `result` as it stands in ablations/NAME.json, and the key of that file in the run.

    class_name, class_index: the class that the units were chosen for, as the run's importance names it, and its number
    among the model's classes.
    """

    run: Run
    key: str
    result: dict[str, Any]
    class_name: str | None
    class_index: int | None

    @property
    def rows(self) -> list[dict[str, Any]]:
        """One row for all images, then one a class."""
        rows: list[dict[str, Any]] = self.result["rows"]
        return rows


def ablate(
    path: Path | str,
    layer: str,
    *,
    units: Sequence[str] = (),
    concept: str | None = None,
    class_name: str | None = None,
    top: int = 20,
    value: str = "zero",
    draws: int = DRAWS,
    seed: int = SEED,
    limit: int | None = None,
    dataset: str | None = None,
    workers: int | None = None,
) -> Ablation:
    """Remove a set of units of `layer` and measure accuracy for each class, untouched and without them.

    Which: `units` as in `("3,17", "40-44")`; or the `top` units of `concept` by IoU; or those that the class
    `class_name` needs most by the run's importance. value: "zero" or "mean". draws: random sets of as many other
    units, from `seed`, to compare with. limit: only the first images; dataset: the spec of other images to measure on
    than the run's.
    Writes ablations/NAME.json into the run. Raises UsageError and UnknownNameError for what the run does not have.
    """
    if draws < 0:
        raise UsageError(f"--draws {draws}: how many random sets to compare with, 0 or more")
    run = finished_run(path)
    entry = layer_of(run, layer)
    choice = choose(run, entry, units=units, concept=concept, class_name=class_name, top=top)
    drawn = random_sets(choice.units, entry["units"], draws, seed)
    with (
        holding(path, "ablate") as stop,
        open_subject(run, entry, value, limit=limit, dataset=dataset, workers=workers) as subject,
    ):
        counts = measure(subject, np.concatenate([choice.marks(entry["units"])[None], drawn]), stop)
        name = "-".join([layer, choice.name, *told_apart(value, dataset, limit, draws, seed)])
        result = {
            "schema_version": SCHEMA_VERSION,
            "name": name,
            **described(choice, subject, counts, value),
            "data": dataset or run.info["data"]["spec"],
            "draws": draws,
            "seed": seed,
            "rows": rows_of_counts(counts, subject),
        }
        key = f"{ABLATIONS}{file_name(name)}.json"
        run.place.write(key, json_bytes(result))
    return Ablation(run, key, result, choice.class_name, choice.class_index)


def described(choice: Choice, subject: Subject, counts: Counts, value: str) -> dict[str, Any]:
    """What was removed, and over how many images it was measured, as a result has it."""
    layer = subject.layer
    return {
        "layer": layer["name"],
        "units": choice.units.tolist(),
        "chosen_by": choice.words,
        "value": value,
        "removal": what_removal_does(layer, value),
        "truth": subject.truth.kind,
        "images": sum(int(count[0]) for count in counts.values()),
        "drawn_from": drawn_from(len(choice.units), layer["units"]),
    }


def told_apart(value: str, dataset: str | None, limit: int | None, draws: int, seed: int) -> list[str]:
    """What tells an ablation's name from those of the same units with other settings: settings that are no defaults."""
    settings = {
        value: value != "zero",
        f"on-{dataset}": dataset is not None,
        f"limit-{limit}": limit is not None,
        f"draws-{draws}": draws != DRAWS,
        f"seed-{seed}": seed != SEED,
    }
    return [text for text, is_told in settings.items() if is_told]


def file_name(name: str) -> str:
    """An ablation's name as a file's, of bounded length."""
    encoded = folder_name(name)
    if len(encoded) <= LONGEST_NAME:
        return encoded
    return f"{encoded[: LONGEST_NAME - 17]}-{hashlib.sha256(name.encode()).hexdigest()[:16]}"


def others_suffice(size: int, units: int) -> bool:
    """Whether random sets can be drawn from the units that were not chosen."""
    return units - size >= size


def drawn_from(size: int, units: int) -> str:
    """Which units random sets of `size` are of, in words."""
    return "other units" if others_suffice(size, units) else "all units"


def random_sets(chosen: NDArray[np.int64], units: int, draws: int, seed: int) -> NDArray[np.bool_]:
    """(draws, C) bool: random sets of as many units as `chosen`, from the others where there are enough."""
    pool = np.setdiff1d(np.arange(units), chosen) if others_suffice(len(chosen), units) else np.arange(units)
    sets = np.zeros((draws, units), np.bool_)
    for draw in range(draws):
        dice = np.random.default_rng([seed, draw])
        sets[draw, dice.choice(pool, len(chosen), replace=False)] = True
    return sets


def with_random(chosen: NDArray[np.int64], units: int, draws: int, seed: int) -> list[NDArray[np.int64]]:
    """The units `chosen`, and those of each of the `random_sets` beside them, ascending."""
    return [chosen, *map(np.flatnonzero, random_sets(chosen, units, draws, seed))]


def measure(subject: Subject, sets: NDArray[np.bool_], stop: StopSignal) -> Counts:
    """Right answers of each class, untouched and without each of `sets` (S, C)."""
    found: dict[int, Counts] = {}
    with progress("ablate", subject.samples, "images") as shown:

        def task(shard: int) -> None:
            found[shard] = _added(_counts(subject, batch, sets) for batch in subject.batches(shard))
            shown.advance(len(subject.samples_of(shard)))

        run_shards("ablate", task, range(subject.shards), workers=subject.job.division.passes, stop=stop)
    return total_of(found.values(), subject)


def total_of(parts: Iterable[Counts], subject: Subject) -> Counts:
    """Counts of several parts of the images together, in the order of the classes. Raises UsageError where no image
    counts."""
    total = _added(parts)
    if not total:
        raise UsageError(f"{subject.job.dataset.spec}: no image can be read and has a class")
    return dict(sorted(total.items()))


def _added(parts: Iterable[Counts]) -> Counts:
    total: Counts = {}
    for counts in parts:
        for label, count in counts.items():
            total[label] = total[label] + count if label in total else count
    return total


def _counts(subject: Subject, batch: Batch, sets: NDArray[np.bool_]) -> Counts:
    images = len(batch.truth)
    rows, chosen = np.repeat(np.arange(images), len(sets)), np.tile(np.arange(len(sets)), images)
    logits = subject.network.without_sets(batch.held, rows, sets[chosen])
    return counts_of(batch, scores(logits, batch.truth[rows])[0].reshape(images, len(sets)))


def counts_of(batch: Batch, without: NDArray[np.int64]) -> Counts:
    """Counts of a batch whose answers without each of S sets are right where `without` (n, S) is 1."""
    untouched = scores(batch.held.logits, batch.truth)[0]
    table = np.concatenate([np.ones((len(without), 1), np.int64), untouched[:, None], without], axis=1)
    return {int(label): table[batch.truth == label].sum(axis=0) for label in np.unique(batch.truth)}


def rows_of_counts(counts: Counts, subject: Subject) -> list[dict[str, Any]]:
    """A row of all images, then one a class, in the model's order. index: the class's number there."""
    everything = np.sum(list(counts.values()), axis=0)
    return [
        _row(ALL, None, everything),
        *(_row(subject.truth.name(label), label, count) for label, count in counts.items()),
    ]


def _row(name: str, index: int | None, count: NDArray[np.int64]) -> dict[str, Any]:
    images, untouched, *without = count.tolist()
    falls = (untouched - np.array(without)) / images
    row = {
        "class": name,
        "index": index,
        "images": images,
        "accuracy": untouched / images,
        "accuracy_without": without[0] / images,
        "fall": float(falls[0]),
        "random": None,
    }
    if len(falls) > 1:
        percentiles = INTERVAL if len(falls) > LEAST_DRAWS else (0, 100)
        low, high = np.percentile(falls[1:], percentiles).tolist()
        row["random"] = {
            "mean": float(falls[1:].mean()),
            "low": low,
            "high": high,
            "min": float(falls[1:].min()),
            "max": float(falls[1:].max()),
        }
    return row
