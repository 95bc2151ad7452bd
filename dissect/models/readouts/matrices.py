"""A user's own directions: the columns of a matrix in a `.npy` or `.safetensors` file.

Features of a sparse autoencoder's decoder, weights of linear probes, factors of an NMF: one column (C,) each, in the
space of a layer's C units. Nothing of a file is ever run.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from microtome.dissect.models.readouts.names import UnitsSpec
from microtome.storage.errors import UnknownNameError, UsageError

NAMED = 6


def read_matrix(spec: UnitsSpec) -> NDArray[np.float32]:
    """The 2-d matrix that `spec` names, as float32; a 1-d one is a single column (C, 1).

    Raises UsageError for a file that cannot be read, holds no such matrix, or has values that are no numbers.
    """
    path = spec.path
    if path is None or not path.is_file():
        raise UsageError(f"--units {spec.source}: no such file")
    values = _from_safetensors(path, spec.tensor) if path.suffix == ".safetensors" else _from_npy(path)
    if values.ndim not in (1, 2) or not values.size:
        raise UsageError(f"{spec.source} has shape {values.shape}; expected a matrix (C, U), a column a direction")
    if values.dtype.kind not in "fiub":
        raise UsageError(f"{spec.source} holds {values.dtype} values; expected real numbers")
    with np.errstate(over="ignore"):
        matrix: NDArray[np.float32] = values.reshape(len(values), -1).astype(np.float32)
    if not np.isfinite(matrix).all():
        unit = int(np.flatnonzero(~np.isfinite(matrix).all(axis=0))[0])
        raise UsageError(f"{spec.source}: column {unit} has NaN, infinity, or more than float32 holds")
    return matrix


def as_columns(
    matrix: NDArray[np.float32], inputs: int, *, layer: str, source: str
) -> tuple[NDArray[np.float32], bool]:
    """The matrix as (C, U) for a layer of C = `inputs` units, and whether it had to be transposed for that.

    A square one is columns. Raises UsageError where neither way fits.
    """
    if matrix.shape[0] == inputs:
        return matrix, False
    if matrix.shape[1] == inputs:
        return np.ascontiguousarray(matrix.T), True
    raise UsageError(
        f"{source} has shape {matrix.shape}, but layer {layer} has {inputs} units; expected ({inputs}, U): "
        "a column a direction, one number in it for each unit"
    )


def _from_npy(path: Path) -> NDArray[np.generic]:
    try:
        with path.open("rb") as file:  # read_array and not load: what numpy.load takes for an archive is none of ours
            values: NDArray[np.generic] = np.lib.format.read_array(file, allow_pickle=False)
    except (OSError, ValueError, EOFError, SyntaxError, MemoryError) as error:
        raise UsageError(f"{path} cannot be read as a plain .npy array ({_line(error)})") from error
    return values


def _from_safetensors(path: Path, name: str) -> NDArray[np.generic]:
    try:
        with safe_open(path, framework="pt") as file:
            shapes = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
            tensor = file.get_tensor(_chosen(path, name, shapes))
    except (SafetensorError, OSError) as error:
        raise UsageError(f"{path} cannot be read as safetensors ({_line(error)})") from error
    values: NDArray[np.generic] = tensor.to(torch.float64).numpy() if tensor.is_floating_point() else tensor.numpy()
    return values


def _chosen(path: Path, name: str, shapes: dict[str, tuple[int, ...]]) -> str:
    if name:
        if name not in shapes:
            raise UnknownNameError(f"tensor in {path}", name, shapes)
        return name
    matrices = [key for key, shape in shapes.items() if len(shape) == 2] or list(shapes)
    if len(matrices) != 1:
        listed = ", ".join(f"{key} {shapes[key]}" for key in matrices[:NAMED]) or "none"
        raise UsageError(f"{path} holds {len(matrices)} matrices ({listed}); name one: --units {path.name}#TENSOR")
    return matrices[0]


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
