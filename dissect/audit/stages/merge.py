"""A stage over shards: run what is missing, then fold the committed states, in shard order, as a tree.

A node of the tree folds `FAN_IN` neighbours into one state of the same form and commits it like a shard, under the
stage "NAME.merge1", "NAME.merge2" and so on; the root holds the state of the whole stage. The tree follows from the
number of shards alone, so whoever folds it gets the same bits, and no process ever holds more than a few states.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import cast

import numpy as np
from numpy.typing import NDArray

from microtome.dissect.audit.job import Division, Job
from microtome.dissect.audit.progress import progress
from microtome.dissect.audit.schedule import Advance, ShardedWork, ShardTask

State = dict[str, NDArray[np.generic]]

FAN_IN = 32


@dataclass(frozen=True)
class ShardedStage:
    """A stage whose work is independent shards with mergeable states.

    variant: tells apart, for workers, ways of doing the same stage: what they commit is the stage's in any of them.
    ready: as in `ShardedWork`; fold: one state from several neighbouring ones, in order, of the same form as theirs.
    """

    name: str
    ready: Callable[[Job, Advance], AbstractContextManager[ShardTask]]
    fold: Callable[[Job, Iterator[State]], State]
    lanes: Callable[[Division], int] = lambda division: division.workers
    unit: str = "shards"
    needs_model: bool = False
    variant: str = ""

    @property
    def work(self) -> ShardedWork:
        """The shards as work for an executor."""
        return ShardedWork(self.name + self.variant, self.ready, self.lanes, self._amount, self.needs_model)

    def _amount(self, job: Job, shard: int) -> int:
        return len(job.run.plan.samples_of(shard)) if self.unit == "images" else 1

    def level(self, number: int) -> ShardedWork:
        """The nodes of one level of the tree as work."""

        @contextmanager
        def ready(job: Job, advance: Advance) -> Iterator[ShardTask]:
            inputs = job.commits(level_name(self.name, number - 1))
            outputs = job.commits(level_name(self.name, number))
            below = level_sizes(job.run.plan.count)[number - 1]

            def task(node: int) -> None:
                parts = range(node * FAN_IN, min((node + 1) * FAN_IN, below))
                outputs.commit(node, self.fold(job, (inputs.state(part) for part in parts)))
                advance(1)

            yield task

        return ShardedWork(level_name(self.name, number), ready, lambda division: division.workers)


def level_name(stage: str, number: int) -> str:
    """Where the commits of a level lie; level 0 is the shards themselves."""
    return f"{stage}.merge{number}" if number else stage


def level_sizes(shards: int) -> list[int]:
    """Nodes of every level, the shards first, down to one root."""
    sizes = [shards]
    while sizes[-1] > 1:
        sizes.append(-(-sizes[-1] // FAN_IN))
    return sizes


def run_stage(job: Job, stage: ShardedStage) -> None:
    """Do every shard of `stage` that is not committed yet, and fold what then lies there into one state."""
    plan = job.run.plan
    done = job.commits(stage.name).done(plan.count)
    todo = [shard for shard in range(plan.count) if shard not in done]
    sizes = level_sizes(plan.count)
    if todo:
        for number in range(1, len(sizes)):
            job.commits(level_name(stage.name, number)).clear()
    work = stage.work
    amounts = [work.amount(job, shard) for shard in range(plan.count)]
    with progress(stage.name, sum(amounts), stage.unit, done=sum(amounts[shard] for shard in done)) as shown:
        if todo:
            job.executor.run(job, work, todo, shown.advance, partial(job.on_shards, stage.name))
    for number, size in enumerate(sizes[1:], start=1):
        folded = job.commits(level_name(stage.name, number)).done(size)
        nodes = [node for node in range(size) if node not in folded]
        if nodes:
            job.executor.run(job, stage.level(number), nodes, lambda amount: None, lambda done: None)


def whole_state(job: Job, stage: str) -> State:
    """The state of a finished stage: the root of its tree."""
    root = level_name(stage, len(level_sizes(job.run.plan.count)) - 1)
    return job.commits(root).state(0)


@contextmanager
def committing(job: Job, stage: str, work: Callable[[int], State], advance: Advance) -> Iterator[ShardTask]:
    """The task that commits what `work(shard)` gives and does nothing else."""
    commits = job.commits(stage)

    def task(shard: int) -> None:
        commits.commit(shard, work(shard))
        advance(1)

    yield task


def part(state: Mapping[str, NDArray[np.generic]], name: str) -> State:
    """The arrays within a state whose names are "NAME/..."."""
    prefix = f"{name}/"
    return {key.removeprefix(prefix): array for key, array in state.items() if key.startswith(prefix)}


def under(name: str, arrays: Mapping[str, NDArray[np.generic]]) -> State:
    """The arrays with "NAME/" put before each name: the inverse of `part`."""
    return {f"{name}/{key}": array for key, array in arrays.items()}


def pack_texts(texts: Sequence[str]) -> NDArray[np.uint8]:
    """Texts as an array of bytes, for a state holds numbers only."""
    return np.frombuffer(json.dumps(list(texts)).encode(), np.uint8)


def unpack_texts(packed: NDArray[np.generic]) -> list[str]:
    """The inverse of `pack_texts`."""
    return cast("list[str]", json.loads(packed.tobytes()))
