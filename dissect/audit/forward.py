"""Images in, stored activations out: the model's forward pass with a capture at every layer.

Activations leave the hook as float16 on the host, divided by the layer's power-of-two scale: converting is the copy
that keeps later in-place operations from changing what was captured.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from types import TracebackType

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from microtome.dissect.audit.job import Division
from microtome.dissect.models import ActivationCapture, Model

FLOAT16_OVERFLOW = 65520.0  # the smallest magnitude that rounds to infinity


class ScaleOverflow(Exception):  # noqa: N818 - a signal to begin again with a larger scale, not a failure
    """A finite activation does not fit float16 at the layer's scale."""

    def __init__(self, layer: str, magnitude: float) -> None:
        super().__init__(f"layer {layer} gives {magnitude:g}")
        self.layer = layer
        self.magnitude = magnitude

    def __reduce__(self) -> tuple[type[ScaleOverflow], tuple[str, float]]:
        return ScaleOverflow, (self.layer, self.magnitude)  # it may come from another process


class Forward:
    """Runs the model over batches of uint8 images; a context manager, so that hooks always detach.

    Safe to call from several threads; `division.passes` of them compute at a time.
    """

    def __init__(self, model: Model, layers: list[str], division: Division, scales: Mapping[str, float] = {}) -> None:
        self._device = division.device
        self._threads = division.torch_threads
        self._layout = torch.channels_last if division.channels_last else torch.contiguous_format
        self._module = model.module.to(self._device).to(memory_format=self._layout)
        self._dtype = model.placeholder().dtype
        preprocess = model.preprocess
        self._mean = torch.tensor(preprocess.mean, device=self._device).view(1, 3, 1, 1)
        self._std = torch.tensor(preprocess.std, device=self._device).view(1, 3, 1, 1)
        self._scales = dict(scales)
        self._stored = ActivationCapture(self._module, layers, transform=self._to_stored, resolved=True)
        self._turn = threading.BoundedSemaphore(division.passes)
        self._layers = layers

    def __enter__(self) -> Forward:
        self._threads_before = torch.get_num_threads()
        torch.set_num_threads(self._threads)
        self._stored.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stored.__exit__(kind, error, trace)
        torch.set_num_threads(self._threads_before)

    def stored_activations(self, images: NDArray[np.uint8]) -> dict[str, NDArray[np.float16]]:
        """Activations of a batch, as they are stored: {layer: (B, C, h, w) float16, true value / scale}.

        images: (B, H, W, 3) uint8 RGB. Raises ScaleOverflow where a finite value would become infinite.
        """
        with self._turn:
            return self._stored(self._prepare(images))

    def largest_magnitudes(self, images: NDArray[np.uint8]) -> dict[str, float]:
        """The largest finite |activation| of each layer over a batch; 0 where there is none."""
        with ActivationCapture(self._module, self._layers, transform=_finite_magnitude, resolved=True) as capture:
            return capture(self._prepare(images))

    def _prepare(self, images: NDArray[np.uint8]) -> Tensor:
        pixels = torch.from_numpy(images).to(self._device, non_blocking=True)
        batch = pixels.permute(0, 3, 1, 2).to(torch.float32, memory_format=self._layout)
        return batch.div_(255.0).sub_(self._mean).div_(self._std).to(self._dtype)

    def _to_stored(self, layer: str, maps: Tensor) -> NDArray[np.float16]:
        scale = self._scales.get(layer, 1.0)
        lowest, highest = (float(value) for value in torch.aminmax(maps))
        if not max(abs(lowest), abs(highest)) < FLOAT16_OVERFLOW * scale:  # also where NaN or infinity is among them
            magnitude = _finite_magnitude(layer, maps)
            if magnitude >= FLOAT16_OVERFLOW * scale:
                raise ScaleOverflow(layer, magnitude)
        scaled = maps if scale == 1.0 else maps / scale
        half = scaled.to(torch.float16, memory_format=torch.contiguous_format, copy=True)
        array: NDArray[np.float16] = half.cpu().numpy()
        return array


def _finite_magnitude(_layer: str, maps: Tensor) -> float:
    magnitudes = maps.detach().abs()
    finite = magnitudes[torch.isfinite(magnitudes)]
    return float(finite.max()) if finite.numel() else 0.0
