"""Units that are no axes of a layer: principal components, rotations, a user's directions, encoders."""

from __future__ import annotations

from microtome.dissect.models.readouts.names import parse_units, split_readout
from microtome.dissect.models.readouts.planning import PlannedLayer, describe_planned, plan_layers
from microtome.dissect.models.readouts.readout import Readout

__all__ = ["PlannedLayer", "Readout", "describe_planned", "parse_units", "plan_layers", "split_readout"]
