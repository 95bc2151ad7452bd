"""Queries of a served run: answered from its tables, as they are now."""

from __future__ import annotations

from typing import Any

from microtome.dissect.query import Dissection, open_run
from microtome.dissect.query.expression import split_address
from microtome.dissect.records import records
from microtome.reports.server.actions import AbandonedError, Stop
from microtome.storage.run import Run


class Queries:
    """A finished run, whose tables are read when they are first asked for, and anew when the run has changed."""

    def __init__(self, run: Run) -> None:
        self._where = str(run.place.path or run.url)
        self._known: Dissection | None = None

    def query(self, expression: str, count: int, stop: Stop) -> dict[str, Any]:
        """The first `count` rows of what `microtome query` finds for the expression; without one, its summary.

        "kind": what the rows are of, "units", "concepts" or "summary", and their key; "columns"; "total": all of them.
        Raises UsageError and UnknownNameError for what the run does not have.
        """
        dissection = self._dissection()
        if stop():
            raise AbandonedError
        if not expression.strip():
            frame, kind = dissection.summary(), "summary"
        else:
            frame, kind = dissection.query(expression), "concepts" if split_address(expression)[0] else "units"
        columns = [str(name) for name in frame.columns]
        return {"kind": kind, "columns": columns, "total": len(frame), kind: records(frame.head(count))}

    def _dissection(self) -> Dissection:
        now = open_run(self._where)
        if self._known is None or self._known.run.info != now.run.info:
            self._known = now
        return self._known
