"""Maps of a finished run, made or made anew without an audit: `microtome map`."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from microtome.dissect.audit.budget import NO_LIMITS, Budget
from microtome.dissect.audit.config import config_of_run
from microtome.dissect.audit.cores import available_cores
from microtome.dissect.audit.mapped import STAGE, begun_elsewhere
from microtome.dissect.audit.pipeline import holding
from microtome.dissect.audit.stages.map import draw_maps, refuse_memory, wish_for
from microtome.dissect.audit.stages.report import rebuild_report
from microtome.dissect.embedding.maps import Wish, bytes_needed
from microtome.dissect.embedding.umap_map import check_umap
from microtome.storage.errors import UsageError
from microtome.storage.run import Run
from microtome.storage.runlog import RunLog

FEWER = "take fewer neighbours into account (--neighbors, --perplexity)"
"""What else can be done where memory does not suffice."""


@dataclass(frozen=True)
class Maps:
    """What was asked for is there: the run, the layers that were asked for, and those whose map had to be made.

    begun_elsewhere: layers of the run whose map began from another one than it would if it were made now.
    """

    run: Run
    layers: tuple[str, ...]
    made: tuple[str, ...]
    begun_elsewhere: tuple[str, ...]
    seconds: float


def make_maps(
    path: Path | str,
    layers: Sequence[str] = (),
    *,
    perplexity: float | None = None,
    neighbors: int | None = None,
    seed: int | None = None,
    whiten: bool | None = None,
    umap: bool | None = None,
    workers: int | None = None,
    budget: Budget = NO_LIMITS,
    report: bool = True,
) -> Maps:
    """Make the maps of `layers` (none = all) of the run in `path`, but for those that are there as they are asked for.

    perplexity: of Gaussian affinities, in place of uniform ones over `neighbors` nearest; seed: of what is drawn by
    lot; whiten: of principal components that all count alike; umap: a UMAP beside it; report: whether pages that the
    run has are built anew. What is None is as in the map that a layer has, else as the audit was asked for. A map that
    began from one that has been made anew since is not as it is asked for. Raises UsageError where the run is not
    finished.
    """
    started = time.monotonic()
    run = _finished(path)
    names = [run.layer(name)["name"] for name in layers] or run.layer_names
    with holding(path, STAGE) as stop:
        run = _finished(path)
        config = config_of_run(run.info["config"], out=path, workers=workers)
        changes = {"perplexity": perplexity, "neighbors": neighbors, "seed": seed, "whiten": whiten, "umap": umap}
        wishes = {name: _changed(wish_for(run, run.layer(name), config), changes) for name in names}
        refuse_memory(budget, bytes_needed(run, wishes), run.plan.samples, FEWER)
        if umap:
            check_umap(run.plan.samples - run.info["data"]["unreadable"])

        def writing(begins: bool) -> None:
            run.set_stage(STAGE, "running" if begins else "done", 0.0)

        with RunLog(run.place) as log:
            log.event("start", run=run.url, what=STAGE, wishes={name: wish.to_dict() for name, wish in wishes.items()})
            log.event("stage", name=STAGE, state="running")
            made = draw_maps(run, wishes, threads=workers or available_cores(), stop=stop, writing=writing)
            seconds = time.monotonic() - started
            log.event("stage", name=STAGE, state="done", seconds=round(seconds, 3))
            log.event("end", seconds=round(seconds, 1))
        if made:
            run.set_stage(STAGE, "done", seconds)
    if report and made and run.info["stages"].get("report", {"state": ""})["state"] == "done":
        rebuild_report(path)
    run = Run.open(path)
    return Maps(run, tuple(names), tuple(made), tuple(begun_elsewhere(run)), time.monotonic() - started)


def _changed(wish: Wish, changes: Mapping[str, Any]) -> Wish:
    """`wish` with those of `changes` that are not None; neighbours that are asked for are in place of a perplexity."""
    given = {name: value for name, value in changes.items() if value is not None}
    if "neighbors" in given:
        given.setdefault("perplexity", None)
    return Wish.from_dict({**wish.to_dict(), **given})


def _finished(path: Path | str) -> Run:
    run = Run.open(path)
    stages = run.info["stages"].items()
    unfinished = [name for name, stage in stages if stage["state"] != "done" and name not in (STAGE, "report")]
    if unfinished:
        raise UsageError(f"{path} is not finished ({', '.join(unfinished)}); run microtome audit --resume {path}")
    return run
