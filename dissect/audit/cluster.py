"""The work of an audit on the workers of a Dask cluster: processes of this machine, or of any number of machines.

A worker opens the run by its address, and the data and the model by what run.json says of them; it writes its shards
and their states there itself. What passes through the scheduler is the numbers of shards. A task takes several of
them, since a task costs milliseconds; a task that is done again, because its worker died, skips what is committed.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import ExitStack, contextmanager
from importlib.metadata import version
from typing import Any, TypeVar

import cv2
from distributed import Client, Future, KilledWorker, LocalCluster, as_completed, get_worker, wait
from distributed.comm.core import CommClosedError

from microtome.dissect.audit.config import available_cores
from microtome.dissect.audit.forward import ScaleOverflow
from microtome.dissect.audit.job import Job, run_key
from microtome.dissect.audit.prepare import join
from microtome.dissect.audit.schedule import Advance, ShardedWork, ShardTask, Stopped, ThreadExecutor, run_shards
from microtome.dissect.audit.stages.registry import work_named
from microtome.storage.errors import MicrotomeError, UsageError
from microtome.storage.run import Run

T = TypeVar("T")

ACCELERATOR = "GPU"
"""The Dask resource of workers that capture shall be kept to, where any worker declares it."""
SHARDS_A_TASK = 8
TASKS_A_WORKER = 4
"""So many tasks at least for every worker, as far as the shards suffice, so that all finish together."""
SECONDS_TO_CONNECT = 30
SECONDS_TO_STOP = 120


class ClusterError(MicrotomeError):
    """The cluster cannot be reached, was lost, or cannot do the work."""


class WorkerFailedError(MicrotomeError):
    """An error of a worker, with its words and its exit code."""

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code


@contextmanager
def dask_executor(cluster: str, workers: int | None, client: Client | None = None) -> Iterator[DaskExecutor]:
    """An executor over `client`, over new processes of this machine, or over the scheduler at address `cluster`."""
    with ExitStack() as stack:
        if client is None and cluster == "processes":
            processes = LocalCluster(
                n_workers=workers or available_cores(),
                threads_per_worker=1,
                host="127.0.0.1",
                dashboard_address=None,
                memory_limit=0,
            )
            stack.enter_context(processes)
            client = stack.enter_context(Client(processes))
        elif client is None:
            client = stack.enter_context(_connect(cluster))
        yield DaskExecutor(client, "processes" if cluster == "processes" else str(client.scheduler_info()["address"]))


def _connect(address: str) -> Client:
    try:
        return Client(address, timeout=SECONDS_TO_CONNECT, set_as_default=False)
    except (OSError, TimeoutError, ValueError) as error:
        raise ClusterError(
            f"no Dask scheduler answers at {address} ({error}); start one with `dask scheduler`, workers with "
            f"`dask worker {address}`, or leave --cluster out"
        ) from error


class DaskExecutor:
    """The workers of a Dask cluster."""

    def __init__(self, client: Client, name: str) -> None:
        self.name = name
        self._client = client
        self._check_workers()

    def run(self, job: Job, work: ShardedWork, shards: Sequence[int], advance: Advance) -> None:
        """Do `work` for all of `shards`. On any exception, Ctrl-C included, running tasks finish their shard first."""
        token = f"{work.name}-{uuid.uuid4().hex[:12]}"
        blocks = divide_shards(shards, self._lanes(work))
        resources = {ACCELERATOR: 1} if work.needs_model and self._has_accelerators() else None
        futures = {
            self._client.submit(
                run_block,
                job.run.url,
                run_key(job.run),
                work.name,
                block,
                token,
                pure=False,
                key=f"{token}-{block[0]:06d}",
                priority=-block[0],
                resources=resources,
            ): block
            for block in blocks
        }
        try:
            for future in as_completed(futures):
                _raise(_outcome(future))
                advance(sum(work.amount(job, shard) for shard in futures[future]))
        except BaseException:
            self._abandon(token, list(futures))
            raise

    def where_the_model_runs(self, function: Callable[..., T], *arguments: Any) -> T | None:
        """Call `function(*arguments)` on a worker that will run the model."""
        resources = {ACCELERATOR: 1} if self._has_accelerators() else None
        future = self._client.submit(call_quietly, function, *arguments, pure=False, resources=resources)
        _raise(_outcome(future))
        return None

    def _lanes(self, work: ShardedWork) -> int:
        """Threads of all workers that may take tasks of `work`."""
        infos = self._client.scheduler_info(n_workers=-1)["workers"].values()
        able = [info for info in infos if not work.needs_model or not self._has_accelerators() or _accelerators(info)]
        return max(1, sum(info["nthreads"] for info in able))

    def _has_accelerators(self) -> bool:
        return any(_accelerators(info) for info in self._client.scheduler_info(n_workers=-1)["workers"].values())

    def _check_workers(self) -> None:
        """Raise ClusterError where there are no workers, or one has no or another Microtome."""
        try:
            self._client.wait_for_workers(1, timeout=SECONDS_TO_CONNECT)
        except TimeoutError as error:
            raise ClusterError(f"the scheduler at {self.name} has no workers; start some and run this again") from error
        ours = version("microtome")
        for address, theirs in self._client.run(microtome_version, on_error="return").items():
            if theirs != ours:
                raise ClusterError(
                    f"worker {address} has Microtome {theirs}, this process has {ours}; install the same in both"
                )

    def _abandon(self, token: str, futures: list[Future[Any]]) -> None:
        """Keep tasks from beginning further shards, and wait until those at work are through."""
        try:
            self._client.run(abandon, token, on_error="ignore")
            wait(futures, timeout=SECONDS_TO_STOP)  # type: ignore[no-untyped-call]
        except (OSError, CommClosedError, TimeoutError, CancelledError):
            pass  # the cluster is gone, and with it whoever could still write
        self._client.cancel(futures)


def _accelerators(info: dict[str, Any]) -> float:
    resources: dict[str, float] = info.get("resources", {})
    return resources.get(ACCELERATOR, 0)


def microtome_version() -> str:
    """The version that this process has."""
    return version("microtome")


def divide_shards(shards: Sequence[int], lanes: int) -> list[list[int]]:
    """Neighbouring shards together, at most `SHARDS_A_TASK`, and enough blocks that all lanes finish together."""
    size = max(1, min(SHARDS_A_TASK, len(shards) // (lanes * TASKS_A_WORKER)))
    return [list(shards[start : start + size]) for start in range(0, len(shards), size)]


Outcome = tuple[str, int] | ScaleOverflow | None
"""What came of a task: None where all is well; words and exit code of an error that a repetition would not mend."""


def _outcome(future: Future[Any]) -> Outcome:
    try:
        outcome: Outcome = future.result()
    except KilledWorker as error:
        raise ClusterError(
            f"workers keep dying at {future.key} ({error}); they may lack memory: see their logs, and try "
            "--shard-samples in a new run, or fewer threads a worker. What is committed is kept: resume the audit"
        ) from error
    except (CancelledError, CommClosedError) as error:
        raise ClusterError(
            "the Dask scheduler was lost; what is committed is kept: start the cluster again and resume the audit"
        ) from error
    return outcome


def _raise(outcome: Outcome) -> None:
    if isinstance(outcome, ScaleOverflow):
        raise outcome
    if outcome is not None:
        raise WorkerFailedError(*outcome)


# In the workers


def call_quietly(function: Callable[..., object], *arguments: Any) -> Outcome:
    """Call `function(*arguments)` and keep its result here."""
    try:
        function(*arguments)
    except MicrotomeError as error:
        return str(error), error.exit_code
    return None


_ABANDONED: set[str] = set()


def abandon(token: str) -> None:
    """Begin no further shard of the tasks that carry `token`."""
    _ABANDONED.add(token)


def run_block(where: str, key: str, name: str, shards: list[int], token: str) -> Outcome:
    """Do the work `name` for `shards` of the run at `where`, in this worker, as far as they are not committed."""
    try:
        session = _SESSIONS.of(where, key, name)
        done = session.job.commits(name)

        def task(shard: int) -> None:
            if token in _ABANDONED:
                raise Stopped
            if not done.is_done(shard):
                session.task(shard)

        lanes = min(len(shards), session.lanes)
        run_shards(name, task, shards, workers=lanes, stop=threading.Event())
    except Stopped:
        return None
    except ScaleOverflow as overflow:
        return overflow
    except MicrotomeError as error:
        return str(error), error.exit_code
    return None


class _Session:
    """What this process keeps open for one stage of one run."""

    def __init__(self, where: str, key: str, name: str, threads: int) -> None:
        work = work_named(name)
        self.job = join(where, ThreadExecutor(), threads)
        if run_key(self.job.run) != key:
            raise UsageError(f"{where} as this worker sees it is another run; give a place that all workers share")
        if work.needs_model:
            self.job.check_here()
        self.lanes = _lanes_a_task(work, self.job, threads)
        self._stack = ExitStack()
        self.task: ShardTask = self._stack.enter_context(work.ready(self.job, lambda amount: None))

    def close(self) -> None:
        """Let go of everything."""
        self._stack.close()


def _lanes_a_task(work: ShardedWork, job: Job, threads: int) -> int:
    """Shards that one task does at once: where the model runs, one is decoded or written while another computes.

    A worker runs as many tasks as it has threads, but only one for each accelerator that it declares.
    """
    if not work.needs_model:
        return 1
    tasks = int(get_worker().state.total_resources.get(ACCELERATOR, threads)) or 1
    return max(1, work.lanes(job.division) // tasks)


class _Sessions:
    """The one session that is open in this process; another stage or run closes it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._name: tuple[str, str, str] | None = None
        self._session: _Session | None = None

    def of(self, where: str, key: str, name: str) -> _Session:
        """The session for a stage, opened if it is not the one that is open."""
        with self._lock:
            if self._session is None or self._name != (where, key, name):
                if self._session is not None:
                    self._session.close()
                    self._session = None
                if not Run.exists(where):
                    raise UsageError(f"this worker sees no run at {where}; give --out a place that all workers share")
                cv2.setNumThreads(1)  # parallelism is across shards
                self._session = _Session(where, key, name, get_worker().state.nthreads)
                self._name = (where, key, name)
            return self._session


_SESSIONS = _Sessions()
