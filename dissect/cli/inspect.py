"""`microtome inspect`: the layers of a model, and what dissecting them will cost."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from microtome.dissect.cli.options import model_options, preprocess_values, split_list
from microtome.dissect.cli.output import show_json, show_table

if TYPE_CHECKING:
    from microtome.dissect.models import Cost


@click.command("inspect")
@click.argument("model")
@click.option("--layers", multiple=True, metavar="GLOB,...", help="Only these, by name or glob. [all]")
@click.option("--samples", type=click.IntRange(min=1), default=10_000, show_default=True, help="Images to reckon with.")
@click.option("--batch", type=click.IntRange(min=1), default=8, show_default=True, help="Images a timed forward pass.")
@click.option("--device", default="auto", show_default=True, metavar="auto|cpu|cuda:N")
@click.option("--no-timing", is_flag=True, help="List the layers only; run no timed forward passes.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@model_options
def inspect_command(
    model: str,
    layers: tuple[str, ...],
    samples: int,
    batch: int,
    device: str,
    no_timing: bool,
    as_json: bool,
    **options: Any,
) -> int:
    """List the layers of MODEL with kind, shape and size, and the cost of an audit of them. Needs no weights.

    MODEL may be a generator of images, which is run on latents of its own.

    Time is measured on a few forward passes; disk is reckoned from the shapes (raw float16 and compressed).

    \b
    Examples:
      microtome inspect builtin:scenes-cnn
      microtome inspect torchvision:resnet18 --layers 'layer[1234]' --samples 50000
      microtome inspect nets.py:my_model --json
      microtome inspect nets.py:my_generator
    """
    from microtome.dissect.audit.config import check_token_hints, preprocess_overrides, token_hints
    from microtome.dissect.audit.cores import available_cores
    from microtome.dissect.audit.job import choose_device
    from microtome.dissect.models import describe_layers, load_model, measure_cost
    from microtome.dissect.models.readouts import describe_planned, plan_layers

    settings = preprocess_values(options)
    weights = settings.get("weights")
    check_token_hints(settings.get("grid"), settings.get("prefix"))
    loaded = load_model(
        model,
        weights=weights,
        preprocess=preprocess_overrides(settings),
        for_inspection=weights is None,
        tokens=token_hints(settings),
        generators=True,
    )
    planned = plan_layers(loaded, split_list(layers)) if layers else []
    infos = describe_layers(loaded, list(dict.fromkeys(layer.base for layer in planned)) if layers else None)
    bases = [info for info in infos if info.usable]
    if planned:
        infos = describe_planned(planned, {info.name: info for info in infos})
    usable = [info for info in infos if info.usable]
    cost = None
    if not no_timing and usable:
        cost = measure_cost(loaded, bases, batch=batch, threads=available_cores(), device=choose_device(device))
        cost = replace(cost, bytes_per_image={info.name: info.bytes_per_image for info in usable})
    if as_json:
        show_json(
            model=model,
            layers=[info.to_dict() for info in usable],
            cost=None if cost is None else {**cost.to_dict(), **_totals(cost, samples)},
        )
        return 0
    rows = [[info.name, info.kind, str(info.units), info.layout, f"{info.bytes_per_image:,}"] for info in usable]
    show_table(["layer", "kind", "units", "positions", "bytes/image"], rows, right=(2, 4))
    tokens = [info.name for info in usable if info.kind == "block" and "prefix" in info.layout]
    if tokens and not layers:
        click.echo(f"\nLAYER:cls is the class token of a layer of tokens, such as {tokens[-1]}:cls.")
    for info in infos:
        if not info.usable:
            click.echo(f"{info.name}: {info.note}")
    if cost is not None:
        _show_cost(cost, samples, "these layers" if layers else "all of them; choose some with --layers")
    return 0


def _totals(cost: Cost, samples: int) -> dict[str, float]:
    """What an audit of `samples` images comes to."""
    return {
        "samples": samples,
        "seconds": round(cost.seconds(samples), 3),
        "raw_bytes": cost.raw_bytes_per_image * samples,
        "disk_bytes": cost.disk_bytes(samples),
    }


def _show_cost(cost: Cost, samples: int, which: str) -> None:
    from microtome.dissect.audit.progress import duration

    totals = _totals(cost, samples)
    click.echo("")
    click.echo(f"An audit of {samples:,} images, {which}:")
    click.echo(
        f"  time  {duration(totals['seconds'])} in the model ({1000 * cost.seconds_per_image:.1f} ms an image,"
        f" measured on {cost.device} in batches of {cost.batch}); decoding and counting add about a fifth"
    )
    click.echo(
        f"  disk  {totals['disk_bytes'] / 1e9:.2f} GB (raw {totals['raw_bytes'] / 1e9:.2f} GB of float16, zstd about"
        f" {cost.compression_ratio:g} to 1 on rectified layers), and the labels\n"
        "        audit --keep-activations no takes a fraction of the disk, and the time in the model twice"
    )
