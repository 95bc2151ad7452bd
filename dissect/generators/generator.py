"""A generator of images, ready to be sampled: latents from seeds, images from latents, and pictures as bytes.

Seed i always gives the same latent, whatever else is asked for, and the same picture to the last bit: pictures are
computed by one thread, in batches only of sizes in which the network gives an image the bits of any other such size.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from microtome.datasets.base import ImageDataset
from microtome.dissect.models import Model, load_model
from microtome.dissect.models.feeding import batch_of, prepare
from microtome.dissect.models.generators import GeneratorInfo, Latents, as_input, draw_latents, image_of
from microtome.dissect.synthesis.batches import Batches, filled, find_batches, one_thread_each, starts_of
from microtome.storage.errors import RunMismatchError, UsageError
from microtome.storage.run import Run

__all__ = ["Generator", "Latents", "generator_of_run", "open_generator"]


class NonFiniteImageError(UsageError):
    """A generator gave an image with values that are not finite. row: which of the batch it was."""

    def __init__(self, spec: str, row: int, which: str = "") -> None:
        self.spec, self.row = spec, row
        super().__init__(
            f"{spec} gives values that are not finite{which or f', in image {row + 1} of a batch'}; look for a "
            "division by zero or an overflow in its module, and check its weights"
        )


AT_ONCE = 16
"""Pictures in a batch, at most."""


@dataclass(frozen=True, eq=False)
class Generator:
    """A generator. model: its module gives images in `output_range` when it is called with latents.

    inputs: for an image-to-image network, the images that seeds number; else None.
    """

    model: Model
    inputs: ImageDataset | None = None

    @property
    def info(self) -> GeneratorInfo:
        """How the module is called, and what it gives."""
        if self.model.generator is None:
            raise UsageError(f"{self.model.spec} is no generator: it has no latent_shape and no output_range")
        return self.model.generator

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of its images."""
        return self.info.size

    @property
    def output_range(self) -> tuple[float, float]:
        """The lowest and the highest value of what the module gives."""
        return self.info.output_range

    @property
    def device(self) -> torch.device:
        """Where the module is."""
        return self.model.placeholder().device

    def latents(self, seeds: Sequence[int]) -> Latents:
        """The latents of `seeds`, on the module's device and in its dtype: (z,), or (z, y) with classes y (B,) int64,
        or (image,) for an image-to-image network, whose seeds number its inputs.

        Raises SampleError for an input that cannot be read.
        """
        return as_input(self.drawn(seeds), self.model.placeholder())

    def drawn(self, seeds: Sequence[int]) -> Latents:
        """The same as they are drawn: on the CPU."""
        info = self.info
        if info.latent_shape is not None:
            return draw_latents(self.model.module, info.latent_shape, info.classes, seeds)
        if not len(seeds):
            size = self.size if info.inputs is None else info.inputs.size
            return (torch.zeros(0, 3, *size),)
        return (torch.cat([self._input(seed) for seed in seeds]),)

    def _input(self, number: int) -> Tensor:
        prepared = self.info.inputs
        if self.inputs is None or prepared is None:
            raise UsageError(
                f"{self.model.spec} makes images from images: say which, as generated:FOLDER instead of a number"
            )
        if not 0 <= number < len(self.inputs):
            raise UsageError(f"there is no input {number}; {self.inputs.spec} has {len(self.inputs):,}, from 0")
        return batch_of([prepare(self.inputs.read(number).image, prepared)], prepared)

    def images(self, latents: Latents) -> Tensor:
        """(B, 3, H, W) float in [0, 1], on the module's device; clamped to that unless gradients are on.

        Raises NonFiniteImageError, unless gradients are on, for values that are not finite.
        """
        scaled = self._scaled(latents)
        if torch.is_grad_enabled():
            return scaled
        if not bool(scaled.isfinite().all()):
            finite = scaled.isfinite().flatten(1).all(1)
            raise NonFiniteImageError(self.model.spec, int(finite.int().argmin()))
        return scaled.clamp(0, 1)

    def _scaled(self, latents: Latents) -> Tensor:
        output = self.model.run(latents)
        found = image_of(output, len(latents[0]))
        if found is None:
            raise UsageError(f"{self.model.spec} gives no images (B, 3, H, W) for {len(latents[0])} latents")
        low, high = self.output_range
        scaled = (found - low) / (high - low)
        return scaled if scaled.shape[1] == 3 else scaled.expand(-1, 3, -1, -1)

    def pictures(self, seeds: Sequence[int]) -> NDArray[np.uint8]:
        """(n, H, W, 3) uint8 RGB: the same bytes for a seed whatever others are asked for."""
        with of_seeds(seeds):
            return self.pictures_of(self.latents(seeds))

    def pictures_of(self, latents: Latents) -> NDArray[np.uint8]:
        """The same from latents; hooks that edit may be open."""
        count = len(latents[0])
        out = np.empty((count, *self.size, 3), np.uint8)
        with torch.no_grad(), one_thread_each():
            for part in starts_of(self.batches.plan(count)):
                rows = tuple(filled(tensor[part], self.batches.fill) for tensor in latents)
                try:
                    images = self.images(rows)[: part.stop - part.start]
                except NonFiniteImageError as error:
                    raise NonFiniteImageError(error.spec, part.start + error.row) from None
                pixels = images.float().mul(255.0).add(0.5).to(torch.uint8)
                out[part] = pixels.permute(0, 2, 3, 1).cpu().numpy()
        return out

    @cached_property
    def batches(self) -> Batches:
        """The sizes of batches that give a picture the same bits, found by trying; one by one where none do."""
        first = self.model.inputs(1)
        with torch.no_grad(), one_thread_each():
            found = find_batches(
                lambda copies: self._scaled(tuple(part.expand(copies, *part.shape[1:]) for part in first)).clamp(0, 1),
                AT_ONCE,
                AT_ONCE,
            )
        return found if found.alike else Batches((1,), 1, True)

    def to(self, device: torch.device) -> Generator:
        """Move it, in place."""
        self.model.module.to(device)
        return self

    @classmethod
    def of_run(cls, run: Run) -> Generator:
        """As `generator_of_run`."""
        return generator_of_run(run)


def open_generator(spec: str, weights: Path | None = None, inputs: ImageDataset | None = None) -> Generator:
    """The generator that `spec` names. weights: a file in place of its own; inputs: for an image-to-image network.

    Raises UsageError where it cannot be had, or is none.
    """
    generator = Generator(load_model(spec, weights=weights, generators=True, others=False), inputs)
    if inputs is not None and generator.info.latent_shape is not None:
        raise UsageError(f"{spec} makes images from latents, not from images; leave out --inputs")
    return generator


@contextmanager
def of_seeds(seeds: Sequence[int]) -> Iterator[None]:
    """While open, whose batches are of `seeds`, an image that is not finite is refused by its seed."""
    try:
        yield
    except NonFiniteImageError as error:
        which = f" for seed {seeds[error.row]}" if error.row < len(seeds) else ""
        raise NonFiniteImageError(error.spec, error.row, which) from None


def generator_of_run(run: Run) -> Generator:
    """The generator that `run` is about, where its model runs. Raises UsageError for the run of another network,
    RunMismatchError where the generator is not the one of the run."""
    from microtome.dissect.audit.config import config_of_run
    from microtome.dissect.audit.job import choose_device, load_configured
    from microtome.dissect.generators.data import inputs_of

    info = run.info
    if "generator" not in info["model"]:
        raise UsageError(
            f"{run.url} is a run of {info['model']['spec']}, which is no generator; give a run of "
            "microtome audit GENERATOR generated:COUNT"
        )
    config = config_of_run(info["config"], out=run.url, workers=1)
    model = load_configured(config)
    if model.fingerprint != info["model"]["fingerprint"]:
        raise RunMismatchError(
            f"{config.model} is another generator, or has other weights, than {run.url} was made with; bring it back"
        )
    try:
        device = choose_device(config.device)
    except UsageError:
        device = torch.device("cpu")
    return Generator(model, inputs_of(config.dataset)).to(device)
