"""`microtome status`: where a run is, from any machine that can read it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from microtome.dissect.cli.options import RUN
from microtome.dissect.cli.output import show_json, show_table

if TYPE_CHECKING:
    from microtome.dissect.audit.status import RunStatus


@click.command("status")
@click.argument("run", type=RUN)
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def status_command(run: Path | str, as_json: bool) -> int:
    """Tell where RUN is: its stages, its pace, who works on it, what it has met. Reads only what lies in the run.

    \b
    Examples:
      microtome status runs/first
      microtome status s3://bucket/runs/night --json
    """
    from microtome.dissect.audit.status import read_status

    status = read_status(run)
    if as_json:
        show_json(**status.to_dict())
    else:
        _show(status)
    return 0


def _show(status: RunStatus) -> None:
    from microtome.dissect.audit.logsummary import format_summary
    from microtome.dissect.audit.progress import duration

    click.echo(f"{status.url}: {status.state}, {status.samples:,} images")
    rows = [
        [
            stage.name,
            stage.state,
            "" if stage.shards is None else f"{stage.done:,}/{stage.shards:,}",
            duration(stage.seconds) if stage.seconds else "",
        ]
        for stage in status.stages
    ]
    show_table(["stage", "state", "shards", "time"], rows, right=(2, 3))
    if status.rate is not None and status.remaining is not None:
        click.echo(f"pace: {status.rate:,.2f} shards a second, {duration(status.remaining)} left of this stage")
    if status.holder is not None:
        dead = "; that process is gone, the next audit takes over at once" if status.holder.gone else ""
        click.echo(f"held by {status.holder.describe()}{dead}")
    if status.state == "stopped":
        click.echo(f"to go on: microtome audit --resume {status.url}")
    sizes = ", ".join(f"{kind} {_bytes(size)}" for kind, size in status.disk.items() if size)
    click.echo(f"disk: {sizes}")
    if status.skipped:
        click.echo(f"skipped: {status.skipped:,} samples so far")
    if account := format_summary(status.summary):
        click.echo(f"log ({status.summary.first} to {status.summary.last}):\n{account}")
    for event in status.events:
        said = ", ".join(f"{name} {value}" for name, value in event.items() if name not in _KNOWN and value is not None)
        click.echo(f"  {event.get('time')}  {event['kind']}{': ' if said else ''}{said:.160}")


_KNOWN = ("time", "kind", "session", "versions", "config")


def _bytes(size: int) -> str:
    for unit, amount in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= amount:
            return f"{size / amount:.1f} {unit}"
    return f"{size} bytes"
