"""`microtome neighbors`: the images that a layer takes for similar to one."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import click

from microtome.dissect.cli.options import RUN, check_png
from microtome.dissect.cli.output import records, show_json, show_table
from microtome.storage.errors import UsageError

if TYPE_CHECKING:
    import pandas as pd

    from microtome.dissect.embedding.nearest import Found

SHEET = Path("neighbors.png")


@click.command("neighbors")
@click.argument("run", type=RUN)
@click.argument("image", required=False, type=click.Path(path_type=Path))
@click.option("--sample", type=int, metavar="N", help="A sample of the run, by number.")
@click.option("--key", metavar="KEY", help="A sample of the run, by its key.")
@click.option("--layer", help="A layer of the run. [the last]")
@click.option("-k", type=click.IntRange(min=1), default=10, show_default=True, help="How many neighbours.")
@click.option("--metric", default="euclidean", show_default=True, help="Distance: euclidean or cosine.")
@click.option("--whiten", is_flag=True, help="Compare along the first 64 principal components, each of variance 1.")
@click.option("--at", metavar="ROW,COLUMN", help="Images like this patch: a position on the layer's grid.")
@click.option("--unit", type=int, metavar="U", help="Images like a top patch of this unit.")
@click.option("--rank", type=int, metavar="N", help="Which top patch of --unit, from 0. [0]")
@click.option("--pixels", is_flag=True, help="Beneath, the neighbours by pixels.")
@click.option("--exact", is_flag=True, help="Compare all vectors.")
@click.option("--approximate", is_flag=True, help="By an index, up to 100 neighbours. [where the run is large]")
@click.option(
    "--sheet",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE.png",
    help=f"The contact sheet. [{SHEET}; none with --json]",
)
@click.option("--workers", type=click.IntRange(min=1), help="Cores to use. [number of cores]")
@click.option("--json", "as_json", is_flag=True, help="All as one JSON object.")
def neighbors_command(
    run: Path | str,
    image: Path | None,
    sample: int | None,
    key: str | None,
    layer: str | None,
    k: int,
    metric: str,
    whiten: bool,
    at: str | None,
    unit: int | None,
    rank: int | None,
    pixels: bool,
    exact: bool,
    approximate: bool,
    sheet: Path | None,
    workers: int | None,
    as_json: bool,
) -> int:
    """Find the images of a finished RUN that a layer takes for similar to IMAGE, or to a sample of the run.

    Compared are the means of all units over the image; with --at or --unit one position, with all positions of all
    images. A table goes to stdout, a contact sheet to a PNG file.

    \b
    Examples:
      microtome neighbors runs/first holiday.jpg --layer block5 -k 12
      microtome neighbors runs/first --sample 17 --metric cosine --pixels --sheet like-17.png
      microtome neighbors runs/first --unit 40 --rank 2 --layer block5
      microtome neighbors runs/first --sample 17 --at 3,9 --json
    """
    from microtome.dissect.embedding.nearest import neighbors

    if exact and approximate:
        raise UsageError("--exact and --approximate are two ways to search; give one of them")
    if sheet is not None:
        check_png(sheet, "--sheet")
    found = neighbors(
        run,
        layer=layer,
        sample=sample,
        key=key,
        image=image,
        at=_position(at),
        unit=unit,
        rank=rank,
        k=k,
        metric=metric,
        whiten=whiten,
        pixels=pixels,
        method="exact" if exact else "approximate" if approximate else "auto",
        workers=workers,
    )
    target = sheet or (None if as_json else SHEET)
    if target is not None:
        _save(found, target)
    if as_json:
        show_json(**_as_json(found, target))
    else:
        _show(found)
        click.echo(f"contact sheet: {target}", err=True)
    return 0


def _position(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    found = re.fullmatch(r"\s*(\d+)\s*,\s*(\d+)\s*", text)
    if found is None:
        raise UsageError(f"--at {text!r}: give a row and a column of the layer's grid, as in --at 3,9")
    return int(found[1]), int(found[2])


def _save(found: Found, target: Path) -> None:
    try:
        found.sheet().save(target)
    except OSError as error:
        raise UsageError(f"--sheet {target} cannot be written ({error}); give another file") from error


def _as_json(found: Found, sheet: Path | None) -> dict[str, object]:
    return {
        "run": found.run.url,
        **found.info,
        "query": found.query.to_dict(),
        "neighbors": records(found.frame),
        "pixels": None if found.pixels is None else records(found.pixels),
        "sheet": None if sheet is None else str(sheet),
    }


def _show(found: Found) -> None:
    info = found.info
    how = info["method"]
    if info["recall"] is not None:
        how += f", recall@{info['recall_at']} {info['recall']:.3f}"
    about = found.query.name if found.query.at is None else f"{found.query.name} at {found.query.at}"
    whitened = "whitened, " if info["whiten"] else ""
    click.echo(f"{info['layer']}: nearest to {about} ({info['metric']}, {whitened}{how})")
    _show_frame(found.frame)
    if found.pixels is not None:
        click.echo("nearest by pixels")
        _show_frame(found.pixels)


_COLUMNS = ("rank", "sample", "distance", "class", "concept", "split", "row", "column", "key")


def _show_frame(frame: pd.DataFrame) -> None:
    if frame.empty:
        click.echo("the run has no other image that could be read")
        return
    always = ("rank", "sample", "distance", "key")
    columns = [name for name in _COLUMNS if name in frame and (name in always or frame[name].astype(str).any())]
    rows = [[_text(row[name]) for name in columns] for row in records(frame)]
    numeric = [i for i, name in enumerate(columns) if name in ("rank", "sample", "distance", "row", "column")]
    show_table(columns, rows, right=numeric)


def _text(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
