"""`microtome map`: the maps of a finished run, made or made anew."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from microtome.dissect.cli.options import RUN, check_png, split_list
from microtome.dissect.cli.output import show_json, show_table
from microtome.storage.errors import UsageError

if TYPE_CHECKING:
    from microtome.dissect.audit.maps import Maps


@click.command("map")
@click.argument("run", type=RUN)
@click.option("--layer", "layers", multiple=True, metavar="NAME,...", help="Only of these layers. [all]")
@click.option("--perplexity", type=float, metavar="P", help="Gaussian affinities in place of K alike.")
@click.option("--neighbors", type=click.IntRange(min=1), metavar="K", help="Nearest neighbours, all alike. [15]")
@click.option("--seed", type=int, help="Of what is drawn by lot. [0]")
@click.option("--whiten/--no-whiten", default=None, help="Principal components that all count alike.")
@click.option("--umap/--no-umap", default=None, help="A UMAP beside it (needs umap-learn).")
@click.option(
    "--png", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE.png", help="Draw the one --layer."
)
@click.option("--view", type=click.Choice(["tsne", "pca", "umap"]), help="What --png draws. [tsne]")
@click.option("--colour", metavar="BY", help="Of --png: none, class, cluster, concept:NAME, unit:NUMBER.")
@click.option("--max-memory", metavar="SIZE", help="Refuse rather than use more: 16GB.")
@click.option("--workers", type=click.IntRange(min=1), help="Cores to use. [number of cores]")
@click.option("--report/--no-report", default=True, help="Build the pages anew, where the run has some.")
@click.option("--json", "as_json", is_flag=True, help="How each map was made, and how good it is, as JSON.")
def map_command(
    run: Path | str,
    layers: tuple[str, ...],
    perplexity: float | None,
    neighbors: int | None,
    seed: int | None,
    whiten: bool | None,
    umap: bool | None,
    png: Path | None,
    view: str | None,
    colour: str | None,
    max_memory: str | None,
    workers: int | None,
    report: bool,
    as_json: bool,
) -> int:
    """Make the maps of a finished RUN, or make them anew with other settings: a t-SNE of all samples for every layer.

    An audit makes them unless it is told --no-map. What is not said is as in the map that is there; one that is there
    as it is asked for is left as it is, and one that was broken off is gone on with by the same command.

    Each layer's map begins from that of the layer before. With --layer those of later layers stay as they are, though
    they began from a map that is no longer there; without it they are made anew.

    \b
    Examples:
      microtome map runs/first
      microtome map runs/first --layer block5 --perplexity 50 --png block5.png
      microtome map runs/first --layer block5 --umap --json
      microtome map runs/first --layer block5 --png cars.png --colour concept:car
    """
    from microtome.dissect.audit.budget import Budget, parse_bytes
    from microtome.dissect.audit.maps import make_maps

    names = split_list(layers)
    _check_wishes(perplexity, neighbors, seed, umap)
    if png is not None:
        _check_picture(run, names, png, view, colour, umap)
    elif view is not None or colour is not None:
        raise UsageError(f"{'--colour' if view is None else '--view'} says how --png is drawn; give --png FILE.png too")
    found = make_maps(
        run,
        names,
        perplexity=perplexity,
        neighbors=neighbors,
        seed=seed,
        whiten=whiten,
        umap=umap,
        workers=workers,
        budget=Budget(memory=parse_bytes(max_memory, "--max-memory") if max_memory else None),
        report=report,
    )
    if png is not None:
        _draw(found, png, view or "tsne", colour)
    if as_json:
        maps = found.run.info["map"]
        shown = {name: maps[name] for name in found.layers}
        show_json(run=found.run.url, made=list(found.made), begun_elsewhere=list(found.begun_elsewhere), maps=shown)
    else:
        _show(found)
    _note_origins(found, run)
    return 0


def _check_wishes(perplexity: float | None, neighbors: int | None, seed: int | None, umap: bool | None) -> None:
    """Raise UsageError for what no map can be made with."""
    from microtome.dissect.embedding.seeds import check_seed
    from microtome.dissect.embedding.umap_map import check_umap

    if perplexity is not None and neighbors is not None:
        raise UsageError("--perplexity and --neighbors are two ways to weigh neighbours; give one of them")
    if seed is not None:
        check_seed(seed, "--seed")
    if umap:
        check_umap()


def _note_origins(found: Maps, run: Path | str) -> None:
    """Say which maps began from others that are no longer there."""
    if found.begun_elsewhere:
        layers_text = ", ".join(found.begun_elsewhere)
        note = "maps of earlier layers that are no longer there; to make them anew: microtome map"
        click.echo(f"note: {layers_text}: begun from {note} {run}", err=True)


def _check_picture(
    where: Path | str, layers: tuple[str, ...], png: Path, view: str | None, colour: str | None, umap: bool | None
) -> None:
    """Raise UsageError for a picture that cannot be drawn, before its map is made."""
    from microtome.reports.maps.picture import check_colour
    from microtome.storage.run import Run

    if len(layers) != 1:
        raise UsageError("--png draws the map of one layer; name it with --layer")
    check_png(png, "--png")
    run = Run.open(where)
    layer = run.layer(layers[0])["name"]
    if colour is not None:
        check_colour(run, layer, colour)
    known = run.info.get("map", {}).get(layer)
    if view == "umap" and not (umap or (umap is None and known is not None and known["settings"].get("umap"))):
        raise UsageError(f"--view umap: the map of {layer} has no UMAP beside it; ask for one with --umap")


def _draw(found: Maps, png: Path, view: str, colour: str | None) -> None:
    from microtome.reports.maps.picture import write_picture

    try:
        write_picture(found.run, found.layers[0], png, view=view, colour=colour)
    except OSError as error:
        raise UsageError(f"--png {png} cannot be written ({error}); give another file") from error
    click.echo(f"drawn: {png}", err=True)


def _show(found: Maps) -> None:
    """For each layer how good its map is, then what speaks against it."""
    rows, against = [], []
    for name in found.layers:
        info = found.run.info["map"][name]
        quality = info["quality"]
        purity = quality["purity"]
        rows.append(
            [
                name,
                f"{info['samples']:,}",
                f"{quality['trustworthiness']:.3f}",
                f"{quality['recall']:.3f}",
                "-" if purity is None else f"{purity:.3f}",
                "made" if name in found.made else "was there",
            ]
        )
        against += [f"{name}: {warning}" for warning in quality["warnings"]]
    header = ["layer", "images", "trustworthiness", f"recall@{_neighbors(found)}", "purity", ""]
    show_table(header, rows, right=(1, 2, 3, 4))
    for line in against:
        click.echo(line)


def _neighbors(found: Maps) -> int:
    return max(found.run.info["map"][name]["quality"]["k"] for name in found.layers)
