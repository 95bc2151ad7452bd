"""Models: loading them from a spec, naming their layers, and taking activations out of a forward pass."""

from __future__ import annotations

from microtome.dissect.models.capture import ActivationCapture
from microtome.dissect.models.layers import LayerInfo, describe_layers, resolve_layers
from microtome.dissect.models.model import Model
from microtome.dissect.models.preprocess import Preprocess, PreprocessOverrides
from microtome.dissect.models.specs import load_model

__all__ = [
    "ActivationCapture",
    "LayerInfo",
    "Model",
    "Preprocess",
    "PreprocessOverrides",
    "describe_layers",
    "load_model",
    "resolve_layers",
]
