"""The audit: stages in order, each resumed where it stopped."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from microtome.dissect.audit.budget import NO_LIMITS, Budget, Watch, disk_needed, free_disk, size_text
from microtome.dissect.audit.config import AuditConfig
from microtome.dissect.audit.cores import available_cores
from microtome.dissect.audit.explained import leave_out_explanations, want_explanations
from microtome.dissect.audit.job import Job
from microtome.dissect.audit.logsummary import format_summary, summarise
from microtome.dissect.audit.mapped import leave_out_maps
from microtome.dissect.audit.prepare import prepare, reopen
from microtome.dissect.audit.progress import duration, say
from microtome.dissect.audit.schedule import Executor, ThreadExecutor
from microtome.dissect.audit.stages.capture import run_capture
from microtome.dissect.audit.stages.explain import run_explain
from microtome.dissect.audit.stages.index import run_index
from microtome.dissect.audit.stages.information import run_information
from microtome.dissect.audit.stages.map import memory_for_maps, refuse_memory, run_map
from microtome.dissect.audit.stages.merge import level_name, level_sizes
from microtome.dissect.audit.stages.patches import run_patches
from microtome.dissect.audit.stages.report import run_report
from microtome.dissect.audit.stages.segment import run_segment
from microtome.dissect.audit.stages.tally import run_tally
from microtome.dissect.audit.stages.thresholds import run_thresholds
from microtome.dissect.audit.stages.totals import capture_totals
from microtome.dissect.audit.stopping import AuditStoppedError, Stopped, StopSignal
from microtome.dissect.query.rules import keep_rules
from microtome.storage.lock import RunLock
from microtome.storage.places import open_place
from microtome.storage.run import Run
from microtome.storage.runlog import RunLog
from microtome.storage.schema import SHARDED

if TYPE_CHECKING:
    from distributed import Client

STAGES: dict[str, Callable[[Job], None]] = {
    "index": run_index,
    "segment": run_segment,
    "capture": run_capture,
    "thresholds": run_thresholds,
    "tally": run_tally,
    "information": run_information,
    "patches": run_patches,
    "map": run_map,
    "explain": run_explain,
    "report": run_report,
}
MOST_SKIPPED_LINES = 1000


@dataclass(frozen=True)
class Outcome:
    """What an audit came to: the finished run, its first page, and how many samples could not be read."""

    run: Run
    index_page: str
    unreadable: int
    seconds: float


def run_audit(config: AuditConfig, *, client: Client | None = None, budget: Budget = NO_LIMITS) -> Outcome:
    """Audit a model, or finish the audit that `config.out` holds.

    client: of a Dask cluster that shall do the work, in place of `config.cluster`.
    Raises AuditStoppedError where `budget` is used up, and MicrotomeError for anything the user can mend; what a run
    holds is never lost by it.
    """
    with executor_of(config.cluster, config.workers, client) as executor, holding(config.out) as stop:
        job = prepare(config, executor, budget=budget, stop=stop)
        if config.explain:
            want_explanations(job.run, config.explanations())
        if config.rules is not None:
            keep_rules(job.run, config.rules)
        return finish(job if config.map else _without_maps(job), budget)


def resume_audit(
    path: Path | str,
    *,
    workers: int | None = None,
    cluster: str = "threads",
    client: Client | None = None,
    budget: Budget = NO_LIMITS,
    maps: bool = True,
    explain: Mapping[str, int] | bool = True,
) -> Outcome:
    """Finish the audit in `path` with the settings it was started with; maps: False = but without those still to do.

    explain: False = without explanations that are still to do; "units" and "classes": add explanations of so many.
    """
    Run.open(path)  # where there is none, say so before anything is written there
    with executor_of(cluster, workers, client) as executor, holding(path) as stop:
        job = reopen(path, executor, workers=workers, stop=stop)
        if not explain and leave_out_explanations(job.run):
            say(f"explanations are left out; to make them: microtome audit --resume {job.run.url} --explain")
        elif isinstance(explain, Mapping):
            want_explanations(job.run, explain)
        return finish(job if maps else _without_maps(job), budget)


def _without_maps(job: Job) -> Job:
    """The job, from whose run a stage map that is still to be done is taken out."""
    if left_out := leave_out_maps(job.run):
        say(f"the maps of {', '.join(left_out)} are left out; to make them: microtome map {job.run.url}")
    return job


@contextmanager
def holding(where: Path | str, what: str = "audit") -> Iterator[StopSignal]:
    """Hold the run at `where`, there or to be made, against everybody else.

    The signal is set when somebody else has taken the run over all the same.
    """
    place = open_place(where)
    stop = StopSignal()
    if not Run.exists(place):
        Run.refuse_taken(place)

    def lost() -> None:
        stop.set("another process has taken the run over")

    try:
        with RunLock(place, what, on_lost=lost):
            yield stop
    finally:
        if not Run.exists(place):
            Run.sweep_up(place)


@contextmanager
def executor_of(cluster: str, workers: int | None, client: Client | None = None) -> Iterator[Executor]:
    """Whoever does the work: threads, worker processes of this machine, or a Dask cluster that is there already."""
    if cluster == "threads" and client is None:
        yield ThreadExecutor()
        return
    from microtome.dissect.audit.cluster import dask_executor

    with dask_executor(cluster, workers, client) as executor:
        yield executor


def _is_done(job: Job, stage: str) -> bool:
    """Whether run.json calls the stage done and all records of its shards and merges still vouch for their files."""
    known = job.run.info["stages"].get(stage)
    if known is None or known["state"] != "done":
        return False
    sizes = level_sizes(job.run.plan.count) if stage in SHARDED else []
    return all(len(job.commits(level_name(stage, level)).done(size)) == size for level, size in enumerate(sizes))


def finish(job: Job, budget: Budget = NO_LIMITS) -> Outcome:
    """Run every stage of `job` that is not done yet, and log what happens."""
    try:
        with RunLog(job.run.place) as log:
            return _finish(job, budget, log)
    finally:
        say(format_summary(summarise(job.run.place)))


def _finish(job: Job, budget: Budget, log: RunLog) -> Outcome:
    started = time.monotonic()
    cv2.setNumThreads(1)  # parallelism is across shards
    map_memory = memory_for_maps(job.run, job.config)
    refuse_memory(budget, map_memory, job.samples)
    log.event(
        "start",
        run=job.run.url,
        cluster=job.executor.name,
        host=platform.node(),
        cores=available_cores(),
        samples=job.samples,
        shards=job.run.plan.count,
        config=job.run.info["config"],
        versions=job.run.info["versions"],
    )
    _say_what_it_takes(job, map_memory)
    with Watch(budget, job.stop, job.run.place) as watch:
        job = replace(job, on_shards=_Committed(job, log, watch))
        for stage, run_stage in STAGES.items():
            if stage in job.run.info["stages"] and not _is_done(job, stage):
                watch.begin_stage()
                _run_one(job, stage, run_stage, log)
    seconds = time.monotonic() - started
    unreadable = job.run.info["data"]["unreadable"]
    log.event("end", seconds=round(seconds, 1), samples=job.samples, unreadable=unreadable)
    say(f"audit of {job.samples:,} images took {duration(seconds)} ({job.run.url})")
    return Outcome(job.run, job.run.index_page, unreadable, seconds)


def _run_one(job: Job, stage: str, run_stage: Callable[[Job], None], log: RunLog) -> None:
    """Run one stage; however it ends, run.json and the log tell."""
    shards = job.run.plan.count if stage in SHARDED else None
    job.run.set_stage(stage, "running", 0.0)
    log.event("stage", name=stage, state="running", shards=shards)
    begun = time.monotonic()
    try:
        if job.stop.is_set():
            raise Stopped
        run_stage(job)
    except BaseException as error:
        spent = time.monotonic() - begun
        job.run.set_stage(stage, "pending", spent)
        log.event("stage", name=stage, state="pending", seconds=round(spent, 3))
        if isinstance(error, Stopped) and job.stop.reason:
            raise AuditStoppedError(_stopped_text(job, stage)) from error
        raise
    spent = time.monotonic() - begun
    job.run.set_stage(stage, "done", spent)
    rate = round(shards / spent, 3) if shards and spent > 0 else None
    log.event("stage", name=stage, state="done", seconds=round(spent, 3), shards=shards, rate=rate)
    if stage == "index":
        for remark in job.run.info["data"].get("remarks", []):
            log.event("remark", **remark)
    if stage == "capture":
        _log_skipped(job, log)


def _stopped_text(job: Job, stage: str) -> str:
    text = f"stopped: {job.stop.reason}; {stage} is "
    if stage in SHARDED:
        count = job.run.plan.count
        text += f"at {len(job.commits(stage).done(count)):,} of {count:,} shards"
    else:
        text += "still to be done"
    return f"{text}. Go on with: microtome audit --resume {job.run.url}"


def _say_what_it_takes(job: Job, map_memory: int) -> None:
    """Disk and time that the run as a whole is expected to take, and the memory that its maps do."""
    estimate = job.run.info["estimate"]
    if not estimate["bytes_per_sample"]:
        return  # a run of an earlier version
    needed = disk_needed(estimate, job.samples, job.config.keep_activations)
    free = free_disk(job.run.place)
    text = f"{job.samples:,} images: about {size_text(needed)} of disk"
    text += f" ({size_text(free)} free)" if free is not None else ""
    maps = f"; its maps take about {size_text(map_memory)} of memory" if map_memory else ""
    say(f"{text}, about {duration(estimate['seconds_per_sample'] * job.samples)} on this machine alone{maps}")
    if free is not None and needed > free and _is_done(job, "capture") is False:
        say("there may be too little disk: the audit will stop when it is full, and can be resumed when there is more")


def _log_skipped(job: Job, log: RunLog) -> None:
    errors = capture_totals(job).error
    for index in np.flatnonzero(errors != "")[:MOST_SKIPPED_LINES].tolist():
        log.event("skipped", sample=index, key=job.dataset.entry(index).key, reason=errors[index])


@dataclass(frozen=True)
class _Committed:
    """Told of shards as they are committed: logs them and counts their bytes."""

    job: Job
    log: RunLog
    watch: Watch

    def __call__(self, stage: str, shards: Sequence[int]) -> None:
        commits = self.job.commits(stage)
        for shard in shards:
            written = commits.bytes_of(shard)
            self.watch.add(written)
            self.log.event("shard", stage=stage, shard=shard, bytes=written)
