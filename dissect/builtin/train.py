"""Train the built-in classifiers: `python -m microtome.dissect.builtin.train cnn` (or `vit`).

Scenes of one seed are painted once, then read for some epochs under crops, flips and shifts of colour. The weights
go to `weights/`, the figures to `TRAINING.md`. Everything random follows from fixed seeds; only the rounding of
sums may differ between machines.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from microtome.dissect.builtin.cnn import MEAN, SIZE, STD, ScenesCNN
from microtome.dissect.builtin.rendering import PIXELS, render
from microtome.dissect.builtin.storing import save_weights
from microtome.dissect.builtin.training import (
    HERE,
    Steps,
    adamw,
    add_options,
    begin,
    cosine,
    log,
    set_rate,
    write_section,
)
from microtome.dissect.builtin.vit import ScenesViT

TRAIN_SEED: Final = 1
HELD_OUT_SEED: Final = 2
HELD_OUT: Final = 3000


@dataclass(frozen=True, slots=True)
class Recipe:
    """What is trained and how: AdamW under a warm-up and a cosine, cross-entropy with smoothed labels.

    smallest_crop: side of the smallest crop, as a share of the picture. sizes: of the input, over equal parts of the
    training, small ones first because they are cheap.
    """

    build: Callable[[], nn.Module]
    epochs: int
    samples: int = 36000
    batch: int = 64
    rate: float = 2e-3
    decay: float = 0.05
    smoothing: float = 0.05
    smallest_crop: float = 0.7
    sizes: tuple[int, ...] = (SIZE,)


@dataclass(frozen=True, slots=True)
class Outcome:
    """accuracy: on the held-out scenes, in float32; minutes: of training, without painting and testing."""

    accuracy: float
    minutes: float
    parameters: int


RECIPES: Final = {
    "cnn": Recipe(ScenesCNN, epochs=2, sizes=(80, 96, SIZE)),
    "vit": Recipe(ScenesViT, epochs=2, rate=1.5e-3, smallest_crop=0.85),
}


def to_input(images: Tensor) -> Tensor:
    """(B, 3, P, P) uint8, or floats in [0, 255], to (B, 3, SIZE, SIZE) float32 as the models expect it."""
    x = images.float()
    if x.shape[-1] != SIZE:
        x = F.interpolate(x, (SIZE, SIZE), mode="bilinear", antialias=x.shape[-1] > SIZE)
    mean, std = torch.tensor(MEAN).view(3, 1, 1), torch.tensor(STD).view(3, 1, 1)
    return ((x / 255 - mean) / std).contiguous(memory_format=torch.channels_last)


def augment(images: NDArray[np.uint8], crop: int, size: int, rng: np.random.Generator) -> Tensor:
    """Square crops of `crop` pixels at `size`, half of them mirrored, brightness and tint shifted: model input."""
    crops = np.empty((len(images), size, size, 3), np.uint8)
    for i, image in enumerate(images):
        top, left = rng.integers(0, PIXELS - crop + 1, 2)
        window = cv2.resize(image[top : top + crop, left : left + crop], (size, size), interpolation=cv2.INTER_LINEAR)
        crops[i] = window[:, ::-1] if rng.random() < 0.5 else window
    gain = rng.uniform(0.8, 1.2, (len(images), 1, 1, 1)) * rng.uniform(0.92, 1.08, (len(images), 1, 1, 3))
    shift = rng.uniform(-0.2, 0.2, (len(images), 1, 1, 1))
    scale = torch.from_numpy(gain / (255 * np.array(STD))).float()
    offset = torch.from_numpy(shift - gain * np.array(MEAN) / np.array(STD)).float()
    return torch.addcmul(offset, torch.from_numpy(crops).float(), scale).permute(0, 3, 1, 2)


def batches(images: NDArray[np.uint8], recipe: Recipe) -> Iterator[tuple[Tensor, NDArray[np.intp]]]:
    """Augmented batches of all epochs and the indices of their images, the same at every call."""
    rng = np.random.default_rng(TRAIN_SEED)
    each = len(images) // recipe.batch
    for epoch in range(recipe.epochs):
        order = rng.permutation(len(images))
        for number in range(each):
            chosen = np.sort(order[number * recipe.batch : (number + 1) * recipe.batch])
            crop = int(rng.integers(round(recipe.smallest_crop * PIXELS), PIXELS + 1))
            part = (epoch * each + number) * len(recipe.sizes) // (recipe.epochs * each)
            yield augment(images[chosen], crop, recipe.sizes[part], rng), chosen


@torch.inference_mode()
def accuracy(model: nn.Module, images: NDArray[np.uint8], classes: NDArray[np.int64]) -> float:
    """Share of images whose highest logit is their class; in float32."""
    model.eval()
    right = 0
    for start in range(0, len(images), 100):
        x = to_input(torch.from_numpy(images[start : start + 100].copy()).permute(0, 3, 1, 2))
        right += int((model(x).argmax(1).numpy() == classes[start : start + 100]).sum())
    return right / len(images)


def train(recipe: Recipe, cache: Path, target: Path, workers: int) -> Outcome:
    """Train one model, saving now and then, so that an early stop leaves something usable."""
    torch.manual_seed(0)
    images, classes = render(TRAIN_SEED, recipe.samples, cache, workers)
    held_out, held_out_classes = render(HELD_OUT_SEED, HELD_OUT, cache, workers)
    model = recipe.build().to(memory_format=torch.channels_last)
    optimizer = adamw(model, recipe.rate, recipe.decay)
    steps = recipe.epochs * (len(images) // recipe.batch)
    told, started = Steps(steps), time.monotonic()
    for step, (x, chosen) in enumerate(batches(images, recipe)):
        set_rate(optimizer, cosine(step, steps, recipe.rate))
        # On a CPU the fused attention's backward pass is slower than the plain one.
        with sdpa_kernel(SDPBackend.MATH), torch.autocast("cpu", torch.bfloat16):
            logits = model(x)
        loss = F.cross_entropy(logits.float(), torch.from_numpy(classes[chosen]), label_smoothing=recipe.smoothing)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), 2.0)
        optimizer.step()
        if told.done(loss):
            save_weights(model, target)
    save_weights(model, target)
    minutes = (time.monotonic() - started) / 60
    score = accuracy(model, held_out, held_out_classes)
    log.info("held-out accuracy %.4f after %.1f minutes", score, minutes)
    return Outcome(score, minutes, sum(p.numel() for p in model.parameters()))


def record(name: str, recipe: Recipe, outcome: Outcome) -> None:
    """Write the model's section of TRAINING.md, leaving the others as they are."""
    lines = [
        f"    python -m microtome.dissect.builtin.train {name}",
        "",
        f"- {outcome.parameters:,} parameters, float16 on disk",
        f"- trained on {recipe.samples:,} scenes of seed {TRAIN_SEED}, {recipe.epochs} epochs, batch {recipe.batch},",
        f"  AdamW at {recipe.rate:g}, crops of {recipe.smallest_crop:.0%} to 100%, flips, shifts of colour,",
        f"  input of {', '.join(map(str, recipe.sizes))} pixels over equal parts of the training",
        f"- {outcome.minutes:.0f} minutes on {torch.get_num_threads()} thread(s) (bfloat16 autocast) of a busy machine",
        f"- accuracy on {HELD_OUT:,} held-out scenes of seed {HELD_OUT_SEED}: {outcome.accuracy:.1%} (chance: 8.3%)",
    ]
    write_section(HERE / "TRAINING.md", f"scenes-{name}", lines)


def main() -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(prog="python -m microtome.dissect.builtin.train", description=main.__doc__)
    parser.add_argument("model", choices=sorted(RECIPES))
    numbers = {"epochs": int, "samples": int}
    add_options(parser, numbers)
    options, changes = begin(parser, numbers)
    recipe = RECIPES[options.model]
    target = options.out or HERE / "weights" / f"scenes-{options.model}.safetensors"
    recipe = replace(recipe, **changes)
    outcome = train(recipe, options.cache, target, options.threads)
    if options.out is None:
        record(options.model, recipe, outcome)


if __name__ == "__main__":
    main()
