"""The weights that come with the package: float16 on disk, float32 in memory, safetensors."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import torch
from safetensors.torch import load, save_file
from torch import Tensor, nn


def load_weights(name: str) -> dict[str, Tensor]:
    """The state dict of a built-in model, by the name of its file; floating point values as float32."""
    data = (files("microtome.dissect.builtin") / "weights" / f"{name}.safetensors").read_bytes()
    return {key: value.float() if value.is_floating_point() else value for key, value in load(data).items()}


def save_weights(model: nn.Module, path: Path) -> None:
    """Write a model's state dict, floating point values rounded to float16, whole or not at all."""
    state = {
        key: (value.to(torch.float16) if value.is_floating_point() else value).contiguous().clone()
        for key, value in model.state_dict().items()
    }
    partial = path.with_suffix(".partial")
    save_file(state, partial)
    partial.chmod(0o644)
    partial.replace(path)
