"""The model and the images of a finished run, opened when they are first needed, and refused where they are others."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from microtome.datasets.base import ImageDataset
from microtome.dissect.audit.config import AuditConfig, config_of_run, with_changes
from microtome.dissect.audit.cores import available_cores
from microtome.dissect.audit.data import open_data, refuse_generator
from microtome.dissect.audit.job import Division, Job, choose_device, load_configured
from microtome.dissect.audit.prepare import divide
from microtome.dissect.audit.schedule import ThreadExecutor
from microtome.dissect.models import Model
from microtome.storage.errors import RunMismatchError, UsageError
from microtome.storage.run import Run


class OpenedRun:
    """A finished run. device: where its model runs, None = where it did, or the CPU where that is not to be had."""

    def __init__(self, run: Run, device: str | None = None) -> None:
        self.run = run
        self._config = config_of_run(run.info["config"], out=run.url, workers=1)
        self._device = device
        if device is not None:
            choose_device(device)

    @cached_property
    def device(self) -> torch.device:
        """Where the model runs."""
        try:
            return choose_device(self._device or self._config.device)
        except UsageError:
            return torch.device("cpu")

    @property
    def division(self) -> Division:
        """How this machine divides the work of the model."""
        return divide(self._config_here, available_cores())

    def job(self) -> Job:
        """The run as the stages of an audit have it, on `device`, with this model and these images."""
        job = Job(self._config_here, self.run, self.dataset, self.division, ThreadExecutor())
        job.keep_model(self.model)
        return job

    @cached_property
    def _config_here(self) -> AuditConfig:
        return with_changes(self._config, device=str(self.device))

    @cached_property
    def model(self) -> Model:
        """The model, on its device. Raises RunMismatchError where it is not the one that the run was made with,
        DoesNotApplyError where it is a generator."""
        refuse_generator(self.run, "explaining", "its units are edited instead: microtome generate, and page gan.html")
        model = load_configured(self._config)
        if model.fingerprint != self.run.info["model"]["fingerprint"]:
            raise RunMismatchError(
                f"{self._config.model} is another model, or has other weights, than {self.run.url} was made with; "
                "what it answers would not be about the units of this run"
            )
        model.module.to(self.device)
        return model

    @cached_property
    def dataset(self) -> ImageDataset:
        """The images. Raises RunMismatchError where they are not those of the run."""
        dataset = open_data(self._config, self.run)
        if dataset.fingerprint() != self.run.info["data"]["fingerprint"]:
            raise RunMismatchError(
                f"{self.run.info['data']['spec']} has changed since the run was made; only images of your own can be "
                "asked about"
            )
        return dataset

    def image(self, sample: int) -> NDArray[np.uint8]:
        """A sample, upright, (H, W, 3) uint8. Raises UsageError for one that there is not, and SampleError."""
        if not 0 <= sample < self.run.plan.samples:
            raise UsageError(f"there is no sample {sample}; the run has {self.run.plan.samples:,}, numbered from 0")
        return self.dataset.read(sample).image
