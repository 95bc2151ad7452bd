"""Tables on a terminal, JSON and CSV: what goes to stdout."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    import pandas as pd

SCHEMA_VERSION = 1


def show_json(**values: object) -> None:
    """One JSON object on stdout, with `schema_version`; NaN becomes null."""
    click.echo(json.dumps({"schema_version": SCHEMA_VERSION, **values}, ensure_ascii=False, allow_nan=False))


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of a frame as plain values; missing, NaN and infinite ones as None."""
    columns = [str(name) for name in frame.columns]
    return [
        dict(zip(columns, (_plain(value) for value in row), strict=True))
        for row in frame.itertuples(index=False, name=None)
    ]


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


def _plain(value: Any) -> Any:
    if hasattr(value, "item"):
        value = value.item()
    missing = type(value).__name__ in ("NAType", "NaTType")  # pandas', without waiting for pandas
    if missing or (isinstance(value, float) and not math.isfinite(value)):
        return None
    return value
