"""The audit: stages in order, each resumed where it stopped."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import cv2

from microtome.dissect.audit.config import AuditConfig
from microtome.dissect.audit.job import Job
from microtome.dissect.audit.prepare import prepare, reopen
from microtome.dissect.audit.progress import duration, say
from microtome.dissect.audit.schedule import Executor, ThreadExecutor
from microtome.dissect.audit.stages.capture import run_capture
from microtome.dissect.audit.stages.index import run_index
from microtome.dissect.audit.stages.patches import run_patches
from microtome.dissect.audit.stages.report import run_report
from microtome.dissect.audit.stages.tally import run_tally
from microtome.dissect.audit.stages.thresholds import run_thresholds
from microtome.storage.run import Run

if TYPE_CHECKING:
    from distributed import Client

STAGES: dict[str, Callable[[Job], None]] = {
    "index": run_index,
    "capture": run_capture,
    "thresholds": run_thresholds,
    "tally": run_tally,
    "patches": run_patches,
    "report": run_report,
}


SHARDED = ("capture", "thresholds", "tally")


@dataclass(frozen=True)
class Outcome:
    """What an audit came to: the finished run, its first page, and how many samples could not be read."""

    run: Run
    index_page: str
    unreadable: int
    seconds: float


def run_audit(config: AuditConfig, *, client: Client | None = None) -> Outcome:
    """Audit a model, or finish the audit that `config.out` holds.

    client: of a Dask cluster that shall do the work, in place of `config.cluster`.
    Raises MicrotomeError for anything the user can mend; a run on disk is never lost by it.
    """
    with executor_of(config.cluster, config.workers, client) as executor:
        return finish(prepare(config, executor))


def resume_audit(
    path: Path | str, *, workers: int | None = None, cluster: str = "threads", client: Client | None = None
) -> Outcome:
    """Finish the audit in `path` with the settings it was started with."""
    with executor_of(cluster, workers, client) as executor:
        return finish(reopen(path, executor, workers=workers))


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
    """Whether run.json calls the stage done and every shard's record still vouches for its files."""
    known = job.run.info["stages"].get(stage)
    if known is None or known["state"] != "done":
        return False
    shards = job.run.plan.count
    return stage not in SHARDED or len(job.commits(stage).done(shards)) == shards


def finish(job: Job) -> Outcome:
    """Run every stage of `job` that is not done yet."""
    started = time.monotonic()
    cv2.setNumThreads(1)  # parallelism is across shards
    for stage, run_stage in STAGES.items():
        if _is_done(job, stage):
            continue
        job.run.set_stage(stage, "running", 0.0)
        begun = time.monotonic()
        try:
            run_stage(job)
        except BaseException:
            job.run.set_stage(stage, "pending", time.monotonic() - begun)
            raise
        job.run.set_stage(stage, "done", time.monotonic() - begun)
    seconds = time.monotonic() - started
    unreadable = job.run.info["data"]["unreadable"]
    say(f"audit of {job.samples:,} images took {duration(seconds)} ({job.run.url})")
    return Outcome(job.run, job.run.index_page, unreadable, seconds)
