"""`microtome report`: build the pages of a run anew."""

from __future__ import annotations

from pathlib import Path

import click

from microtome.dissect.cli.options import RUN


@click.command("report")
@click.argument("run", type=RUN)
@click.option("--single-file", is_flag=True, help="Also write all pages as one file that can be sent to somebody.")
def report_command(run: Path | str, single_file: bool) -> int:
    """Rebuild the HTML pages of a finished RUN from its tables; prints where the first page lies, and on stderr how
    large the report is, by part.

    \b
    Examples:
      microtome report runs/first
      microtome report runs/first --single-file
      microtome report s3://bucket/first
    """
    from microtome.dissect.audit import rebuild_report
    from microtome.reports.sizes import size_lines, sizes_of
    from microtome.storage.places import open_place
    from microtome.storage.run import REPORT

    index = rebuild_report(run, single_file=single_file)
    prefix = f"{REPORT}/"
    files = ((key.removeprefix(prefix), size) for key, size in open_place(run).list(prefix))
    click.echo("\n".join(size_lines(sizes_of(files))), err=True)
    click.echo(index)
    return 0
