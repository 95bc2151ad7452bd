"""The importance of every unit of a layer: how each class fares when the unit alone is removed.

Work is cut into batches of images; the sums of each are committed like a shard of a stage, so that a session that was
killed goes on where it stopped and comes to the same table.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from microtome.dissect.ablation.subject import Batch, Subject, chosen_units, finished_run, layer_of, open_subject
from microtome.dissect.audit.job import run_key
from microtome.dissect.audit.pipeline import holding
from microtome.dissect.audit.progress import progress
from microtome.dissect.audit.schedule import run_shards
from microtome.dissect.audit.stopping import Stopped, StopSignal
from microtome.storage.commits import StageCommits
from microtome.storage.run import Run
from microtome.storage.schema import ImportanceInfo, LayerEntry
from microtome.storage.vouching import vouch_for_files

STAGE = "importance"
TABLE = "importance"
EVERY_CLASS = -1
ROWS_AT_ONCE = 32  # batches of the tail between two looks at the stop signal

State = dict[str, NDArray[np.generic]]


@dataclass(frozen=True)
class Importance:
    """What was found: the table (`importance.parquet`) and its entry in run.json. seconds: of this session alone."""

    run: Run
    layer: str
    table: pd.DataFrame
    info: ImportanceInfo
    seconds: float


def importance(
    path: Path | str,
    layer: str,
    *,
    value: str = "zero",
    limit: int | None = None,
    units: Sequence[str] = (),
    workers: int | None = None,
    report: bool = True,
) -> Importance:
    """Measure what each class loses without each unit of `layer`, write the table into the run, rebuild its pages.

    value: what a removed unit is set to, "zero" or "mean" (its mean over the run's images); limit: only the first
    images; units: as in `("3,17", "40-44")`, none = all; report: whether pages that the run has are built anew.
    Raises UsageError where the run is not finished or its model is no classifier, RunMismatchError where model or data
    are not those of the run.
    """
    started = time.monotonic()
    entry = layer_of(finished_run(path), layer)
    chosen = chosen_units(units, entry) if units else np.arange(entry["units"])
    with holding(path, STAGE) as stop:
        run = finished_run(path)
        with open_subject(run, entry, value, limit=limit, workers=workers) as subject:
            commits = commits_of(run, entry, value, subject, chosen)
            measure(subject, commits, chosen, stop)
            total = Sums.merged(commits, subject.batches, len(chosen))
            table, info = total.table(chosen), total.info(subject, value)
        write(run, entry, table, info)
        seconds = time.monotonic() - started
    if report and run.info["stages"].get("report", {"state": ""})["state"] == "done":
        from microtome.dissect.audit.stages.report import rebuild_report

        rebuild_report(path)
    return Importance(run, layer, table, info, seconds)


def write(run: Run, layer: LayerEntry, table: pd.DataFrame, info: ImportanceInfo) -> None:
    """Store the table, vouch for it, and note it in run.json."""
    run.write_layer_table(layer["name"], TABLE, table)
    vouch_for_files(run.place, f"{STAGE}/{layer['folder']}", [f"layers/{layer['folder']}/{TABLE}.parquet"])
    run.info.setdefault("importance", {})[layer["name"]] = info
    run.save()


def commits_of(run: Run, layer: LayerEntry, value: str, subject: Subject, units: NDArray[np.int64]) -> StageCommits:
    """The records of the batches, valid for these settings only."""
    parts = [run_key(run), layer["name"], value, subject.samples, subject.network.batch, units.tolist()]
    key = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]
    return run.commits(f"{STAGE}/{layer['folder']}", key)


def measure(subject: Subject, commits: StageCommits, units: NDArray[np.int64], stop: StopSignal) -> None:
    """Compute and commit every batch that is not committed yet."""
    done = commits.done(subject.batches)
    todo = [number for number in range(subject.batches) if number not in done]
    counted = sum(len(subject.images_of(number)) for number in done)
    with progress(STAGE, subject.samples, "images", counted) as shown:

        def task(number: int) -> None:
            begun = time.monotonic()
            batch = subject.batch(number)
            state = empty_state(len(units)) if batch is None else state_of(subject, batch, units, stop.is_set)
            state["seconds"] = np.array([(time.monotonic() - begun) / subject.job.division.passes])
            commits.commit(number, state)
            shown.advance(len(subject.images_of(number)))

        run_shards(STAGE, task, todo, workers=subject.job.division.passes, stop=stop)


def state_of(subject: Subject, batch: Batch, units: NDArray[np.int64], stopped: Callable[[], bool]) -> State:
    """The sums of one batch, for the classes that occur in it."""
    correct, probability = scores(batch.held.logits, batch.truth)
    without_correct = np.repeat(correct[:, None], len(units), axis=1)
    without_probability = np.repeat(probability[:, None], len(units), axis=1)
    lively: NDArray[np.bool_] = np.logical_not(batch.held.silent)
    rows, places = np.nonzero(lively[:, units])
    step = ROWS_AT_ONCE * subject.network.batch
    for start in range(0, len(rows), step):
        if stopped():
            raise Stopped
        row, place = rows[start : start + step], places[start : start + step]
        logits = subject.network.without_units(batch.held, row, units[place])
        without_correct[row, place], without_probability[row, place] = scores(logits, batch.truth[row])
    classes = np.unique(batch.truth)
    of_class = (classes[:, None] == batch.truth).astype(np.int64)
    return {
        "class": classes,
        "images": of_class.sum(axis=1),
        "correct": of_class @ correct,
        "probability": of_class @ probability,
        "correct_without": of_class @ without_correct,
        "probability_without": _ordered_sums(of_class, without_probability),
    }


def empty_state(units: int) -> State:
    """The sums of a batch without a readable image."""
    none = np.zeros(0, np.int64)
    return {
        "class": none,
        "images": none,
        "correct": none,
        "probability": np.zeros(0),
        "correct_without": np.zeros((0, units), np.int64),
        "probability_without": np.zeros((0, units)),
    }


def _ordered_sums(of_class: NDArray[np.int64], values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sums of the rows of each class, image after image, so that the same images always give the same bits."""
    sums = np.zeros((len(of_class), values.shape[1]))
    for place, row in enumerate(values):
        sums[np.flatnonzero(of_class[:, place])] += row
    return sums


def scores(logits: NDArray[np.float32], truth: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Of logits (n, K) with right classes (n,): whether the answer is right (0 or 1), and the softmax probability of
    the right class; where logits are not finite the answer is wrong and its probability 0."""
    finite = np.isfinite(logits).all(axis=1)
    steady = np.where(finite[:, None], logits, 0.0).astype(np.float64)
    steady -= steady.max(axis=1, keepdims=True)
    exponentials = np.exp(steady)
    probability = exponentials[np.arange(len(truth)), truth] / exponentials.sum(axis=1)
    correct = finite & (logits.argmax(axis=1) == truth)
    return correct.astype(np.int64), np.where(finite, probability, 0.0)


@dataclass(frozen=True)
class Sums:
    """Sums over all images. classes: (k,) the model's classes that occur, ascending; the last two are (k, units)."""

    classes: NDArray[np.int64]
    images: NDArray[np.int64]
    correct: NDArray[np.int64]
    probability: NDArray[np.float64]
    correct_without: NDArray[np.int64]
    probability_without: NDArray[np.float64]
    seconds: float

    @classmethod
    def merged(cls, commits: StageCommits, batches: int, units: int) -> Sums:
        """The sums of all batches, in their order."""
        total: dict[int, list[NDArray[Any]]] = {}
        seconds = 0.0
        names = ("images", "correct", "probability", "correct_without", "probability_without")
        for number in range(batches):
            state = commits.state(number)
            seconds += float(state["seconds"][0])
            for place, label in enumerate(state["class"].tolist()):
                parts: list[NDArray[Any]] = [state[name][place] for name in names]
                had = total.get(label)
                total[label] = parts if had is None else [a + b for a, b in zip(had, parts, strict=True)]
        classes = sorted(total)
        columns: dict[str, NDArray[Any]] = {
            name: np.array([total[label][i] for label in classes]) for i, name in enumerate(names)
        }
        if not classes:
            columns = {name: empty_state(units)[name] for name in names}
        return cls(classes=np.array(classes, np.int64), seconds=seconds, **columns)

    def table(self, units: NDArray[np.int64]) -> pd.DataFrame:
        """The rows of importance.parquet: for each unit one of all images (class -1), then one a class."""
        images = np.array([self.images.sum(), *self.images])[:, None]
        numbers = np.arange(EVERY_CLASS, len(self.classes))
        accuracy, without = _and_all(self.correct[:, None]) / images, _and_all(self.correct_without) / images
        probability = _and_all(self.probability[:, None]) / images
        probability_without = _and_all(self.probability_without) / images
        shape = (len(numbers), len(units))
        columns = {
            "unit": np.broadcast_to(units, shape),
            "class": np.broadcast_to(numbers[:, None], shape),
            "images": np.broadcast_to(images, shape),
            "accuracy": np.broadcast_to(accuracy, shape),
            "accuracy_without": without,
            "fall": accuracy - without,
            "probability": np.broadcast_to(probability, shape),
            "probability_without": probability_without,
            "probability_fall": probability - probability_without,
        }
        return pd.DataFrame({name: column.T.reshape(-1) for name, column in columns.items()})

    def info(self, subject: Subject, value: str) -> ImportanceInfo:
        """The entry of run.json."""
        images = int(self.images.sum())
        return ImportanceInfo(
            classes=[subject.truth.name(number) for number in self.classes.tolist()],
            truth=subject.truth.kind,
            value=value,
            images=images,
            seconds=round(self.seconds, 3),
            accuracy=float(self.correct.sum() / images) if images else 0.0,
        )


def _and_all(values: NDArray[np.generic]) -> NDArray[np.float64]:
    """(k, units) with the sum of all rows before them."""
    return np.concatenate([values.sum(axis=0, keepdims=True), values])
