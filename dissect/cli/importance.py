"""`microtome importance`: what each class loses without each unit of a layer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from microtome.dissect.cli.options import RUN
from microtome.dissect.cli.output import records, show_json, show_table

if TYPE_CHECKING:
    import pandas as pd

    from microtome.dissect.ablation.units import Importance

SHOWN_CLASSES = 40
NEEDED = 5


@click.command("importance")
@click.argument("run", type=RUN)
@click.option("--layer", required=True, help="A layer of the run.")
@click.option("--value", default="zero", show_default=True, help="What a removed unit is set to: zero or mean.")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Only the first N images.")
@click.option("--units", multiple=True, metavar="3,17,40-44", help="Only these units. [all]")
@click.option("--workers", type=click.IntRange(min=1), help="Cores to use. [number of cores]")
@click.option("--report/--no-report", default=True, help="Build the pages anew, where the run has some.")
@click.option("--json", "as_json", is_flag=True, help="The whole table as one JSON object.")
def importance_command(
    run: Path | str,
    layer: str,
    value: str,
    limit: int | None,
    units: tuple[str, ...],
    workers: int | None,
    report: bool,
    as_json: bool,
) -> int:
    """Remove every unit of a layer, one at a time, and measure what each class of a finished RUN's model loses.

    Only the rest of the network runs again for a unit. The table goes into the run (layers/LAYER/importance.parquet)
    and its pages; a session that was killed is taken up by the same command.

    \b
    Examples:
      microtome importance runs/first --layer block5
      microtome importance runs/first --layer block5 --value mean --limit 500 --json
    """
    from microtome.dissect.ablation import importance

    found = importance(run, layer, value=value, limit=limit, units=units, workers=workers, report=report)
    if as_json:
        show_json(layer=layer, **found.info, importance=records(found.table))
    else:
        _show(found)
    return 0


def _show(found: Importance) -> None:
    """For each class its accuracy and the units that it needs most."""
    from microtome.dissect.ablation.subject import what_removal_does
    from microtome.dissect.query.importance import needed_units

    info, labels = found.info, labels_of(found)
    what = what_removal_does(found.run.layer(found.layer), info["value"])
    units = found.table["unit"].nunique()
    truth = " (the model's own answers are the truth)" if info["truth"] == "predictions" else ""
    images = f"over {info['images']:,} images; accuracy {_percent(info['accuracy'])}{truth}"
    click.echo(f"{found.layer}: {units} units, each {what}, {images}")
    body = []
    for number, name in enumerate(info["classes"][:SHOWN_CLASSES]):
        rows = needed_units(found.table, number)
        needed = [_unit_text(row, labels) for row in records(rows.head(NEEDED)) if _matters(row)]
        body.append([name, _percent(float(rows["accuracy"].iloc[0])), "; ".join(needed) or "none of them alone"])
    needs = "units it needs most, what they detect, and by how many points accuracy (probability) falls"
    show_table(["class", "accuracy", needs], body, right=[1])
    if len(info["classes"]) > SHOWN_CLASSES:
        click.echo(f"... {len(info['classes']) - SHOWN_CLASSES} more; --json gives them")


def labels_of(found: Importance) -> dict[int, str]:
    """What each detector detects; other units are left out."""
    units: pd.DataFrame = found.run.layer_table(found.layer, "units")
    detectors = units[units["is_detector"]]
    return dict(zip(detectors["unit"].tolist(), detectors["concept"].tolist(), strict=True))


def _matters(row: dict[str, Any]) -> bool:
    return bool(row["fall"] > 0) or bool(row["fall"] == 0 and row["probability_fall"] > 0)


def _unit_text(row: dict[str, Any], labels: dict[int, str]) -> str:
    falls = f"{100 * row['fall']:.1f} ({100 * row['probability_fall']:.2f})"
    return f"{row['unit']} {labels.get(row['unit'], '-')} {falls}"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
