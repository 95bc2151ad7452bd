"""The audit: from a model and a dataset to a finished run.

`config` is what was asked for, `prepare` opens and plans, `stages` do the work shard by shard, `schedule` hands
shards to Dask, `pipeline` puts the stages in order. The mathematics is not here: it is in `microtome.dissect.maths`.
"""

from microtome.dissect.audit.config import AuditConfig
from microtome.dissect.audit.pipeline import Outcome, finish, resume_audit, run_audit
from microtome.dissect.audit.stages.report import rebuild_report

__all__ = ["AuditConfig", "Outcome", "finish", "rebuild_report", "resume_audit", "run_audit"]
