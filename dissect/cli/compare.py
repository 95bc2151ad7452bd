"""`microtome compare`: two checkpoints, or two models, over the same data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from microtome.dissect.cli.data import slug
from microtome.dissect.cli.options import RUN, split_list
from microtome.dissect.cli.output import one_line, show_json, show_table

_ROWS = 12


@click.command("compare")
@click.argument("run_a", type=RUN)
@click.argument("run_b", type=RUN)
@click.option("--layer", multiple=True, metavar="NAME|A=B,...", help="Layers, or A's with B's. [same names]")
@click.option(
    "--by", type=click.Choice(["means", "peaks"]), default="means", show_default=True, help="What is correlated."
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Where the page goes. [runs/compare/A-B; no page with --json]",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def compare_command(
    run_a: Path | str, run_b: Path | str, layer: tuple[str, ...], by: str, out: Path | None, as_json: bool
) -> int:
    """Compare RUN_A with RUN_B: which units answer alike, which concepts are gained and lost.

    Units are matched by the correlation of their spatial means (or peaks) over the samples that both runs have, one to
    one, and each with its best match; beside it stands what chance gives, where the samples of one run are permuted.
    Concepts are gained or lost where a unit detects them in one run alone, clearly or only just.

    \b
    Examples:
      microtome compare runs/epoch-10 runs/epoch-90
      microtome compare runs/cnn runs/vit --layer block4=blocks.3 --layer block5=blocks.5 --out runs/cnn-vit
      microtome compare runs/first runs/second --json
    """
    from microtome.dissect.audit.progress import progress
    from microtome.dissect.comparing.comparison import compare_runs
    from microtome.dissect.comparing.pairing import layer_pairs
    from microtome.dissect.query import open_run
    from microtome.reports.comparison import build_comparison_page, comparison_folder

    folder = out if as_json or out else Path("runs", "compare", slug(f"{_name(run_a)}-{_name(run_b)}"))
    if folder is not None:
        comparison_folder(folder)
    a, b = open_run(run_a), open_run(run_b)
    asked = split_list(layer)
    pairs = len(layer_pairs(a.layers, b.layers, asked))
    samples = min(a.run.plan.samples, b.run.plan.samples)
    with progress("compare", pairs * samples, "samples of pairs of layers") as shown:
        done = 0

        def on_samples(more: int, total: int) -> None:
            nonlocal done
            done += more
            shown.move_to(done, pairs * total)

        found = compare_runs(a, b, asked, by=by, progress=on_samples)
    page = None if folder is None else build_comparison_page(found, a.run, b.run, folder)
    if as_json:
        show_json(**found, page=None if page is None else str(page))
    else:
        _show(found)
        click.echo(f"\n{page}")
    return 0


def _name(run: Path | str) -> str:
    """The last part of where a run lies."""
    return str(run).rstrip("/\\").replace("\\", "/").rpartition("/")[2] or "run"


def _show(found: Mapping[str, Any]) -> None:
    for key in ("a", "b"):
        run = found[key]
        click.echo(f"{key.upper()}  {run['run']}: {run['model']}, {run['weights']}")
    samples, settings = found["samples"], found["settings"]
    click.echo(
        f"   {samples['common']:,} samples in common; spatial {settings['by']}; tau {settings['tau']:g}, "
        f"a detector above {settings['bar']:g}"
    )
    for warning in found["warnings"]:
        click.echo(f"   note: {warning}")
    click.echo()
    _show_layers(found["layers"])
    changes = found["concepts"]
    for outcome in ("gained", "lost"):
        rows = [change for change in changes if change["outcome"] == outcome]
        _show_changes(rows, f"{outcome} in B", settings["margin"])
    held = sum(change["outcome"] == "both" for change in changes)
    click.echo(f"\n{held:,} concepts are detected in both runs; {_only(found['only'])}")
    click.echo(
        f"chance: what the best match of a unit comes to where samples are permuted, {100 * settings['quantile']:g} of "
        "100 units; a match above it is one of units that have something in common, not yet of the same units"
    )


def _show_layers(layers: Sequence[Mapping[str, Any]]) -> None:
    rows = []
    for layer in layers:
        both = layer["detectors_a"], layer["detectors_b"]
        name = layer["a"] if layer["a"] == layer["b"] else f"{layer['a']} = {layer['b']}"
        most = min(layer["comparable_a"], layer["comparable_b"])
        labels = layer["labels"]
        rows.append(
            [
                one_line(name),
                *(" / ".join(str(side[key]) for side in both) for key in ("units", "detectors", "unique")),
                f"{layer['matched']} of {most}",
                _number(layer["median_correlation"]),
                _number(layer["chance"]["high"]),
                str(labels["same"]),
                str(labels["changed"]),
                str(labels["gained"]),
                str(labels["lost"]),
            ]
        )
    header = ["layer", "units", "detectors", "unique", "matched", "median r", "chance"]
    show_table([*header, "same label", "other", "gained", "lost"], rows, right=range(1, 11))


def _show_changes(changes: Sequence[Mapping[str, Any]], title: str, clear: float) -> None:
    count = sum(change["clear"] for change in changes)
    plural = "concept" if len(changes) == 1 else "concepts"
    click.echo(f"\n{len(changes):,} {plural} {title}, {count:,} clearly (best IoU moved by {clear:g} or more)")
    if not changes:
        return
    rows = [
        [
            f"  {one_line(change['concept'], 40)}",
            one_line(change["category"], 20),
            *(text for key in ("a", "b") for text in _best(change[key])),
            f"{change['change']:+.3f}",
            "" if change["clear"] else "near the bar",
        ]
        for change in changes[:_ROWS]
    ]
    show_table(["  concept", "category", "IoU in A", "unit", "IoU in B", "unit", "change", ""], rows, right=(2, 4, 6))
    if len(changes) > _ROWS:
        click.echo(f"  and {len(changes) - _ROWS:,} more; the page and --json have them all")


def _best(best: Mapping[str, Any] | None) -> tuple[str, str]:
    return ("0.000", "-") if best is None else (f"{best['iou']:.3f}", f"{one_line(best['layer'], 40)}:{best['unit']}")


def _only(only: Mapping[str, Sequence[str]]) -> str:
    counts = {key: len(names) for key, names in only.items() if names}
    if not counts:
        return "the data of both have the same concepts"
    return " and ".join(f"{count:,} that only the data of {key.upper()} have" for key, count in counts.items()) + (
        " cannot be compared"
    )


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
