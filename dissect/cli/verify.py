"""`microtome verify`: is a run still what was written, and mend it where it is not."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from microtome.dissect.cli.options import RUN
from microtome.dissect.cli.output import show_json
from microtome.storage.errors import RunDamagedError

if TYPE_CHECKING:
    from microtome.dissect.audit.verify import Damage, Verdict

SHOWN_DAMAGES = 40


@click.command("verify")
@click.argument("run", type=RUN)
@click.option("--repair", is_flag=True, help="Do again what is damaged, and verify once more.")
@click.option("--workers", type=click.IntRange(min=1), help="Shards at work at once in a repair. [number of cores]")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def verify_command(run: Path | str, repair: bool, workers: int | None, as_json: bool) -> int:
    """Compare every file of RUN with the size and the checksum that it was committed with.

    --repair makes the damaged shards and tables again, and nothing else; it needs the model and the data of the audit.
    A damaged table of importance or of causes is dropped instead, and microtome importance or rank measures it again.
    The exit code is 0 where all is well (again), 4 where damage remains.

    \b
    Examples:
      microtome verify runs/first
      microtome verify runs/first --repair
      microtome verify s3://bucket/runs/night --json
    """
    from microtome.dissect.audit.verify import verify_run

    if repair:
        from microtome.dissect.audit.repair import repair_run

        verdict = repair_run(run, workers=workers)
    else:
        verdict = verify_run(run)
    if as_json:
        show_json(**verdict.to_dict())
    else:
        _show(verdict, run, repair)
    return 0 if verdict.fine else RunDamagedError.exit_code


def _show(verdict: Verdict, run: Path | str, repair: bool) -> None:
    again, dropped = [[damage for damage in verdict.repaired if damage.is_dropped is one] for one in (False, True)]
    _list("was damaged and is made again", again)
    _list("was damaged and is dropped, to be measured again (microtome importance, rank)", dropped)
    _list("damaged", verdict.damages)
    if verdict.leftovers:
        click.echo(
            f"{len(verdict.leftovers)} temporary files of killed writers (harmless; the next audit removes them): "
            f"{', '.join(verdict.leftovers[:3])}"
        )
    if verdict.unfinished:
        click.echo(f"not finished: {', '.join(verdict.unfinished)}")
    extent = f"{verdict.files:,} files, {verdict.bytes / 1e6:,.1f} MB"
    if verdict.fine:
        click.echo(f"{verdict.url}: as it was written ({extent})")
    else:
        does = "drops it" if all(damage.is_dropped for damage in verdict.damages) else "makes them again"
        remedy = "audit again into another --out" if repair else f"microtome verify {run} --repair {does}"
        click.echo(f"{verdict.url}: {len(verdict.damages)} damaged ({extent}); {remedy}")


def _list(title: str, damages: Sequence[Damage]) -> None:
    for damage in damages[:SHOWN_DAMAGES]:
        click.echo(f"{title}: {damage.key} {damage.why}")
    if len(damages) > SHOWN_DAMAGES:
        click.echo(f"... and {len(damages) - SHOWN_DAMAGES} more; --json lists all")
