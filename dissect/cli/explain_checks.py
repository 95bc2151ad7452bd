"""`microtome explain --check`: its options, and what it says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from microtome.dissect.cli.options import split_list
from microtome.dissect.cli.output import show_table
from microtome.storage.errors import UsageError

if TYPE_CHECKING:
    from microtome.dissect.attribution.explaining.command import Done


def check_options(command: Any) -> Any:
    """--check and how it is done."""
    options = [
        click.option("--check", is_flag=True, help="Say which of the methods are faithful for this model, too."),
        click.option("--check-data", metavar="SPEC", help="Check on a dataset, against its masks. [the images]"),
        click.option(
            "--check-images", type=click.IntRange(min=2), default=16, show_default=True, metavar="N", help="At most."
        ),
        click.option(
            "--check-concepts", multiple=True, metavar="NAME,...", help="What a map may point at. [all objects]"
        ),
        click.option(
            "--check-classes",
            type=click.Path(path_type=Path),
            metavar="FILE",
            help="A CSV, concept,class: the classes that stand for each; all of them are explained.",
        ),
        click.option(
            "--tolerance",
            type=click.FloatRange(min=0),
            default=15,
            show_default=True,
            metavar="PIXELS",
            help="How far beside it still counts.",
        ),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def refuse_checks(options: Mapping[str, Any]) -> None:
    """Raise UsageError, before any work, for what goes not with --check, or not without it."""
    if options["check"] and options["unit"] is not None:
        raise UsageError("--check is about explanations of classes; leave out --unit")
    for name in ("check_data", "check_concepts", "check_classes"):
        if options[name] and not options["check"]:
            raise UsageError(f"--{name.replace('_', '-')} says how to check; give --check too")


def check_and_tell(done: Done, given: Sequence[str], options: Mapping[str, Any], *, quiet: bool) -> dict[str, Any]:
    """Do the checks, write them to --out, show them unless `quiet`; what explain.json holds of them."""
    from microtome.dissect.attribution.checks.command import Checking, check_done, write_checks
    from microtome.dissect.attribution.checks.table import rows_of, sentences

    checking = Checking(
        data=options["check_data"],
        count=options["check_images"],
        concepts=split_list(options["check_concepts"]),
        classes=options["check_classes"],
        tolerance=options["tolerance"],
    )
    checks = check_done(done, given, checking)
    told = write_checks(checks, options["out"])
    if not quiet:
        header, rows, right = rows_of(checks)
        click.echo()
        show_table(header, rows, right=right)
        click.echo()
        for sentence in sentences(checks):
            click.echo(sentence)
    return told
