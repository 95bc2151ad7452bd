"""`microtome report`: build the pages of a run anew."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("report")
@click.argument("run", type=click.Path(path_type=Path))
def report_command(run: Path) -> int:
    """Rebuild the HTML pages of a finished RUN from its tables; prints the path of the first page.

    \b
    Example:
      microtome report runs/first
    """
    from microtome.dissect.audit import rebuild_report

    click.echo(str(rebuild_report(run).resolve()))
    return 0
