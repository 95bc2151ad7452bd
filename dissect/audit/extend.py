"""A finished run that grows: images are added, only new shards are captured, and all tables are made anew.

The run's samples keep their places, whatever has come between them in the dataset since; new ones follow. Shards of the
capture that are whole stay, with their states; a last one that was partial is captured again. Exact thresholds depend
on every image, so what was counted below the old ones is counted again from the stored activations.

One write of run.json makes the small run a large one that is not finished: before it nothing but an order was
stored, and after it `audit --resume` and `extend` do the same. Stage index then goes over what is there.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from microtome.datasets.base import ImageDataset
from microtome.datasets.ordered import OrderedDataset, sample_fingerprints
from microtome.datasets.specs import open_dataset
from microtome.dissect.audit.budget import NO_LIMITS, Budget
from microtome.dissect.audit.config import AuditConfig, config_of_run, preprocess_overrides, with_changes
from microtome.dissect.audit.data import open_data
from microtome.dissect.audit.job import choose_device, run_key
from microtome.dissect.audit.pilot import PILOT_TRIES, run_pilot
from microtome.dissect.audit.pipeline import Outcome, executor_of, finish, holding
from microtome.dissect.audit.prepare import divide, reopen
from microtome.dissect.audit.progress import say
from microtome.dissect.audit.stages.index import concept_lines
from microtome.dissect.audit.stages.merge import State, unpack_texts
from microtome.dissect.models import Model, load_model
from microtome.storage.errors import RunMismatchError, UsageError
from microtome.storage.order import write_order
from microtome.storage.run import Run
from microtome.storage.schema import RunInfo
from microtome.storage.shards import SHARDS_BEFORE_GROWTH, ShardPlan

if TYPE_CHECKING:
    from distributed import Client

MOST_SHARDS = 16 * SHARDS_BEFORE_GROWTH
NAMED = 3


@dataclass(frozen=True)
class Extension:
    """What an extension came to: the finished run, and how many samples were added."""

    outcome: Outcome
    added: int


def extend_run(
    path: Path | str,
    dataset: str | None = None,
    *,
    limit: int | None = None,
    workers: int | None = None,
    cluster: str = "threads",
    client: Client | None = None,
    budget: Budget = NO_LIMITS,
) -> Extension:
    """Add the images that the dataset of the run in `path` has got since; finish the run where it is unfinished.

    dataset: the spec of the grown dataset, None = the run's own; limit: samples that the run shall have in all,
    None = every one that the dataset has.
    Raises RunMismatchError, naming it, where an image of the run is gone or is not what it was.
    """
    Run.open(path)  # where there is none, say so before anything is written there
    with holding(path, "extend") as stop:
        added = _grow(path, dataset, limit, budget)
        run = Run.open(path)
        if not added and all(stage["state"] == "done" for stage in run.info["stages"].values()):
            return Extension(Outcome(run, run.index_page, run.info["data"]["unreadable"], 0.0), 0)
        with executor_of(cluster, workers, client) as executor:
            return Extension(finish(reopen(path, executor, workers=workers, stop=stop), budget), added)


def _grow(path: Path | str, spec: str | None, limit: int | None, budget: Budget) -> int:
    """Make run.json that of the larger run; returns by how many samples it is larger."""
    run = Run.open(path)
    config = config_of_run(run.info["config"], out=path, workers=None)
    config = with_changes(config, dataset=spec or config.dataset, limit=limit)
    known = Known.of(run)
    if limit is not None and limit < run.plan.samples:
        raise UsageError(f"--limit {limit}: {run.url} has {run.plan.samples:,} samples; extend adds, it takes none away")
    dataset, order = _in_order(run, known, open_dataset(config.dataset))
    _refuse_other_labels(run, known, dataset)
    _refuse_changed(run, known, dataset)
    samples = min(len(dataset), limit or len(dataset))
    added = samples - run.plan.samples
    if added < 1:
        return 0
    budget.refuse_disk(run.info["estimate"], samples, kept=True)
    info = _larger(run, config, dataset, samples, order)
    model = _same_model(run, config)
    if known.readable < PILOT_TRIES and known.count < PILOT_TRIES:
        _pilot_again(info, config, model, dataset)
    _say_what_stays(run, info)
    run.info = info
    run.save()
    return added


@dataclass(frozen=True)
class Known:
    """What a run knows of its samples: the first `count` of samples.parquet, and what stage index has noted."""

    samples: pd.DataFrame
    fingerprints: NDArray[np.uint64] | None
    concepts: list[str]

    @property
    def count(self) -> int:
        """Samples that any shard of the capture may hold."""
        return len(self.samples)
