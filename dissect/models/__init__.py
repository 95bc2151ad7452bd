"""Models: loading them from a spec, naming their layers, and taking activations out of a forward pass."""

from __future__ import annotations

from microtome.dissect.models.capture import ActivationCapture
from microtome.dissect.models.cost import Cost, measure_cost
from microtome.dissect.models.influence import measure_fields as measure_receptive_fields
from microtome.dissect.models.layers import LayerInfo, describe_layers, resolve_layers
from microtome.dissect.models.model import Model, TokenHints
from microtome.dissect.models.preprocess import Preprocess, PreprocessOverrides
from microtome.dissect.models.receptive_field import ReceptiveField
from microtome.dissect.models.specs import load_model

__all__ = [
    "ActivationCapture",
    "Cost",
    "LayerInfo",
    "Model",
    "Preprocess",
    "PreprocessOverrides",
    "ReceptiveField",
    "TokenHints",
    "describe_layers",
    "load_model",
    "measure_cost",
    "measure_receptive_fields",
    "resolve_layers",
]
