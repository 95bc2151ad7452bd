"""Dissecting vision networks: models, units, statistics, the audit, queries and the command line.

    from microtome.dissect import AuditConfig, open_run, run_audit

Names are loaded on first use, so that `microtome --help` does not wait for torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from microtome.dissect.ablation import ablate, importance
    from microtome.dissect.audit import (
        AuditConfig,
        Extension,
        Outcome,
        extend_run,
        rebuild_report,
        resume_audit,
        run_audit,
    )
    from microtome.dissect.audit.maps import Maps, make_maps
    from microtome.dissect.comparing.comparison import compare_runs
    from microtome.dissect.embedding.nearest import Found, neighbors
    from microtome.dissect.query import Dissection, open_run

__all__ = [
    "AuditConfig",
    "Dissection",
    "Extension",
    "Found",
    "Maps",
    "Outcome",
    "ablate",
    "compare_runs",
    "extend_run",
    "importance",
    "make_maps",
    "neighbors",
    "open_run",
    "rebuild_report",
    "resume_audit",
    "run_audit",
]

_HOMES = {
    "AuditConfig": "microtome.dissect.audit.config",
    "Outcome": "microtome.dissect.audit.pipeline",
    "run_audit": "microtome.dissect.audit.pipeline",
    "resume_audit": "microtome.dissect.audit.pipeline",
    "Extension": "microtome.dissect.audit.extend",
    "extend_run": "microtome.dissect.audit.extend",
    "rebuild_report": "microtome.dissect.audit.stages.report",
    "Maps": "microtome.dissect.audit.maps",
    "make_maps": "microtome.dissect.audit.maps",
    "compare_runs": "microtome.dissect.comparing.comparison",
    "ablate": "microtome.dissect.ablation.sets",
    "importance": "microtome.dissect.ablation.units",
    "Found": "microtome.dissect.embedding.nearest",
    "neighbors": "microtome.dissect.embedding.nearest",
    "Dissection": "microtome.dissect.query.dissection",
    "open_run": "microtome.dissect.query.dissection",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
