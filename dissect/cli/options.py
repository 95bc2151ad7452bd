"""Options that several commands share, and how values with commas are read."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from microtome.storage.errors import UsageError
from microtome.storage.places import where_of

if TYPE_CHECKING:
    from microtome.dissect.audit.budget import Budget

Command = TypeVar("Command", bound=Callable[..., Any])

RUN = where_of
"""Type of a RUN: a folder becomes a Path, a URL such as s3://bucket/run stays text."""

LIMITS = ("max_disk", "max_memory", "time_limit")

_COMMA_OUTSIDE_BRACKETS = re.compile(r",(?![^\[\]]*\])")


def split_list(values: Iterable[str]) -> tuple[str, ...]:
    """`("a,b", "c")` as `("a", "b", "c")`; commas inside [...] belong to a glob and stay."""
    parts = (part.strip() for value in values for part in _COMMA_OUTSIDE_BRACKETS.split(value))
    return tuple(part for part in parts if part)


def split_numbers(values: Iterable[str], option: str, example: str = "0.005,0.05") -> tuple[float, ...]:
    """`("0.005,0.05",)` as numbers. Raises click.BadParameter naming `option`, with the example."""
    try:
        return tuple(float(part) for part in split_list(values))
    except ValueError as error:
        raise click.BadParameter(f"{error}; give numbers, as in {option} {example}", param_hint=option) from error


def check_png(path: Path, option: str) -> None:
    """Raise UsageError, naming `option`, where no PNG can be written to `path`: said before the work begins."""
    if path.suffix.lower() != ".png":
        raise UsageError(f"{option} {path}: give a file that ends in .png")
    if not path.absolute().parent.is_dir():
        raise UsageError(f"{option} {path} cannot be written (there is no folder {path.parent}); give another file")


def parse_size(value: str | None, option: str) -> tuple[int, int] | None:
    """`112` or `112x96` as (height, width)."""
    if value is None:
        return None
    found = re.fullmatch(r"(\d+)(?:x(\d+))?", value)
    if not found:
        raise click.BadParameter(f"{value!r}; give a number or HEIGHTxWIDTH", param_hint=option)
    return int(found[1]), int(found[2] or found[1])


def model_options(command: Command) -> Command:
    """--weights, the preprocessing flags, and what is said of token streams."""
    options = [
        click.option(
            "--weights", type=click.Path(path_type=Path), metavar="FILE", help="A .safetensors or state dict."
        ),
        click.option("--size", type=int, help="Crop of this many pixels, in place of the model's own."),
        click.option("--resize", type=int, help="Shorter side before the crop."),
        click.option("--mean", multiple=True, metavar="R,G,B", help="Mean of each channel in [0, 1]."),
        click.option("--std", multiple=True, metavar="R,G,B", help="Standard deviation of each channel."),
        click.option("--interpolation", type=click.Choice(["bilinear", "bicubic", "nearest"])),
        click.option("--grid", metavar="HxW", help="Grid of token streams, where it cannot be found out: 14x14."),
        click.option("--prefix", type=int, metavar="P", help="Tokens that stand before those of the image."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def preprocess_values(options: dict[str, Any]) -> dict[str, Any]:
    """What `model_options` gave, as settings; absent ones are left out."""
    values = {name: options[name] for name in ("weights", "size", "resize", "interpolation", "prefix")}
    values["grid"] = parse_size(options["grid"], "--grid")
    for name, example in (("mean", "0.485,0.456,0.406"), ("std", "0.229,0.224,0.225")):
        values[name] = split_numbers(options[name], f"--{name}", example) or None
    return {name: value for name, value in values.items() if value is not None}


def label_options(command: Command) -> Command:
    """--free and --concepts: labels beside the dataset's own, and what becomes of them all."""
    options = [
        click.option("--free", multiple=True, metavar="KIND,...", help="Concepts from pixels: colors, textures."),
        click.option(
            "--concepts", type=click.Path(path_type=Path), metavar="FILE", help="A CSV that merges and drops concepts."
        ),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def segmenter_options(command: Command) -> Command:
    """--segmenter and its settings."""
    options = [
        click.option("--segmenter", metavar="SPEC", help="A model that labels the images, where nobody has."),
        click.option("--segmenter-confidence", type=float, metavar="P", help="Below it a pixel is unlabelled."),
        click.option("--segmenter-size", type=int, help="Shorter side that the segmenter sees. [the model's input]"),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def limit_options(command: Command) -> Command:
    """--max-disk, --max-memory and --time-limit."""
    options = [
        click.option("--max-disk", metavar="SIZE", help="Refuse, or stop at a shard, rather than use more: 200GB."),
        click.option("--max-memory", metavar="SIZE", help="Size shards to fit, and stop rather than use more: 16GB."),
        click.option(
            "--time-limit", metavar="TIME", help="Stop at a shard after 8h or 90min, or by 07:00; resume goes on."
        ),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def budget_of(options: Mapping[str, Any]) -> Budget:
    """What `limit_options` gave. Raises UsageError for a value that cannot be read."""
    from microtome.dissect.audit.budget import Budget, parse_bytes, parse_deadline

    disk, memory, time = (options[name] for name in LIMITS)
    return Budget(
        disk=parse_bytes(str(disk), "--max-disk") if disk else None,
        memory=parse_bytes(str(memory), "--max-memory") if memory else None,
        until=parse_deadline(str(time), datetime.now().astimezone()) if time else None,
    )
