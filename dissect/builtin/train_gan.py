"""Train the built-in generator: `python -m microtome.dissect.builtin.train_gan`.

The stages (see `gan_stages`) follow each other; what each has learned lies in the cache folder and is used again. The
weights go to `weights/`, the figures to `TRAINING.md`. Everything random follows from fixed seeds; only the rounding
of sums may differ between machines.
"""

from __future__ import annotations

import argparse
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from microtome.datasets.scenes.concepts import concept_id
from microtome.dissect.builtin.gan import ScenesGAN
from microtome.dissect.builtin.gan_stages import (
    Networks,
    Pictures,
    Recipe,
    finish,
    learn_coarse,
    learn_drawing,
    learn_fine,
    learn_jointly,
)
from microtome.dissect.builtin.painting import Choice, Painted, paint
from microtome.dissect.builtin.segmenter import ScenesSegmenter, scenes_segmenter
from microtome.dissect.builtin.storing import save_weights
from microtome.dissect.builtin.training import HERE, write_section

_LAWNS: Final = Choice(
    seed=3,
    count=4000,
    kinds=("village",),
    lights=("noon",),
    grounds=("grass",),
    layouts=("plain", "road across"),
    only=("house", "tree", "car", "bush", "rock", "flower"),
    views=3,
)
WITH_CARS: Final = replace(_LAWNS, showing="car", tall=0.17)
WITHOUT: Final = replace(_LAWNS, seed=4, count=1500, only=("house", "tree", "bush", "rock", "flower"))
SEEN_CAR: Final = 0.03
"""Of a picture's area: a smaller car is not recognised at 64 x 64."""
WITH_CAR: Final = 2.0
WITH_TREE: Final = 1.5
"""How often a scene with it is taken, relative to one without."""
LEAST: Final = 0.01
"""Of a picture's area: what shows less of a thing does not count as showing it."""
LOOKED_FOR: Final = ("house", "tree", "car")
SAMPLES: Final = 500
log = logging.getLogger("microtome.train")


def lawns(parts: Sequence[Painted]) -> Pictures:
    """The pictures that show a house, and a car that is recognised or none; the pixels of cars are marked."""
    images, marked, weights = [], [], []
    for painted in parts:
        car, tree = shown(painted, "car"), shown(painted, "tree")
        chosen = (shown(painted, "house") > 2 * LEAST) & ((car > SEEN_CAR) | (car < LEAST / 10))
        images.append(painted.images[chosen])
        marked.append(painted.planes[chosen, 0] == concept_id("object", "car"))
        weights.append((np.where(car > SEEN_CAR, WITH_CAR, 1.0) * np.where(tree > LEAST, WITH_TREE, 1.0))[chosen])
    return Pictures(np.concatenate(images), np.concatenate(marked), np.concatenate(weights))


def shown(painted: Painted, name: str) -> NDArray[np.float64]:
    """(N,) float64: share of each picture that is an object of this name."""
    return np.asarray((painted.planes[:, 0] == concept_id("object", name)).mean((1, 2)), np.float64)


def train(recipe: Recipe, cache: Path, workers: int, seconds: dict[str, float]) -> ScenesGAN:
    """The trained generator in eval mode; `seconds` takes how long each stage took, now or when it was kept."""
    pictures = lawns([paint(choice, cache, workers) for choice in (WITH_CARS, WITHOUT)])
    stages: dict[str, Callable[[Networks], None]] = {
        "fine": lambda nets: learn_fine(recipe, pictures, nets),
        "coarse": lambda nets: learn_coarse(recipe, pictures, nets),
        "joint": lambda nets: learn_jointly(recipe, pictures, nets),
        "draw": lambda nets: learn_drawing(recipe, pictures, nets, 0),
        "draw-again": lambda nets: learn_drawing(recipe, pictures, nets, 1),
        "finish": lambda nets: finish(recipe, pictures, nets),
    }
    torch.manual_seed(0)
    nets = Networks()
    for number, (name, stage) in enumerate(stages.items()):
        kept = cache / f"gan-{number}-{name}.safetensors"
        if kept.exists():
            nets.load_state_dict(load_file(kept))
            with safe_open(kept, "pt") as file:
                seconds[name] = float(file.metadata()["seconds"])
            continue
        torch.manual_seed(number)
        started = time.monotonic()
        stage(nets)
        seconds[name] = time.monotonic() - started
        state = {key: value.contiguous().clone() for key, value in nets.state_dict().items()}
        save_file(state, kept, {"seconds": str(seconds[name])})
    return nets.model.eval()


@torch.inference_mode()
def shares(model: ScenesGAN, segmenter: ScenesSegmenter, count: int = SAMPLES) -> dict[str, float]:
    """By thing looked for: share of generated images that show it, by the segmenter."""
    latents = model.sample(count, torch.Generator().manual_seed(0))
    found = torch.cat([segmenter((model(part) + 1) / 2)[:, 0] for part in torch.split(latents, 50)])
    areas = {name: (found == segmenter.labels.index(name)).float().mean((1, 2)) for name in LOOKED_FOR}
    return {name: float((area >= LEAST).float().mean()) for name, area in areas.items()}


def record(recipe: Recipe, model: ScenesGAN, found: dict[str, float], minutes: float) -> None:
    """Write the generator's section of TRAINING.md."""
    cars, others, (first, second) = WITH_CARS, WITHOUT, recipe.draw_steps
    lines = [
        "    python -m microtome.dissect.builtin.train_gan",
        "",
        f"- {sum(p.numel() for p in model.parameters()):,} parameters, float16 on disk; 64 x 64 pixels",
        f"- {cars.count:,} villages of seed {cars.seed} with a car at least {cars.tall:.0%} as tall as the picture,",
        f"  and {others.count:,} of seed {others.seed} without, all at {' or '.join(cars.lights)}, on",
        f"  {' or '.join(cars.grounds)}; nothing stands in them but {', '.join(cars.only)}",
        f"- painted at 128 and halved, each whole and as {cars.views - 1} windows of it, and their mirror images;",
        f"  kept: those that show a house, and no car or one of at least {SEEN_CAR:.0%} of the area",
        f"- those with a car are taken {WITH_CAR:g} times as often, those with a tree {WITH_TREE:g} times;",
        f"  pixels of cars count {1 + recipe.marked:g} times",
        f"- fine codes: {recipe.fine_steps:,} steps of {recipe.fine_batch}; coarse ones: {recipe.coarse_steps:,} steps",
        f"  of {recipe.coarse_batch}; both together: {recipe.joint_steps:,} steps of {recipe.joint_batch}",
        f"- prior: {first:,} steps of {recipe.draw_batch}, and {second:,} in a second round; finish:",
        f"  {recipe.finish_steps:,} steps of {recipe.finish_batch} scenes and as many drawn codes",
        f"- {minutes:.0f} minutes on {torch.get_num_threads()} thread(s) (bfloat16 autocast) of a busy machine,"
        " without painting",
        f"- of {SAMPLES} generated images, by the built-in segmenter, at least {LEAST:.0%} of the area of: "
        + ", ".join(f"{name} in {share:.0%}" for name, share in found.items()),
    ]
    write_section(HERE / "TRAINING.md", "scenes-gan", lines)


def main() -> None:
    """Read the command line and train."""
    program = "python -m microtome.dissect.builtin.train_gan"
    parser = argparse.ArgumentParser(prog=program, description=main.__doc__)
    parser.add_argument("--cache", type=Path, default=Path("/tmp/scenes-cache"), help="where stages are kept")
    parser.add_argument("--out", type=Path, help="weights file (default: the package's own)")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(options.threads)
    seconds: dict[str, float] = {}
    model = train(Recipe(), options.cache, options.threads, seconds)
    save_weights(model, options.out or HERE / "weights" / "scenes-gan.safetensors")
    found = shares(model, scenes_segmenter())
    log.info("%s; shown in samples: %s", seconds, found)
    if options.out is None:
        record(Recipe(), model, found, sum(seconds.values()) / 60)


if __name__ == "__main__":
    main()
