"""The stages by name, and the work that a worker process is told to do by name."""

from __future__ import annotations

from microtome.dissect.audit.schedule import ShardedWork
from microtome.dissect.audit.stages.capture import CAPTURE
from microtome.dissect.audit.stages.merge import ShardedStage
from microtome.dissect.audit.stages.tally import TALLY
from microtome.dissect.audit.stages.thresholds import THRESHOLDS

SHARDED: dict[str, ShardedStage] = {stage.name: stage for stage in (CAPTURE, THRESHOLDS, TALLY)}


def work_named(name: str) -> ShardedWork:
    """The work that commits under `name`: a stage's shards, or a level of the tree that folds its states."""
    stage, _, level = name.partition(".merge")
    return SHARDED[stage].level(int(level)) if level else SHARDED[stage].work
