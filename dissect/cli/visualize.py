"""`microtome visualize`: pictures made by a network: what its units and classes look for, and its dreams."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from microtome.dissect.cli.options import model_options, preprocess_values, split_list
from microtome.dissect.cli.output import show_json, show_table
from microtome.storage.errors import UsageError

_UNDRIVEN = 3
_ASCENT = ("jitter", "scale", "rotation", "l2", "tv", "at")
_DREAMS = ("octaves", "octave_scale", "tile")
_BOTH = ("steps", "rate", "batch")


def making_options(command: Any) -> Any:
    """How pictures are made."""
    options = [
        click.option("--steps", type=int, metavar="N", help="Steps of ascent. [160; of a dream 10 in each octave]"),
        click.option(
            "--rate", type=float, metavar="R", help="Length of a step. [0.08; textbook 0.02; of a dream 0.006]"
        ),
        click.option("--batch", type=int, metavar="N", help="Images at a time; of a dream, tiles. [16; 4]"),
        click.option("--seed", "seeds", multiple=True, metavar="S,...", help="A picture for each. [the unit's number]"),
        click.option("--from", "start", metavar="IMAGE", help="Begin with an image, not with noise."),
        click.option("--textbook", is_flag=True, help="The plain form: pixels, held back by their squares alone."),
        click.option("--at", type=click.Choice(["mean", "centre"]), help="Where on its map a unit is driven. [mean]"),
        click.option("--jitter", type=float, metavar="SHARE", help="Random shifts, of the side. [0.07]"),
        click.option("--scale", type=float, metavar="SHARE", help="Random sizes, more or less. [0.1]"),
        click.option("--rotation", type=float, metavar="DEGREES", help="Random turns to either side. [8]"),
        click.option("--l2", type=float, metavar="W", help="Weight of the pixels' squares. [0; textbook 0.1]"),
        click.option(
            "--tv", type=float, metavar="W", help="Weight of the differences of neighbours. [0.1; textbook 0]"
        ),
        click.option("--octaves", type=int, metavar="N", help="Sizes that a dream works on. [4]"),
        click.option("--octave-scale", type=float, metavar="F", help="From one size to the next. [1.4]"),
        click.option("--tile", type=int, metavar="PIXELS", help="A dream's tiles. [the model's size]"),
    ]
    for option in reversed(options):
        command = option(command)
    return command


@click.command("visualize")
@click.argument("model")
@click.option("--out", type=click.Path(path_type=Path), required=True, metavar="DIR", help="Folder for the pictures.")
@click.option("--layer", metavar="NAME", help="The layer of --unit; with --dream what is dreamt of.")
@click.option("--unit", "--units", "units", multiple=True, metavar="3,17,40-44", help="Units of --layer, or all.")
@click.option("--class", "classes", multiple=True, metavar="C,...", help="Classes, by name or number.")
@click.option("--dream", "dreams", multiple=True, metavar="IMAGE", help="Dream over an image.")
@click.option("--device", default="auto", show_default=True, metavar="auto|cpu|cuda:N")
@click.option("--json", "as_json", is_flag=True, help="One JSON object, as it is written to DIR/visualize.json.")
@making_options
@model_options
def visualize_command(model: str, as_json: bool, **options: Any) -> int:
    """Make pictures of what MODEL looks for: those that drive units or classes most strongly, and dreams over images.

    DIR gets LAYER.unit-U.png, class-NAME.png or IMAGE.dream.png, sheet.png where there are several, and visualize.json
    with what each answers to its picture. A unit that nothing drives gets no picture, and exit code 3.
    Pictures are as large as the model's input (--size says otherwise, where the model takes it).

    \b
    Examples:
      microtome visualize builtin:scenes-cnn --layer block5 --unit 3,17,40-44 --out pictures
      microtome visualize builtin:scenes-cnn --class street --seed 1,2,3 --out pictures
      microtome visualize builtin:scenes-cnn --class street --textbook --out plain
      microtome visualize torchvision:resnet18 --dream holiday.jpg --layer layer3 --out dreams
    """
    from microtome.dissect.synthesis import TEXTBOOK, DreamSettings, Settings
    from microtome.dissect.synthesis.command import Asked, visualise_to

    dreaming = bool(options["dreams"])
    _check(options, dreaming)
    settings, dream = Settings(), DreamSettings()
    if dreaming:
        dream = _with(dream, options, (*_BOTH, *_DREAMS))
    else:
        settings = _with(TEXTBOOK if options["textbook"] else settings, options, (*_BOTH, *_ASCENT))
    asked = Asked(
        model=model,
        out=options["out"],
        layer=options["layer"],
        units=split_list(options["units"]),
        classes=options["classes"],
        dreams=options["dreams"],
        start=options["start"],
        seeds=_seeds(options["seeds"]),
        settings=settings,
        dream_settings=dream,
        device=options["device"],
        model_settings=preprocess_values(options),
    )
    told = visualise_to(asked)
    if as_json:
        show_json(**{name: value for name, value in told.items() if name != "schema_version"})
    else:
        _show(told, options["out"])
    return 0 if all(each["file"] for each in told["pictures"]) else _UNDRIVEN


def _check(options: dict[str, Any], dreaming: bool) -> None:
    """Options that would have no effect are refused."""
    idle = _ASCENT if dreaming else _DREAMS
    for name in (*idle, *(("textbook",) if dreaming else ())):
        if options[name] not in (None, False):
            flag = name.replace("_", "-")
            raise UsageError(f"--{flag} goes {'without' if dreaming else 'with'} --dream; leave it out")


def _with(settings: Any, options: dict[str, Any], names: tuple[str, ...]) -> Any:
    return replace(settings, **{name: options[name] for name in names if options[name] is not None})


def _seeds(texts: tuple[str, ...]) -> tuple[int, ...]:
    from microtome.dissect.embedding.seeds import check_seed

    seeds: dict[int, None] = {}
    for part in split_list(texts):
        if not part.isdecimal():
            raise UsageError(f"--seed {part!r}: give whole numbers, as in --seed 1,2,3")
        seed = int(part) if len(part) < 20 else part  # Python refuses to read very long numbers
        check_seed(seed, "--seed")
        seeds[int(seed)] = None
    return tuple(seeds)


def _show(told: dict[str, Any], out: Path) -> None:
    """A line for each picture."""
    rows = [
        [each["file"] or "-", _subject(each), str(each["seed"]), _number(each, "start"), _number(each, "reached")]
        for each in told["pictures"]
    ]
    show_table(["picture", "of", "seed", "at the start", "reached"], rows, right=[2, 3, 4])
    click.echo(f"written to {out}", err=True)


def _subject(each: dict[str, Any]) -> str:
    if "image" in each:
        units = "" if each["units"] is None else " units " + ",".join(map(str, each["units"]))
        return f"{each['image']} by {each['layer']}{units}"
    return f"{each['layer']} unit {each['unit']}" if "unit" in each else f"class {each['name']}"


def _number(each: dict[str, Any], key: str) -> str:
    value = each.get(key)
    return "-" if value is None else f"{value:.4g}"
