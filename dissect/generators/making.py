"""Images of a generator as files, plain or with the edits of a recipe: `microtome generate`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from microtome.datasets.specs import open_dataset
from microtome.dissect.audit.progress import progress
from microtome.dissect.generators.data import LARGEST_SEED
from microtome.dissect.generators.edits import Edit, sites_of
from microtome.dissect.generators.generator import Generator, open_generator
from microtome.dissect.generators.recipes import Recipe, edited_pictures, read_recipe
from microtome.reports.contact import Tile, draw_grid
from microtome.reports.png import png_bytes
from microtome.storage.errors import UsageError
from microtome.storage.files import write_asked

COUNT = 16
AT_ONCE = 64
MOST_TILES = 256
"""Images on the sheet; those after them have their own files."""


@dataclass(frozen=True)
class Made:
    """What was written. files: one a seed, then the sheet; recipe: that was applied, or None."""

    generator: Generator
    seeds: tuple[int, ...]
    files: list[Path]
    recipe: Recipe | None


def generate(
    spec: str,
    out: Path,
    *,
    recipe: Path | None = None,
    seeds: Sequence[str] = (),
    count: int | None = None,
    weights: Path | None = None,
    inputs: str | None = None,
    force: bool = False,
) -> Made:
    """Write the image of each seed to `out`/seed-NNNNNN.png, and `out`/sheet.png.

    recipe: a file of edits to apply, refused where it was made for another generator, unless `force`; seeds: as in
    `("0-63", "100")`, or the first `count`, or else the recipe's own; inputs: the folder of an image-to-image network.
    """
    read = None if recipe is None else read_recipe(recipe)
    numbers = asked_seeds(seeds, count, read)
    generator = open_generator(spec, weights, None if inputs is None else open_dataset(f"images:{inputs}"))
    if generator.info.latent_shape is None and inputs is None:
        raise UsageError(f"{spec} makes images from images: say which with --inputs FOLDER; seeds number them, from 0")
    if read is not None:
        read.check(generator, force=force)
        sites_of(generator.model, read.edits)
    edits: Sequence[Edit] = () if read is None else read.edits
    files: list[Path] = []
    tiles: list[Tile] = []
    with progress("generate", len(numbers), "images") as shown:
        for start in range(0, len(numbers), AT_ONCE):
            part = numbers[start : start + AT_ONCE]
            for seed, picture in zip(part, edited_pictures(generator, edits, part), strict=True):
                files.append(_write(out / f"seed-{seed:06d}.png", picture))
                tiles += [Tile(picture, [f"seed {seed}"])] if len(tiles) < MOST_TILES else []
            shown.advance(len(part))
    files.append(_write(out / "sheet.png", draw_grid(tiles, title_of(generator, read), side=128)))
    return Made(generator, numbers, files, read)


def asked_seeds(seeds: Sequence[str], count: int | None, recipe: Recipe | None) -> tuple[int, ...]:
    """The seeds to make. Raises UsageError."""
    if seeds and count is not None:
        raise UsageError("give either --seeds or --count")
    if seeds:
        return parse_seeds(seeds)
    if count is None and recipe is not None and recipe.seeds:
        return recipe.seeds
    return tuple(range(COUNT if count is None else count))


def parse_seeds(text: Sequence[str]) -> tuple[int, ...]:
    """`("0-63", "100,7")` as seeds, in this order, each once. Raises UsageError."""
    found: dict[int, None] = {}
    for part in (part.strip() for value in text for part in value.split(",")):
        first, dash, last = part.partition("-")
        if not _is_number(first) or (dash and not _is_number(last)) or int(last or first) < int(first):
            raise UsageError(f"--seeds {part!r}: give whole numbers and ranges, as in --seeds 0-63,100")
        if int(last or first) > LARGEST_SEED or int(last or first) - int(first) >= 1_000_000:
            raise UsageError(f"--seeds {part}: seeds go up to {LARGEST_SEED}, a million in a range at most")
        found.update(dict.fromkeys(range(int(first), int(last or first) + 1)))
    return tuple(found)


def title_of(generator: Generator, recipe: Recipe | None) -> str:
    """What stands above the sheet."""
    if recipe is None:
        return generator.model.spec
    layers = ", ".join(dict.fromkeys(edit.layer for edit in recipe.edits))
    units = sum(len(edit.units) for edit in recipe.edits)
    return f"{generator.model.spec}, {units} unit{'s' * (units != 1)} of {layers} edited"


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 19


def _write(path: Path, picture: Image.Image | NDArray[np.uint8]) -> Path:
    write_asked(path, png_bytes(picture))
    return path
