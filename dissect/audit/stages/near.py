"""The search for the neighbours of very many samples, as work for the workers of a cluster.

The inverted file of a layer is put into the run for as long as it is searched; a worker takes it from there, searches
for a block of its rows and commits what it finds, so that a search that was cut short goes on where it was.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from microtome.dissect.audit.cores import available_cores
from microtome.dissect.audit.job import Job
from microtome.dissect.audit.schedule import Advance, ShardedWork, ShardTask
from microtome.dissect.embedding.inverted import Found, InvertedFile
from microtome.storage.layer_arrays import layer_arrays_key, read_arrays, write_arrays
from microtome.storage.schema import LayerEntry

PREFIX = "neighbors@"
FILE = "map.index"
BLOCK = 65_536
"""Rows that a worker searches for at once."""
FEWEST = 500_000
"""Fewer are searched for sooner here than their file is sent around."""


@dataclass(frozen=True)
class ClusterSearch:
    """Searches for all rows of an inverted file, by the executor of `job`.

    key: a hash of what the map of `layer` depends on.
    """

    job: Job
    layer: LayerEntry
    key: str

    def __call__(self, lists: InvertedFile, k: int) -> Found:
        """The k nearest of every row, as the file alone would find them. Raises Stopped once the job is stopped."""
        work = neighbors_work(f"{PREFIX}{self.key}@{self.layer['folder']}")
        place, file = self.job.run.place, layer_arrays_key(self.layer["folder"], FILE)
        blocks = -(-lists.rows // BLOCK)
        commits = self.job.commits(work.name)
        done = commits.done(blocks)
        write_arrays(place, file, {**lists.to_arrays(), "k": np.array([k])})
        todo = [block for block in range(blocks) if block not in done]
        self.job.executor.run(self.job, work, todo, lambda amount: None, lambda through: None)
        states = [commits.state(block) for block in range(blocks)]
        found = (
            np.concatenate([state["indices"] for state in states]).astype(np.int32),
            np.concatenate([state["distances"] for state in states]).astype(np.float32),
        )
        place.delete([file])
        commits.clear()
        return found


def neighbors_work(name: str) -> ShardedWork:
    """The work of a search. name: `PREFIX`, a key, and the folder of the layer: what it commits under."""
    folder = name.removeprefix(PREFIX).partition("@")[2]

    @contextmanager
    def ready(job: Job, advance: Advance) -> Iterator[ShardTask]:
        arrays = read_arrays(job.run.place, layer_arrays_key(folder, FILE))
        lists, k = InvertedFile.from_arrays(arrays), int(arrays["k"].astype(np.int64)[0])
        commits = job.commits(name)

        def task(block: int) -> None:
            rows = np.arange(block * BLOCK, min((block + 1) * BLOCK, lists.rows))
            indices, distances = lists.search(rows, k, available_cores())
            commits.commit(block, {"indices": indices, "distances": distances})
            advance(1)

        yield task

    return ShardedWork(name, ready, lanes=lambda division: 1)
