"""Run a stage's work, one shard a task, through Dask.

A task takes the number of a shard, writes that shard's region and commits its small state; nothing but None comes
back, so nothing large ever passes through the scheduler. Threads serve on one machine: the heavy parts (decoding,
torch, numba kernels, compression) all release the GIL.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

from dask.base import compute
from dask.delayed import delayed

ShardTask = Callable[[int], None]


class Stopped(Exception):  # noqa: N818 - not an error: another task failed, or the user pressed Ctrl-C
    """Raised inside a task that notices that the stage is being abandoned."""


def run_shards(stage: str, task: ShardTask, shards: Iterable[int], *, workers: int, stop: threading.Event) -> None:
    """Call `task(shard)` for every shard, `workers` at a time, in ascending order of start.

    On any exception, Ctrl-C included, `stop` is set, the tasks at work are waited for, and the exception goes on.
    """
    with ThreadPoolExecutor(workers, thread_name_prefix=stage) as pool:
        try:
            todo = [
                delayed(task, pure=False, traverse=False)(shard, dask_key_name=_key(stage, shard)) for shard in shards
            ]
            compute(*todo, scheduler="threads", pool=pool, traverse=False, optimize_graph=False)  # type: ignore[no-untyped-call]
        except BaseException:
            stop.set()
            raise


def _key(stage: str, shard: int) -> str:
    """Dask starts independent tasks from the last key to the first: number them downwards."""
    return f"{stage}-{10**9 - shard:09d}"
