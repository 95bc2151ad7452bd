"""`microtome generate`: images of a generator, plain or with the edits of a recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from microtome.dissect.cli.output import show_json


@click.command("generate")
@click.argument("generator", metavar="GENERATOR")
@click.option("--out", required=True, type=click.Path(path_type=Path), metavar="DIR", help="Folder for the images.")
@click.option("--recipe", type=click.Path(path_type=Path), metavar="FILE", help="Edits to apply to each image.")
@click.option("--seeds", multiple=True, metavar="0-63,100", help="Seeds of the images. [those of the recipe]")
@click.option("--count", type=click.IntRange(min=1), metavar="N", help="Seeds 0 to N - 1. [16]")
@click.option("--weights", type=click.Path(path_type=Path), metavar="FILE", help="A .safetensors or state dict.")
@click.option("--inputs", metavar="FOLDER", help="Images that an image-to-image network starts from.")
@click.option("--force", is_flag=True, help="Apply a recipe that was made for another generator.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object: the seeds and files.")
def generate_command(generator: str, out: Path, as_json: bool, **options: Any) -> int:
    """Write images of a GENERATOR to DIR: a PNG for each seed, and a sheet of them.

    A seed gives the same image to the last bit, whatever others are asked for. With a recipe (of microtome ablate
    --export-recipe, of the explorer, or of Python) units are edited on the way, as they were there.

    \b
    Examples:
      microtome generate builtin:scenes-gan --count 16 --out images
      microtome generate builtin:scenes-gan --recipe edit.json --seeds 0-63 --out edited
    """
    from microtome.dissect.generators.making import generate

    made = generate(generator, out, **options)
    if as_json:
        edits = 0 if made.recipe is None else len(made.recipe.edits)
        show_json(
            generator={"spec": made.generator.model.spec, "fingerprint": made.generator.model.fingerprint},
            recipe=None if options["recipe"] is None else str(options["recipe"]),
            edits=edits,
            seeds=list(made.seeds),
            files=[str(path) for path in made.files],
        )
    else:
        click.echo(f"{len(made.seeds):,} image{'s' * (len(made.seeds) != 1)} and sheet.png in {out}")
    return 0
