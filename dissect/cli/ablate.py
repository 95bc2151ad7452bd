"""`microtome ablate`: what classes lose without a set of units, or, of a generator, what its images lose."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from microtome.dissect.cli.options import RUN
from microtome.dissect.cli.output import show_json, show_table
from microtome.storage.errors import UsageError

if TYPE_CHECKING:
    from microtome.dissect.ablation.sets import Ablation

SHOWN_CLASSES = 40

OF_CLASSIFIERS = {"class_name": "--class", "limit": "--limit", "workers": "--workers"}
OF_GENERATORS = {"region": "--region", "rank": "--rank", "samples": "--samples", "export_recipe": "--export-recipe"}
"""Options that mean something for one kind of run alone."""


@click.command("ablate")
@click.argument("run", type=RUN)
@click.option("--layer", help="A layer of the run. [of a generator the strongest for the concept]")
@click.option("--units", multiple=True, metavar="3,17,40-44", help="These units.")
@click.option(
    "--concept", metavar="NAME", help="The units of highest IoU for a concept; of a generator the best by --rank."
)
@click.option(
    "--class",
    "class_name",
    metavar="NAME",
    help="The units that a class needs most (microtome importance); its name, or its number among the model's classes.",
)
@click.option(
    "--top", type=click.IntRange(min=1), default=20, show_default=True, help="How many for --concept, --class."
)
@click.option(
    "--value", default="zero", show_default=True, help="What units are set to: zero, mean, or (generators) a number."
)
@click.option("--draws", type=click.IntRange(min=0), help="Random sets to compare with. [20; of a generator 8]")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the random sets.")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Only the first N images.")
@click.option("--dataset", metavar="SPEC", help="Other images to measure on. [those of the run; fresh latents]")
@click.option("--workers", type=click.IntRange(min=1), help="Cores to use. [number of cores]")
@click.option("--rank", metavar="iou|ace|alpha", help="Generators: how units are ranked. [the strongest to be had]")
@click.option(
    "--region", metavar="mask|BOX", help="Generators: only where the concept is, or in a box 0.1,0.2,0.6,0.8."
)
@click.option("--samples", type=click.IntRange(min=2), metavar="N", help="Generators: latents to measure on. [256]")
@click.option(
    "--export-recipe", type=click.Path(path_type=Path), metavar="FILE", help="Generators: write the edit to a file."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object, as it is kept in RUN/ablations/.")
def ablate_command(run: Path | str, as_json: bool, **options: Any) -> int:
    """Remove a set of units of a layer at once, and measure what each class of a finished RUN's model loses.

    Beside it stand random sets of as many other units of the layer: the mean of their falls and the interval that
    holds 95 % of the draws; of fewer than 5, their range. The result is kept in RUN/ablations/.

    On the run of a generator units are set to a value while it makes images, of fresh latents that the run does not
    have, and what is measured is the area of every concept; a contact sheet lies beside the result.

    \b
    Examples:
      microtome ablate runs/first --layer block5 --class beach --top 5
      microtome ablate runs/first --layer block5 --concept car --top 20 --draws 50
      microtome ablate runs/first --layer block5 --units 3,17,40-44 --value mean
      microtome ablate runs/directions --layer block5:pca --units 0-4
      microtome ablate runs/gan --concept tree --top 20
      microtome ablate runs/gan --concept tree --region mask --dataset generated:500?seed=7000
      microtome ablate runs/gan --layer layer4 --units 3,17 --region 0.1,0.2,0.6,0.8 --export-recipe edit.json
    """
    from microtome.storage.run import Run

    if "generator" in Run.open(run).info["model"]:
        return _generator(run, as_json, _only(options, OF_CLASSIFIERS, "a generator"))
    return _classifier(run, as_json, _only(options, OF_GENERATORS, "a classifier"))


def _only(options: dict[str, Any], others: dict[str, str], kind: str) -> dict[str, Any]:
    """The options without those that are for another kind of run. Raises UsageError where one of these is given."""
    for name, flag in others.items():
        if options[name] is not None:
            raise UsageError(f"{flag} means nothing for the run of {kind}; leave it out")
    left = {name: value for name, value in options.items() if name not in others}
    return {name: value for name, value in left.items() if name != "draws" or value is not None}


def _generator(run: Path | str, as_json: bool, options: dict[str, Any]) -> int:
    from microtome.dissect.cli.ablate_generator import show_ablation
    from microtome.dissect.generators.ablating import ablate_generator

    found = ablate_generator(run, **options)
    if as_json:
        show_json(**found.result)
    else:
        show_ablation(found.result)
        kept = f"kept as {found.key}, with pairs of images in {found.sheet}"
        click.echo(f"{kept}; on the pages after: microtome report {run}", err=True)
    return 0


def _classifier(run: Path | str, as_json: bool, options: dict[str, Any]) -> int:
    from microtome.dissect.ablation import ablate

    layer = options.pop("layer")
    if layer is None:
        raise UsageError("name the layer of the units, as in --layer block5; microtome status RUN lists those of a run")
    found = ablate(run, layer, **options)
    if as_json:
        show_json(**found.result)
    else:
        _show(found)
        click.echo(f"kept as {found.key}; on the pages after: microtome report {run}", err=True)
    return 0


def _show(found: Ablation) -> None:
    result = found.result
    random = (
        f"{result['draws']} random set{'s' * (result['draws'] != 1)} of {len(result['units'])} ({result['drawn_from']})"
    )
    images = f"{result['images']:,} images of {result['data']}"
    click.echo(f"{result['layer']}: without {result['chosen_by']}; {random}; {images}")
    click.echo(f"each {result['removal']}")
    interval = "95 % of draws" if _has_interval(result["draws"]) else "range of draws"
    header = ["class", "images", "accuracy", "without", "fall", "random: mean fall", interval]
    body = [_line(row) for row in found.rows[: SHOWN_CLASSES + 1]]
    show_table(header, body, right=range(1, len(header)))
    if len(found.rows) > SHOWN_CLASSES + 1:
        click.echo(f"... {len(found.rows) - SHOWN_CLASSES - 1} more; --json gives them")
    click.echo(conclusion(found))


def _line(row: dict[str, Any]) -> list[str]:
    random = row["random"]
    interval = f"[{_points(random['low'])}, {_points(random['high'])}]" if random else "-"
    shares = [f"{100 * row[name]:.1f} %" for name in ("accuracy", "accuracy_without")]
    return [
        *(row["class"], f"{row['images']:,}", *shares, _points(row["fall"])),
        *(_points(random["mean"]) if random else "-", interval),
    ]


def conclusion(found: Ablation) -> str:
    """What came out, in a sentence."""
    whole, *classes = found.rows
    row, who = whole, "accuracy"
    if found.class_name is not None:
        who = found.class_name
        mine = [row for row in classes if row["index"] == found.class_index]
        if not mine:
            return f"none of the {whole['images']:,} images measured is of class {who}: what it loses is not known."
        row = mine[0]
    text = f"{who} falls from {100 * row['accuracy']:.1f} % to {100 * row['accuracy_without']:.1f} %"
    if row["random"]:
        random = row["random"]
        how = "" if _has_interval(found.result["draws"]) else " (their range)"
        text += (
            f"; random sets of {len(found.result['units'])}: a fall of {_points(random['mean'])} points "
            f"[{_points(random['low'])}, {_points(random['high'])}]{how}"
        )
    others = [other for other in classes if other is not row]
    if row is not whole and others:
        images = sum(other["images"] for other in others)
        mean = sum(other["fall"] * other["images"] for other in others) / images
        text += f"; other classes {'rise' if mean < 0 else 'fall'} by {_points(abs(mean))} on average"
    return text + "."


def _has_interval(draws: int) -> bool:
    """Whether there are enough draws for an interval that holds 95 % of them."""
    from microtome.dissect.ablation.sets import LEAST_DRAWS

    return draws >= LEAST_DRAWS


def _points(fall: float) -> str:
    """A fall in percentage points."""
    return f"{100 * fall:.1f}"
