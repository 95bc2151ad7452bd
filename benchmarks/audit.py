"""The whole audit against a bare forward pass over the same images, with the same batch size and cores.

The baseline does nothing but `model(batch)` over images decoded in memory, with all of torch's threads. The audit
captures four layers, finds thresholds, tallies, and writes its pages; once from the same decoded images, once drawing
(decoding) them itself, for capture and again for the patches of the pages.
"""

from __future__ import annotations

import tempfile
import time
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from microtome.datasets.base import Sample
from microtome.datasets.scenes import ScenesDataset
from microtome.dissect import AuditConfig, run_audit
from microtome.dissect.audit.cores import available_cores
from microtome.dissect.models import load_model

MODEL = "torchvision:resnet18?weights=none"
LAYERS = ("layer[1234]",)
SIZE = 224
BATCH = 32
_count = 1024


class Decoded(ScenesDataset):
    """Scenes that are drawn once and kept in memory."""

    def __init__(self, count: int) -> None:
        super().__init__(count, size=SIZE)
        self._samples = [super(Decoded, self).read(index) for index in range(count)]

    def read(self, index: int) -> Sample:
        """The sample as it was drawn at the start."""
        return self._samples[index]


@cache
def decoded() -> Decoded:
    """The dataset spec `benchmarks.audit:decoded`."""
    return Decoded(_count)


def run(quick: bool) -> dict[str, Any]:
    """Seconds of the bare forward pass and of both audits by stage, and their ratios."""
    global _count
    _count = 256 if quick else 1024
    images = np.stack([decoded().read(index).image for index in range(_count)])
    with tempfile.TemporaryDirectory() as folder:
        _audit(f"scenes:16?size={SIZE}", Path(folder) / "warm-up")  # compiles kernels, fills caches
        before = bare_forward(images)
        in_memory = _audit("benchmarks.audit:decoded", Path(folder) / "decoded")
        drawn = _audit(f"scenes:{_count}?size={SIZE}", Path(folder) / "drawn")
        forward = (before + bare_forward(images)) / 2  # before and after: the machine's speed drifts
    return {
        "model": f"{MODEL}, layers 1 to 4, {SIZE} pixels, {_count} images, batch {BATCH}, {available_cores()} cores",
        "baseline": "model(batch) in torch over the same images, decoded in memory beforehand",
        "baseline seconds": forward,
        "overhead": [
            {
                "stage": stage,
                "from decoded images, s": in_memory[stage],
                "ratio": in_memory[stage] / forward,
                "decoding included, s": drawn[stage],
                "ratio with decoding": drawn[stage] / forward,
            }
            for stage in in_memory
        ],
    }


def bare_forward(images: np.ndarray) -> float:
    """Seconds of the model over (N, H, W, 3) uint8 images, normalised batch by batch."""
    module = load_model(MODEL).module
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    torch.set_num_threads(available_cores())
    seconds = 0.0
    with torch.no_grad():
        for start in range(0, len(images), BATCH):
            pixels = torch.from_numpy(images[start : start + BATCH]).permute(0, 3, 1, 2).float() / 255
            batch = ((pixels - mean.view(1, 3, 1, 1)) / std.view(1, 3, 1, 1)).contiguous()
            started = time.perf_counter()
            module(batch)
            seconds += time.perf_counter() - started
    return seconds


def _audit(spec: str, out: Path) -> dict[str, float]:
    config = AuditConfig(model=MODEL, dataset=spec, layers=LAYERS, out=out, batch=BATCH, size=SIZE, resize=SIZE)
    started = time.perf_counter()
    outcome = run_audit(config)
    seconds = time.perf_counter() - started
    stages = {stage: info["seconds"] for stage, info in outcome.run.info["stages"].items()}
    return {"prepare": seconds - sum(stages.values()), **stages, "whole audit": seconds}
