"""Who does the work of an audit: threads of this process, or the workers of a Dask cluster.

A task takes the numbers of some shards, writes their regions and commits their small states; nothing larger than a
word comes back, so nothing large ever passes through a scheduler. Threads serve on one machine: the heavy parts
(decoding, torch, numba kernels, compression) all release the GIL.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from dask.base import compute
from dask.delayed import delayed

from microtome.dissect.audit.heap import keep_memory
from microtome.dissect.audit.job import Division, Job, choose_device
from microtome.dissect.audit.stopping import Stopped, StopSignal

T = TypeVar("T")
Advance = Callable[[int], None]
Done = Callable[[Sequence[int]], None]
ShardTask = Callable[[int], None]


@dataclass(frozen=True)
class ShardedWork:
    """Work on shards, each independent of the others.

    ready: opens all that a process needs and yields `task(shard)`, which returns when the shard is committed and is
    safe to call from several threads; it reports progress by `advance`. lanes: how many to call at once, given how
    a machine is divided. amount: by how much the progress grows with a shard. needs_model: whether it runs the model.
    """

    name: str
    ready: Callable[[Job, Advance], AbstractContextManager[ShardTask]]
    lanes: Callable[[Division], int]
    amount: Callable[[Job, int], int] = lambda job, shard: 1
    needs_model: bool = False


class Executor(Protocol):
    """Whoever runs the tasks. `name` is for people: threads, processes, or the scheduler's address."""

    name: str

    def run(self, job: Job, work: ShardedWork, shards: Sequence[int], advance: Advance, done: Done) -> None:
        """Do `work` for all of `shards`, and tell `done` of those that are committed, some at a time.

        On any exception, Ctrl-C included, and once `job.stop` is set (then with Stopped), waits for what is at work.
        """

    def where_the_model_runs(self, function: Callable[..., T], *arguments: Any) -> T | None:
        """Call `function(*arguments)` on a machine that will run the model; its result, if that is this process."""


class ThreadExecutor:
    """Threads of this process."""

    name = "threads"

    def run(self, job: Job, work: ShardedWork, shards: Sequence[int], advance: Advance, done: Done) -> None:
        """Do `work` for all of `shards`, in ascending order of start."""
        keep_memory()
        if work.needs_model:
            choose_device(job.config.device)  # a run that began on another machine may ask for what is not here
        with work.ready(job, advance) as task:

            def do(shard: int) -> None:
                task(shard)
                done([shard])

            run_shards(work.name, do, shards, workers=work.lanes(job.division), stop=job.stop)

    def where_the_model_runs(self, function: Callable[..., T], *arguments: Any) -> T:
        """`function(*arguments)`, here."""
        return function(*arguments)


def run_shards(stage: str, task: ShardTask, shards: Iterable[int], *, workers: int, stop: StopSignal) -> None:
    """Call `task(shard)` for every shard, `workers` at a time, in ascending order of start.

    On any exception, Ctrl-C included, `stop` is set, the tasks at work are waited for, and the exception goes on.
    """

    def unless_stopped(shard: int) -> None:
        if stop.is_set():
            raise Stopped
        task(shard)

    with ThreadPoolExecutor(workers, thread_name_prefix=stage) as pool:
        try:
            todo = [
                delayed(unless_stopped, pure=False, traverse=False)(shard, dask_key_name=_key(stage, shard))
                for shard in shards
            ]
            compute(*todo, scheduler="threads", pool=pool, traverse=False, optimize_graph=False)  # type: ignore[no-untyped-call]
        except BaseException:
            stop.set()
            raise


def _key(stage: str, shard: int) -> str:
    """Dask starts independent tasks from the last key to the first: number them downwards."""
    return f"{stage}-{10**9 - shard:09d}"
