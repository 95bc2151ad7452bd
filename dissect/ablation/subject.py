"""The run, the layer and the network that an ablation is about, opened and checked."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from microtome.dissect.ablation.directions import open_directions
from microtome.dissect.ablation.network import Held, Network, open_network
from microtome.dissect.ablation.truth import Truth, find_truth
from microtome.dissect.audit.config import with_changes
from microtome.dissect.audit.cores import available_cores
from microtome.dissect.audit.data import open_images, refuse_generator
from microtome.dissect.audit.images import read_item
from microtome.dissect.audit.job import Job, choose_device
from microtome.dissect.audit.precision import arithmetic
from microtome.dissect.audit.prepare import join
from microtome.dissect.audit.progress import say
from microtome.dissect.audit.schedule import ThreadExecutor
from microtome.dissect.models.places import HEADS, MEAN_HEADS, ROLLOUT
from microtome.storage.errors import UnknownNameError, UsageError
from microtome.storage.run import Run
from microtome.storage.schema import LayerEntry

VALUES = ("zero", "mean")
SHARD_SAMPLES = 32
ROWS_ON_CPU = 8
"""Images, and then rows of the tail, at once on a CPU: so few that what they give stays in the processor's caches."""


@dataclass(frozen=True)
class Batch:
    """Some images, computed up to the layer, with their right classes. truth: (n,) int64."""

    held: Held
    truth: NDArray[np.int64]


@dataclass(frozen=True)
class Subject:
    """What units are removed from. samples: how many of the dataset's first count, cut into shards of a few batches."""

    job: Job
    layer: LayerEntry
    network: Network
    truth: Truth
    samples: int

    @property
    def shard(self) -> int:
        """Samples of a shard."""
        return self.network.batch * max(1, SHARD_SAMPLES // self.network.batch)

    @property
    def shards(self) -> int:
        """How many shards there are."""
        return math.ceil(self.samples / self.shard)

    def samples_of(self, shard: int) -> range:
        """The samples of a shard."""
        return range(shard * self.shard, min((shard + 1) * self.shard, self.samples))

    def batches(self, shard: int) -> Iterator[Batch]:
        """Read and compute a shard, batch by batch; samples that are unreadable or have no class are left out."""
        samples = self.samples_of(shard)
        for start in range(samples.start, samples.stop, self.network.batch):
            batch = self.batch_of(range(start, min(start + self.network.batch, samples.stop)))
            if batch is not None:
                yield batch

    def batch_of(self, samples: Sequence[int]) -> Batch | None:
        """Read and compute some samples, at most as many as the network takes; None where none of them counts."""
        dataset = self.job.dataset
        chosen = [index for index in samples if self._counts(index)]
        items = [(index, read_item(dataset, index, self.job.preprocess, self.job.label_size)) for index in chosen]
        good = [(index, item.image) for index, item in items if item.ok]
        if not good:
            return None
        held = self.network.hold([image for _, image in good])
        truth = self.truth.of([dataset.entry(index).label for index, _ in good], held.logits)
        return Batch(held, truth)

    def _counts(self, index: int) -> bool:
        return self.truth.has(self.job.dataset.entry(index).label)


def finished_run(path: Path | str) -> Run:
    """The run in `path`. Raises UsageError where its tables are not all there."""
    run = Run.open(path)
    unfinished = [name for name, info in run.info["stages"].items() if info["state"] != "done" and name != "report"]
    if unfinished:
        raise UsageError(f"{path} is not finished ({', '.join(unfinished)}); run microtome audit --resume {path}")
    return run


def layer_of(run: Run, name: str) -> LayerEntry:
    """The layer's entry. Raises UnknownNameError, and UsageError for one whose units cannot be switched off."""
    layer = run.layer(name)
    readout = layer.get("readout")
    if readout is None:
        return layer
    base = readout["base"]
    if readout["kind"] == "encoder":
        raise UsageError(
            f"layer {name} holds features of an encoder, which need not be linear, so that no one change of {base} "
            f"takes a feature away; audit a matrix of directions instead (--units FILE.npy, such as the columns of the "
            f"decoder), or ablate {base}"
        )
    if layer["kind"] in (HEADS, MEAN_HEADS, ROLLOUT):
        raise UsageError(
            f"layer {name} holds directions among maps of attention, which are no part of what the attention gives; "
            f"ablate units of {base}, or directions of another layer"
        )
    return layer


def what_removal_does(layer: LayerEntry, value: str) -> str:
    """What happens to each removed unit, in words that follow "each"."""
    readout = layer.get("readout")
    if readout is None:
        return "set to 0" if value == "zero" else "set to its mean"
    if value == "mean":
        level = "its mean"
    elif readout["kind"] == "pca":
        level = f"0, the mean of the {readout['images']:,} images that the components were fitted to"
    else:
        level = "0"
    return f"removed by the smallest change of {readout['base']} that brings its read-out to {level}"


def fill_of(run: Run, layer: LayerEntry, value: str) -> NDArray[np.float32]:
    """(C,) what removed units are set to: 0, or their mean over the run's images, in true values."""
    if value not in VALUES:
        raise UnknownNameError("value for removed units", value, VALUES)
    if value == "zero":
        return np.zeros(layer["units"], np.float32)
    if layer["kind"] in (HEADS, MEAN_HEADS):
        raise UsageError(
            f"--value mean: the mean of an attention map is no value of what a head of {layer['name']} adds to its "
            "output; take --value zero"
        )
    return run.layer_table(layer["name"], "units")["mean"].to_numpy(np.float32)


@contextmanager
def open_subject(
    run: Run,
    layer: LayerEntry,
    value: str,
    *,
    limit: int | None = None,
    dataset: str | None = None,
    workers: int | None = None,
) -> Iterator[Subject]:
    """Open data and model of a finished run for ablations in `layer`; torch's threads are the run's meanwhile.

    dataset: other images to measure on. Raises RunMismatchError where model or data are not those of the run,
    UsageError where the model is no classifier.
    """
    refuse_generator(run, "importance", "microtome ablate RUN --concept NAME shows what its units do")
    job = join(run.url if run.place.path is None else run.place.path, ThreadExecutor(), workers or available_cores())
    choose_device(job.config.device)
    job.check_here()
    if dataset is not None:
        other = open_images(with_changes(job.config, dataset=dataset), None)
        job = Job(job.config, job.run, other, job.division, job.executor)
    samples = len(job.dataset) if dataset is not None else job.samples
    with subject_of(job, layer, value, min(samples, limit or samples)) as subject:
        say(f"truth: {subject.truth.why}")
        yield subject


@contextmanager
def subject_of(job: Job, layer: LayerEntry, value: str, samples: int, truth: Truth | None = None) -> Iterator[Subject]:
    """The same of a job that is opened, over the first `samples` of its dataset. truth: theirs, where it is known
    already. Raises UsageError where the model is no classifier."""
    truth = truth or find_truth(job.dataset, samples, job.model.class_names)
    threads = torch.get_num_threads()
    torch.set_num_threads(job.division.torch_threads)
    try:
        with arithmetic(job.division.precision, job.division.device):
            fill = fill_of(job.run, layer, value)
            batch = min(job.config.batch, ROWS_ON_CPU) if job.division.device.type == "cpu" else job.config.batch
            if "readout" in layer:
                network = open_directions(job.model, job.readouts[layer["name"]], job.division, fill, batch)
            else:
                network = open_network(job.model, layer["name"], job.division, fill, batch)
            yield Subject(job, layer, network, truth, samples)
    finally:
        torch.set_num_threads(threads)


def chosen_units(text: Sequence[str], layer: LayerEntry) -> NDArray[np.int64]:
    """`("3,17", "40-44")` as units, ascending, each once. Raises UsageError for what is none of the layer's."""
    found: set[int] = set()
    for part in (part.strip() for value in text for part in value.split(",")):
        first, dash, last = part.partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise UsageError(f"--units {part!r}: give numbers and ranges, as in --units 3,17,40-44")
        units = range(int(first), int(last if dash else first) + 1)
        if not units or units[-1] >= layer["units"]:
            raise UsageError(f"--units {part}: layer {layer['name']} has units 0 to {layer['units'] - 1}")
        found.update(units)
    return np.array(sorted(found), np.int64)
