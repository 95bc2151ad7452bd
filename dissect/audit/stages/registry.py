"""The stages by name, and the work that a worker process is told to do by name."""

from __future__ import annotations

from microtome.dissect.audit.schedule import ShardedWork
from microtome.dissect.audit.stages.capture import CAPTURE
from microtome.dissect.audit.stages.guess import GUESS
from microtome.dissect.audit.stages.information import INFORMATION, STREAMED_INFORMATION
from microtome.dissect.audit.stages.merge import ShardedStage
from microtome.dissect.audit.stages.near import PREFIX, neighbors_work
from microtome.dissect.audit.stages.segment import SEGMENT
from microtome.dissect.audit.stages.tally import STREAMED_TALLY, TALLY
from microtome.dissect.audit.stages.thresholds import STREAMED_THRESHOLDS, THRESHOLDS

STAGES: dict[str, ShardedStage] = {
    stage.name + stage.variant: stage
    for stage in (
        SEGMENT,
        CAPTURE,
        THRESHOLDS,
        STREAMED_THRESHOLDS,
        TALLY,
        STREAMED_TALLY,
        INFORMATION,
        STREAMED_INFORMATION,
    )
}


def work_named(name: str) -> ShardedWork:
    """The work called `name`: a stage's shards, a level of the tree that folds its states, a guess, or a search."""
    if name == GUESS.name:
        return GUESS
    if name.startswith(PREFIX):
        return neighbors_work(name)
    stage, _, level = name.partition(".merge")
    return STAGES[stage].level(int(level)) if level else STAGES[stage].work


def committed_as(name: str) -> str:
    """The name that the work called `name` commits under."""
    return STAGES[name].name if name in STAGES else name
