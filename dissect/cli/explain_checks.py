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
    from microtome.dissect.attribution.checks.command import Plan
    from microtome.dissect.attribution.explaining.explainer import Explainer
    from microtome.dissect.attribution.explaining.sources import Source


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


class Check:
    """The checks of one command: what they need is looked up before anything is explained, and they come last."""

    def __init__(self, given: Sequence[str], options: Mapping[str, Any]) -> None:
        self._given, self._options = given, options
        self._plan: Plan | None = None

    def prepare(self, explainer: Explainer, sources: Sequence[Source]) -> None:
        """Where --check is given, look up what is to be checked. Raises UsageError, UnknownNameError."""
        if not self._options["check"]:
            return
        from microtome.dissect.attribution.checks.command import Checking, plan_checks

        checking = Checking(
            data=self._options["check_data"],
            count=self._options["check_images"],
            concepts=split_list(self._options["check_concepts"]),
            classes=self._options["check_classes"],
            tolerance=self._options["tolerance"],
            seed=self._options["seed"] or 0,
        )
        self._plan = plan_checks(explainer, sources, self._given, checking)

    def tell(self, *, quiet: bool) -> dict[str, Any]:
        """Do the checks, write them to --out, show them unless `quiet`; what explain.json has more then."""
        if self._plan is None:
            return {}
        from microtome.dissect.attribution.checks.command import check_planned, write_checks
        from microtome.dissect.attribution.checks.table import notes, rows_of, sentences

        checks = check_planned(self._plan)
        told = write_checks(checks, self._options["out"])
        if not quiet:
            header, rows, right = rows_of(checks)
            click.echo()
            show_table(header, rows, right=right)
            click.echo()
            for sentence in (*sentences(checks), *notes(checks)):
                click.echo(sentence)
        return {"check": told}
