"""The second pass of a run that keeps no activations: shards are computed again, used, and dropped.

The same batches go through the same model, so what comes out are the activations of the capture, to the bit; that they
are is checked against the peaks and means that the capture has stored. What the pages need later, the maps of the
top patches, is written while they are in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from microtome.dissect.audit.forward import ScaleOverflow
from microtome.dissect.audit.job import Job
from microtome.dissect.audit.schedule import Advance
from microtome.dissect.audit.stages.passes import Maps, Records, open_passage, summarise
from microtome.dissect.audit.stages.totals import capture_totals
from microtome.storage.arrays import layer_array
from microtome.storage.errors import MicrotomeError, RunMismatchError
from microtome.storage.files import Written
from microtome.storage.patch_maps import write_patch_maps
from microtome.storage.schema import LayerEntry

MapsOf: TypeAlias = Callable[[int], AbstractContextManager[Maps]]


class UnrepeatableError(MicrotomeError):
    """The model gave other activations at the second pass than at the first."""


@contextmanager
def second_pass(job: Job, layers: Sequence[LayerEntry], advance: Advance) -> Iterator[MapsOf]:
    """Gives `maps_of(shard)`, a context that holds the activations of `layers` as the capture saw them.

    Raises RunMismatchError where images differ from then, UnrepeatableError where the model does.
    """
    with open_passage(job, layers, advance) as passage:

        @contextmanager
        def maps_of(shard: int) -> Iterator[Maps]:
            try:
                with passage.shard(shard) as (records, maps):
                    _check_samples(job, shard, records)
                    for layer in layers:
                        _check_layer(job, layer, shard, records, maps[layer["name"]])
                    yield maps
            except ScaleOverflow as overflow:
                raise _unrepeatable(job, overflow.layer, shard) from overflow

        yield maps_of


def write_top_maps(job: Job, shard: int, maps: Maps) -> list[Written]:
    """Write the maps of those top patches that lie in `shard`, of every layer; returns the files."""
    samples = job.run.plan.samples_of(shard)
    files = []
    for layer, top in zip(job.layers, capture_totals(job).patches, strict=True):
        units, ranks = np.nonzero((top.sample >= samples.start) & (top.sample < samples.stop))
        chosen = top.sample[units, ranks]
        order = np.lexsort((units, chosen))
        unit, sample = units[order].astype(np.int64), chosen[order]
        kept: NDArray[np.float16] = maps[layer["name"]][sample - samples.start, unit]
        files += write_patch_maps(job.run.place, layer["folder"], shard, sample, unit, kept)
    return files


def _check_samples(job: Job, shard: int, records: Records) -> None:
    """Raise RunMismatchError where another image than at the capture is unreadable."""
    samples = job.run.plan.samples_of(shard)
    before = capture_totals(job).error[samples.start : samples.stop].tolist()
    for sample, then, now in zip(samples, before, records.error, strict=True):
        if bool(then) != bool(now):
            what = f"could be read at the first pass, and cannot now ({now})" if now else "can be read only now"
            raise RunMismatchError(
                f"{job.dataset.entry(sample).key} {what}; bring the data back to what it was and resume the audit"
            )


def _check_layer(job: Job, layer: LayerEntry, shard: int, records: Records, maps: NDArray[np.float16]) -> None:
    """Raise UnrepeatableError where peaks or means are not those that the capture stored."""
    for name, again in summarise(layer, records, maps).arrays.items():
        stored = job.run.arrays.read_shard(layer_array(layer["folder"], name), shard)
        if not np.array_equal(stored, again, equal_nan=True):
            raise _unrepeatable(job, layer["name"], shard)


def _unrepeatable(job: Job, layer: str, shard: int) -> UnrepeatableError:
    samples = job.run.plan.samples_of(shard)
    return UnrepeatableError(
        f"layer {layer}: the second pass gave other activations than the first for images {samples.start} to "
        f"{samples.stop - 1}. The model draws random numbers (dropout at work?), or the passes ran on machines or "
        "libraries that compute differently; audit with --keep-activations yes into another --out, which needs one "
        "pass only"
    )
