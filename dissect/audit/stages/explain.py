"""Stage explain."""

from __future__ import annotations

from microtome.dissect.audit.job import Job


def run_explain(job: Job) -> None:
    """Nothing yet."""
