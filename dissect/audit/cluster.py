"""The work of an audit on the workers of a Dask cluster: processes of this machine, or of any number of machines.

What passes through the scheduler is the numbers of shards; the workers write what comes of them (`audit/workers.py`).
A task takes several shards, since a task costs milliseconds. Only a few tasks for each worker are handed out ahead:
workers may come and go, the last blocks are small, so that all finish together, and a worker's death is blamed on
nothing but what it had in its hands.
"""

from __future__ import annotations

import logging
import queue
import signal
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import ExitStack, contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from multiprocessing import resource_tracker
from typing import Any, TypeVar

import dask
from distributed import Client, Future, KilledWorker, LocalCluster
from distributed.comm.core import CommClosedError
from distributed.security import Security

from microtome.dissect.audit.cores import available_cores
from microtome.dissect.audit.job import Job, run_key
from microtome.dissect.audit.progress import say
from microtome.dissect.audit.schedule import Advance, Done, ShardedWork
from microtome.dissect.audit.stopping import Stopped
from microtome.dissect.audit.workers import (
    ACCELERATOR,
    TASKS_AN_ACCELERATOR,
    Order,
    Outcome,
    abandon,
    call_quietly,
    forget,
    run_block,
    tasks_at_once,
)
from microtome.storage.errors import MicrotomeError

T = TypeVar("T")

SHARDS_A_TASK, CAPTURES_A_TASK = 16, 8
"""At most: progress is told of whole blocks, and those of capture take long."""
SHARE_A_TASK = 2
"""A block is at most this part of what is left for one lane."""
TASKS_AHEAD = 2
"""Tasks handed out for each lane: one at work, one to begin without asking."""
SETTINGS = {  # of workers of our own: nobody watches them on a dashboard, for which Dask looks around all the time
    "distributed.admin.tick.interval": "500ms",
    "distributed.admin.system-monitor.interval": "5s",
    "distributed.scheduler.active-memory-manager.start": False,
    "distributed.scheduler.work-stealing-interval": "1s",
    "distributed.worker.profile.enabled": False,
}
SECONDS_TO_CONNECT = 30
SECONDS_BETWEEN_LOOKS = 1.0
SECONDS_UNTIL_SAID, SECONDS_WITHOUT_WORKERS = 10, 600

_LOST = (CancelledError, CommClosedError)


class ClusterError(MicrotomeError):
    """The cluster cannot be reached, was lost, or cannot do the work."""


@contextmanager
def dask_executor(cluster: str, workers: int | None, client: Client | None = None) -> Iterator[DaskExecutor]:
    """An executor over `client`, over new processes of this machine, or over the scheduler at address `cluster`."""
    with ExitStack() as stack:
        name = cluster
        if client is not None:
            name = _address(client)
        elif cluster == "processes":
            client = stack.enter_context(_processes(workers or available_cores()))
        else:
            client = stack.enter_context(_connected(cluster))
        executor = DaskExecutor(client, name)
        stack.callback(executor.close)
        yield executor


@contextmanager
def _processes(workers: int) -> Iterator[Client]:
    """A client of a cluster of `workers` new processes of this machine, with one thread each.

    Ctrl-C in a terminal reaches every process of the command. It is for this one alone: the others are told by it to
    stop. A blocked signal stays blocked in the threads and processes that are begun meanwhile, and in theirs.
    """
    resource_tracker.ensure_running()  # it unblocks the signal where it is begun
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        with dask.config.set(SETTINGS):
            cluster = LocalCluster(
                n_workers=workers,
                threads_per_worker=1,
                host="127.0.0.1",
                dashboard_address="127.0.0.1:0",  # None would listen on a fixed port
                scheduler_kwargs={"dashboard": False},
                memory_limit=0,
            )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    with cluster, Client(cluster, set_as_default=False) as client:
        yield client
        logging.getLogger("distributed.nanny").setLevel(logging.ERROR)  # it kills, with a warning, who ends slowly


@contextmanager
def _connected(address: str) -> Iterator[Client]:
    """A client of the scheduler at `address`."""
    logging.getLogger("distributed.client").setLevel(logging.CRITICAL)  # what it has to say is said in one line here
    if address.startswith("tls://") and Security().get_connection_args("client")["ssl_context"] is None:
        raise ClusterError(f"{address} asks for a certificate; name one in Dask's settings (docs/cluster.md says how)")
    try:
        client = Client(address, timeout=SECONDS_TO_CONNECT, set_as_default=False)
    except (OSError, TimeoutError, ValueError, TypeError, RuntimeError) as error:
        raise ClusterError(
            f"no Dask scheduler answers at {address} ({error or 'no answer'}); start one with `dask scheduler`, and "
            f"workers with `dask worker {address}`, or leave --cluster out"
        ) from error
    try:
        yield client
    finally:
        with suppress(TimeoutError):  # where the scheduler is gone it goes on knocking
            client.close(timeout=10 if client.status == "running" else 1)


def _address(client: Client) -> str:
    address: str = client.scheduler_info(n_workers=0)["address"]
    return address


class DaskExecutor:
    """The workers of a Dask cluster."""

    def __init__(self, client: Client, name: str) -> None:
        self.name = name
        self._client = client
        self._audit = uuid.uuid4().hex[:12]
        self._crew = _Crew(client, name)
        self._crew.check()

    def run(self, job: Job, work: ShardedWork, shards: Sequence[int], advance: Advance, done: Done) -> None:
        """Do `work` for all of `shards`. On any exception, Ctrl-C included, what is at work is waited for."""
        attempt = f"{work.name}-{uuid.uuid4().hex[:12]}"
        order = Order(job.run.url, run_key(job.run), work.name, self._audit, attempt, version("microtome"))
        hand_out = _HandOut(shards, CAPTURES_A_TASK if work.needs_model else SHARDS_A_TASK)
        at_work: dict[Future[Any], list[int]] = {}
        finished: queue.SimpleQueue[Future[Any]] = queue.SimpleQueue()
        try:
            while hand_out or at_work:
                if job.stop.is_set():
                    raise Stopped
                lanes = self._crew.lanes(work)
                while hand_out.may_go(len(at_work), lanes):
                    block = hand_out.take(lanes)
                    future = self._submit(work, run_block, order, block, key=f"{attempt}-{block[0]}-{hand_out.taken}")
                    at_work[future] = block
                    future.add_done_callback(finished.put)
                with suppress(queue.Empty):
                    future = finished.get(timeout=SECONDS_BETWEEN_LOOKS)
                    block = at_work.pop(future)
                    if self._is_through(future, block, hand_out):
                        advance(sum(work.amount(job, shard) for shard in block))
                        done(block)
        except BaseException:
            self._abandon(attempt, list(at_work))
            raise

    def where_the_model_runs(self, function: Callable[..., T], *arguments: Any) -> T | None:
        """Call `function(*arguments)` on a worker that will run the model."""
        resources = {ACCELERATOR: 1} if self._crew.has_accelerators() else None
        future = self._client.submit(call_quietly, function, *arguments, pure=False, resources=resources)
        try:
            _raise(future.result())
        except KilledWorker as error:
            raise ClusterError(f"workers of {self.name} die when the model is tried out: see their logs") from error
        except _LOST as error:
            raise self._crew.lost() from error
        return None

    def close(self) -> None:
        """Have the workers let go of what they keep open for this audit."""
        if self._client.status == "running":
            with suppress(*_LOST, OSError):
                self._client.run(forget, self._audit, on_error="ignore")

    def _submit(self, work: ShardedWork, function: Callable[..., Outcome], *arguments: Any, key: str) -> Future[Any]:
        pinned = work.needs_model and self._crew.has_accelerators()
        resources = {ACCELERATOR: 1 / TASKS_AN_ACCELERATOR} if pinned else None
        try:
            return self._client.submit(function, *arguments, pure=False, key=key, resources=resources)
        except _LOST as error:
            raise self._crew.lost() from error

    def _is_through(self, future: Future[Any], block: list[int], hand_out: _HandOut) -> bool:
        """Whether a block was done; where its workers died, it is handed out again. Raises what the worker raised."""
        try:
            _raise(future.result())
        except KilledWorker as error:
            if hand_out.again(block):
                return False
            raise ClusterError(
                f"workers keep dying at {_named(block)}; they may lack memory: see their logs, and try fewer threads a "
                "worker, or --shard-samples in a new run. What is committed is kept: resume the audit"
            ) from error
        except _LOST as error:
            raise self._crew.lost() from error
        hand_out.succeeded()
        return True

    def _abandon(self, attempt: str, futures: list[Future[Any]]) -> None:
        """Take back what was not begun, and wait until what was begun is through, or its worker is dead."""
        if self._client.status == "running":
            with suppress(*_LOST, OSError):
                self._client.cancel(futures)
                self._client.run(abandon, attempt, on_error="ignore")


class _HandOut:
    """Shards that wait to be handed out, in ascending order, in blocks that become smaller towards the end.

    Shards that workers died with come last and one by one, each alone at work, so that the one that kills is known.
    """

    def __init__(self, shards: Sequence[int], most: int) -> None:
        self._todo = deque(shards)
        self._most = most
        self._suspects: deque[int] = deque()
        self._accused: set[int] = set()
        self._lost_in_a_row = 0
        self._most_at_work = 1
        self.taken = 0

    def __bool__(self) -> bool:
        return bool(self._todo or self._suspects)

    def may_go(self, at_work: int, lanes: int) -> bool:
        """Whether another block may be handed out, with so many at work."""
        self._most_at_work = TASKS_AHEAD * lanes
        return at_work < self._most_at_work if self._todo else bool(self._suspects) and at_work == 0

    def take(self, lanes: int) -> list[int]:
        """The next block."""
        self.taken += 1
        if not self._todo:
            return [self._suspects.popleft()]
        return [self._todo.popleft() for _ in range(block_size(len(self._todo), lanes, self._most))]

    def again(self, block: list[int]) -> bool:
        """Put back a block that workers died with; False where that is no use: they did so when it was alone, or
        they do so whatever they are given."""
        self._lost_in_a_row += 1
        if block[0] in self._accused or self._lost_in_a_row > 2 * self._most_at_work:
            return False
        self._accused.update(block)
        self._suspects.extend(block)
        return True

    def succeeded(self) -> None:
        """Note that a block is through."""
        self._lost_in_a_row = 0


def block_size(left: int, lanes: int, most: int) -> int:
    """How many of the shards that are left the next task takes, `most` if they are many."""
    return max(1, min(most, left // (lanes * SHARE_A_TASK)))


class _Crew:
    """The workers that a scheduler has at the moment; they may come and go."""

    def __init__(self, client: Client, name: str) -> None:
        self._client = client
        self._name = name
        self._pinned = False
        self._infos: dict[str, dict[str, Any]] = {}
        self._looked: float | None = None
        self._seen = time.monotonic()
        self._said = False

    def check(self) -> None:
        """Raise ClusterError where there are no workers, or one has no or another Microtome."""
        try:
            self._client.wait_for_workers(1, timeout=SECONDS_TO_CONNECT)
        except TimeoutError as error:
            raise ClusterError(
                f"the scheduler at {self._name} has no workers; start some (`dask worker {self._name}`), then run this "
                "again"
            ) from error
        ours = version("microtome")
        for address, theirs in self._client.run(version, "microtome", on_error="return").items():
            if theirs != ours:
                has = "no Microtome" if isinstance(theirs, PackageNotFoundError) else f"Microtome {theirs}"
                raise ClusterError(f"worker {address} has {has}, this process has {ours}; install the same in both")

    def lanes(self, work: ShardedWork) -> int:
        """Tasks of `work` that can run at once now, at least 1. Raises ClusterError where nobody came back for long."""
        pinned = work.needs_model and self.has_accelerators()
        infos = [info for info in self._look() if _accelerators(info) or not pinned]
        accelerators = _accelerators if pinned else lambda info: 0
        lanes = sum(tasks_at_once(info["nthreads"], accelerators(info)) for info in infos)
        self._mind(lanes > 0)
        return max(1, lanes)

    def has_accelerators(self) -> bool:
        """Whether any worker declares the resource, or did so earlier: capture then stays with those that do."""
        self._pinned = self._pinned or any(_accelerators(info) for info in self._look())
        return self._pinned

    def lost(self) -> ClusterError:
        """The error for a scheduler that is gone."""
        return ClusterError(
            f"the Dask scheduler at {self._name} was lost; what is committed is kept: start the cluster again and "
            "resume the audit"
        )

    def _look(self) -> list[dict[str, Any]]:
        """What the scheduler knows of its workers, at most a second old."""
        if self._client.status != "running":
            raise self.lost()
        now = time.monotonic()
        if self._looked is None or now - self._looked > SECONDS_BETWEEN_LOOKS:
            try:
                self._infos = self._client.scheduler_info(n_workers=-1)["workers"]
            except (*_LOST, OSError) as error:
                raise self.lost() from error
            self._looked = now
        return list(self._infos.values())

    def _mind(self, some: bool) -> None:
        """Say once that there is nobody to do the work, and give up after long."""
        now = time.monotonic()
        if some:
            self._seen, self._said = now, False
        elif now - self._seen > SECONDS_WITHOUT_WORKERS:
            raise ClusterError(
                f"the scheduler at {self._name} has had no workers for this work for {SECONDS_WITHOUT_WORKERS} s; what "
                "is committed is kept: start workers and resume the audit"
            )
        elif now - self._seen > SECONDS_UNTIL_SAID and not self._said:
            self._said = True
            say(f"the scheduler at {self._name} has no workers for this work any more; waiting for some")


def _accelerators(info: dict[str, Any]) -> float:
    resources: dict[str, float] = info.get("resources", {})
    return resources.get(ACCELERATOR, 0)


def _named(block: list[int]) -> str:
    return f"shard {block[0]}" if len(block) == 1 else f"shards {block[0]} to {block[-1]}"


def _raise(outcome: Outcome) -> None:
    if outcome is not None:
        raise outcome
