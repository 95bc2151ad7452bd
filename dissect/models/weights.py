"""Weights from a file, without ever running code that the file carries: safetensors, or a pickled state dict
read with `weights_only=True`."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from microtome.storage.errors import UsageError

_NESTED = ("state_dict", "model_state_dict", "model")
_PREFIXES = ("module.", "_orig_mod.")
_SHOWN = 3


def load_weights(module: nn.Module, path: Path) -> None:
    """Load `path` into `module`; every tensor must have its place, name and shape.

    Raises UsageError for a missing or unreadable file, one that is not a state dict, and keys that do not fit.
    """
    state = read_state(path)
    try:
        missing, unexpected = module.load_state_dict(state, strict=False)
    except RuntimeError as error:
        first = [line.strip() for line in str(error).splitlines()[1 : 1 + _SHOWN]]
        raise UsageError(f"{path} does not fit the model: {' '.join(first) or error}") from error
    if missing or unexpected:
        parts = [
            f"{what} {len(keys)} ({_first(keys)})"
            for what, keys in (("it lacks", missing), ("the model has no place for", unexpected))
            if keys
        ]
        raise UsageError(f"{path} does not fit the model: {'; '.join(parts)}")


def read_state(path: Path) -> dict[str, Tensor]:
    """The state dict in a `.safetensors` file or a file of torch.save.

    Dicts nested under "state_dict", "model_state_dict" or "model" are opened; a `module.` or `_orig_mod.` that every
    key starts with is dropped. Raises UsageError.
    """
    if not path.is_file():
        raise UsageError(f"--weights {path}: no such file")
    content: object
    try:
        if path.suffix == ".safetensors":
            content = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UsageError(
            f"{path} is not a plain state dict, and nothing else is loaded, because a pickle can run code; "
            "save it with torch.save(model.state_dict(), FILE) or as safetensors"
        ) from error
    except (SafetensorError, RuntimeError, OSError, EOFError, ValueError, KeyError) as error:
        raise UsageError(f"{path} cannot be read as weights: {_line(error)}") from error
    return _strip(_open_nested(content, path))


def _open_nested(content: object, path: Path) -> dict[str, Tensor]:
    while isinstance(content, Mapping):
        inner = next((content[key] for key in _NESTED if isinstance(content.get(key), Mapping)), None)
        if inner is None:
            break
        content = inner
    if not isinstance(content, Mapping):
        raise UsageError(f"{path} holds a {type(content).__name__}; expected a state dict (names to tensors)")
    strangers = [str(key) for key, value in content.items() if not isinstance(value, Tensor)]
    if strangers or not content:
        found = f"{_first(strangers)} hold no tensors" if strangers else "it is empty"
        raise UsageError(f"{path} is no state dict (names to tensors): {found}")
    return {str(key): value for key, value in content.items()}


def _strip(state: dict[str, Tensor]) -> dict[str, Tensor]:
    for prefix in _PREFIXES * 2:
        if all(key.startswith(prefix) for key in state):
            state = {key.removeprefix(prefix): value for key, value in state.items()}
    return state


def _first(keys: list[str]) -> str:
    return ", ".join(keys[:_SHOWN]) + (", ..." if len(keys) > _SHOWN else "")


def _line(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0] if text else 'no reason given'}"
