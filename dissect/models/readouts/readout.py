"""Units that are read out of a layer: a function of the vector of activations at each position.

The axes of a layer are one basis among many; directions in its space may say more, and a random rotation of the axes
tells whether they say more than chance would (Bau, Zhou, Khosla, Oliva, Torralba 2017, section 3.2).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from microtome.storage.errors import UsageError

BYTES_AT_ONCE = 2**26
"""Of the rows that go through a read-out at a time, in and out."""


@dataclass(frozen=True, eq=False)
class Readout:
    """Reads `units` units out of the layer `base`, which has `inputs` units of its own.

    rows: maps (M, inputs) float32 to (M, units) floating point, on the device that it was moved to; kind: "pca",
    "rotated", "matrix" or "encoder"; source: where it comes from; fingerprint: tells it from any other;
    matrices: what it consists of, empty for an encoder; images: how many it was fitted on.
    Safe to call from several threads.
    """

    base: str
    inputs: int
    units: int
    rows: Callable[[Tensor], Tensor]
    kind: str
    source: str
    fingerprint: str
    matrices: Mapping[str, NDArray[np.generic]]
    images: int = 0

    def __call__(self, maps: Tensor) -> Tensor:
        """The read-out's maps (B, U, h, w) float32 of the layer's maps (B, C, h, w), which are left as they are.

        Computed in float32, whatever the model computes in. Raises UsageError where the layer is of another size.
        """
        batch, channels, height, width = maps.shape
        if channels != self.inputs:
            raise UsageError(
                f"{self.source} reads {self.inputs} units, but layer {self.base} has {channels}; "
                "use it with the layer that it was made for"
            )
        at_once = max(1, BYTES_AT_ONCE // (4 * (self.inputs + self.units)))
        with torch.autocast(maps.device.type, enabled=False):
            rows = maps.permute(0, 2, 3, 1).reshape(-1, channels)
            parts = [self.rows(part.to(torch.float32)) for part in torch.split(rows, at_once)]
        values = parts[0] if len(parts) == 1 else torch.cat(parts)
        return values.view(batch, height, width, -1).permute(0, 3, 1, 2)

    def to(self, device: torch.device) -> Self:
        """Itself, computing on `device`."""
        if isinstance(self.rows, nn.Module):
            self.rows.to(device)
        return self


class Directions(nn.Module):
    """Unit u of a row a is sum_c weight[c, u] a_c + bias[u]; weight (C, U), bias (U,) or None."""

    weight: Tensor
    bias: Tensor | None

    def __init__(self, weight: NDArray[np.floating], bias: NDArray[np.floating] | None = None) -> None:
        super().__init__()
        self.register_buffer("weight", torch.from_numpy(np.array(weight, np.float32)))
        self.register_buffer("bias", None if bias is None else torch.from_numpy(np.array(bias, np.float32)))

    def forward(self, rows: Tensor) -> Tensor:
        """(M, C) to (M, U)."""
        return rows @ self.weight if self.bias is None else torch.addmm(self.bias, rows, self.weight)


def directions(
    base: str, kind: str, source: str, fingerprint: str, matrices: Mapping[str, NDArray[np.generic]], images: int = 0
) -> Readout:
    """The read-out of `base` by `matrices`: `weight` (C, U) and, where it is there, `bias` (U,), floating point."""
    weight, bias = matrices["weight"].astype(np.float32), matrices.get("bias")
    return Readout(
        base=base,
        inputs=weight.shape[0],
        units=weight.shape[1],
        rows=Directions(weight, None if bias is None else bias.astype(np.float32)),
        kind=kind,
        source=source,
        fingerprint=fingerprint,
        matrices=matrices,
        images=images,
    )
