"""Stage report: the pages of a finished run."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from microtome.datasets.base import ImageDataset
from microtome.datasets.views.labelled import pictures
from microtome.dissect.audit.config import config_of_run
from microtome.dissect.audit.data import open_data
from microtome.dissect.audit.images import made_at_once, made_together
from microtome.dissect.audit.job import Job
from microtome.dissect.audit.progress import Progress, progress, say
from microtome.reports import Together, build_report
from microtome.reports.bundles import missing_bundles, words_instead
from microtome.reports.single_file import LARGE_BYTES, NAME
from microtome.storage.errors import RunMismatchError, UsageError
from microtome.storage.run import Run


def run_report(job: Job) -> None:
    """Build the pages of the job's run."""
    write_report(job.run, pictures(job.dataset))


def rebuild_report(path: Path | str, *, single_file: bool = False) -> str:
    """Build the pages of the run in `path` anew; returns where the first of them lies. The data must be where it was.

    single_file: also as one file, whose address is returned then.
    """
    run = Run.open(path)
    unfinished = [stage for stage, info in run.info["stages"].items() if info["state"] != "done" and stage != "report"]
    if unfinished:
        raise UsageError(f"{path} is not finished ({', '.join(unfinished)}); run microtome audit --resume {path}")
    dataset = open_data(config_of_run(run.info["config"], out=path, workers=None), run)
    if dataset.fingerprint() != run.info["data"]["fingerprint"]:
        raise RunMismatchError(
            f"{run.info['data']['spec']} has changed since the run was made; patches would show other images"
        )
    index = write_report(run, pictures(dataset), single_file=single_file)
    if not single_file:
        return index
    size = run.place.size(f"report/{NAME}") or 0
    warning = "; mail and browsers have trouble with files of that size" if size > LARGE_BYTES else ""
    say(f"single file: {size / 1e6:,.1f} MB{warning}")
    return index.removesuffix("index.html") + NAME


def write_report(run: Run, dataset: ImageDataset, *, single_file: bool = False) -> str:
    """Build the pages of a finished run from its tables and the images of `dataset`."""

    def read_image(index: int) -> NDArray[np.uint8]:
        return dataset.read(index).image

    with ExitStack() as shown:
        images = shown.enter_context(progress("report", 0, "images"))
        files: list[Progress] = []

        def map_written(done: int, total: int) -> None:
            if not files:
                files.append(shown.enter_context(progress("map page", total, "files")))
            files[0].move_to(done, total)

        together = Together(partial(made_together, dataset), made_at_once(dataset))
        shown_progress: dict[str, Any] = {"progress": images.move_to, "map_progress": map_written}
        index = build_report(run, read_image, together, single_file=single_file, **shown_progress)
    for name in missing_bundles(maps=bool(run.info.get("map")), generator="generator" in run.info["model"]):
        say(words_instead(name))
    return index
