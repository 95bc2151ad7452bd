"""`microtome rank`: the units of a generator's layer by what they cause, and rankings compared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from microtome.dissect.cli.options import RUN, split_list
from microtome.dissect.cli.output import show_json, show_table

SHOWN = 12


@click.command("rank")
@click.argument("run", type=RUN)
@click.option("--layer", required=True, help="A layer of the run.")
@click.option("--concept", "concepts", required=True, multiple=True, metavar="NAME", help="What units are ranked for.")
@click.option("--by", multiple=True, metavar="ace,alpha", help="Which rankings. [ace and alpha]")
@click.option(
    "--effects",
    type=click.IntRange(min=2),
    default=24,
    show_default=True,
    metavar="N",
    help="Latents of the run that each unit is ablated and inserted on (ace).",
)
@click.option(
    "--keep",
    type=click.FloatRange(min=0, max=1000),
    metavar="W",
    help="Weight of what changes beside the concept (alpha); 0: all that makes it go. [as the run has it, else 2]",
)
@click.option("--again", is_flag=True, help="Measure anew what the run holds already.")
@click.option("--compare/--no-compare", default=True, help="Compare what the rankings remove, on fresh latents.")
@click.option(
    "--samples", type=click.IntRange(min=2), default=64, show_default=True, metavar="N", help="Of these latents."
)
@click.option("--draws", type=click.IntRange(min=0), default=2, show_default=True, help="Random sets of each size.")
@click.option("--workers", type=click.IntRange(min=1), help="Threads of the passes. [as torch is set up]")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def rank_command(
    run: Path | str,
    layer: str,
    concepts: tuple[str, ...],
    by: tuple[str, ...],
    effects: int,
    keep: float | None,
    again: bool,
    compare: bool,
    samples: int,
    draws: int,
    workers: int | None,
    as_json: bool,
) -> int:
    """Rank the units of a layer of a generator's RUN by what they cause, and compare it with the ranking by IoU.

    ace is the average causal effect: the concept's area with a unit inserted less that with it ablated. alpha is an
    intervention over all units at once, optimised by gradient descent through the segmenter, or through a pupil of it
    where it gives no gradients. Both are kept in layers/LAYER/causal.parquet; the comparison, which is measured with
    the segmenter on latents that the run does not have, as JSON and a plot in RUN/rankings/.

    \b
    Examples:
      microtome rank runs/gan --layer layer4 --concept tree
      microtome rank runs/gan --layer layer4 --concept tree,house --by alpha --samples 128 --json
    """
    from microtome.dissect.generators.ranked import rank_units

    names, rankings = split_list(concepts), split_list(by) or ("ace", "alpha")
    options: dict[str, Any] = {
        "effects": effects,
        "keep": keep,
        "again": again,
        "samples": samples if compare else None,
    }
    found = rank_units(run, layer, names, by=rankings, draws=draws, workers=workers, **options)
    if as_json:
        show_json(layer=layer, concepts={one["concept"]: one for one in found})
        return 0
    for one in found:
        _show(one)
    return 0


def _show(found: dict[str, Any]) -> None:
    for name, units in found["units"].items():
        click.echo(f"{found['concept']} by {name}: {', '.join(map(str, units[:SHOWN]))}, ...")
    compared = found["compared"]
    if compared is None:
        return
    columns = compared["curves"] | {f"{name} - iou": points for name, points in compared["more_than_iou"].items()}
    body = [
        [str(dose), *(_cell(points[place]) for points in columns.values())]
        for place, dose in enumerate(compared["doses"])
    ]
    show_table(["units", *columns], body, right=range(1 + len(columns)))
    words = [f"{name} {half or 'more than ' + str(compared['doses'][-1])}" for name, half in compared["half"].items()]
    click.echo(f"units that remove half of {found['concept']}: {', '.join(words)}")
    click.echo(f"kept as {found['key']}, plot {found['plot']}", err=True)


def _cell(point: dict[str, Any]) -> str:
    if point["removed"] is None:
        return "-"
    low, high = point["interval"]
    return f"{100 * point['removed']:.0f} % [{100 * low:.0f}, {100 * high:.0f}]"
