"""`microtome defects`: the units behind a generator's bad images, and the images without them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from microtome.dissect.cli.options import RUN
from microtome.dissect.cli.output import show_json, show_table

if TYPE_CHECKING:
    from microtome.dissect.generators.repairing import Found

POSITIVE, COUNT = click.IntRange(min=1), click.IntRange(min=0)
FILE = click.Path(path_type=Path)


@click.command("defects")
@click.argument("run", type=RUN)
@click.option("--scores", type=FILE, metavar="FILE", help="A CSV with the columns key,score or seed,score.")
@click.option("--scorer", metavar="SPEC", help="path/file.py:factory of a function: images in [0, 1] to scores.")
@click.option(
    "--real", metavar="DATASET", help="Real images: bad is what lies far from them; also for the Frechet distance."
)
@click.option(
    "--worse", type=click.Choice(["higher", "lower"]), default="higher", show_default=True, help="Which scores are bad."
)
@click.option("--worst", type=float, default=0.1, show_default=True, help="The share of images that counts as bad.")
@click.option(
    "--statistic", type=click.Choice(["peak", "mean"]), default="peak", show_default=True, help="Of a unit in an image."
)
@click.option("--layer", help="Units of this layer alone. [the layer whose units tell the worst images best]")
@click.option("--top", type=POSITIVE, default=20, show_default=True, help="Remove at most so many units.")
@click.option("--features", metavar="MODEL", help="A network that looks at images. [builtin:scenes-cnn]")
@click.option("--features-layer", metavar="LAYER", help="Its layer, whose means are the features. [block5]")
@click.option(
    "--distance",
    type=click.Choice(["nearest", "mahalanobis"]),
    default="nearest",
    show_default=True,
    help="To real images: of --neighbours nearest ones, or from their mean by their covariance.",
)
@click.option("--neighbours", type=POSITIVE, default=5, show_default=True, help="For --distance nearest.")
@click.option("--reals", type=click.IntRange(min=2), default=2000, show_default=True, help="Real images, at most.")
@click.option("--limit", type=POSITIVE, metavar="N", help="Only the first N images of the run (not with --scores).")
@click.option(
    "--samples", type=click.IntRange(min=2), default=256, show_default=True, help="Fresh latents of the repair."
)
@click.option("--draws", type=COUNT, default=5, show_default=True, help="Random sets of units to compare with.")
@click.option("--seed", type=COUNT, default=0, show_default=True, help="Of the random sets.")
@click.option("--export-recipe", type=FILE, metavar="FILE", help="Write the repair as a recipe.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object, as it is kept in RUN/defects/.")
def defects_command(run: Path | str, as_json: bool, export_recipe: Path | None, **options: Any) -> int:
    """Find the units of a generator that are at work in its worst images, remove them together, and measure fresh
    images before and after, beside random sets of as many units.

    What is bad says a list of scores, a function, or the distance of each image's features to real images. A unit
    stands out where its peak is higher in the worst images than in the others, by a rank test that allows for all units
    tested. All of it is kept in RUN/defects/.

    \b
    Examples:
      microtome defects runs/gan --real scenes:2000
      microtome defects runs/gan --scores ratings.csv --worse lower --worst 0.05
      microtome defects runs/gan --scorer checks.py:sharpness --real folder:photos --layer layer4 --top 10
      microtome defects runs/gan --real images:photos --features torchvision:resnet18 --features-layer layer4
    """
    from microtome.dissect.generators.judging import Question
    from microtome.dissect.generators.repairing import find_defects

    found = find_defects(run, Question(**options), export_recipe)
    if as_json:
        show_json(**found.result)
    else:
        _show(found)
        click.echo(f"kept as {found.key}; pictures: {found.sheet}", err=True)
    return 0


def _show(found: Found) -> None:
    result = found.result
    click.echo(
        f"{result['score']}; {result['worse']} is worse; the worst {result['worst']:,} of {result['images']:,} images "
        f"begin at {result['worst_from']:.4g}"
    )
    if not result["units"]:
        click.echo("No unit stands out in the worst images beyond what chance allows: there is nothing to repair.")
        return
    header = ["unit", "AUC", "interval", "p, corrected", "top patches in the worst"]
    show_table(header, [_line(row) for row in result["units"]], right=range(5))
    fresh = result["repair"]["data"]
    count, draws = len(result["units"]), result["repair"]["draws"]
    these = "this unit" if count == 1 else f"these {count} units"
    random = f"; {draws} random set{'s' * (draws != 1)} of {count} ({result['repair']['drawn_from']})" if draws else ""
    click.echo(f"{these} of {result['layer']} removed, on fresh latents ({fresh}){random}:")
    rows = _repair_rows(result["repair"])
    if rows:
        header = ["", "images", "before", "after", "change", "interval", "random sets", "verdict"]
        show_table(header, rows, right=range(1, 7))
    click.echo(conclusion(result))
    if result["note"]:
        click.echo(result["note"])


def _line(row: dict[str, Any]) -> list[str]:
    patches = row["patches_in_worst"]
    low, high = row["interval"]
    return [
        *(str(row["unit"]), f"{row['auc']:.3f}", f"[{low:.3f}, {high:.3f}]", f"{row['p']:.2g}"),
        "-" if patches is None else f"{patches:.0%}",
    ]


def _repair_rows(repair: dict[str, Any]) -> list[list[str]]:
    rows = []
    for name, words in (("all", "score, all"), ("worst", "score, those worst before")):
        row = (repair["score"] or {}).get(name)
        if row is not None:
            low, high = row["interval"]
            random = row["random"]
            rows.append(
                [
                    *(words, f"{row['images']:,}", f"{row['before']:.4g}", f"{row['after']:.4g}"),
                    *(f"{row['change']:+.4g}", f"[{low:+.4g}, {high:+.4g}]"),
                    *(f"{random['change']:+.4g}" if random else "-", row["verdict"]),
                ]
            )
    frechet = repair["frechet"]
    if frechet is not None:
        low, high = frechet["interval"]
        random = frechet["random"]
        rows.append(
            [
                *("Frechet distance", f"{frechet['images']:,}", f"{frechet['before']:.4g}", f"{frechet['after']:.4g}"),
                *(f"{frechet['after'] - frechet['before']:+.4g}", f"[{low:+.4g}, {high:+.4g}]"),
                *(f"{random['mean'] - frechet['before']:+.4g}" if random else "-", frechet["verdict"]),
            ]
        )
    return rows


def conclusion(result: dict[str, Any]) -> str:
    """What came out, in a sentence."""
    repair = result["repair"]
    said = []
    if repair["score"] is not None:
        row = repair["score"]["all"]
        words = {
            "better": "improves",
            "no better than random": "improves, but no more than by removing random units",
            "unclear": "does not change beyond doubt",
            "worse": "gets worse",
        }
        said.append(
            f"without these units the score {words[row['verdict']]} ({row['before']:.4g} to {row['after']:.4g})"
        )
    frechet = repair["frechet"]
    if frechet is not None:
        words = {
            "better": "falls",
            "no better than random": "falls, but no further than without random units",
            "unclear": "does not change beyond doubt",
            "worse": "grows",
        }
        few = "; there are no more images than features, so take more --samples" if frechet["few"] else ""
        said.append(
            f"the Frechet distance to the real images {words[frechet['verdict']]} "
            f"({frechet['before']:.4g} to {frechet['after']:.4g}{few})"
        )
    text = "; ".join(said) or "what becomes of the images is not measured: look at the pictures"
    return f"{text[0].upper()}{text[1:]}."
