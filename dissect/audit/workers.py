"""What a worker of a Dask cluster does for an audit: blocks of shards, within one process.

A worker opens the run by its address, and data and model by what run.json says of them; it writes its shards and
their states there itself. What it keeps open serves one attempt at one stage, so that the model is loaded once;
a block that is done again, because the worker that had it died, skips what is committed.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from threading import Lock, RLock
from typing import Any

import cv2
from distributed import get_worker

from microtome.dissect.audit.forward import ScaleOverflow
from microtome.dissect.audit.heap import keep_memory
from microtome.dissect.audit.job import Division, Job, choose_device, run_key
from microtome.dissect.audit.prepare import join
from microtome.dissect.audit.schedule import ShardTask, ThreadExecutor, run_shards
from microtome.dissect.audit.stages.registry import committed_as, work_named
from microtome.dissect.audit.stopping import Stopped, StopSignal
from microtome.storage.arrays import limit_threads
from microtome.storage.errors import MicrotomeError, RunMismatchError, UsageError
from microtome.storage.run import Run

ACCELERATOR = "GPU"
"""The Dask resource of workers that capture shall be kept to, where any worker declares it."""
TASKS_AN_ACCELERATOR = 2
"""So that one block begins while the last shards of another are written."""
SECONDS_UNTIL_SEEN = 30
"""A network file system may show an older run.json for as long."""

Outcome = MicrotomeError | ScaleOverflow | Stopped | None
"""What came of a task: None where all is well, else what the executor raises: a repetition would not mend it."""


class WorkerFailedError(MicrotomeError):
    """An error of a worker that this process does not know by class: its words and its exit code."""

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code

    def __reduce__(self) -> tuple[type[WorkerFailedError], tuple[str, int]]:
        return type(self), (str(self), self.exit_code)


@dataclass(frozen=True)
class Order:
    """One attempt at one stage, as its workers are told of it.

    where, key: the run's address, and what its numbers depend on; work: the name under which it commits;
    audit, attempt: unique names; microtome: the version that is asking.
    """

    where: str
    key: str
    work: str
    audit: str
    attempt: str
    microtome: str


def run_block(order: Order, shards: list[int]) -> Outcome:
    """Do `shards` in this worker, as far as they are not committed."""
    with _SESSIONS.at_work(order.attempt):
        return call_quietly(_do, order, shards)


def call_quietly(function: Callable[..., object], *arguments: Any) -> Outcome:
    """Call `function(*arguments)`, keep its result here, and return what it raised on purpose."""
    try:
        function(*arguments)
    except MicrotomeError as error:
        known = type(error).__module__.startswith("microtome.")
        return error if known else WorkerFailedError(str(error), error.exit_code)
    except (ScaleOverflow, Stopped) as signal:
        return signal
    return None


async def abandon(attempt: str) -> None:
    """Begin no further shard of `attempt`; returns when none is at work here."""
    _SESSIONS.stop(attempt)
    while _SESSIONS.is_at_work(attempt):
        await asyncio.sleep(0.05)


async def forget(audit: str) -> None:
    """Close everything that is open for `audit`: it is finished or given up."""
    await asyncio.to_thread(_SESSIONS.forget, audit)


def tasks_at_once(threads: int, accelerators: float) -> int:
    """Capture tasks that a worker runs at a time."""
    return min(threads, max(1, int(TASKS_AN_ACCELERATOR * accelerators))) if accelerators else threads


def _do(order: Order, shards: list[int]) -> None:
    with _SESSIONS.of(order) as session:
        commits = session.job.commits(committed_as(order.work))

        def task(shard: int) -> None:
            if _SESSIONS.is_stopped(order.attempt):
                raise Stopped
            if not commits.is_done(shard):
                session.task(shard)

        lanes = min(len(shards), session.lanes)
        if lanes > 1:
            run_shards(order.work, task, shards, workers=lanes, stop=StopSignal())
        else:
            for shard in shards:
                task(shard)


class _Session:
    """What this process keeps open for one attempt at a stage: its job, and the task that does a shard."""

    def __init__(self, order: Order, job: Job, threads: int, accelerators: float) -> None:
        work = work_named(order.work)
        self.audit = order.audit
        self.users = 0
        self.lanes = 1
        if work.needs_model:
            choose_device(job.config.device)
            job.check_here()
            job = replace(job, division=_widen(job.division, threads))
            self.lanes = -(-work.lanes(job.division) // tasks_at_once(threads, accelerators))
        self.job = job
        self._stack = ExitStack()
        self.task: ShardTask = self._stack.enter_context(work.ready(job, lambda amount: None))

    def close(self) -> None:
        """Let go of everything."""
        self._stack.close()


def _widen(division: Division, threads: int) -> Division:
    """On the CPU, as many forward passes at once as a worker has room for: a pass has the threads it always had."""
    if division.device.type != "cpu":
        return division
    passes = max(1, threads // division.torch_threads)
    return replace(division, passes=passes, lanes=passes + 1)


class _Sessions:
    """The sessions of this process. One is open at a time, but for those that others are still leaving."""

    def __init__(self) -> None:
        self._opening = RLock()
        self._open: dict[str, _Session] = {}
        self._jobs: dict[tuple[str, str, str], Job] = {}
        self._counting = Lock()
        self._at_work: Counter[str] = Counter()
        self._stopped: set[str] = set()

    @contextmanager
    def of(self, order: Order) -> Iterator[_Session]:
        """The session for an attempt, opened where it is not open yet."""
        with self._opening:
            session = self._open.get(order.attempt)
            if session is None:
                self._close(lambda other: True)
                state = get_worker().state
                cv2.setNumThreads(1)  # parallelism is across shards
                limit_threads(state.nthreads)
                keep_memory()
                job = self._job(order, state.nthreads)
                accelerators = state.total_resources.get(ACCELERATOR, 0)
                session = self._open[order.attempt] = _Session(order, job, state.nthreads, accelerators)
                if self.is_stopped(order.attempt):
                    session.job.stop.set()
            session.users += 1
        try:
            yield session
        finally:
            with self._opening:
                session.users -= 1

    def _job(self, order: Order, threads: int) -> Job:
        """The job of an audit: one for the stages that run the model, so that it goes with them, one for the rest."""
        if order.microtome != version("microtome"):
            raise RunMismatchError(
                f"worker {get_worker().address} has Microtome {version('microtome')}, the audit runs with "
                f"{order.microtome}; install the same everywhere"
            )
        if work_named(order.work).needs_model:
            return _join(order, threads)
        kept = (order.audit, order.where, order.key)
        if kept not in self._jobs:
            self._jobs.clear()
            self._jobs[kept] = _join(order, threads)
        return self._jobs[kept]

    def forget(self, audit: str) -> None:
        """Close what is open for `audit`."""
        with self._opening:
            self._close(lambda session: session.audit == audit)
            self._jobs.clear()

    def _close(self, which: Callable[[_Session], bool]) -> None:
        for attempt, session in list(self._open.items()):
            if session.users == 0 and which(session):
                del self._open[attempt]
                session.close()

    @contextmanager
    def at_work(self, attempt: str) -> Iterator[None]:
        """Count who is at work, so that `abandon` knows when the last has left."""
        with self._counting:
            self._at_work[attempt] += 1
        try:
            yield
        finally:
            with self._counting:
                self._at_work[attempt] -= 1

    def is_at_work(self, attempt: str) -> bool:
        """Whether any block of `attempt` is at work here."""
        with self._counting:
            return self._at_work[attempt] > 0

    def stop(self, attempt: str) -> None:
        """Have the blocks of `attempt` stop at the next shard, or batch, and those that come yet do nothing."""
        self._stopped.add(attempt)
        session = self._open.get(attempt)
        if session is not None and session.job not in self._jobs.values():
            session.job.stop.set()

    def is_stopped(self, attempt: str) -> bool:
        """Whether `attempt` was abandoned."""
        return attempt in self._stopped


def _join(order: Order, threads: int) -> Job:
    """The job of the run that an order is about, as soon as this worker sees that run."""
    deadline = time.monotonic() + SECONDS_UNTIL_SEEN
    while True:
        if not Run.exists(order.where):
            raise UsageError(
                f"worker {get_worker().address} sees no run at {order.where}; give --out a place that all workers share"
            )
        job = join(order.where, ThreadExecutor(), threads)
        if run_key(job.run) == order.key:
            return job
        if time.monotonic() > deadline:
            raise UsageError(
                f"{order.where} as worker {get_worker().address} sees it is another run; give --out a place that all "
                "workers share"
            )
        time.sleep(1.0)


_SESSIONS = _Sessions()
