"""`microtome explain`: which pixels a class or a unit answers to, by every method that applies, as pictures."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from microtome.dissect.cli.explain_checks import Check, check_options, refuse_checks
from microtome.dissect.cli.options import model_options, preprocess_values, split_list
from microtome.dissect.cli.output import show_json, show_table
from microtome.storage.errors import UsageError

if TYPE_CHECKING:
    from microtome.dissect.attribution.explaining.command import Done

REFUSED, UNREADABLE = 2, 3

_FLAGS = ("samples", "noise", "steps", "baseline", "patch", "stride", "fill", "seed", "head")


def method_options(command: Any) -> Any:
    """What single methods take."""
    options = [
        click.option("--samples", type=click.IntRange(min=1), metavar="N", help="smoothgrad: noisy copies. [25]"),
        click.option("--noise", type=click.FloatRange(min=0), metavar="S", help="smoothgrad: of the range. [0.15]"),
        click.option("--steps", type=click.IntRange(min=1), metavar="N", help="integrated-gradients. [50]"),
        click.option("--baseline", metavar="KIND", help="integrated-gradients: black, grey, mean, blur. [black]"),
        click.option(
            "--patch", type=click.IntRange(min=1), metavar="PIXELS", help="occlusion: side of the patch. [1/8]"
        ),
        click.option("--stride", type=click.IntRange(min=1), metavar="PIXELS", help="occlusion. [half a patch]"),
        click.option("--fill", metavar="KIND", help="occlusion: grey, mean, blur, black, a number. [grey]"),
        click.option("--seed", type=click.IntRange(min=0), help="Of what is drawn by lot, by --check too. [0]"),
        click.option("--head", metavar="H|each", help="attention: of one head, or of each. [mean of all]"),
    ]
    for option in reversed(options):
        command = option(command)
    return command


@click.command("explain")
@click.argument("model")
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...")
@click.option("--method", "methods", multiple=True, required=True, metavar="NAME,...", help="all, or some; see below.")
@click.option("--out", type=click.Path(path_type=Path), required=True, metavar="DIR", help="Folder for what is found.")
@click.option("--target", metavar="CLASS", help="Its name or number; top: each image's most probable. [top]")
@click.option("--layer", metavar="NAME", help="Where a layer is looked at; with --unit, the unit's.")
@click.option("--unit", type=click.IntRange(min=0), metavar="U", help="Explain a unit of --layer, not a class.")
@click.option("--at", metavar="WHERE", help="Of a unit's map: peak, mean, or ROW,COLUMN. [peak]")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Only the first N images.")
@click.option("--batch", type=click.IntRange(min=1), default=4, show_default=True, help="Images at a time.")
@click.option("--device", default="auto", show_default=True, metavar="auto|cpu|cuda:N")
@click.option("--json", "as_json", is_flag=True, help="One JSON object, as it is written to DIR/explain.json.")
@check_options
@method_options
@model_options
def explain_command(model: str, images: tuple[str, ...], as_json: bool, **options: Any) -> int:
    """Explain what MODEL sees in each IMAGE: a file, a folder of images, or a dataset such as scenes:8.

    For each image and method DIR gets the raw values (IMAGE.METHOD.npy, float32) and a picture (IMAGE.METHOD.png), and
    IMAGE.png as the model sees it; for all of them sheet.png and explain.json. A method that has no meaning for the
    model is refused and says why: with exit code 2 where it was asked for by name, not among all.

    \b
    Methods: filters, activations, saliency, gradient-x-input, smoothgrad, integrated-gradients, grabcut,
    deconvnet, guided-backprop, occlusion, cam, grad-cam, grad-cam++, guided-grad-cam, attention, rollout,
    grad-attention; all stands for those that apply.

    \b
    Examples:
      microtome explain torchvision:resnet18 cat.jpg --method grad-cam,occlusion --out explained
      microtome explain builtin:scenes-cnn scenes:8 --method all --out explained
      microtome explain nets.py:my_model photos --method grad-cam --target "tabby cat" --out explained
      microtome explain builtin:scenes-cnn scenes:16 --method all --out explained --check
      microtome explain nets.py:my_model cat.jpg --method guided-backprop --layer layer3 --unit 17 --out unit-17
    """
    from microtome.dissect.attribution.explaining.command import Asked, explain_to

    refuse_checks(options)
    asked = Asked(
        model=model,
        images=images,
        methods=split_list(options["methods"]),
        out=options["out"],
        target=options["target"],
        layer=options["layer"],
        unit=options["unit"],
        at=_place(options["at"], options["unit"]),
        limit=options["limit"],
        batch=options["batch"],
        device=options["device"],
        settings=preprocess_values(options),
        own=_own(options),
    )
    check = Check(images, options)
    done = explain_to(asked, check.prepare)
    if not as_json:
        _show(done, options["out"])
    checks = check.tell(quiet=as_json)
    if as_json:
        show_json(**{name: value for name, value in (done.told | checks).items() if name != "schema_version"})
    return REFUSED if done.refused_by_name else UNREADABLE if done.unreadable else 0


def _own(options: dict[str, Any]) -> dict[str, Any]:
    """Options of single methods that were given, as the methods call them."""
    given = {name: options[name] for name in _FLAGS if options[name] is not None}
    if options["check"] and "seed" in given and not _any_draws(split_list(options["methods"])):
        del given["seed"]  # it is that of the checks
    if "patch" in given:
        given["size"] = given.pop("patch")
    if given.get("head", "each") != "each":
        given["head"] = _head(given["head"])
    if "fill" in given:
        with suppress(ValueError):  # a name
            given["fill"] = float(given["fill"])
    return given


def _any_draws(methods: Sequence[str]) -> bool:
    """Whether one of the methods draws by lot. Raises UnknownNameError."""
    from microtome.dissect.attribution.explaining.asking import methods_named, options_of

    return any("seed" in options_of(method) for method in methods_named(methods))


def _head(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise UsageError(f"--head {text!r}: give the number of a head, or each")
    return int(text)


def _place(text: str | None, unit: int | None) -> str | tuple[int, int]:
    """--at as a place."""
    if text is None:
        return "peak"
    if unit is None:
        raise UsageError(f"--at {text} says where a unit is looked at; give --unit too")
    if text in ("peak", "mean"):
        return text
    found = re.fullmatch(r"\s*(\d+)\s*,\s*(\d+)\s*", text)
    if found is None:
        raise UsageError(f"--at {text!r}: give peak, mean, or a row and a column of the layer's grid, as in --at 3,9")
    return int(found[1]), int(found[2])


def _show(done: Done, out: Path) -> None:
    """A line for each image, then what was refused."""
    header, rows, right = done.table()
    show_table(header, rows, right=right)
    for name, reason in done.refusals.items():
        click.echo(f"{name} does not apply: {reason}", err=name in done.refused_by_name)
    click.echo(f"written to {out}: {done.files}", err=True)
