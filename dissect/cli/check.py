"""`microtome check`: does a run keep the rules that it is held to? For continuous integration."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from microtome.dissect.cli.options import RUN
from microtome.dissect.cli.output import one_line, show_json, show_table
from microtome.storage.errors import UsageError

if TYPE_CHECKING:
    from microtome.dissect.query.rules import Verdict

CANNOT_BE_TOLD, BROKEN = 2, 5


@click.command("check")
@click.argument("run", type=RUN)
@click.option(
    "--rules",
    type=click.Path(path_type=Path),
    metavar="FILE.toml",
    help="Rules in place of those that the run was audited with.",
)
@click.option("--junit", type=click.Path(path_type=Path), metavar="FILE.xml", help="Also write JUnit XML.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def check_command(run: Path | str, rules: Path | None, junit: Path | None, as_json: bool) -> int:
    """Judge a finished RUN by rules: those in the audit.toml that it was made with, or those in --rules FILE.

    A rule is a table [[rules]] with a name and one query: none = QUERY (no unit may meet it), some = QUERY (a unit has
    to), or units = QUERY with at_least = N, at_most = N, or both. Rules are no part of what the audit computed.

    \b
    Exit codes: 0 all rules hold; 5 some do not; 2 some cannot be told, because they name a concept, layer or tau
    that the run does not have, or because the rules cannot be read.

    \b
    Examples:
      microtome check runs/first
      microtome check runs/first --rules rules.toml --junit build/rules.xml
    """
    from microtome.dissect.query import open_run
    from microtome.dissect.query.rules import FAILS, UNKNOWN, judge, kept_rules, rules_from_toml

    if junit is not None and not junit.absolute().parent.is_dir():
        raise UsageError(f"--junit {junit} cannot be written (there is no folder {junit.parent}); give another file")
    if junit is not None:
        junit.unlink(missing_ok=True)  # that of an earlier check must not speak for this one
    asked = None if rules is None else rules_from_toml(rules)
    dissection = open_run(run)
    verdicts = judge(dissection, kept_rules(dissection.run) if asked is None else asked)
    outcomes = {verdict.outcome for verdict in verdicts}
    code = CANNOT_BE_TOLD if UNKNOWN in outcomes else BROKEN if FAILS in outcomes else 0
    if junit is not None:
        _write_junit(junit, str(run), verdicts)
    if as_json:
        show_json(run=dissection.run.url, holds=code == 0, rules=[verdict.to_dict() for verdict in verdicts])
    else:
        _show(verdicts)
    return code


def _write_junit(file: Path, run: str, verdicts: Sequence[Verdict]) -> None:
    from microtome.dissect.query.rules import FAILS, UNKNOWN
    from microtome.reports.junit import Case, junit_xml
    from microtome.storage.files import write_asked

    problems = {FAILS: "failure", UNKNOWN: "error"}
    cases = [
        Case(verdict.rule.name, problems[verdict.outcome], verdict.summary, "\n".join(_text(verdict)))
        if verdict.outcome in problems
        else Case(verdict.rule.name)
        for verdict in verdicts
    ]
    write_asked(file, junit_xml(f"microtome check {run}", "microtome.rules", cases), "give --junit another file")


def _show(verdicts: Sequence[Verdict]) -> None:
    from microtome.dissect.query.rules import FAILS, UNKNOWN

    rows = [
        [
            one_line(verdict.rule.name),
            verdict.rule.asked,
            "?" if verdict.outcome == UNKNOWN else f"{verdict.count:,}",
            {FAILS: "FAILS", UNKNOWN: "CANNOT BE TOLD"}.get(verdict.outcome, verdict.outcome),
        ]
        for verdict in verdicts
    ]
    show_table(["rule", "asked for", "units", ""], rows, right=(2,))
    for verdict in verdicts:
        if verdict.outcome in (FAILS, UNKNOWN):
            click.echo(f"\n{one_line(verdict.rule.name)}")
            for line in _text(verdict):
                click.echo(f"  {one_line(line, 1000)}")


def _text(verdict: Verdict) -> list[str]:
    """The verdict, and the units that were found first."""
    lines = [verdict.summary]
    for row in verdict.first:
        label = row["state"] if row["concept"] is None else f"{row['concept']} ({row['category']})"
        lines.append(f"{row['layer']}:{row['unit']}  {label}  IoU {row['iou']:.3f}")
    if verdict.count > len(verdict.first):
        lines.append(f"and {verdict.count - len(verdict.first):,} more")
    return lines
