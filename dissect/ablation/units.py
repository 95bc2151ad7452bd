"""The importance of every unit of a layer: how each class fares when the unit alone is removed.

Work is cut into shards of images; the sums of each are committed as a stage's are, so that a session that was
killed goes on where it stopped and comes to the same table.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from microtome.dissect.ablation.subject import Batch, Subject, chosen_units, finished_run, layer_of, open_subject
from microtome.dissect.audit.job import run_key
from microtome.dissect.audit.measured import vouch_for_importance
from microtome.dissect.audit.pipeline import holding
from microtome.dissect.audit.progress import progress
from microtome.dissect.audit.schedule import run_shards
from microtome.dissect.audit.stopping import Stopped, StopSignal
from microtome.storage.commits import StageCommits
from microtome.storage.errors import UsageError
from microtome.storage.run import Run
from microtome.storage.schema import ImportanceInfo, LayerEntry

STAGE = "importance"
TABLE = "importance"
EVERY_CLASS = -1
BATCHES_AT_ONCE = 32  # of the tail between two looks at the stop signal
SUMS = {
    "images": np.int64,
    "correct": np.int64,
    "probability": np.float64,
    "correct_without": np.int64,
    "probability_without": np.float64,
}

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
            total = merged((commits.state(shard) for shard in range(subject.shards)), len(chosen))
            if not total["class"].size:
                raise UsageError(f"{subject.job.config.dataset}: no image can be read and has a class")
            table, info = table_of(total, chosen), info_of(total, subject, value)
        write(run, entry, table, info)
        seconds = time.monotonic() - started
    if report and run.info["stages"].get("report", {"state": ""})["state"] == "done":
        from microtome.dissect.audit.stages.report import rebuild_report

        rebuild_report(path)
    return Importance(run, layer, table, info, seconds)


def write(run: Run, layer: LayerEntry, table: pd.DataFrame, info: ImportanceInfo) -> None:
    """Store the table, vouch for it, and note it in run.json."""
    run.write_layer_table(layer["name"], TABLE, table)
    vouch_for_importance(run, layer)
    run.info.setdefault("importance", {})[layer["name"]] = info
    run.save()


def commits_of(run: Run, layer: LayerEntry, value: str, subject: Subject, units: NDArray[np.int64]) -> StageCommits:
    """The records of the shards, valid for these settings only."""
    parts = [run_key(run), layer["name"], value, subject.samples, subject.network.batch, units.tolist()]
    parts.append(sorted(subject.truth.of_label.items()))
    key = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]
    return run.commits(f"{STAGE}/{layer['folder']}", key)


def measure(subject: Subject, commits: StageCommits, units: NDArray[np.int64], stop: StopSignal) -> None:
    """Compute and commit every shard that is not committed yet."""
    done = commits.done(subject.shards)
    todo = [shard for shard in range(subject.shards) if shard not in done]
    counted = sum(len(subject.samples_of(shard)) for shard in done)
    with progress(STAGE, subject.samples, "images", counted) as shown:

        def task(shard: int) -> None:
            begun = time.monotonic()
            state = merged((state_of(subject, batch, units, stop) for batch in subject.batches(shard)), len(units))
            state["seconds"] = np.array([(time.monotonic() - begun) / subject.job.division.passes])
            commits.commit(shard, state)
            shown.advance(len(subject.samples_of(shard)))

        run_shards(STAGE, task, todo, workers=subject.job.division.passes, stop=stop)


def state_of(subject: Subject, batch: Batch, units: NDArray[np.int64], stop: StopSignal) -> State:
    """The sums of one batch, for the k classes that occur in it, ascending.

    class, images, correct: (k,) int64, probability: (k,) float64, untouched; correct_without (k, units) int64 and
    probability_without (k, units) float64; seconds (1,). Raises Stopped once `stop` is set.
    """
    correct, probability = scores(batch.held.logits, batch.truth)
    without_correct = np.repeat(correct[:, None], len(units), axis=1)
    without_probability = np.repeat(probability[:, None], len(units), axis=1)
    rows, places = np.nonzero(~batch.held.silent[:, units])
    step = BATCHES_AT_ONCE * subject.network.batch
    for start in range(0, len(rows), step):
        if stop.is_set():
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
        "probability": _ordered_sums(of_class, probability[:, None])[:, 0],
        "correct_without": of_class @ without_correct,
        "probability_without": _ordered_sums(of_class, without_probability),
        "seconds": np.zeros(1),
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
    finite: NDArray[np.bool_] = np.all(np.isfinite(logits), axis=1)
    steady = np.where(finite[:, None], logits, 0.0).astype(np.float64)
    steady -= steady.max(axis=1, keepdims=True)
    exponentials = np.exp(steady)
    probability = exponentials[np.arange(len(truth)), truth] / exponentials.sum(axis=1)
    correct = finite & (logits.argmax(axis=1) == truth)
    return correct.astype(np.int64), np.where(finite, probability, 0.0)


def merged(states: Iterable[State], units: int) -> State:
    """The sums of several states, added in their order."""
    total: dict[int, dict[str, NDArray[Any]]] = {}
    seconds = np.zeros(1)
    for state in states:
        seconds += state["seconds"].astype(np.float64)
        for place, label in enumerate(state["class"].tolist()):
            parts: dict[str, NDArray[Any]] = {name: state[name][place] for name in SUMS}
            had = total.get(label)
            total[label] = parts if had is None else {name: had[name] + parts[name] for name in SUMS}
    classes = np.array(sorted(total), np.int64)
    shapes = {name: (len(classes), units) if name.endswith("without") else (len(classes),) for name in SUMS}
    sums = {
        name: np.array([total[label][name] for label in classes.tolist()], kind).reshape(shapes[name])
        for name, kind in SUMS.items()
    }
    return {"class": classes, **sums, "seconds": seconds}


def table_of(total: State, units: NDArray[np.int64]) -> pd.DataFrame:
    """The rows of importance.parquet: for each unit one of all images (class -1), then one a class."""
    counts: NDArray[Any] = total["images"]
    images = np.array([counts.sum(), *counts])[:, None]
    numbers = np.arange(EVERY_CLASS, len(counts))
    accuracy, probability, without, probability_without = (
        _and_all(total[name].reshape(len(counts), -1)) / images for name in list(SUMS)[1:]
    )
    columns = {
        "unit": units,
        "class": numbers[:, None],
        "images": images,
        "accuracy": accuracy,
        "accuracy_without": without,
        "fall": accuracy - without,
        "probability": probability,
        "probability_without": probability_without,
        "probability_fall": probability - probability_without,
    }
    shape = (len(numbers), len(units))
    return pd.DataFrame({name: np.broadcast_to(column, shape).T.reshape(-1) for name, column in columns.items()})


def info_of(total: State, subject: Subject, value: str) -> ImportanceInfo:
    """The entry of run.json."""
    images, correct = int(total["images"].sum()), int(total["correct"].sum())
    return ImportanceInfo(
        classes=[subject.truth.name(number) for number in total["class"].tolist()],
        class_indices=total["class"].tolist(),
        truth=subject.truth.kind,
        value=value,
        images=images,
        seconds=round(float(total["seconds"][0]), 3),
        accuracy=correct / images,
    )


def _and_all(values: NDArray[np.generic]) -> NDArray[np.float64]:
    """(k, units) with the sum of all rows before them."""
    return np.concatenate([values.sum(axis=0, keepdims=True), values])
