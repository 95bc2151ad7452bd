"""Tables on a terminal, JSON and CSV: what goes to stdout."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

import click

from microtome.dissect.records import records

__all__ = ["one_line", "records", "show_json", "show_table"]

SCHEMA_VERSION = 1


def show_json(**values: object) -> None:
    """One JSON object on stdout, with `schema_version`; NaN becomes null."""
    click.echo(json.dumps({"schema_version": SCHEMA_VERSION, **values}, ensure_ascii=False, allow_nan=False))


def show_table(header: Sequence[str], rows: Iterable[Sequence[str]], *, right: Sequence[int] = ()) -> None:
    """Aligned columns; those numbered in `right` are set flush right."""
    body = [list(row) for row in rows]
    widths = [max(len(line[i]) for line in [list(header), *body]) for i in range(len(header))]
    for line in [list(header), *body]:
        cells = [
            text.rjust(width) if i in right else text.ljust(width)
            for i, (text, width) in enumerate(zip(line, widths, strict=True))
        ]
        click.echo("  ".join(cells).rstrip())


def one_line(text: str, longest: int = 60) -> str:
    """Text of a user's or a run's as a terminal may show it: on one line, without controls, cut where it is longer."""
    from microtome.reports.text import without_controls

    plain = without_controls(" ".join(text.split()))
    return plain if len(plain) <= longest else f"{plain[: longest - 3]}..."
