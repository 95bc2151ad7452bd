"""The audit: from a model and a dataset to a finished run.

`config` is what was asked for, `prepare` opens and plans, `stages` do the work shard by shard, `schedule` hands
shards to whoever does them, `pipeline` puts the stages in order; `status` and `verify` look at what lies there. The
mathematics is not here: it is in `microtome.dissect.maths`.

Names are loaded on first use, so that `microtome status` does not wait for torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from microtome.dissect.audit.config import AuditConfig
    from microtome.dissect.audit.extend import Extension, extend_run
    from microtome.dissect.audit.pipeline import Outcome, finish, resume_audit, run_audit
    from microtome.dissect.audit.repair import repair_run
    from microtome.dissect.audit.stages.report import rebuild_report
    from microtome.dissect.audit.status import RunStatus, read_status
    from microtome.dissect.audit.verify import Verdict, verify_run

__all__ = [
    "AuditConfig",
    "Extension",
    "Outcome",
    "RunStatus",
    "Verdict",
    "extend_run",
    "finish",
    "read_status",
    "rebuild_report",
    "repair_run",
    "resume_audit",
    "run_audit",
    "verify_run",
]

_HOMES = {
    "AuditConfig": "config",
    "Extension": "extend",
    "Outcome": "pipeline",
    "RunStatus": "status",
    "Verdict": "verify",
    "extend_run": "extend",
    "finish": "pipeline",
    "read_status": "status",
    "rebuild_report": "stages.report",
    "repair_run": "repair",
    "resume_audit": "pipeline",
    "run_audit": "pipeline",
    "verify_run": "verify",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
