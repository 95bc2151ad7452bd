"""`microtome insert`: where units of a generator can paint their concept, and where the network refuses."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from microtome.dissect.cli.options import RUN
from microtome.dissect.cli.output import show_json, show_table

if TYPE_CHECKING:
    from microtome.dissect.generators.inserting import Insertion

COUNT = click.IntRange(min=0)
SEEN_AS_ELSE = 0.5
"""Where pixels change by so much of what they change by where the concept takes, the network does not refuse."""


@click.command("insert")
@click.argument("run", type=RUN)
@click.option("--concept", required=True, metavar="NAME", help="What is to appear.")
@click.option("--layer", help="A layer of the run. [the one whose units rank best for the concept]")
@click.option("--units", multiple=True, metavar="3,17,40-44", help="These units of --layer, instead of ranked ones.")
@click.option("--top", type=click.IntRange(min=1), default=20, show_default=True, help="How many ranked units.")
@click.option("--rank", type=click.Choice(["iou", "ace", "alpha"]), help="Ranking of units. [the strongest there is]")
@click.option(
    "--quantile", type=float, default=0.995, show_default=True, help="Of a unit's own values: what it is forced to."
)
@click.option(
    "--place", default="grid", show_default=True, metavar="BOX", help="grid, or top,left,bottom,right as fractions."
)
@click.option(
    "--grid", default="6x6", show_default=True, metavar="RxC", help="Places of --place grid: down and across."
)
@click.option("--size", default="0.25", show_default=True, metavar="HxW", help="Of a place, as fractions of the image.")
@click.option("--samples", type=click.IntRange(min=1), default=64, show_default=True, help="Fresh latents.")
@click.option("--draws", type=COUNT, default=2, show_default=True, help="Random sets of units to compare with.")
@click.option("--seed", type=COUNT, default=0, show_default=True, help="Of the random sets.")
@click.option(
    "--export-recipe",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write the edit at one --place as a recipe.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object, as it is kept in RUN/insertions/.")
def insert_command(run: Path | str, as_json: bool, **options: Any) -> int:
    """Force units of a generator to a high quantile of their own values at places of its images, and measure what of
    the concept appears there, by what was there before.

    Contexts that take the concept and contexts that refuse it come as a table, a map over the image and a contact
    sheet, beside random units of the same layer that are forced likewise. All of it is kept in RUN/insertions/.

    \b
    Examples:
      microtome insert runs/gan --concept tree
      microtome insert runs/gan --concept door --layer layer4 --top 20 --quantile 0.995 --grid 8x8 --samples 100
      microtome insert runs/gan --concept tree --place 0.4,0.1,0.9,0.4 --export-recipe tree.json
      microtome insert runs/gan --concept tree --layer layer4 --units 3,17,40-44
    """
    from microtome.dissect.generators.inserting import insert_units

    options["grid"] = _pair(options["grid"], "--grid", "6x6", int)
    options["size"] = _pair(options["size"], "--size", "0.25 or 0.25x0.2", float)
    found = insert_units(run, **options)
    if as_json:
        show_json(**found.result)
    else:
        _show(found)
        click.echo(f"kept as {found.key}; pictures: {found.picture}, {found.sheet}", err=True)
    return 0


def _pair(text: str, option: str, example: str, kind: type[int] | type[float]) -> tuple[Any, Any]:
    parts = text.lower().split("x")
    try:
        first, *rest = [kind(part) for part in parts]
    except ValueError:
        first, rest = 0, [0, 0]
    if len(rest) > 1:
        raise click.BadParameter(f"{text!r}; give it as in {example}", param_hint=option)
    return first, rest[0] if rest else first


def _show(found: Insertion) -> None:
    result = found.result
    if result["why"]:
        click.echo(result["why"])
    where = "one place" if len(result["places"]) == 1 else f"{len(result['places'])} places"
    click.echo(
        f"{result['layer']}: {result['chosen_by']}, forced to their {result['level']} at {where} of "
        f"{_counted(result['samples'], 'image')} ({result['data']}); {_counted(result['draws'], 'random set')} of as "
        f"many units ({result['drawn_from']})"
    )
    header = [
        "context",
        "places",
        "images",
        "newly there",
        "interval",
        "random",
        "took",
        "pixels change",
        "elsewhere too",
        "verdict",
    ]
    show_table(header, [_line(row) for row in [*result["contexts"], result["all"]]], right=range(1, 9))
    click.echo(conclusion(result))


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'s' * (number != 1)}"


def _line(row: dict[str, Any]) -> list[str]:
    interval = row["new"]["interval"]
    return [
        *(row["context"], f"{row['places']:,}", f"{row['latents']:,}", _share(row["new"]["mean"])),
        f"[{_share(interval[0])}, {_share(interval[1])}]" if interval else "-",
        _share(row["random"]["mean"]) if row["random"] else "-",
        *(_share(row["took"]["mean"]), _share(row["changed"]["mean"]), _share(row["anywhere"]["mean"]), row["verdict"]),
    ]


def conclusion(result: dict[str, Any]) -> str:
    """What came out, in a sentence or two."""
    concept = result["concept"]
    by_verdict = {
        verdict: [row for row in result["contexts"] if row["verdict"] == verdict] for verdict in ("takes", "refuses")
    }
    words = {
        verdict: ", ".join(f"{row['context']} ({_share(row['new']['mean'])} of the place)" for row in rows)
        for verdict, rows in by_verdict.items()
    }
    if not by_verdict["takes"]:
        least = _share(result["took_from"])
        return f"{concept} takes in no context: nowhere does it come to {least} of the place beyond doubt."
    text = f"{concept} takes on {words['takes']}"
    if not by_verdict["refuses"]:
        return f"{text}."
    text = f"{text}; it does not appear on {words['refuses']}"
    taken = min(row["changed"]["mean"] for row in by_verdict["takes"])
    drawn = [row["context"] for row in by_verdict["refuses"] if row["changed"]["mean"] >= SEEN_AS_ELSE * taken]
    if not drawn:
        return f"{text}, where the network hardly changes its pixels: it refuses."
    where = ", ".join(drawn)
    return f"{text}. On {where} the pixels change all the same: something is drawn that is not seen as {concept}."


def _share(value: float) -> str:
    return f"{100 * value:.1f} %"
