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
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
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
)
from microtome.dissect.builtin.painting import Choice, Painted, paint
from microtome.dissect.builtin.segmenter import ScenesSegmenter, scenes_segmenter
from microtome.dissect.builtin.storing import save_weights
from microtome.dissect.builtin.training import HERE, write_section

LIGHTS: Final = ("noon", "overcast", "dawn")
TOWN: Final = Choice(1, 12000, kinds=("village", "street"), lights=LIGHTS)
VILLAGES: Final = Choice(3, 9000, kinds=("village",), lights=LIGHTS)
WITH_CAR: Final = (2.5, 6.0)
"""How often a village with a car is taken, relative to one without: at first, and where drawing is learned again."""
LEAST: Final = 0.01
"""Of a picture's area: what shows less of a thing does not count as showing it."""
LOOKED_FOR: Final = ("house", "tree", "car")
SAMPLES: Final = 500
log = logging.getLogger("microtome.train")


def everything(town: Painted) -> Pictures:
    """All scenes alike: what the autoencoders learn from."""
    return Pictures(town.images, np.ones(len(town.images)))


def villages(parts: Sequence[Painted], with_car: float) -> Pictures:
    """The scenes that show a house and no skyscraper, those with a car `with_car` times as often."""
    images, weights = [], []
    for painted in parts:
        chosen = (shown(painted, "house") > LEAST) & (shown(painted, "skyscraper") == 0)
        images.append(painted.images[chosen])
        weights.append(np.where(shown(painted, "car")[chosen] > LEAST, with_car, 1.0))
    return Pictures(np.concatenate(images), np.concatenate(weights))


def shown(painted: Painted, name: str) -> NDArray[np.float64]:
    """(N,) float64: share of each picture that is an object of this name."""
    return np.asarray((painted.planes[:, 0] == concept_id("object", name)).mean((1, 2)), np.float64)


def train(recipe: Recipe, cache: Path, workers: int, seconds: dict[str, float]) -> ScenesGAN:
    """The trained generator in eval mode; `seconds` takes those of each stage that was not found in `cache`."""
    town = paint(TOWN, cache, workers)
    parts = [town, paint(VILLAGES, cache, workers)]
    pictures, chosen, cars = everything(town), villages(parts, WITH_CAR[0]), villages(parts, WITH_CAR[1])
    stages: dict[str, Callable[[Networks], None]] = {
        "fine": lambda nets: learn_fine(recipe, pictures, nets),
        "coarse": lambda nets: learn_coarse(recipe, pictures, nets),
        "draw": lambda nets: learn_drawing(recipe, chosen, nets, 0),
        "finish": lambda nets: finish(recipe, chosen, nets, 0),
        "finish-drawn": lambda nets: finish(recipe, chosen, nets, 1),
        "draw-again": lambda nets: learn_drawing(recipe, cars, nets, 1),
    }
    torch.manual_seed(0)
    nets = Networks()
    for number, (name, stage) in enumerate(stages.items()):
        kept = cache / f"gan-{number}-{name}.safetensors"
        if kept.exists():
            nets.load_state_dict(load_file(kept))
            continue
        torch.manual_seed(number)
        started = time.monotonic()
        stage(nets)
        seconds[name] = time.monotonic() - started
        save_file({key: value.contiguous().clone() for key, value in nets.state_dict().items()}, kept)
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
    first, second = recipe.finish_steps
    lines = [
        "    python -m microtome.dissect.builtin.train_gan",
        "",
        f"- {sum(p.numel() for p in model.parameters()):,} parameters, float16 on disk; 64 x 64 pixels",
        f"- autoencoders: {TOWN.count:,} scenes of seed {TOWN.seed}, of the kinds {' and '.join(TOWN.kinds)},",
        f"  in the lights {', '.join(LIGHTS)}, painted at 128 and halved, and their mirror images;",
        f"  fine codes: {recipe.fine_steps:,} steps of {recipe.fine_batch}, coarse ones: {recipe.coarse_steps:,} steps",
        f"  of {recipe.coarse_batch}",
        f"- prior and finish: those that show a house and no skyscraper, and {VILLAGES.count:,} villages of seed",
        f"  {VILLAGES.seed}, those with a car {WITH_CAR[0]:g} times as often; prior: {recipe.draw_steps[0]:,} steps of",
        f"  {recipe.draw_batch}; finish: {first:,} steps of {recipe.finish_batch}, {second:,} with drawn codes too;",
        f"  prior again: {recipe.draw_steps[1]:,} steps, scenes with a car {WITH_CAR[1]:g} times as often",
        f"- {minutes:.0f} minutes on {torch.get_num_threads()} thread(s) (bfloat16 autocast) of a busy machine",
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
