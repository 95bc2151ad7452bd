"""What an image is to raise: a number for each image of a batch, that of its unit or its class."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor

from microtome.dissect.attribution.subject import at_rest
from microtome.dissect.models import ActivationCapture, Model
from microtome.dissect.models.logits import logits_of
from microtome.dissect.models.trace import trace
from microtome.dissect.synthesis.settings import CENTRE
from microtome.storage.errors import UnknownNameError, UsageError

Objective = Callable[[Tensor, Tensor | None], Tensor]
"""(images (B, 3, H, W) as the model takes them, subjects (B,) int64) -> (B,): what each answers to its image; without
subjects, what all there are answer together."""


def at_size(model: Model, size: tuple[int, int]) -> Model:
    """The model for inputs of `size` (height, width). Raises UsageError where it takes its own size alone."""
    if size == model.preprocess.size:
        return model
    resized = replace(model, preprocess=replace(model.preprocess, size=size, resize=None))
    try:
        trace(resized)
    except (UsageError, RuntimeError, ValueError, AssertionError) as error:
        own = "x".join(map(str, model.preprocess.size))
        raise UsageError(
            f"{model.spec} does not take images of {size[0]}x{size[1]} pixels; leave the size at its own, {own}"
        ) from error
    return resized


@contextmanager
def unit_objective(model: Model, layer: str, units: Sequence[int], at: str) -> Iterator[Objective]:
    """While open, the objective of `units` of `layer`, in the mean over their maps or in the centre of them.

    Raises UnknownNameError for no such layer, UsageError for one without units, or for no such unit.
    """
    with (
        at_rest(model.module),
        ActivationCapture(model, [layer], transform=lambda _, maps: maps, gradients=True) as capture,
    ):
        with torch.no_grad():
            count = capture(model.noise(1))[layer].shape[1]
        wrong = [unit for unit in units if not 0 <= unit < count]
        if wrong:
            raise UsageError(f"layer {layer} has no unit {wrong[0]}; its {count} units are numbered from 0")

        def objective(images: Tensor, subjects: Tensor | None) -> Tensor:
            maps = capture(images)[layer]
            if subjects is None:
                return maps.flatten(1).mean(1)
            own = maps[torch.arange(len(images), device=maps.device), subjects]
            if at == CENTRE:
                return own[:, own.shape[1] // 2, own.shape[2] // 2]
            return own.mean((1, 2))

        yield objective


@contextmanager
def class_objective(model: Model, classes: Sequence[int]) -> Iterator[Objective]:
    """While open, the objective of `classes`: their logits. Raises UsageError for no classifier, one that does not take
    images of its size, or no such class."""
    with at_rest(model.module):
        count = _class_count(model)
        wrong = [number for number in classes if not 0 <= number < count]
        if wrong:
            raise UsageError(f"there is no class {wrong[0]}: the model has {count}, numbered from 0")

        def objective(images: Tensor, subjects: Tensor | None) -> Tensor:
            logits = logits_of(model.module(images), model.class_names)
            return logits.square().mean(1) if subjects is None else logits.gather(1, subjects.unsqueeze(1)).squeeze(1)

        yield objective


def class_numbers(model: Model, classes: Sequence[int | str]) -> list[int]:
    """Classes by name or number as numbers. Raises UnknownNameError for a name that the model does not have, UsageError
    for one where it has no names."""
    known = {name: number for number, name in reversed(list(enumerate(model.class_names)))}
    found = []
    for given in classes:
        if isinstance(given, str) and given in known:
            found.append(known[given])
        elif isinstance(given, int) or given.isdecimal():
            found.append(int(given))
        elif not known:
            with at_rest(model.module):
                last = _class_count(model) - 1
            raise UsageError(f"class {given!r}: {model.spec} has no names of classes; give a number from 0 to {last}")
        else:
            raise UnknownNameError("class", given, known, "Classes can be given by number, too.")
    return found


def _class_count(model: Model) -> int:
    trace(model)  # says what a model does not run on
    with torch.no_grad():
        return logits_of(model.module(model.noise(1)), model.class_names).shape[1]
