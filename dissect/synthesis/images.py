"""Images of units and of classes: what each answers to most strongly, found by ascent.

made = synthesise_units(model, "block5", [3, 17, 40])
made[1].image  # (H, W, 3) uint8, what unit 17 looks for
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from threading import Event

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from microtome.dissect.models import Model
from microtome.dissect.synthesis.ascent import Ascent, ascend
from microtome.dissect.synthesis.batches import (
    Gradient,
    beside_each_other,
    find_batches,
    one_thread_each,
    starts_of,
    workers_for,
)
from microtome.dissect.synthesis.objectives import (
    Objective,
    at_size,
    class_numbers,
    class_objective,
    unit_objective,
)
from microtome.dissect.synthesis.settings import Settings
from microtome.storage.errors import UsageError

Stop = Callable[[], bool] | None
Told = Callable[[int], None] | None

CROSS = (196, 60, 40)


@dataclass(frozen=True)
class Made:
    """What was made for one subject, a unit or a class.

    image: (H, W, 3) uint8; before, after: what the subject answers to the start and to the image; driven: whether the
    answer rose. Where it did not, `image` is a grey field with a cross: the subject is dead, or was not reached.
    """

    subject: int
    seed: int
    image: NDArray[np.uint8]
    before: float
    after: float
    driven: bool


def synthesise_units(
    model: Model,
    layer: str,
    units: Sequence[int],
    *,
    seeds: Sequence[int] | None = None,
    settings: Settings | None = None,
    start: NDArray[np.uint8] | None = None,
    stop: Stop = None,
    told: Told = None,
) -> Iterator[Made]:
    """What drives each of `units` of `layer`, in their order, `settings.batch` at a time.

    seeds: one an image, default the unit's number. start: (H, W, 3) uint8, an image to begin with in place of noise;
    it is brought to the picture's size. stop: asked before every step; told: hears how many steps were taken since,
    counted over images. Raises UnknownNameError for no such layer, UsageError for no such unit or a size that the model
    does not take, StoppedError after a stop.
    """
    settings = settings or Settings()
    sized = _sized(model, settings)
    with unit_objective(sized, layer, units, settings.at) as objective:
        yield from _in_batches(sized, objective, units, seeds, settings, start, stop, told)


def synthesise_classes(
    model: Model,
    classes: Sequence[int | str],
    *,
    seeds: Sequence[int] | None = None,
    settings: Settings | None = None,
    start: NDArray[np.uint8] | None = None,
    stop: Stop = None,
    told: Told = None,
) -> Iterator[Made]:
    """What drives the logit of each of `classes`, given by number or name; all else as `synthesise_units` has it."""
    settings = settings or Settings()
    sized = _sized(model, settings)
    numbers = class_numbers(model, classes)
    with class_objective(sized, numbers) as objective:
        yield from _in_batches(sized, objective, numbers, seeds, settings, start, stop, told)


def visualise_units(
    model: Model,
    layer: str,
    units: Sequence[int],
    *,
    seeds: Sequence[int] | None = None,
    settings: Settings | None = None,
    stop: Stop = None,
    told: Told = None,
) -> NDArray[np.uint8]:
    """(n, H, W, 3) uint8: `synthesise_units` as pictures alone."""
    made = synthesise_units(model, layer, units, seeds=seeds, settings=settings, stop=stop, told=told)
    return np.stack([each.image for each in made])


def visualise_classes(
    model: Model,
    classes: Sequence[int | str],
    *,
    seeds: Sequence[int] | None = None,
    settings: Settings | None = None,
    stop: Stop = None,
    told: Told = None,
) -> NDArray[np.uint8]:
    """(n, H, W, 3) uint8: `synthesise_classes` as pictures alone."""
    made = synthesise_classes(model, classes, seeds=seeds, settings=settings, stop=stop, told=told)
    return np.stack([each.image for each in made])


def _sized(model: Model, settings: Settings) -> Model:
    return model if settings.size is None else at_size(model, (settings.size, settings.size))


def _in_batches(
    model: Model,
    objective: Objective,
    subjects: Sequence[int],
    seeds: Sequence[int] | None,
    settings: Settings,
    start: NDArray[np.uint8] | None,
    stop: Stop,
    told: Told,
) -> Iterator[Made]:
    if not subjects:
        raise UsageError("nothing to make an image of; name at least one unit or class")
    seeds = list(subjects) if seeds is None else list(seeds)
    if len(seeds) != len(subjects):
        raise UsageError(f"{len(seeds)} seeds for {len(subjects)} images; give one for each")
    begin = None if start is None else as_tensor(start, model.preprocess.size)
    with one_thread_each():
        workers = workers_for(model.placeholder().device)
        batches = find_batches(_probe(model, objective), settings.batch, len(subjects))
        parts = starts_of(batches.plan(len(subjects), workers))

        def work(number: int, gone: Event) -> Ascent:
            with torch.enable_grad():
                return ascend(
                    model,
                    objective,
                    subjects[parts[number]],
                    seeds[parts[number]],
                    settings,
                    fill=batches.fill,
                    start=begin,
                    stop=lambda: gone.is_set() or (stop is not None and stop()),
                    told=told,
                )

        for part, ascent in zip(parts, beside_each_other(work, len(parts), workers), strict=True):
            yield from _made(ascent, subjects[part], seeds[part])


def _probe(model: Model, objective: Objective) -> Gradient:
    """The gradients of copies of one noise, as `find_batches` compares them."""

    def gradient(copies: int) -> Tensor:
        with torch.enable_grad():
            noise = model.noise(1).expand(copies, -1, -1, -1).contiguous(memory_format=torch.channels_last)
            noise.requires_grad_()
            return torch.autograd.grad(objective(noise, None).sum(), noise)[0]

    return gradient


def _made(ascent: Ascent, subjects: Sequence[int], seeds: Sequence[int]) -> Iterator[Made]:
    pictures = as_pictures(ascent.images)
    for row, (subject, seed) in enumerate(zip(subjects, seeds, strict=True)):
        driven = bool(ascent.moved[row])
        picture = pictures[row] if driven else crossed(pictures.shape[1:3])
        yield Made(subject, seed, picture, float(ascent.before[row]), float(ascent.after[row]), driven)


def as_pictures(images: Tensor) -> NDArray[np.uint8]:
    """(B, 3, H, W) in [0, 1] as (B, H, W, 3) uint8."""
    pictures: NDArray[np.uint8] = (images * 255).round().clamp(0, 255).byte().permute(0, 2, 3, 1).contiguous().numpy()
    return pictures


def as_tensor(picture: NDArray[np.uint8], size: tuple[int, int]) -> Tensor:
    """(H, W, 3) uint8 as (3, height, width) float32 in [0, 1], cut in the middle to the shape of `size`."""
    if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8:
        raise UsageError(f"an image is (H, W, 3) uint8, not {picture.shape} {picture.dtype}")
    height, width = picture.shape[:2]
    scale = min(height / size[0], width / size[1])
    rows, columns = min(height, round(scale * size[0])), min(width, round(scale * size[1]))
    top, left = (height - rows) // 2, (width - columns) // 2
    cut = torch.from_numpy(picture[top : top + rows, left : left + columns].copy()).permute(2, 0, 1).float() / 255
    resized = torch.nn.functional.interpolate(cut[None], size, mode="bilinear", antialias=True, align_corners=False)
    return resized[0].clamp(0, 1)


def crossed(size: tuple[int, int]) -> NDArray[np.uint8]:
    """A grey field with a cross, (H, W, 3) uint8: there is no image."""
    height, width = size
    down = np.linspace(-1, 1, height)[:, None]
    across = np.linspace(-1, 1, width)[None, :]
    line = np.abs(np.abs(down) - np.abs(across)) < 0.04
    return np.where(line[..., None], np.array(CROSS, np.uint8), np.uint8(216))
