"""What the units of a layer cause, measured and kept in the run: `microtome rank`."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from microtome.dissect.audit.job import same_segmenter
from microtome.dissect.audit.precision import arithmetic
from microtome.dissect.audit.progress import progress
from microtome.dissect.audit.stopping import StopSignal
from microtome.dissect.generators.alpha import AlphaSettings, Target, optimise_alpha
from microtome.dissect.generators.causal import unit_effects
from microtome.dissect.generators.causal_table import (
    concept_numbers,
    empty_table,
    numbers_of_labels,
    read_causal,
    with_alpha,
    with_effects,
    write_causal,
)
from microtome.dissect.generators.effects import label_ids, rivals_of, segmenter_of_run
from microtome.dissect.generators.generator import Generator, generator_of_run
from microtome.dissect.generators.layers import own_layer
from microtome.dissect.generators.quantiles import QUANTILE, high_values
from microtome.dissect.generators.ranking import RANKINGS, ranked_scores
from microtome.dissect.generators.seeds import readable_of_run
from microtome.dissect.generators.student import Student, StudentSettings, agreement_rows, teach
from microtome.dissect.models.segmenters import Segmenter
from microtome.storage.errors import UnknownNameError
from microtome.storage.run import Run
from microtome.storage.schema import CausalInfo, LayerEntry

SAMPLES = 24
"""Latents that every unit is ablated and inserted on."""


@dataclass(frozen=True, eq=False)
class _Subject:
    run: Run
    layer: LayerEntry
    generator: Generator
    segmenter: Segmenter
    high: NDArray[np.float64]
    samples: int
    stop: StopSignal | None


def measure_causes(
    run: Run,
    layer: str,
    concepts: Sequence[str],
    *,
    by: Sequence[str] = ("ace", "alpha"),
    samples: int = SAMPLES,
    keep: float | None = None,
    again: bool = False,
    stop: StopSignal | None = None,
) -> pd.DataFrame:
    """Measure what the run does not hold yet (`again`: all of it) of `by` for `concepts`, and keep it; the table.

    keep: weight of what changes beside a concept (`AlphaSettings.keep`); alphas of another weight are made anew.

    Average causal effects are measured for all concepts at once; alphas are optimised for each. On latents of the run;
    the caller holds its lock. Raises UsageError where the layer's units are directions in another layer.
    """
    entry = own_layer(run, layer)
    for name in by:
        if name not in RANKINGS:
            raise UnknownNameError("ranking", name, RANKINGS)
    started = time.monotonic()
    generator = generator_of_run(run)
    segmenter = segmenter_of_run(run, generator.device)
    for concept in concepts:
        label_ids(segmenter, concept)
    high = high_values(run, layer, range(entry["units"]))
    subject = _Subject(run, entry, generator, segmenter, high, samples, stop)
    table, info = _so_far(subject)
    with arithmetic("float32", generator.device):
        if "ace" in by and (again or bool(table["ace"].isna().all())):
            table = _effects(subject, table)
            info["samples"] = samples
        had = {name: info["alpha"].get(name, {}).get("keep") for name in concepts}
        other = [name for name in concepts if keep is not None and had[name] != keep]
        wanted = [name for name in concepts if again or name in other or _lacks_alpha(run, table, name)]
        if "alpha" in by and wanted:
            table = _alphas(subject, table, info, wanted, AlphaSettings() if keep is None else AlphaSettings(keep=keep))
    info["seconds"] = round(info["seconds"] + time.monotonic() - started, 3)
    write_causal(run, entry, table, info)
    return table


def _so_far(subject: _Subject) -> tuple[pd.DataFrame, CausalInfo]:
    """The table and its part of run.json as the run holds them, or empty."""
    name = subject.layer["name"]
    table = read_causal(subject.run, name)
    if table is not None:
        return table, subject.run.info["causal"][name]
    spec = subject.run.info["data"]["spec"]
    info = CausalInfo(data=spec, samples=0, quantile=QUANTILE, gradients="", alpha={}, pupil=None, seconds=0.0)
    return empty_table(subject.layer["units"], numbers_of_labels(subject.run, subject.segmenter)), info


def _lacks_alpha(run: Run, table: pd.DataFrame, concept: str) -> bool:
    rows = table["concept"].isin(concept_numbers(run, concept))
    return bool(table.loc[rows, "alpha"].isna().all())


def _effects(subject: _Subject, table: pd.DataFrame) -> pd.DataFrame:
    seeds = readable_of_run(subject.run)[: subject.samples]
    total = len(seeds) * (1 + 2 * subject.layer["units"])
    with progress("ace", total, "images") as shown:
        effects = unit_effects(
            subject.generator,
            subject.segmenter,
            subject.layer["name"],
            seeds,
            subject.high,
            advance=shown.advance,
            stop=subject.stop,
        )
    return with_effects(table, effects, numbers_of_labels(subject.run, subject.segmenter))


def _alphas(
    subject: _Subject, table: pd.DataFrame, info: CausalInfo, concepts: Sequence[str], settings: AlphaSettings
) -> pd.DataFrame:
    probabilities, student, words = _gradients(subject)
    info["gradients"] = words
    if student is not None:
        info["pupil"] = agreement_rows(student, subject.segmenter.labels)
    for concept in concepts:
        labels = label_ids(subject.segmenter, concept)
        overlap = ranked_scores(subject.run, subject.layer["name"], concept, "iou")
        start = np.zeros(subject.layer["units"]) if overlap is None else overlap
        with progress("alpha", settings.steps * settings.batch, "images") as shown:
            found = optimise_alpha(
                subject.generator,
                subject.layer["name"],
                Target(probabilities, labels, rivals_of(subject.segmenter, labels)),
                start / max(float(start.max()), 1e-12),
                subject.high,
                readable_of_run(subject.run),
                settings,
                advance=shown.advance,
                stop=subject.stop,
            )
        table = with_alpha(table, concept_numbers(subject.run, concept), found)
        info["alpha"][concept] = {**settings.to_dict(), "left": found.ablated, "sum": float(found.values.sum())}
    return table


def _gradients(subject: _Subject) -> tuple[Callable[[Tensor], Tensor], Student | None, str]:
    """Probabilities of all labels, differentiable: the segmenter's own, or else those of a pupil; and in words."""
    segmenter = subject.run.info.get("segmenter")
    if segmenter is not None:
        opened = same_segmenter(segmenter)
        own = getattr(opened.to(subject.generator.device).call, "probabilities", None)
        if callable(own):
            size = (segmenter["size"][0], segmenter["size"][1])

            def probabilities(images: Tensor) -> Tensor:
                same = tuple(images.shape[-2:]) == size
                seen = images if same else F.interpolate(images, size, mode="bilinear", antialias=True)
                found: Tensor = own(seen)
                return found

            return probabilities, None, "the segmenter"
    settings = StudentSettings()
    lessons = _lessons(subject, settings.images + settings.held)
    with progress("pupil", len(lessons), "images") as shown:
        student = teach(
            subject.generator,
            subject.segmenter,
            subject.layer["name"],
            subject.high,
            lessons,
            settings,
            advance=shown.advance,
            stop=subject.stop,
        )
    return student.probabilities, student, "a pupil of the segmenter"


def _lessons(subject: _Subject, count: int) -> list[int]:
    """So many seeds, from the run's first on: none twice, but of an image-to-image network the run's inputs in turn."""
    own = readable_of_run(subject.run)
    if subject.generator.inputs is not None:
        return [own[i % len(own)] for i in range(count)]
    return [own[0] + i for i in range(count)]
