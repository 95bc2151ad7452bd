"""Encoders: the user's own code that turns a layer's activations into features, such as a sparse autoencoder's.

A factory without arguments returns a torch.nn.Module, or another callable, that maps rows (M, C) float32 to (M, U)
floating point, every row by itself.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from microtome.dissect.models.factories import Product, make_from_file, make_from_module
from microtome.dissect.models.model import digest_of
from microtome.dissect.models.readouts.readout import Readout
from microtome.dissect.models.segmenters import digest_of_callable
from microtome.dissect.models.zoo import seeded
from microtome.storage.errors import UsageError

PROBED_ROWS, ROWS_TOGETHER = 3, 8
SAME = 1e-4
"""Of the largest feature: what the arithmetic of products of other sizes may change."""
_PRODUCT = Product("a torch.nn.Module, or a function of rows (M, C)", callable)


class Encoder(nn.Module):
    """What the factory at `source` makes, held to its contract."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.source = source
        with seeded():  # a factory that draws random weights gives the same ones in every process
            made: Any = _make(source)
        self.made = made
        self.eval().requires_grad_(False)
        code = _source_code(source)
        self.fingerprint = digest_of(made, code) if isinstance(made, nn.Module) else digest_of_callable(made, code)

    def forward(self, rows: Tensor) -> Tensor:
        """(M, C) float32 to (M, U). Raises UsageError where the encoder does not keep its contract."""
        try:
            found = self.made(rows)
        except UsageError:
            raise
        except Exception as error:
            text = " ".join(str(error).split())[:300]
            raise UsageError(
                f"encoder {self.source} failed on rows {tuple(rows.shape)}: {type(error).__name__}: {text}"
            ) from error
        if not isinstance(found, Tensor):
            raise self._broken(f"a {type(found).__name__}", rows)
        if found.ndim != 2 or len(found) != len(rows) or not found.shape[1] or not found.is_floating_point():
            raise self._broken(f"{str(found.dtype).removeprefix('torch.')} {tuple(found.shape)}", rows)
        return found.to(torch.float32)

    def units(self, inputs: int) -> int:
        """How many features it gives for `inputs` units, found out with a few rows of noise."""
        with torch.no_grad():
            return int(self(self._noise(PROBED_ROWS, inputs)).shape[1])

    def refuse_unusable(self, inputs: int) -> None:
        """Raise UsageError where it gives no numbers for rows of `inputs` units, or rows are not read one by one."""
        rows = self._noise(ROWS_TOGETHER, inputs)
        with torch.no_grad():
            together, first = self(rows), self(rows[:PROBED_ROWS])
        if together.isnan().all():
            raise UsageError(f"encoder {self.source} gave only NaN for rows of noise {tuple(rows.shape)}")
        if first.shape[1] != together.shape[1] or not torch.allclose(
            first, together[:PROBED_ROWS], rtol=SAME, atol=SAME * _size(together), equal_nan=True
        ):
            raise UsageError(f"encoder {self.source} mixes positions: each row must be read on its own")

    def _noise(self, count: int, inputs: int) -> Tensor:
        home = next((part.device for part in (*self.parameters(), *self.buffers())), torch.device("cpu"))
        return torch.randn(count, inputs, generator=torch.Generator().manual_seed(0)).to(home)

    def _broken(self, what: str, rows: Tensor) -> UsageError:
        return UsageError(
            f"encoder {self.source} gave {what} for rows {tuple(rows.shape)}; "
            f"expected floating-point features ({len(rows)}, U)"
        )


def encoder_readout(base: str, inputs: int, encoder: Encoder) -> Readout:
    """The read-out of the layer `base` by `encoder`. Raises UsageError where it does not take `inputs` units."""
    return Readout(
        base=base,
        inputs=inputs,
        units=encoder.units(inputs),
        rows=encoder,
        kind="encoder",
        source=encoder.source,
        fingerprint=encoder.fingerprint,
        matrices={},
    )


def _size(values: Tensor) -> float:
    """The largest finite magnitude."""
    return float(values.nan_to_num(0.0, 0.0, 0.0).abs().max())


def _make(source: str) -> object:
    head, _, factory = source.rpartition(":")
    if head.endswith(".py") or "/" in head:
        return make_from_file(Path(head).expanduser(), factory, _PRODUCT)
    return make_from_module(head, factory, _PRODUCT)


def _source_code(source: str) -> str:
    """sha256 of the file that the factory is in, and the factory's name."""
    head, _, factory = source.rpartition(":")
    path = Path(head if head.endswith(".py") else getattr(sys.modules.get(head), "__file__", None) or "")
    code = path.read_bytes() if path.is_file() else b""
    return f"{factory} {hashlib.sha256(code).hexdigest()}"
