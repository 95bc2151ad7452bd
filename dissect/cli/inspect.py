"""`microtome inspect`: the layers of a model, and what dissecting them will cost."""

from __future__ import annotations

from typing import Any

import click

from microtome.dissect.cli.options import model_options, preprocess_values, split_list
from microtome.dissect.cli.output import show_json, show_table


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

    Time is measured on a few forward passes; disk is reckoned from the shapes (raw float16 and compressed).

    \b
    Examples:
      microtome inspect builtin:scenes-cnn
      microtome inspect torchvision:resnet18 --layers 'layer[1234]' --samples 50000
      microtome inspect nets.py:my_model --json
    """
    from microtome.dissect.models import describe_layers, load_model, resolve_layers

    preprocessing = preprocess_values(options)
    weights = preprocessing.pop("weights", None)
    from microtome.dissect.audit.prepare import choose_device, overrides

    loaded = load_model(model, weights=weights, preprocess=overrides(preprocessing), for_inspection=weights is None)
    names = resolve_layers(loaded, split_list(layers)) if layers else None
    infos = describe_layers(loaded, names)
    usable = [info for info in infos if info.usable]
    cost = None
    if not no_timing:
        from microtome.dissect.models.cost import measure_cost

        cost = measure_cost(loaded, usable, batch=batch, device=choose_device(device))
    if as_json:
        extra = {"cost": cost.to_dict(samples)} if cost is not None else {}
        show_json(model=model, layers=[info.to_dict() for info in usable], **extra)
        return 0
    rows = [
        [info.name, info.kind, "x".join(map(str, info.shape)), str(info.units), f"{info.bytes_per_image:,}"]
        for info in usable
    ]
    show_table(["layer", "kind", "shape", "units", "bytes/image"], rows, right=(3, 4))
    for info in infos:
        if not info.usable and layers:
            click.echo(f"{info.name}: {info.note}")
    if cost is not None:
        click.echo("")
        click.echo(cost.in_words(samples))
    return 0
