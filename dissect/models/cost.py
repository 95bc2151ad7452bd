"""What an audit of some layers will cost, before anything is spent: time from a few batches, disk from the shapes."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from torch import Tensor

from microtome.dissect.models.capture import ActivationCapture
from microtome.dissect.models.layers import LayerInfo
from microtome.dissect.models.model import Model

COMPRESSION_RATIO = 2.6  # of rectified float16 activations with zstd level 1; unrectified ones compress less


@dataclass(frozen=True)
class Cost:
    """The cost of capturing layers, for one image.

    seconds_per_image: of the forward pass with capture, as far as the last layer, median over batches;
    bytes_per_image: float16 activations on disk before compression, by layer name; the rest: how it was measured.
    """

    seconds_per_image: float
    bytes_per_image: Mapping[str, int]
    batch: int
    threads: int
    device: str
    compression_ratio: float = COMPRESSION_RATIO

    @property
    def raw_bytes_per_image(self) -> int:
        """Bytes of all layers together."""
        return sum(self.bytes_per_image.values())

    def seconds(self, samples: int) -> float:
        """Seconds in the model for `samples` images."""
        return self.seconds_per_image * samples

    def disk_bytes(self, samples: int) -> int:
        """Estimated bytes on disk for `samples` images, compressed at `compression_ratio`."""
        return round(self.raw_bytes_per_image * samples / self.compression_ratio)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "seconds_per_image": self.seconds_per_image,
            "bytes_per_image": dict(self.bytes_per_image),
            "batch": self.batch,
            "threads": self.threads,
            "device": self.device,
            "compression_ratio": self.compression_ratio,
        }


def measure_cost(
    model: Model, infos: Sequence[LayerInfo], *, batch: int, threads: int, device: torch.device, n_batches: int = 3
) -> Cost:
    """Time `n_batches` batches of noise through the model, after one to warm up, converting to float16 in the hooks.

    The module is moved to `device` and back, and torch's number of threads restored. Raises UsageError when a
    layer is not called.
    """
    home = model.placeholder().device
    module = model.module.to(device)
    try:
        with _threads(threads), ActivationCapture(model, [i.name for i in infos], transform=_halve) as capture:
            images = model.inputs(batch)
            capture(images)
            seconds = [_timed(capture, images, device) for _ in range(n_batches)]
    finally:
        module.to(home)
    return Cost(
        seconds_per_image=median(seconds) / batch,
        bytes_per_image={info.name: info.bytes_per_image for info in infos},
        batch=batch,
        threads=threads,
        device=str(device),
    )


def _timed(capture: ActivationCapture[Tensor], images: tuple[Tensor, ...], device: torch.device) -> float:
    start = time.perf_counter()
    capture(images)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def _halve(name: str, maps: Tensor) -> Tensor:
    return maps.to(torch.float16, copy=True)


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
