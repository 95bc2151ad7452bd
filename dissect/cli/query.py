"""`microtome query`: which units detect a concept, and what does a unit detect."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from microtome.dissect.cli.options import RUN
from microtome.dissect.cli.output import records, show_json, show_table
from microtome.storage.errors import UsageError

if TYPE_CHECKING:
    import pandas as pd

SHOWN_ROWS = 40


@click.command("query")
@click.argument("run", type=RUN)
@click.argument("expression", nargs=-1)
@click.option("--summary", is_flag=True, help="Detectors and unique detectors of each layer and category.")
@click.option("--tau", metavar="T|information", help="One of the run's fractions, in place of the first.")
@click.option("--json", "as_json", is_flag=True, help="All rows as one JSON object.")
@click.option("--csv", "as_csv", is_flag=True, help="All rows as CSV.")
@click.option("--limit", type=click.IntRange(min=1), help=f"At most so many rows. [{SHOWN_ROWS} on a terminal]")
def query_command(
    run: Path | str,
    expression: tuple[str, ...],
    summary: bool,
    tau: str | None,
    as_json: bool,
    as_csv: bool,
    limit: int | None,
) -> int:
    """Ask a finished RUN. Without an expression, print the summary by layer and category.

    Terms: concept, label, category, layer, unit, iou, ceiling, state, threshold, detector=yes, tau (selects one of
    the run's); each compared by =, !=, >, >=, <, <=. concept=X gives X's score for every unit; label=X the units
    whose best concept is X. LAYER:UNIT ranks what that unit detects. tau=information: at the thresholds that say most.

    \b
    Examples:
      microtome query runs/first "concept=car iou>0.1"
      microtome query runs/first "category=part layer=block5 detector=yes" --csv
      microtome query runs/first block5:17
      microtome query runs/first "tau=information concept=sky"
      microtome query runs/first --summary
    """
    from microtome.dissect.query import open_run
    from microtome.dissect.query.expression import split_address

    if as_json and as_csv:
        raise UsageError("choose --json or --csv, not both")
    text = " ".join([*expression, *([f"tau={tau}"] if tau is not None and expression else [])])
    dissection = open_run(run)
    if summary or not text:
        frame, kind = dissection.summary(_tau(tau)), "summary"
    else:
        frame = dissection.query(text)
        kind = "concepts" if split_address(text)[0] else "units"
    rows = frame if limit is None else frame.head(limit)
    if as_json:
        show_json(**{kind: records(rows)})
    elif as_csv:
        click.echo(rows.to_csv(index=False), nl=False)
    else:
        _show(frame, rows if limit else frame.head(SHOWN_ROWS), kind)
    return 0


def _tau(text: str | None) -> float | str | None:
    """What --tau says. Raises UsageError."""
    from microtome.dissect.query.information import INFORMATION

    try:
        return text if text is None or text == INFORMATION else float(text)
    except ValueError as error:
        raise UsageError(f"--tau {text}: a fraction such as 0.005, or {INFORMATION}") from error


_HALVES = ["iou_train", "iou_val", "iou_half", "information"]
_PIXELS = ["intersection", "unit_pixels", "concept_pixels"]
_COLUMNS = {
    "summary": ["layer", "category", "units", "detectors", "unique_detectors", "unique_by_category"],
    "units": ["layer", "unit", "concept", "category", "iou", "ceiling", *_HALVES, "state", "threshold"],
    "concepts": ["concept", "category", "iou", "ceiling", "iou_half", *_PIXELS],
}


def _show(frame: pd.DataFrame, rows: pd.DataFrame, kind: str) -> None:
    columns = [name for name in _COLUMNS[kind] if name in frame.columns]
    body = [[_text(name, row[name]) for name in columns] for row in records(rows[columns])]
    numeric = [i for i, name in enumerate(columns) if name not in ("layer", "concept", "category", "state")]
    if not body:
        click.echo("nothing meets that; relax iou or see what there is with --summary")
        return
    show_table([name.replace("_", " ") for name in columns], body, right=numeric)
    if len(frame) > len(rows):
        click.echo(f"... {len(frame) - len(rows)} more; --limit, --csv or --json give them")


def _text(column: str, value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.4g}" if column == "threshold" else f"{value:.3f}"
    return f"{value:,}" if isinstance(value, int) and column.endswith(("pixels", "intersection")) else str(value)
