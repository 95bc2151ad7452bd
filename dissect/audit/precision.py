"""In which arithmetic the model runs: float32, TF32, or bfloat16 and float16 by autocast."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch

from microtome.storage.errors import UsageError

AUTOCAST = {"bfloat16": torch.bfloat16, "float16": torch.float16}


def check_precision(precision: str, device: torch.device) -> None:
    """Raise UsageError where `device` has no such arithmetic."""
    if precision == "tf32" and device.type != "cuda":
        raise UsageError(f"--precision tf32 is arithmetic of CUDA devices; on {device} use float32 or bfloat16")
    if precision == "tf32" and torch.cuda.get_device_capability(device) < (8, 0):
        raise UsageError(f"--precision tf32: {device} has no TF32 (it came with compute capability 8.0); use float32")
    if precision == "bfloat16" and device.type == "cuda" and torch.cuda.get_device_capability(device) < (8, 0):
        raise UsageError(f"--precision bfloat16: {device} does not compute in bfloat16; use float16 or float32")


def autocast(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """The context in which a forward pass runs; it counts for the calling thread only."""
    if precision not in AUTOCAST:
        return nullcontext()
    return torch.autocast(device.type, dtype=AUTOCAST[precision])


@contextmanager
def arithmetic(precision: str, device: torch.device) -> Iterator[None]:
    """The context around all passes of a process: whether CUDA may use TF32, which torch allows in convolutions
    unless told otherwise, so that float32 has to forbid it."""
    if device.type != "cuda":
        yield
        return
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = (matmul.allow_tf32, cudnn.allow_tf32)
    matmul.allow_tf32 = cudnn.allow_tf32 = precision == "tf32"
    try:
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before
