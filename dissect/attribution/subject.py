"""What is explained: some images, and one number for each of them, that of a class or of a unit.

with scoring(model, images, target=3) as score:
    images = score.images.requires_grad_()
    (gradient,) = torch.autograd.grad(score(images).sum(), images)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TypeGuard, cast

import torch
from torch import Tensor, nn

from microtome.dissect.models.capture import ActivationCapture
from microtome.dissect.models.logits import logits_of
from microtome.dissect.models.model import Model
from microtome.dissect.models.preprocess import Preprocess
from microtome.dissect.models.wrappers import unwrap
from microtome.storage.errors import MicrotomeError, UnknownNameError, UsageError

Target = int | str | Sequence[int] | Tensor | None
"""A class for all images, by number or, of a Model that has names of classes, by name; a number for each of them; or
None for that of the highest logit of each."""

At = str | tuple[int, int] | Sequence[tuple[int, int]]
"""Where on its map a unit is looked at: "peak" (its maximum), "mean" (over the grid), a row and a column, or a row and
a column for each image."""

PEAK, MEAN = "peak", "mean"
TOP = "top"
"""As a target: the most probable class of each image."""


@dataclass(frozen=True)
class Score:
    """One number for each image, which gradients can be taken of.

    images: (B, 3, H, W), as the model takes them, on its device and in its dtype; classes: (B,) int64 of the logits
    that are explained, None for a unit.
    """

    model: Model
    images: Tensor
    classes: Tensor | None
    unit: int | None
    at: At
    capture: ActivationCapture[Tensor] | None
    layer: str | None

    def __call__(self, images: Tensor, rows: Tensor | None = None) -> Tensor:
        """(n,) float32, of `images` (n, 3, H, W), each a version of image `rows[i]` of the batch, (n,) int64; without
        rows, all of the batch in their order. The model is given a copy, which it may change in place. Raises
        UsageError for a model that is no classifier."""
        images = images.clone()
        with running(self.model, images):
            return self._of(images, rows)

    def _of(self, images: Tensor, rows: Tensor | None) -> Tensor:
        if self.capture is not None and self.layer is not None and self.unit is not None:
            at = self.at if rows is None or not _is_each(self.at) else [self.at[row] for row in rows.tolist()]
            return at_place(self.capture(images)[self.layer][:, self.unit], at).float()
        logits = logits_of(self.model.module(images), self.model.class_names)
        classes = self.classes if rows is None or self.classes is None else self.classes[rows]
        if classes is None:
            raise UsageError("neither a class nor a unit is explained")
        return logits.gather(1, classes.unsqueeze(1)).squeeze(1).float()


@contextmanager
def scoring(
    model: Model | nn.Module,
    images: Tensor,
    target: Target = None,
    layer: str | None = None,
    *,
    unit: int | None = None,
    at: At = PEAK,
) -> Iterator[Score]:
    """While open, the score of a class or, with `unit`, of a unit of `layer`; the model is in eval mode, and its
    parameters ask for no gradients.

    images: (B, 3, H, W) floating point, normalised as the model takes them. Without `unit` the score is the logit of
    `target`. Hooks belong to the module: one thread at a time. Raises UnknownNameError for no such layer, UsageError
    for images, a target, a unit or a place that do not fit.
    """
    found = model_of(model, images)
    if any(parameter.is_inference() for parameter in found.module.parameters()):
        raise UsageError(f"{found.spec} was made under torch.inference_mode() and has no gradients; load it outside")
    if unit is not None and layer is None:
        raise UsageError(f"unit {unit} of which layer? give the layer too")
    if unit is not None and target is not None:
        raise UsageError(f"class {target} and unit {unit} of {layer} are two things to explain; give one of them")
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        images = images.detach().to(found.placeholder())
        images = images.clone() if images.is_inference() else images
        stack.enter_context(at_rest(found.module))
        if unit is None or layer is None:
            yield Score(found, images, classes_of(found, images, target), None, at, None, None)
            return
        capture = ActivationCapture(found, [layer], transform=lambda _, maps: maps, gradients=True)
        stack.enter_context(capture)
        with torch.no_grad(), running(found, images[:1]):
            maps = capture(images[:1].clone())[layer]
        check_unit(layer, unit, maps.shape[1])
        at_place(maps[:, unit].expand(len(images), -1, -1), at)
        yield Score(found, images, None, unit, at, capture, layer)


def model_of(model: Model | nn.Module, images: Tensor) -> Model:
    """A module as a `Model` whose input has the size and channels of `images` (B, C, H, W); a Model as it is.

    Raises UsageError."""
    if not isinstance(images, Tensor) or images.ndim != 4 or not images.is_floating_point() or not len(images):
        found = tuple(images.shape) if isinstance(images, Tensor) else type(images).__name__
        raise UsageError(f"images are a floating point tensor (B, 3, H, W) as the model takes it, not {found}")
    if isinstance(model, Model):
        return model
    height, width = (int(side) for side in images.shape[2:])
    plain = Preprocess((height, width), None, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    return Model(type(model).__name__, unwrap(model), plain, channels=int(images.shape[1]))


def classes_of(model: Model, images: Tensor, target: Target) -> Tensor:
    """(B,) int64: which logit of each image is explained. Raises UsageError for a class that there is not."""
    if isinstance(target, str):
        target = class_number(target, model.class_names)
    with torch.no_grad(), running(model, images):
        logits = logits_of(model.module(images.clone()), model.class_names)
    if target is None:
        return logits.argmax(1)
    try:
        classes = torch.as_tensor(target, device=logits.device)
    except (TypeError, ValueError, RuntimeError):
        raise UsageError(f"a target is the number of a class, or one for each image, not {target!r}") from None
    if classes.dtype.is_floating_point or classes.dtype == torch.bool or classes.ndim > 1:
        raise UsageError(f"a target is the number of a class, or one for each image, not {target!r}")
    if classes.ndim == 1 and len(classes) not in (1, len(images)):
        raise UsageError(f"{len(classes)} targets for {len(images)} images; give one for all, or one for each")
    classes = classes.long().expand(len(images)).contiguous()
    if bool(((classes < 0) | (classes >= logits.shape[1])).any()):
        worst = next(int(c) for c in classes if not 0 <= int(c) < logits.shape[1])
        raise UsageError(f"there is no class {worst}: the model has {logits.shape[1]}, numbered from 0")
    return classes


def class_number(target: int | str | None, names: Sequence[str]) -> int | None:
    """The number of a class given by number or name; None for "top", the most probable of each image.

    A name may be written with other capitals where only one class has it. Raises UnknownNameError, and UsageError
    where several classes have the name.
    """
    if target is None or isinstance(target, int):
        return target
    if target not in names and target == TOP:
        return None
    if target not in names and target.isascii() and target.isdigit():
        return int(target)
    called = [number for number, name in enumerate(names) if name == target]
    called = called or [number for number, name in enumerate(names) if name.casefold() == target.casefold()]
    if len(called) > 1:
        listed = ", ".join(f"{number} ({names[number]})" for number in called)
        raise UsageError(f"{len(called)} classes are called {target!r}: {listed}; give the number of one")
    if called:
        return called[0]
    if not names:
        raise UsageError(f"the model has no names of classes, such as {target!r}; give the number of a class, or {TOP}")
    raise UnknownNameError("class", target, names)


@contextmanager
def running(model: Model, images: Tensor) -> Iterator[None]:
    """While open, whatever the model's own code raises on `images` (n, C, H, W) becomes one UsageError."""
    try:
        yield
    except MicrotomeError:
        raise
    except Exception as error:
        text = " ".join(str(error).split())
        raise UsageError(
            f"{model.spec} does not run on images {tuple(images.shape)}: {type(error).__name__}: {text}"
        ) from error


def check_unit(layer: str, unit: int, units: int) -> None:
    """Raise UsageError for a unit that the layer does not have."""
    if not 0 <= unit < units:
        raise UsageError(f"layer {layer} has no unit {unit}; its {units} units are numbered from 0")


def _is_each(at: At) -> TypeGuard[Sequence[tuple[int, int]]]:
    """Whether there is a place for each image."""
    return not isinstance(at, str) and len(at) > 0 and not isinstance(at[0], int)


def at_place(maps: Tensor, at: At) -> Tensor:
    """What maps (n, h, w) of one unit hold at the place: (n,). Raises UsageError for a place off the grid, and where
    places are not one for each map."""
    if at == PEAK:
        return maps.amax((1, 2))
    if at == MEAN:
        return maps.mean((1, 2))
    if _is_each(at):
        if len(at) != len(maps):
            raise UsageError(f"{len(at)} places for {len(maps)} images; give one for each, or one for all")
        return torch.cat([at_place(one.unsqueeze(0), place) for one, place in zip(maps, at, strict=True)])
    height, width = maps.shape[1:]
    if isinstance(at, str) or len(at) != 2:
        raise UsageError(f'a unit is looked at "{PEAK}", "{MEAN}" or a row and a column, not {at!r}')
    row, column = cast("tuple[int, int]", at)
    if not (0 <= row < height and 0 <= column < width):
        raise UsageError(f"there is no position {row},{column} on a grid of {height}x{width}")
    return maps[:, row, column]


@contextmanager
def at_rest(module: nn.Module) -> Iterator[None]:
    """While open, the module is in eval mode, gradients are recorded, and its parameters ask for none."""
    modes = [(each, each.training) for each in module.modules()]
    asking = [parameter for parameter in module.parameters() if parameter.requires_grad]
    try:
        module.eval()
        for parameter in asking:
            parameter.requires_grad_(False)
        with torch.enable_grad():
            yield
    finally:
        for each, mode in modes:
            each.training = mode
        for parameter in asking:
            parameter.requires_grad_(True)
