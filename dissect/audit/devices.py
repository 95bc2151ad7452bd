"""How batches get to a device and results back to the host: at once, or queued on a CUDA device without waiting.

On CUDA, uploads, kernels and downloads are queued on three streams. The host's side of every copy is pinned memory,
so that a copy needs neither the host nor the kernels to stop; nothing is read on the host before the event behind it
has passed.
"""

from __future__ import annotations

from collections import deque
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

import torch
from torch import Tensor

QUEUED = 2  # batches on a CUDA device at once: one at work, one behind it


class Arrival(Protocol):
    """What says that queued copies have arrived, such as a CUDA event."""

    def synchronize(self) -> None:
        """Wait for it."""


class Device(Protocol):
    """The way to a device and back. One batch at a time is queued; `on_host` and arrivals are for any thread."""

    def on_host(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Memory of the host to upload from."""

    def batch(self) -> AbstractContextManager[object]:
        """The context in which a batch is queued."""

    def upload(self, host: Tensor) -> Tensor:
        """The tensor on the device, for whatever is queued from now on."""

    def largest_magnitude(self, maps: Tensor) -> Tensor:
        """The largest finite |value|, a float32 scalar on the device; 0 where there is none."""

    def download(self, values: Tensor) -> Tensor:
        """The tensor on the host, once the arrival that `mark` gives has passed; `values` are not to be changed."""

    def mark(self) -> Arrival:
        """The arrival of all that was downloaded so far."""

    def drain(self) -> None:
        """Wait until nothing is queued any more."""


def open_device(device: torch.device) -> Device:
    """The way to `device`."""
    return CudaDevice(device) if device.type == "cuda" else DirectDevice(device)


class DirectDevice:
    """The CPU, or a device whose results are waited for. Safe for several batches at once."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def on_host(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Ordinary memory."""
        return torch.empty(shape, dtype=dtype)

    def batch(self) -> AbstractContextManager[object]:
        """Nothing to wait for."""
        return nullcontext()

    def upload(self, host: Tensor) -> Tensor:
        """The tensor itself on the CPU."""
        return host.to(self._device)

    def largest_magnitude(self, maps: Tensor) -> Tensor:
        """One pass over the maps, and a second one only where NaN or infinity is among them."""
        lowest, highest = (float(value) for value in torch.aminmax(maps))
        magnitude = max(abs(lowest), abs(highest))
        known = magnitude if magnitude < float("inf") else finite_magnitude(maps)  # NaN is not below infinity
        return torch.tensor(known, dtype=torch.float32)

    def download(self, values: Tensor) -> Tensor:
        """The tensor itself on the CPU."""
        return values.cpu()

    def mark(self) -> Arrival:
        """All has arrived."""
        return _Arrived()

    def drain(self) -> None:
        """Nothing is queued."""


class _Arrived:
    def synchronize(self) -> None:
        """No need to wait."""


class CudaDevice:
    """A CUDA device fed by one thread.

    Python drops its references as soon as work is queued: `record_stream` keeps the allocator from giving memory away
    before the other stream is through with it, and torch's pinned memory does the same by itself.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._uploads = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._downloads = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._events: deque[torch.cuda.Event] = deque()

    def on_host(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Pinned memory, which the device copies from and to by itself."""
        return torch.empty(shape, dtype=dtype, pin_memory=True)

    def batch(self) -> AbstractContextManager[object]:
        """Waits until fewer than QUEUED batches are on the device, so that its memory stays flat."""
        while len(self._events) >= QUEUED:
            self._events.popleft().synchronize()
        return torch.cuda.device(self._device)

    def upload(self, host: Tensor) -> Tensor:
        """A copy on the stream of uploads, beside the kernels of the batch before."""
        kernels = torch.cuda.current_stream(self._device)
        with torch.cuda.stream(self._uploads):
            values = host.to(self._device, non_blocking=True)
        kernels.wait_stream(self._uploads)
        values.record_stream(kernels)
        return values

    def largest_magnitude(self, maps: Tensor) -> Tensor:
        """By kernels alone: to look at a value here would be to wait for it."""
        finite = torch.nan_to_num(maps.detach(), nan=0.0, posinf=0.0, neginf=0.0)
        return torch.stack(torch.aminmax(finite)).abs().amax().to(torch.float32)

    def download(self, values: Tensor) -> Tensor:
        """A copy on the stream of downloads, beside the kernels that come next."""
        host = self.on_host(tuple(values.shape), values.dtype)
        self._downloads.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._downloads):
            host.copy_(values, non_blocking=True)
        values.record_stream(self._downloads)
        return host

    def mark(self) -> Arrival:
        """An event that is waited for without spinning."""
        event = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
        event.record(self._downloads)
        self._events.append(event)
        return event

    def drain(self) -> None:
        """Wait for the events in order."""
        while self._events:
            self._events.popleft().synchronize()


def finite_magnitude(maps: Tensor) -> float:
    """The largest finite |value|; 0 where there is none."""
    magnitudes = maps.detach().abs()
    finite = magnitudes[torch.isfinite(magnitudes)]
    return float(finite.max()) if finite.numel() else 0.0
