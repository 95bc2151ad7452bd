"""What a server finds out about a run on demand: images that a layer takes for similar, what classes lose."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from itertools import islice
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from microtome.dissect.ablation.choice import choose
from microtome.dissect.ablation.sets import (
    SEED,
    Counts,
    counts_of,
    described,
    random_sets,
    rows_of_counts,
    total_of,
)
from microtome.dissect.ablation.subject import Batch, Subject, finished_run, layer_of, subject_of
from microtome.dissect.ablation.truth import Truth
from microtome.dissect.ablation.units import scores
from microtome.dissect.audit.cores import available_cores
from microtome.dissect.audit.data import refuse_generator
from microtome.dissect.embedding.crops import Crops, crop_of
from microtome.dissect.embedding.nearest import Found, neighbors, neighbors_of
from microtome.dissect.embedding.passing import maps_by
from microtome.dissect.embedding.queries import query_of_maps
from microtome.dissect.live.opened import OpenedRun
from microtome.dissect.records import records
from microtome.reports.server.actions import AbandonedError, Stop
from microtome.reports.server.exploring import Near, Removal
from microtome.reports.server.streams import Told
from microtome.storage.errors import UsageError
from microtome.storage.neighbors import index_keys
from microtome.storage.run import Run

_VALUE = "zero"


class LiveExplorer:
    """What is asked of a finished run beside explanations, one question at a time (see reports/server/exploring.py)."""

    def __init__(self, opened: OpenedRun) -> None:
        self._opened = opened
        self._truth: Truth | None = None

    @property
    def _run(self) -> Run:
        return self._opened.run

    @cached_property
    def _crops(self) -> Crops:
        return Crops(self._run)

    # Neighbours

    def neighbors(self, image: int | NDArray[np.uint8], layer: str, count: int, metric: str, stop: Stop) -> Near:
        """The `count` images of the run that `layer` takes for the most similar: what `microtome neighbors` answers.

        An index that the run has is used; none is built. Raises UsageError and UnknownNameError for what the run does
        not have, RunMismatchError for an image of the asker's own where the model is not the run's.
        """
        found = self._found(image, layer, count, metric, stop)
        asked = self._crops.crop(image) if isinstance(image, int) else crop_of(self._run, image)
        rows = []
        for row in records(found.frame):
            if stop():
                raise AbandonedError
            rows.append((row, self._crops.crop(row["sample"])))
        return Near({**found.info, "query": found.query.to_dict(), "note": self._crops.note}, asked, rows)

    def _found(self, image: int | NDArray[np.uint8], layer: str, count: int, metric: str, stop: Stop) -> Found:
        run, threads = self._run, available_cores()
        folder = run.layer(layer)["folder"]
        method = "exact" if run.place.size(index_keys(folder, metric)[1]) is None else "auto"
        if stop():
            raise AbandonedError
        if isinstance(image, int):
            if image >= run.plan.samples:
                raise UsageError(f"there is no sample {image}; the run has {run.plan.samples:,}, numbered from 0")
            return neighbors(run, layer=layer, sample=image, k=count, metric=metric, method=method, workers=threads)
        refuse_generator(
            run, "comparing an image of your own", "ask about a sample, one of the images that it has made"
        )
        model, crop = self._opened.model, crop_of(run, image)
        try:
            maps = maps_by(model, run, layer, crop, self._opened.division)
        finally:
            model.module.to(memory_format=torch.contiguous_format)  # as explanations have it
        query = query_of_maps(run, layer, maps, image, crop)
        return neighbors_of(run, layer, query, k=count, metric=metric, method=method, threads=threads)

    # Ablation

    def ablate(self, removal: Removal, stop: Stop, told: Told) -> dict[str, Any]:
        """What each class loses without the units, beside random sets: what `microtome ablate` measures, over fewer
        images, drawn from all of the run's by a fixed seed. Nothing is kept in the run.

        The result has besides "of", the images of the run, "why", what the truth is, and "seconds". Raises UsageError
        and UnknownNameError for what the run does not have, or a model that is no classifier.
        """
        begun = time.perf_counter()
        refuse_generator(self._run, "measuring classes", "its units are edited instead, on page gan.html")
        run = finished_run(str(self._run.place.path or self._run.url))
        layer = layer_of(run, removal.layer)
        beyond = [unit for unit in removal.units if unit >= layer["units"]]
        if beyond:
            raise UsageError(f"layer {layer['name']} has units 0 to {layer['units'] - 1}, not {beyond[0]}")
        units = [str(unit) for unit in removal.units]
        choice = choose(run, layer, units=units, concept=removal.concept, top=min(removal.top, layer["units"]))
        drawn = random_sets(choice.units, layer["units"], removal.draws, SEED)
        sets = np.concatenate([choice.marks(layer["units"])[None], drawn])
        if stop():
            raise AbandonedError
        job = self._opened.job()
        with subject_of(job, layer, _VALUE, job.samples, self._truth) as subject:
            self._truth = subject.truth
            counts = total_of(_parts(subject, drawn_images(subject, removal.images), sets, stop, told), subject)
            return {
                **described(choice, subject, counts, _VALUE),
                "of": job.samples,
                "why": subject.truth.why,
                "draws": removal.draws,
                "rows": rows_of_counts(counts, subject),
                "seconds": time.perf_counter() - begun,
            }


def drawn_images(subject: Subject, count: int) -> list[int]:
    """At most `count` of the samples that have a right class, ascending: always the same ones."""
    order = np.random.default_rng(SEED).permutation(subject.samples).tolist()
    dataset = subject.job.dataset
    return sorted(islice((index for index in order if subject.truth.has(dataset.entry(index).label)), count))


def _parts(
    subject: Subject, images: Sequence[int], sets: NDArray[np.bool_], stop: Stop, told: Told
) -> Iterator[Counts]:
    """The counts of each batch of images; raises AbandonedError once `stop` says so."""
    size = subject.network.batch
    batches = [images[start : start + size] for start in range(0, len(images), size)]

    def measured(samples: Sequence[int]) -> Counts:
        if stop():
            raise AbandonedError
        batch = subject.batch_of(samples)
        return {} if batch is None else counts_of(batch, _without(subject, batch, sets, stop))

    told(0, len(images))
    done = 0
    with ThreadPoolExecutor(subject.job.division.passes, thread_name_prefix="ablate") as pool:
        for samples, counts in zip(batches, pool.map(measured, batches), strict=True):
            done += len(samples)
            told(done, len(images))
            yield counts


def _without(subject: Subject, batch: Batch, sets: NDArray[np.bool_], stop: Stop) -> NDArray[np.int64]:
    """(n, S) int64, 1 where the answer of image n without set s is right; looks at `stop` before each set."""
    found = np.empty((len(batch.truth), len(sets)), np.int64)
    everyone = np.arange(len(batch.truth))
    for place, removed in enumerate(sets):
        if stop():
            raise AbandonedError
        logits = subject.network.without_sets(batch.held, everyone, np.tile(removed, (len(everyone), 1)))
        found[:, place] = scores(logits, batch.truth)[0]
    return found
