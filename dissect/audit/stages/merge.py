"""Reading back what shards committed, in shard order: what every merge has in common."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from microtome.dissect.audit.job import Job
from microtome.dissect.audit.progress import progress
from microtome.dissect.audit.schedule import Stopped, run_shards

State = dict[str, NDArray[np.generic]]


def states(job: Job, stage: str) -> Iterator[tuple[range, State]]:
    """The samples and the committed state of every shard of `stage`, in shard order."""
    commits = job.commits(stage)
    for shard in range(job.run.plan.count):
        yield job.run.plan.samples_of(shard), commits.state(shard)


def part(state: State, name: str) -> State:
    """The arrays within a state whose names are "NAME/..."."""
    prefix = f"{name}/"
    return {key.removeprefix(prefix): array for key, array in state.items() if key.startswith(prefix)}


def pack_texts(texts: Sequence[str]) -> NDArray[np.uint8]:
    """Texts as an array of bytes, for a state holds numbers only."""
    return np.frombuffer(json.dumps(list(texts)).encode(), np.uint8)


def unpack_texts(packed: NDArray[np.generic]) -> list[str]:
    """The inverse of `pack_texts`."""
    texts: list[str] = json.loads(packed.tobytes())
    return texts


def map_shards(job: Job, stage: str, work: Callable[[int], State]) -> None:
    """Run `work(shard) -> state` for every uncommitted shard, `workers` at a time, and commit each state."""
    commits = job.commits(stage)
    plan = job.run.plan
    done = commits.done(plan.count)
    job.stop.clear()
    with progress(stage, plan.count, "shards", done=len(done)) as shown:

        def task(shard: int) -> None:
            if job.stop.is_set():
                raise Stopped
            commits.commit(shard, work(shard))
            shown.advance()

        todo = [shard for shard in range(plan.count) if shard not in done]
        run_shards(stage, task, todo, workers=job.division.workers, stop=job.stop)


def under(name: str, arrays: Mapping[str, NDArray[np.generic]]) -> State:
    """The arrays with "NAME/" put before each name: the inverse of `part`."""
    return {f"{name}/{key}": array for key, array in arrays.items()}
