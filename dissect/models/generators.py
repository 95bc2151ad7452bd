"""What makes a module a generator, and the latents that it is called with.

A module is a generator of images when it has `output_range`, the (lowest, highest) value of its images:

    latent_shape   the shape of one latent, such as (100,) or (4, 8, 8); the module is called with z (B, *latent_shape)
    sample         optional: sample(n, generator) -> n latents, or a tuple of tensors that the module is called with,
                   drawn with a torch.Generator; without it latents are standard normal
    num_classes    optional: the module is called with (z, y), y (B,) int64; `class_names` does as well

and without `latent_shape`, but with `preprocess`, an image-to-image network: it is called with images. Its output,
or the first tensor in it that can be, is images (B, 3, H, W), or (B, 1, H, W) in grey.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from microtome.dissect.models.adapter import tensors_of
from microtome.dissect.models.noise import SampleNoise, rows_digests, seeded_draw
from microtome.dissect.models.preprocess import Preprocess
from microtome.storage.errors import UsageError

Latents: TypeAlias = tuple[Tensor, ...]
"""What a generator is called with: tensors, each with the batch first."""


@dataclass(frozen=True)
class GeneratorInfo:
    """How a generator is called, and what it gives.

    latent_shape: of one latent, None for an image-to-image network; output_range: (lowest, highest) value of its
    images; size: their (H, W); classes: of a conditional generator, else 0; class_names: their names, or empty;
    inputs: how the images are prepared that an image-to-image network takes, else None; draws: whether it draws noise
    in its forward pass; mark: a hash of the latents of seeds 0 and 1.
    """

    latent_shape: tuple[int, ...] | None
    output_range: tuple[float, float]
    size: tuple[int, int]
    classes: int = 0
    class_names: tuple[str, ...] = ()
    inputs: Preprocess | None = None
    draws: bool = False
    mark: str = ""

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: what a fingerprint is taken over."""
        inputs = None if self.inputs is None else self.inputs.to_dict()
        shape = None if self.latent_shape is None else list(self.latent_shape)
        parts = {"size": list(self.size), "classes": self.classes, "inputs": inputs, "latents": self.mark}
        return {"latent_shape": shape, "output_range": list(self.output_range), **parts}


def is_generator(module: nn.Module) -> bool:
    """Whether a module states what a generator states."""
    return getattr(module, "latent_shape", None) is not None or getattr(module, "output_range", None) is not None


def draw_latents(module: nn.Module, shape: tuple[int, ...], classes: int, seeds: Sequence[int]) -> Latents:
    """The latents of `seeds`, on the CPU: each as it is drawn alone, by a torch.Generator that begins with the seed.

    Of a conditional generator whose `sample` gives z alone, seed i has class i modulo their number. Raises UsageError
    where `sample` does not do what it should.
    """
    sample = getattr(module, "sample", None)
    rows = [_draw_one(sample, shape, seed) for seed in seeds]
    found = tuple(torch.cat([row[part] for row in rows]) for part in range(len(rows[0]))) if rows else ()
    if not rows:
        found = tuple(part[:0] for part in _draw_one(sample, shape, 0))
    if classes and len(found) == 1:
        found = (*found, torch.tensor([seed % classes for seed in seeds], dtype=torch.int64))
    return found


def _draw_one(sample: Any, shape: tuple[int, ...], seed: int) -> Latents:
    generator = torch.Generator().manual_seed(seed)
    if not callable(sample):
        return (torch.randn(1, *shape, generator=generator),)
    try:
        with torch.no_grad():
            drawn = seeded_draw(seed, lambda: sample(1, generator))  # seeded for one that leaves its generator aside
    except Exception as error:
        raise UsageError(
            f"module.sample(1, generator) failed: {type(error).__name__}: {' '.join(str(error).split())}; expected "
            "sample(n, generator) to give n latents"
        ) from error
    parts = tuple(drawn) if isinstance(drawn, tuple | list) else (drawn,)
    if not parts or not all(isinstance(part, Tensor) and part.ndim and len(part) == 1 for part in parts):
        raise UsageError("module.sample(1, generator) gave no tensor with one row; expected n latents (n, ...)")
    return tuple(part.detach().cpu() for part in parts)


def run_module(module: nn.Module, latents: Latents, *, draws: bool) -> Any:
    """What the module gives; noise that it draws is each sample's own."""
    if not draws:
        return module(*latents)
    with SampleNoise(latents):
        return module(*latents)


def image_of(output: object, batch: int) -> Tensor | None:
    """The first tensor in what a generator gives that is images (batch, 3 or 1, H, W); None where there is none."""
    for tensor in tensors_of(output):
        if tensor.ndim == 4 and len(tensor) == batch and tensor.shape[1] in (1, 3) and tensor.is_floating_point():
            return tensor
    return None


def examine(module: nn.Module, spec: str, inputs: Preprocess | None, like: Tensor) -> GeneratorInfo:
    """What is to be known of a generator: what it states, checked, and the rest from a pass over two latents.

    inputs: how images are prepared, for an image-to-image network; like: the dtype and device of what goes in.
    Raises UsageError where it does not keep the contract.
    """
    shape = None if getattr(module, "latent_shape", None) is None else _shape(module, spec)
    span = _range(module, spec)
    classes, names = _classes(module, spec) if shape is not None else (0, ())
    if shape is None and inputs is None:
        raise UsageError(
            f"{spec} has output_range and neither latent_shape nor preprocess; a generator states latent_shape, such "
            "as (100,), an image-to-image network preprocess, how its inputs are prepared"
        )
    if shape is not None:
        latents = draw_latents(module, shape, classes, (0, 1))
        mark = "".join(row.hex() for row in rows_digests(latents))
    else:
        size = inputs.size if inputs is not None else (0, 0)
        latents, mark = (torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0)),), ""
    image, draws = _first_images(module, spec, as_input(latents, like))
    return GeneratorInfo(
        latent_shape=shape,
        output_range=span,
        size=(image.shape[2], image.shape[3]),
        classes=classes,
        class_names=names,
        inputs=None if shape is not None else inputs,
        draws=draws,
        mark=mark,
    )


def as_input(latents: Latents, like: Tensor) -> Latents:
    """Latents on the device of `like`; those that are floats in its dtype."""
    return tuple(part.to(like) if part.is_floating_point() else part.to(like.device) for part in latents)


def _first_images(module: nn.Module, spec: str, latents: Latents) -> tuple[Tensor, bool]:
    shapes = " and ".join("(B" + "".join(f", {side}" for side in part.shape[1:]) + ")" for part in latents)
    noise = SampleNoise(latents)
    try:
        with torch.no_grad(), noise:
            output = module(*latents)
    except Exception as error:
        text = " ".join(str(error).split())[:300]
        raise UsageError(f"{spec} does not run on latents {shapes}: {type(error).__name__}: {text}") from error
    image = image_of(output, len(latents[0]))
    if image is None:
        given = [str(tuple(tensor.shape)) for tensor in tensors_of(output)]
        raise UsageError(
            f"{spec} is a generator that gives {', '.join(given) or type(output).__name__} for latents {shapes}, two "
            "of them; expected images (B, 3, H, W) or (B, 1, H, W)"
        )
    return image, noise.drawn > 0


def _shape(module: nn.Module, spec: str) -> tuple[int, ...]:
    stated: Any = module.latent_shape
    sides = (stated,) if isinstance(stated, int) else stated
    fits = isinstance(sides, Sequence) and not isinstance(sides, str) and len(sides) > 0
    if not fits or not all(isinstance(side, int) and side > 0 for side in sides):
        raise UsageError(f"{spec}: module.latent_shape is {stated!r}; expected whole numbers such as (100,)")
    return tuple(sides)


def _range(module: nn.Module, spec: str) -> tuple[float, float]:
    stated: Any = getattr(module, "output_range", None)
    if stated is None:
        raise UsageError(
            f"{spec} has latent_shape and no output_range; state the lowest and the highest value of its images, "
            "such as module.output_range = (-1.0, 1.0)"
        )
    try:
        low, high = (float(value) for value in stated)
    except (TypeError, ValueError):
        low, high = math.nan, math.nan
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise UsageError(f"{spec}: module.output_range is {stated!r}; expected (lowest, highest), such as (-1.0, 1.0)")
    return low, high


def _classes(module: nn.Module, spec: str) -> tuple[int, tuple[str, ...]]:
    names = getattr(module, "class_names", None)
    listed = tuple(str(name) for name in names) if isinstance(names, list | tuple) else ()
    count: Any = getattr(module, "num_classes", None) or len(listed)
    if not isinstance(count, int) or isinstance(count, bool) or count < 0:
        raise UsageError(f"{spec}: module.num_classes is {count!r}; expected how many classes y there are")
    if listed and len(listed) != count:
        raise UsageError(f"{spec}: module.num_classes is {count}, and class_names has {len(listed)} names")
    return count, listed
