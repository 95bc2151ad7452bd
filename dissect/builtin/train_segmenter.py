"""Train the built-in segmenter: `python -m microtome.dissect.builtin.train_segmenter`.

Scenes of one seed, all kinds and lights, are painted once with their labels, then read for some epochs mirrored,
brighter or darker, and with noise. No generated picture is used. Figures on held-out scenes go to `TRAINING.md`.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from microtome.datasets.scenes.concepts import concept_id
from microtome.dissect.builtin.painting import Choice, Painted, paint
from microtome.dissect.builtin.segmenter import CATEGORIES, ScenesSegmenter, with_none
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

TRAIN_SEED: Final = 1
HELD_OUT: Final = Choice(2, 1000)


@dataclass(frozen=True, slots=True)
class Recipe:
    """Rounds of some epochs, AdamW under a warm-up and a cosine; cross-entropy of planes, rare labels weighing more."""

    scenes: int = 12000
    rounds: int = 2
    epochs: float = 3.0
    batch: int = 32
    rate: float = 4e-3
    decay: float = 0.02
    rarity: float = 0.3
    """Weight of a label: its share of the pixels to the power of minus this."""


def ids_of_plane(model: ScenesSegmenter, plane: int) -> NDArray[np.int64]:
    """(256,) int64: from concept ids of `scenes` to 1 + the place in the model's plane, 0 for unlabelled."""
    table = np.zeros(256, np.int64)
    names = [name for name, own in zip(model.labels, model.planes, strict=True) if own == plane]
    for place, name in enumerate(names, start=1):
        table[concept_id(CATEGORIES[plane], name)] = place
    return table


def targets(model: ScenesSegmenter, planes: NDArray[np.uint8]) -> Tensor:
    """(B, 3, H, W) concept ids of `scenes` to (B, 3, H, W) int64 places in the model's planes, 0 = unlabelled."""
    found = [ids_of_plane(model, plane)[planes[:, plane]] for plane in range(len(CATEGORIES))]
    return torch.from_numpy(np.stack(found, 1))


def augment(images: NDArray[np.uint8], rng: np.random.Generator) -> Tensor:
    """(B, H, W, 3) uint8 to (B, 3, H, W) float32 in [0, 1]: other brightness and tint, noise of the camera."""
    count = len(images)
    gain = rng.uniform(0.85, 1.15, (count, 1, 1, 1)) * rng.uniform(0.95, 1.05, (count, 1, 1, 3))
    noise = rng.uniform(0, 0.05, (count, 1, 1, 1)) * rng.standard_normal(images.shape, np.float32)
    shifted = images / 255.0 * gain + rng.uniform(-0.06, 0.06, (count, 1, 1, 1)) + noise
    return torch.from_numpy(np.clip(shifted, 0, 1).astype(np.float32)).permute(0, 3, 1, 2)


def label_weights(model: ScenesSegmenter, planes: NDArray[np.uint8], rarity: float) -> list[Tensor]:
    """Of each plane (1 + k,) float32: share of the pixels to the power of -rarity, mean 1 over the pixels."""
    weights = []
    for plane, wanted in enumerate(targets(model, planes[::4]).unbind(1)):
        counts = torch.bincount(wanted.flatten(), minlength=1 + model.planes.count(plane)).float().clamp(min=1)
        share = counts / counts.sum()
        raw = share.pow(-rarity)
        weights.append(raw / (raw * share).sum())
    return weights


def loss_of(model: ScenesSegmenter, scores: Tensor, wanted: Tensor, weights: list[Tensor]) -> Tensor:
    """Mean cross-entropy over pixels and planes."""
    parts = [
        F.cross_entropy(with_none(part), wanted[:, plane], weights[plane])
        for plane, part in enumerate(model.by_plane(scores))
    ]
    return torch.stack(parts).mean()


def train(recipe: Recipe, cache: Path, target: Path, workers: int) -> tuple[ScenesSegmenter, float]:
    """The trained segmenter in eval mode, and the minutes; weights are saved after each round."""
    torch.manual_seed(0)
    painted = paint(Choice(TRAIN_SEED, recipe.scenes), cache, workers)
    model = ScenesSegmenter().to(memory_format=torch.channels_last)
    started = time.monotonic()
    for number in range(recipe.rounds):
        train_round(recipe, painted, model, np.random.default_rng([TRAIN_SEED, number]))
        save_weights(model, target)
    return model.eval(), (time.monotonic() - started) / 60


def train_round(recipe: Recipe, painted: Painted, model: ScenesSegmenter, rng: np.random.Generator) -> None:
    """One round of the recipe's epochs, the rate falling from its highest to nothing."""
    weights = label_weights(model, painted.planes, recipe.rarity)
    optimizer = adamw(model, recipe.rate, recipe.decay)
    steps = int(recipe.epochs * recipe.scenes / recipe.batch)
    told = Steps(steps)
    order = rng.permutation(len(painted.images))
    for step in range(steps):
        start = step * recipe.batch % (len(order) - recipe.batch + 1)
        chosen = np.sort(order[start : start + recipe.batch])
        turn = slice(None, None, -1) if rng.random() < 0.5 else slice(None)
        x = augment(painted.images[chosen][:, :, turn], rng).contiguous(memory_format=torch.channels_last)
        wanted = targets(model, painted.planes[chosen][..., turn])
        set_rate(optimizer, cosine(step, steps, recipe.rate))
        with torch.autocast("cpu", torch.bfloat16):
            scores = model.logits(x)
        loss = loss_of(model, scores.float(), wanted, weights)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        told.done(loss)


@torch.inference_mode()
def scores_of(model: ScenesSegmenter, painted: Painted) -> dict[str, tuple[float, float]]:
    """By plane: mean IoU over its labels (those that occur), and the share of labelled pixels named rightly."""
    counts = [np.zeros((1 + model.planes.count(p),) * 2, np.int64) for p in range(len(CATEGORIES))]
    offsets = [model.planes.index(plane) for plane in range(len(CATEGORIES))]
    for start in range(0, len(painted.images), 50):
        images = torch.from_numpy(painted.images[start : start + 50]).permute(0, 3, 1, 2) / 255
        found = model(images).numpy()
        wanted = targets(model, painted.planes[start : start + 50]).numpy()
        for plane, table in enumerate(counts):
            own = np.where(found[:, plane] < 0, 0, found[:, plane] - offsets[plane] + 1)
            pairs = wanted[:, plane] * len(table) + own
            table += np.bincount(pairs.ravel(), minlength=table.size).reshape(table.shape)
    return {name: _scores(table) for name, table in zip(CATEGORIES, counts, strict=True)}


def _scores(table: NDArray[np.int64]) -> tuple[float, float]:
    right = np.diag(table)[1:]
    union = table[1:].sum(1) + table[:, 1:].sum(0) - right
    occurs = table[1:].sum(1) > 0
    return float((right[occurs] / union[occurs]).mean()), float(right.sum() / table[1:].sum())


def record(recipe: Recipe, model: ScenesSegmenter, minutes: float, scores: dict[str, tuple[float, float]]) -> None:
    """Write the segmenter's section of TRAINING.md."""
    lines = [
        "    python -m microtome.dissect.builtin.train_segmenter",
        "",
        f"- {sum(p.numel() for p in model.parameters()):,} parameters, float16 on disk",
        f"- trained on {recipe.scenes:,} scenes of seed {TRAIN_SEED}, all kinds and lights, painted at 128 and halved",
        f"  to 64 pixels; {recipe.rounds} rounds of {recipe.epochs:g} epochs, batch {recipe.batch},",
        f"  AdamW at {recipe.rate:g}; flips, brightness, tint, noise; no generated picture",
        f"- {minutes:.0f} minutes on {torch.get_num_threads()} thread(s) (bfloat16 autocast) of a busy machine",
        f"- on {HELD_OUT.count:,} held-out scenes of seed {HELD_OUT.seed}: "
        + "; ".join(f"{name} mIoU {iou:.3f} (pixels right: {right:.1%})" for name, (iou, right) in scores.items()),
    ]
    write_section(HERE / "TRAINING.md", "scenes-segmenter", lines)


def main() -> None:
    """Read the command line and train."""
    program = "python -m microtome.dissect.builtin.train_segmenter"
    parser = argparse.ArgumentParser(prog=program, description=main.__doc__)
    numbers = {"epochs": float, "scenes": int}
    add_options(parser, numbers)
    options, changes = begin(parser, numbers)
    recipe = replace(Recipe(), **changes)
    target = options.out or HERE / "weights" / "scenes-segmenter.safetensors"
    model, minutes = train(recipe, options.cache, target, options.threads)
    scores = scores_of(model, paint(HELD_OUT, options.cache, options.threads))
    log.info("held out: %s", scores)
    if options.out is None:
        record(recipe, model, minutes, scores)


if __name__ == "__main__":
    main()
