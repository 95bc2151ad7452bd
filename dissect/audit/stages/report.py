"""Stage report: the pages of a finished run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from microtome.datasets.base import ImageDataset
from microtome.datasets.views.labelled import pictures
from microtome.dissect.audit.config import config_of_run
from microtome.dissect.audit.data import open_data
from microtome.dissect.audit.job import Job
from microtome.dissect.audit.progress import progress
from microtome.reports import build_report
from microtome.storage.errors import RunMismatchError, UsageError
from microtome.storage.run import Run


def run_report(job: Job) -> None:
    """Build the pages of the job's run."""
    write_report(job.run, pictures(job.dataset))


def rebuild_report(path: Path | str) -> str:
    """Build the pages of the run in `path` anew; returns where index.html lies. The data must be where it was."""
    run = Run.open(path)
    unfinished = [stage for stage, info in run.info["stages"].items() if info["state"] != "done" and stage != "report"]
    if unfinished:
        raise UsageError(f"{path} is not finished ({', '.join(unfinished)}); run microtome audit --resume {path}")
    dataset = open_data(config_of_run(run.info["config"], out=path, workers=None), run)
    if dataset.fingerprint() != run.info["data"]["fingerprint"]:
        raise RunMismatchError(
            f"{run.info['data']['spec']} has changed since the run was made; patches would show other images"
        )
    return write_report(run, pictures(dataset))


def write_report(run: Run, dataset: ImageDataset) -> str:
    """Build the pages of a finished run from its tables and the images of `dataset`."""

    def read_image(index: int) -> NDArray[np.uint8]:
        return dataset.read(index).image

    with progress("report", 0, "images") as shown:
        return build_report(run, read_image, progress=shown.move_to)
