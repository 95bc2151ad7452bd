"""Whether work scales: thresholds and tally by one and by two worker processes, and a model of up to 64 of them.

Both stages are run over copies of the same capture, by one and by two single-thread workers that were connected and
had done a small audit before. Then every kind of task is timed by itself, in one thread: shards, the nodes of the
merge tree, what a worker opens at the beginning of a stage, what the asking process does before and after, and what
Dask adds to a task. From these the stages are simulated for more workers than there are cores here, with the blocks
that the executor really hands out.
"""

from __future__ import annotations

import heapq
import itertools
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from distributed import Client

from benchmarks.timing import busy_seconds
from microtome.dissect import AuditConfig
from microtome.dissect.audit.cluster import SHARDS_A_TASK, TASKS_AHEAD, DaskExecutor, block_size, dask_executor
from microtome.dissect.audit.cores import available_cores
from microtome.dissect.audit.job import Job
from microtome.dissect.audit.prepare import join, prepare
from microtome.dissect.audit.schedule import ThreadExecutor
from microtome.dissect.audit.stages.capture import run_capture
from microtome.dissect.audit.stages.index import run_index
from microtome.dissect.audit.stages.merge import FAN_IN, ShardedStage, level_sizes
from microtome.dissect.audit.stages.tally import TALLY, run_tally
from microtome.dissect.audit.stages.thresholds import THRESHOLDS, run_thresholds
from microtome.storage.arrays import ACTIVATIONS, layer_array

SMALL_NETWORK = "builtin:scenes-cnn", "block?", "scenes:{samples}"
LARGE_NETWORK = "torchvision:resnet18?weights=none", "layer[1234]", "scenes:{samples}?size=224"
STAGES: dict[str, tuple[ShardedStage, Callable[[Job], None]]] = {
    "thresholds": (THRESHOLDS, run_thresholds),
    "tally": (TALLY, run_tally),
}
Network = tuple[str, str, str]
"""Model, layers, and scenes of a size."""

REPEATS = 3
TRIES, QUIET = 8, 0.05
"""Runs during which other programs had more than this share of the cores do not count, unless all are like that."""
EMPTY_TASKS = 200
WORKERS = (1, 2, 4, 8, 16, 32, 64)
NIGHT = 1_000_000, 512
"""Samples and shards of the audit that is simulated beside the one that was measured."""
BANDWIDTH = 1e9
"""Bytes a second that all workers together may read from shared storage: a 10 Gbit network, roughly."""


def run(quick: bool) -> dict[str, Any]:
    """Seconds and ratios of one and two workers, sizes of all tasks, and the simulated speed-ups."""
    settings = [(SMALL_NETWORK, 512)] if quick else [(SMALL_NETWORK, 4000), (LARGE_NETWORK, 4000)]
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as name:
        for network, samples in settings:
            captured = _capture(Path(name) / "captured", network, samples)
            rows += _measured(captured, network, samples, repeats=1 if quick else REPEATS)
            tasks = {stage: _task_sizes(captured, stage) for stage in STAGES}
            overhead = _overhead(captured)
            shards = join(captured, ThreadExecutor(), 1).run.plan.count
            shutil.rmtree(captured)
    here = [Simulated.of(stage, tasks[stage], overhead, shards, 1.0) for stage in STAGES]
    larger = NIGHT[0] / NIGHT[1] / (samples / shards)
    night = [Simulated.of(stage, tasks[stage], overhead, NIGHT[1], larger) for stage in STAGES]
    return {
        "setting": f"{available_cores()} cores, one thread a worker; simulated: {network[0]}, {network[1]}",
        "measured": rows,
        "tasks": [{"stage": stage} | found.row() for stage, found in tasks.items()],
        "overhead of a task": [{"asking process, ms": overhead.asking * 1e3, "worker, ms": overhead.worker * 1e3}],
        f"simulated, {samples:,} samples in {shards} shards": _speed_ups(here),
        f"simulated, {NIGHT[0]:,} samples in {NIGHT[1]} shards": _speed_ups(night),
    }


# Measured


def _capture(out: Path, network: Network, samples: int) -> Path:
    """A run that has been captured, and no more."""
    model, layers, scenes = network
    config = AuditConfig(model=model, dataset=scenes.format(samples=samples), layers=(layers,), out=out)
    job = prepare(config, ThreadExecutor())
    run_index(job)
    run_capture(job)
    return out


def _copy(run: Path, to: Path) -> Path:
    """A copy that shares the files, which are only ever replaced whole."""
    shutil.rmtree(to, ignore_errors=True)
    shutil.copytree(run, to, copy_function=os.link)
    return to


@contextmanager
def _workers(number: int, captured: Path) -> Iterator[DaskExecutor]:
    """`number` worker processes that have done both stages of a small audit."""
    with dask_executor("processes", number) as executor:
        for attempt in range(2):
            _stage_seconds(_copy(captured, captured.with_name(f"warm-up-{attempt}")), executor)
        yield executor


def _stage_seconds(run: Path, executor: DaskExecutor) -> dict[str, float]:
    """Seconds of each stage and of both, and the share of the machine's cores that other programs used meanwhile."""
    job = join(run, executor, 1)
    seconds = {}
    busy, own = busy_seconds(), _own_seconds()
    for stage, (_, run_stage) in STAGES.items():
        seconds[stage] = _seconds(run_stage, job)
    seconds["both"] = sum(seconds.values())
    foreign = max(0.0, busy_seconds() - busy - (_own_seconds() - own))
    return seconds | {"others": foreign / (seconds["both"] * (os.cpu_count() or 1))}


def _own_seconds() -> float:
    """CPU seconds of this process and of its workers."""
    me = psutil.Process()
    times = [process.cpu_times() for process in (me, *me.children(recursive=True))]
    return sum(found.user + found.system for found in times)


def _measured(captured: Path, network: Network, samples: int, repeats: int) -> list[dict[str, object]]:
    """The least time of each stage over some undisturbed repeats, the clusters taking turns, since the machine drifts.

    One cluster is there at a time: the processes of an idle one look around some hundred times a second.
    """
    small = _capture(captured.with_name("small"), network, 64)
    found: dict[int, list[dict[str, float]]] = {1: [], 2: []}
    for _ in range(TRIES):
        if all(sum(run["others"] < QUIET for run in runs) >= repeats for runs in found.values()):
            break
        for number, runs in found.items():
            with _workers(number, small) as executor:
                runs.append(_stage_seconds(_copy(captured, captured.with_name("copy")), executor))
    shutil.rmtree(small)
    counted = {
        number: [run for run in runs if run["others"] < QUIET] or [min(runs, key=lambda run: run["others"])]
        for number, runs in found.items()
    }
    rows: list[dict[str, object]] = []
    for stage in (*STAGES, "both"):
        one_worker, two_workers = (min(run[stage] for run in counted[number]) for number in (1, 2))
        rows.append(
            {
                "model": network[0],
                "samples": samples,
                "stage": stage,
                "one worker, s": one_worker,
                "two workers, s": two_workers,
                "times as fast": one_worker / two_workers,
                "others, share of the cores": max(run["others"] for runs in counted.values() for run in runs),
            }
        )
    return rows


@dataclass(frozen=True)
class TaskSizes:
    """Seconds of everything that a stage consists of, in one thread: its shards; what a worker opens first; a state
    folded, by level; what the asking process does before, between and after; and the bytes that a shard reads."""

    shards: list[float]
    opening: float
    fold: list[float]
    asking: float
    bytes_read: float

    def row(self) -> dict[str, object]:
        """For people."""
        return {
            "shard, ms": statistics.mean(self.shards) * 1e3,
            "its spread, ms": statistics.pstdev(self.shards) * 1e3,
            "opening, ms": self.opening * 1e3,
            "folding a state, ms": self.fold[0] * 1e3,
            "asking process, ms": self.asking * 1e3,
            "MB read a shard": self.bytes_read / 1e6,
        }


def _task_sizes(captured: Path, name: str) -> TaskSizes:
    """Do the stage by hand on a copy, and time its parts. (The stage before is done first.)"""
    run = _copy(captured, captured.with_name("tasks"))
    stage, run_stage = STAGES[name]
    if name != "thresholds":
        run_thresholds(join(run, ThreadExecutor(), 1))
    started = time.perf_counter()
    job = join(run, ThreadExecutor(), 1)
    with stage.work.ready(job, lambda amount: None) as task:
        opening = time.perf_counter() - started
        shards = [_seconds(task, shard) for shard in range(job.run.plan.count)]
    fold = []
    sizes = level_sizes(job.run.plan.count)
    for number in range(1, len(sizes)):
        with stage.level(number).ready(job, lambda amount: None) as task:
            fold.append(sum(_seconds(task, node) for node in range(sizes[number])) / sizes[number - 1])
    asking = _seconds(run_stage, join(run, ThreadExecutor(), 1))  # nothing is left to do but its own part
    layers = [run / "arrays.zarr" / layer_array(layer["folder"], ACTIVATIONS) for layer in job.layers]
    read = sum(file.stat().st_size for layer in layers for file in layer.rglob("*") if file.is_file())
    return TaskSizes(shards, opening, fold, asking, read / job.run.plan.count)


def _seconds(function: Callable[[Any], object], argument: object) -> float:
    started = time.perf_counter()
    function(argument)
    return time.perf_counter() - started


@dataclass(frozen=True)
class Overhead:
    """Seconds that a task costs beside its work: what scheduler and asking process spend one task after the other, and
    what a single call takes beyond that (an upper bound of what a worker waits, since tasks are handed out ahead)."""

    asking: float
    worker: float


def _overhead(captured: Path) -> Overhead:
    """From blocks that are committed already, through the executor; and from single calls, each awaited."""
    with dask_executor("processes", 1) as executor:
        job = join(_copy(captured, captured.with_name("tasks")), executor, 1)
        run_thresholds(job)
        shards = range(job.run.plan.count)
        work, blocks = THRESHOLDS.work, len(_blocks(len(shards), 1))
        checking = _seconds(job.commits(work.name).done, len(shards)) / blocks
        seconds = []
        for _ in range(REPEATS):
            started = time.perf_counter()
            executor.run(job, work, shards, lambda amount: None, lambda done: None)
            seconds.append((time.perf_counter() - started) / blocks - checking)
        asking = max(0.0, min(seconds))
        client: Client = executor._client
        started = time.perf_counter()
        for number in range(EMPTY_TASKS):
            client.submit(abs, number, pure=False).result()
        in_turn = (time.perf_counter() - started) / EMPTY_TASKS
    return Overhead(asking=asking, worker=max(0.0, in_turn - asking))


# Simulated


def _blocks(shards: int, lanes: int) -> list[int]:
    blocks = []
    while shards:
        blocks.append(block_size(shards, lanes, SHARDS_A_TASK))
        shards -= blocks[-1]
    return blocks


def makespan(blocks: list[float], workers: int, overhead: Overhead) -> float:
    """Seconds for tasks that one process hands out, two ahead for each worker, to whoever is free first."""
    asked, free = 0.0, [0.0] * workers
    at_work: list[float] = []
    for seconds in blocks:
        if len(at_work) == TASKS_AHEAD * workers:
            asked = max(asked, heapq.heappop(at_work))
        asked += overhead.asking
        begin = max(asked, heapq.heappop(free))
        end = begin + overhead.worker + seconds
        heapq.heappush(free, end)
        heapq.heappush(at_work, end)
    return max(at_work, default=asked)


@dataclass(frozen=True)
class Simulated:
    """One stage as it would be with so many shards, each `larger` times as long as those that were measured."""

    stage: str
    tasks: TaskSizes
    overhead: Overhead
    shards: list[float]
    larger: float

    @classmethod
    def of(cls, stage: str, tasks: TaskSizes, overhead: Overhead, shards: int, larger: float) -> Simulated:
        """The times of the measured shards, over and over."""
        times = [tasks.shards[number % len(tasks.shards)] * larger for number in range(shards)]
        return cls(stage, tasks, overhead, times, larger)

    def parts(self, workers: int) -> dict[str, float]:
        """Seconds of the stage by what they go into."""
        blocks, start = [], 0
        for size in _blocks(len(self.shards), workers):
            blocks.append(sum(self.shards[start : start + size]))
            start += size
        shards = makespan(blocks, workers, self.overhead)
        reading = self.tasks.bytes_read * self.larger * len(self.shards) / BANDWIDTH
        return {
            "shards": max(shards, reading),
            "waiting for storage": max(0.0, reading - shards),
            "opening": self.tasks.opening,
            "merging": self._merging(workers),
            "asking process": self.tasks.asking,
        }

    def _merging(self, workers: int) -> float:
        seconds, sizes = 0.0, level_sizes(len(self.shards))
        for below, nodes in itertools.pairwise(sizes):
            fold = self.tasks.fold[0 if below > FAN_IN else -1]
            parts = [fold * len(range(node * FAN_IN, min((node + 1) * FAN_IN, below))) for node in range(nodes)]
            seconds += makespan(parts, workers, self.overhead)
        return seconds


def _speed_ups(stages: list[Simulated]) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    first = 0.0
    for workers in WORKERS:
        parts = [stage.parts(workers) for stage in stages]
        total = sum(sum(part.values()) - part["waiting for storage"] for part in parts)
        without = total - sum(part["waiting for storage"] for part in parts)
        first = first or without
        row: dict[str, object] = {"workers": workers, "seconds": total, "times as fast": first / total}
        row["if storage were no limit"] = first / without
        row |= {f"{name}, s": sum(part[name] for part in parts) for name in parts[0]}
        rows.append(row)
    return rows
