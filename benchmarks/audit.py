"""The whole audit against a bare forward pass over the same images, with the same batch size and cores.

The baseline holds every image decoded in memory and does nothing but `model(batch)`, with all of torch's threads. The
audit decodes (here: draws) the images itself, captures four layers, finds thresholds, tallies, and writes its pages.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from microtome.datasets.specs import open_dataset
from microtome.dissect import AuditConfig, run_audit
from microtome.dissect.audit.config import available_cores
from microtome.dissect.models import load_model

MODEL = "torchvision:resnet18?weights=none"
LAYERS = ("layer[1234]",)
SIZE = 224
BATCH = 32


def run(quick: bool) -> dict[str, Any]:
    """Seconds of the bare forward pass and of the audit by stage, and their ratio."""
    samples = 128 if quick else 512
    spec = f"scenes:{samples}?size={SIZE}"
    with tempfile.TemporaryDirectory() as folder:
        _audit(f"scenes:16?size={SIZE}", Path(folder) / "warm-up")  # compiles kernels, fills caches
        before = bare_forward(spec)
        started = time.perf_counter()
        stages = _audit(spec, Path(folder) / "run")
        audit = time.perf_counter() - started
        forward = (before + bare_forward(spec)) / 2  # before and after: the machine's speed drifts
    stages = {"prepare": audit - sum(stages.values()), **stages}
    rows = [{"what": f"bare forward pass, {samples} images", "seconds": forward, "ratio": 1.0}]
    rows += [{"what": stage, "seconds": seconds, "ratio": seconds / forward} for stage, seconds in stages.items()]
    rows += [{"what": "whole audit", "seconds": audit, "ratio": audit / forward}]
    return {
        "model": f"{MODEL}, layers 1 to 4, {SIZE} pixels, batch {BATCH}, {available_cores()} cores",
        "baseline": "model(batch) in torch over the same images, decoded in memory beforehand",
        "overhead": rows,
    }


def bare_forward(spec: str) -> float:
    """Seconds of the model over all images of `spec`, already decoded and normalised batch by batch."""
    dataset = open_dataset(spec)
    images = np.stack([dataset.read(index).image for index in range(len(dataset))])
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
    outcome = run_audit(config)
    return {stage: info["seconds"] for stage, info in outcome.run.info["stages"].items()}
