"""Images in, stored activations out: the model's forward pass with a capture at every layer.

Activations leave the hook as float16, divided by the layer's power-of-two scale: converting is the copy that keeps
later in-place operations from changing what was captured. On a CUDA device a batch is only queued (`devices.py`):
while its results are on their way to the host, the next one is at work.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from types import TracebackType
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from microtome.dissect.audit.devices import Arrival, Device, finite_magnitude, open_device
from microtome.dissect.audit.images import Fed
from microtome.dissect.audit.job import Division
from microtome.dissect.audit.precision import arithmetic, autocast, check_precision
from microtome.dissect.audit.turns import TurnPool
from microtome.dissect.models import ActivationCapture, Model
from microtome.dissect.models.generators import as_input
from microtome.dissect.models.model import normalise
from microtome.dissect.models.readouts import Readout

T = TypeVar("T")

FLOAT16_OVERFLOW = 65520.0  # the smallest magnitude that rounds to infinity


class ScaleOverflow(Exception):  # noqa: N818 - a signal to begin again with a larger scale, not a failure
    """A finite activation does not fit float16 at the layer's scale."""

    def __init__(self, layer: str, magnitude: float) -> None:
        super().__init__(f"layer {layer} gives {magnitude:g}")
        self.layer = layer
        self.magnitude = magnitude

    def __reduce__(self) -> tuple[type[ScaleOverflow], tuple[str, float]]:
        return ScaleOverflow, (self.layer, self.magnitude)  # it may come from another process


@dataclass(frozen=True)
class _Result:
    """What a forward pass leaves on the host: filled once `arrival` has passed.

    largest: the largest finite magnitude of each layer, (L,) float32.
    """

    stored: dict[str, Tensor]
    largest: Tensor
    arrival: Arrival


class Captured:
    """The activations of one batch, computed or about to be."""

    def __init__(self, result: Future[_Result], limits: Mapping[str, float]) -> None:
        self._result = result
        self._limits = limits

    def wait(self) -> dict[str, NDArray[np.float16]]:
        """Activations as they are stored: {layer: (B, C, h, w) float16, true value / scale}.

        Raises ScaleOverflow where a finite value would have become infinite, and whatever the model raised.
        """
        result = self._result.result()
        result.arrival.synchronize()
        for layer, largest in zip(result.stored, result.largest.tolist(), strict=True):
            if largest >= self._limits[layer]:
                raise ScaleOverflow(layer, largest)
        return {layer: half.numpy() for layer, half in result.stored.items()}


class Forward:
    """Runs the model over batches of uint8 images, or of a generator's latents; a context manager, so that hooks
    always detach.

    readouts: of those of `layers` that are read out of another layer, which is captured for them; where `layers` has
    that one, too, one pass serves both.
    Safe to call from several threads; `division.passes` threads of its own compute, the lowest turn first.
    """

    def __init__(
        self,
        model: Model,
        layers: list[str],
        division: Division,
        scales: Mapping[str, float] = {},
        device: Device | None = None,
        readouts: Mapping[str, Readout] = {},
    ) -> None:
        check_precision(division.precision, division.device)
        self._device = device or open_device(division.device)
        self._division = division
        self._layout = torch.channels_last if division.channels_last else torch.contiguous_format
        model.module.to(division.device).to(memory_format=self._layout)
        self._model = model
        self._dtype = model.placeholder().dtype
        preprocess = model.preprocess
        self._mean = torch.tensor(preprocess.mean, device=division.device).view(1, 3, 1, 1)
        self._std = torch.tensor(preprocess.std, device=division.device).view(1, 3, 1, 1)
        self._scales = {layer: scales.get(layer, 1.0) for layer in layers}
        self._limits = {layer: FLOAT16_OVERFLOW * scale for layer, scale in self._scales.items()}
        self._layers = layers
        self._readouts = {name: readouts[name].to(division.device) for name in layers if name in readouts}
        self._capture = self._capturing(self._to_stored)

    def __enter__(self) -> Forward:
        self._threads_before = torch.get_num_threads()
        torch.set_num_threads(self._division.torch_threads)
        self._arithmetic = arithmetic(self._division.precision, self._division.device)
        self._arithmetic.__enter__()
        self._passes = TurnPool(self._division.passes, "forward")
        self._capture.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._passes.__exit__(kind, error, trace)
        self._device.drain()
        self._capture.__exit__(kind, error, trace)
        self._arithmetic.__exit__(kind, error, trace)
        torch.set_num_threads(self._threads_before)

    def submit(self, fed: Sequence[Fed], turn: int = 0) -> Captured:
        """Have a batch computed: images of one size, (H, W, 3) uint8 RGB, or latents; where several wait, the lowest
        turn first."""
        host = self._on_host(fed)
        return Captured(self._passes.submit(turn, lambda: self._compute(host)), self._limits)

    def largest_magnitudes(self, fed: Sequence[Fed]) -> dict[str, float]:
        """The largest finite |activation| of each layer over a batch; 0 where there is none."""
        return self.observe(fed, _magnitude)

    def observe(self, fed: Sequence[Fed], look: Callable[[str, Tensor], T]) -> dict[str, T]:
        """What `look(layer, maps)` returns for each layer over a batch, in the hook: maps (B, C, h, w)."""
        host = self._on_host(fed)
        with self._capturing(look) as capture:
            return self._cast(capture, tuple(part.to(self._division.device) for part in host))

    def _on_host(self, fed: Sequence[Fed]) -> tuple[Tensor, ...]:
        """What is fed, as tensors with the batch first."""
        columns = list(zip(*fed, strict=True)) if isinstance(fed[0], tuple) else [fed]
        stacked = []
        for column in columns:
            first = torch.from_numpy(column[0])
            stacked.append(self._device.on_host((len(column), *first.shape), first.dtype))
            np.stack(column, out=stacked[-1].numpy())
        return tuple(stacked)

    def _capturing(self, transform: Callable[[str, Tensor], T]) -> ActivationCapture[dict[str, T]]:
        """A capture of what the layers are read out of, each giving `transform` of all layers that it serves."""
        served: dict[str, list[str]] = {}
        for name in self._layers:
            served.setdefault(self._readouts[name].base if name in self._readouts else name, []).append(name)

        def each(base: str, maps: Tensor) -> dict[str, T]:
            found = {}
            for name in served[base]:
                readout = self._readouts.get(name)
                found[name] = transform(name, maps if readout is None else readout(maps))
            return found

        return ActivationCapture(self._model, list(served), transform=each)

    def _compute(self, host: tuple[Tensor, ...]) -> _Result:
        with self._device.batch():
            captured = self._cast(self._capture, tuple(self._device.upload(part) for part in host))
            stored = {layer: half for layer, (half, _) in captured.items()}
            largest = self._device.download(torch.stack([magnitude for _, magnitude in captured.values()]))
            return _Result(stored, largest, self._device.mark())

    def _cast(self, capture: ActivationCapture[dict[str, T]], fed: tuple[Tensor, ...]) -> dict[str, T]:
        with autocast(self._division.precision, self._division.device):
            captured = capture(self._prepare(fed))
        found = {name: value for values in captured.values() for name, value in values.items()}
        return {name: found[name] for name in self._layers}

    def _prepare(self, fed: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        if self._model.generator is not None:
            return as_input(fed, self._model.placeholder())
        return (normalise(fed[0], self._mean, self._std, self._layout).to(self._dtype),)

    def _to_stored(self, layer: str, maps: Tensor) -> tuple[Tensor, Tensor]:
        """In the hook: the maps as they are stored, on their way to the host, and their largest finite magnitude."""
        scale = self._scales[layer]
        scaled = maps if scale == 1.0 else maps / scale
        half = scaled.to(torch.float16, memory_format=torch.contiguous_format, copy=True)
        return self._device.download(half), self._device.largest_magnitude(maps)


def _magnitude(_layer: str, maps: Tensor) -> float:
    return finite_magnitude(maps)
