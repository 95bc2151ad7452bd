"""Stage map: for every layer, in the network's order, one map of all samples, begun from that of the layer before.

A map is one computation over all samples, so that it has no shards: a killed audit goes on from the layer that it was
at and, within it, from the last checkpoint, and ends with the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from microtome.dissect.audit.budget import Budget, resident_bytes, size_text
from microtome.dissect.audit.config import AuditConfig
from microtome.dissect.audit.job import Job
from microtome.dissect.audit.mapped import (
    STAGE,
    is_mapped,
    layer_before,
    map_key,
    note_map,
    vouch_for_map,
    wanted_layers,
)
from microtome.dissect.audit.progress import Progress, progress
from microtome.dissect.audit.schedule import ThreadExecutor
from microtome.dissect.audit.stages.near import FEWEST, ClusterSearch
from microtome.dissect.audit.stopping import Stopped, StopSignal
from microtome.storage.errors import UsageError
from microtome.storage.layer_arrays import Checkpoint
from microtome.storage.run import Run
from microtome.storage.schema import LayerEntry

if TYPE_CHECKING:
    from microtome.dissect.embedding.graph import Search
    from microtome.dissect.embedding.maps import Wish

SearchFor = Callable[[LayerEntry, str], "Search | None"]

STEPS = 1000
"""Of a layer, in what is shown of the progress."""
_SPANS = {"components": (0, 50), "neighbors": (50, 250), "map": (250, 950), "quality": (950, STEPS)}
"""Which of a layer's steps each part of the work is."""


def run_map(job: Job) -> None:
    """Make the map of every layer that is to have one and has not."""
    wishes = {layer["name"]: wish_for(job.run, layer, job.config) for layer in wanted_layers(job.run)}

    def search(layer: LayerEntry, key: str) -> ClusterSearch | None:
        shared = job.executor.name != ThreadExecutor.name and job.samples >= FEWEST
        return ClusterSearch(job, layer, key) if shared else None

    draw_maps(job.run, wishes, threads=job.division.workers, stop=job.stop, search=search)


def wish_for(run: Run, layer: LayerEntry, config: AuditConfig) -> Wish:
    """The map that `layer` is to have: as the one that it has, else as the audit was asked for."""
    from microtome.dissect.embedding.maps import Wish

    known = run.info.get("map", {}).get(layer["name"])
    if known is not None:
        return Wish.from_dict(known["settings"])
    asked = {"perplexity": config.map_perplexity, "neighbors": config.map_neighbors, "seed": config.map_seed}
    return Wish.from_dict(asked)


def memory_for_maps(run: Run, config: AuditConfig) -> int:
    """Bytes of memory that the stage takes where it is still to be done, 0 where it is not."""
    stage = run.info["stages"].get(STAGE)
    layers = wanted_layers(run)
    if stage is None or stage["state"] == "done" or not layers:
        return 0
    from microtome.dissect.embedding.maps import bytes_needed

    return bytes_needed(run, {layer["name"]: wish_for(run, layer, config) for layer in layers})


def refuse_memory(budget: Budget, needed: int, samples: int, instead: str = "leave it out with --no-map") -> None:
    """Raise UsageError where the maps of `samples` take more memory than they may: in all, with what is in use.

    instead: what else can be done, as the command that is running has it.
    """
    total = needed + resident_bytes()
    if budget.memory is not None and total > budget.memory:
        raise UsageError(
            f"the map of {samples:,} images needs about {size_text(needed)} of memory, {size_text(total)} with what is "
            f"in use, and --max-memory is {size_text(budget.memory)}; allow more, or {instead}"
        )


def draw_maps(
    run: Run,
    wishes: Mapping[str, Wish],
    *,
    threads: int,
    stop: StopSignal,
    writing: Callable[[bool], None] = lambda begins: None,
    search: SearchFor = lambda layer, key: None,
) -> list[str]:
    """Make and store the maps of the layers that `wishes` names, but for those that are there; returns which were made.

    writing: told when a map begins to be written, and when it is there; search: who looks for
    the neighbours of a layer's samples, None = this process. Raises Stopped once `stop` is set.
    """
    made = []
    with progress(STAGE, STEPS * len(wishes), "steps") as shown:
        chosen = [layer for layer in run.info["layers"] if layer["name"] in wishes]
        for number, layer in enumerate(chosen):
            if _draw_map(
                run, layer, wishes[layer["name"]], _Steps(shown, number, len(chosen)), threads, stop, writing, search
            ):
                made.append(layer["name"])
            shown.move_to(STEPS * (number + 1), STEPS * len(chosen))
    return made


def _draw_map(
    run: Run,
    layer: LayerEntry,
    wish: Wish,
    told: Callable[[str, int, int], None],
    threads: int,
    stop: StopSignal,
    writing: Callable[[bool], None],
    search: SearchFor,
) -> bool:
    """Make and store the map of one layer; whether there was anything to be done."""
    from microtome.dissect.embedding.maps import How, make_map
    from microtome.dissect.embedding.tsne.optimise import InterruptedLayoutError
    from microtome.dissect.embedding.umap_map import check_umap

    onto = layer_before(run, layer)
    key = map_key(run, layer, wish.to_dict(), onto)
    if is_mapped(run, layer, key):
        return False
    if stop.is_set():
        raise Stopped
    if wish.umap:
        check_umap(run.plan.samples - run.info["data"]["unreadable"])
    checkpoint = Checkpoint(run.place, layer["folder"], key)
    try:
        how = How(checkpoint, told, stop.is_set, threads, search(layer, key))
        made = make_map(run, layer["name"], wish, onto="" if onto is None else onto["name"], how=how)
    except InterruptedLayoutError as interrupted:
        raise Stopped from interrupted
    writing(True)
    note_map(run, layer, made.info)
    vouch_for_map(run, layer, made.write(run, layer["name"]), key)
    checkpoint.delete()
    writing(False)
    return True


class _Steps:
    """Shows how far a layer is as steps of all layers."""

    def __init__(self, shown: Progress, number: int, layers: int) -> None:
        self._shown, self._first, self._total = shown, STEPS * number, STEPS * layers
        self._at = 0

    def __call__(self, part: str, done: int, total: int) -> None:
        low, high = _SPANS.get(part, _SPANS["map"])
        self._at = max(self._at, low + (high - low) * done // max(total, 1))
        self._shown.move_to(self._first + self._at, self._total)
